"""Weights: which ones, reading them whatever they are stored as, fitting them to a network, storing them in less."""

from fluid.weights.files import convert, read_weights, write_weights
from fluid.weights.fit import Report, check_finite, has_automatic_names, load_into, rename, unwrapped
from fluid.weights.opening import Bare, Opened, open

__all__ = [
    "Bare",
    "Opened",
    "Report",
    "check_finite",
    "convert",
    "has_automatic_names",
    "load_into",
    "open",
    "read_weights",
    "rename",
    "unwrapped",
    "write_weights",
]
