"""Speech recognition. Importing `fluid` first lets scripts outside the environment say in one line how to run them."""

import fluid  # noqa: F401
