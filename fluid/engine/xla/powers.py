"""What a step does nothing with but multiply by a number: Adam's powers of its betas, two variables for each parameter.

Each by itself, XLA multiplied it by one kernel and kept what it had been for the update by another, hundreds of kernels in a step
of Transformer-base. As one array they take one.
"""

import math
from collections import Counter

from fluid.engine.xla.graph import Graph, walk

import numpy as np


def find_powers(graph: Graph) -> dict[str, np.float32]:
    """The names of such variables, of one float32 number each, and what they are multiplied by; none if there is only one."""
    uses = Counter(value for operation in walk(graph.block) for value in operation.inputs)
    shown = {*uses, *graph.values.values()}
    names = {number: name for name, number in graph.state.items()}
    numbers = {item.result(0): item.attributes["value"] for item in graph.block.operations if item.name == "pd_op.full"}
    powers = {}
    for operation in graph.block.operations:
        if operation.name not in ("pd_op.adam_", "pd_op.adamw_"):
            continue
        given = dict(zip(operation.input_names, operation.inputs, strict=True))
        made = dict(zip(operation.output_names, operation.outputs, strict=True))
        for beta in ("beta1", "beta2"):
            power, factor = given[f"{beta}_pow"], given[beta]
            if power not in names or factor not in numbers or uses[power] > 1 or made[f"{beta}_pow_out"] in shown:
                continue
            item = graph.types[power]
            if item.dtype == "float32" and math.prod(item.shape) == 1:
                powers[names[power]] = np.float32(numbers[factor])
    return powers if len(powers) > 1 else {}
