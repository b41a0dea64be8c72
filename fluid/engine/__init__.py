"""Engines: what runs a Program. `create` picks one; base.py has the interface."""

from fluid.engine.base import Engine
from fluid.engine.create import Hosts, create

__all__ = ["Engine", "Hosts", "create"]
