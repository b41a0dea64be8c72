"""The weights and inputs behind golden/transformer_00f3_small.npz.

The outputs were computed by Fluid 1.8.5 on the network that was released in February 2019 (two layers of width 16, two heads,
vocabulary of 40 words), in inference mode. Weights are a function of a variable's name and shape. `out0` is the summed
label-smoothed cost, `out1` its mean, `out2` the logits [N * T, 40], `out3` the number of target words.
"""

from fluid.tests.golden_values import golden_value
from neural_machine_translation.model import parameter_shapes
from neural_machine_translation.translator import Transformer

import numpy as np

GOLDEN_CONFIG = Transformer(40, 40, max_length=256, d_model=16, d_inner_hid=32, n_head=2, n_layer=2, dropout=0.1)
GOLDEN_FEED = {
    "src_word": np.array([[0, 5, 6, 7, 1], [0, 3, 1, 1, 1]]),
    "trg_word": np.array([[0, 8, 9, 1], [0, 4, 5, 6]]),
}


def golden_state() -> dict[str, np.ndarray]:
    """Every variable of GOLDEN_CONFIG."""
    return {name: golden_value(name, shape) for name, shape in parameter_shapes(GOLDEN_CONFIG).items()}
