"""The commands of ./zoo that belong to no task: `python -m fluid.commands.NAME`."""
