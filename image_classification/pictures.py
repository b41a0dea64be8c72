"""What a run looks like: its learning curves."""

from fluid.pictures import Panel

CURVES = (Panel("loss", "loss", "loss"), Panel("top-1 accuracy", "acc1", "acc1"))
"""Of training and of the test images, by step."""
