"""Measuring the moving averages of a run while it trains."""

from collections.abc import Collection

from fluid.config import EngineFlags
from fluid.engine import Engine, create
from fluid.interface import Interface, averaged


class MeasuredWeights:
    """The weights that evaluations in training measure: those of the engine that trains, or their moving averages.

    These are on an engine of their own, so that training goes on undisturbed.
    """

    def __init__(self, engine: Engine, update: Interface, names: Collection[str], flags: EngineFlags):
        """`update` is the Program that keeps averages, or none; `names` are the variables that evaluations read."""
        self._engine, self._update, self._names = engine, update, names
        self._own: Engine | None = None
        if update.averages:
            self._own, _ = create(engine.name, flags.device, flags.precision, flags.seed, kernels=flags.kernels)

    def engine(self) -> Engine:
        """An engine that holds them as they are now; its other variables mean nothing."""
        if self._own is None:
            return self._engine
        state = averaged(self._engine.state(), self._update)
        self._own.load({name: state[name] for name in self._names})
        return self._own
