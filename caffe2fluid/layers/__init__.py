"""What each Caffe layer becomes in Paddle: one function a layer type, grouped by family."""

from . import activation, convolution, detection, elementwise, normalization, recurrent, shape
from .node import LAYERS, Node, SharedParameter, register_layer

__all__ = [
    "LAYERS",
    "Node",
    "SharedParameter",
    "activation",
    "convolution",
    "detection",
    "elementwise",
    "normalization",
    "recurrent",
    "register_layer",
    "shape",
]
