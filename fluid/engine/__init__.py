"""Engines: what runs a Program. `create` picks one; see base.py for the interface."""

from fluid.engine.base import Engine, Hosts, create

__all__ = ["Engine", "Hosts", "create"]
