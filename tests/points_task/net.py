"""What must be known to use a set of weights, and their opening. Without Paddle, so that Programs from files can be run."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluid import weights
from fluid.config import WeightsFlags
from fluid.errors import UserError
from fluid.weights import Bare, Opened, Report

import numpy as np

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


def open_net(flags: WeightsFlags) -> Opened[Net]:
    """The weights that the flags name, or else the best there are; raises UserError for what cannot be used."""
    return weights.open(FOLDER, flags, default="small", key="net", from_facts=Net.from_facts, fit=fit)


def fit(bare: Bare) -> tuple[Net, dict[str, np.ndarray], Report]:
    """Weights alone: the width of the network is that of its first matrix."""
    from fluid.program import initialise
    from points_task.network import inference_program

    arrays = bare.read()
    net = Net(arrays["fc1_w"].shape[1] if "fc1_w" in arrays else 1)
    return net, *weights.load_into(initialise(inference_program(net), seed=0), arrays)
