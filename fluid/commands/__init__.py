"""The commands of ./zoo that belong to no task: `python -m fluid.commands.NAME`."""

from fluid.arrays import read_npz, write_npz

__all__ = ["read_npz", "write_npz"]
