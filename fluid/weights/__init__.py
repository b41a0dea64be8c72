"""Weights: reading them whatever they are stored as, fitting them to a network with a report, converting them."""

from fluid.weights.files import convert, read_weights, write_weights
from fluid.weights.fit import Report, has_automatic_names, load_into, rename

__all__ = ["Report", "convert", "has_automatic_names", "load_into", "read_weights", "rename", "write_weights"]
