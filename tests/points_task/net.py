"""What must be known to use a set of weights. Without Paddle, so that Programs from files can be trained."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluid.errors import UserError

FOLDER = Path(__file__).parent
TASK = FOLDER.name


@dataclass(frozen=True)
class Net:
    """What must be known to use a set of weights; stored beside them as `net`."""

    hidden: int

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_facts(facts: dict[str, Any]) -> "Net":
        """The inverse of `to_facts`; raises UserError if something is missing."""
        if "hidden" not in facts:
            raise UserError("the weights do not say how wide the network is")
        return Net(facts["hidden"])
