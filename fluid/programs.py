"""Programs as files: what a task builds with Paddle is written to a folder once, and runs from there without it.

FOLDER/programs.json       task, settings, facts, and how each variable begins
       train.json ...      a Program each (fluid/engine/xla/graph.py)
       state.safetensors   the initial values that programs.json does not describe

A machine with GPUs then needs JAX alone, and no network is built there twice in different ways: train.py, eval.py and
infer.py take the Programs from there by their roles, with --programs FOLDER. In the full form the
initial values are stored, except where all of an array is one number (optimizer moments are zero); in the form `seed` only
what no initialiser makes, so that a network of any size takes kilobytes: each random variable is drawn anew from its
distribution, by its name and a seed. Those draws are not Paddle's, so the two forms begin with other numbers.
"""

import importlib.util
import json
import shutil
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fluid import config as configuration
from fluid import files
from fluid.errors import EngineError, UserError, WeightsError
from fluid.interface import Interface, restart_averages

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

if TYPE_CHECKING:
    from fluid.engine.xla.graph import Graph

    # Only to write them is Paddle needed.
    from fluid.program import Program

FORMAT = 1
DESCRIPTION, STATE = "programs.json", "state.safetensors"
StateForm = Literal["full", "seed"]
Flags = TypeVar("Flags")


@dataclass
class Captured:
    """A folder of Programs."""

    folder: Path
    task: str
    programs: dict[str, "Graph"]
    """By role."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The flags that they were built with."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the task has to know about its network."""
    seed: int = 0
    _initial: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def is_complete(self) -> bool:
        """Whether the values themselves are stored that training starts from, and not their distributions."""
        return all(how["kind"] in ("constant", "stored") for how in self._initial.values())

    def initial_state(self, seed: int | None = None) -> dict[str, np.ndarray]:
        """The values that training starts from: those stored, or drawn with `seed` (by default the one it was captured with).

        Raises UserError if a seed is asked for and the values themselves are stored.
        """
        if seed not in (None, self.seed) and self.is_complete:
            raise UserError(
                f"--seed {seed}: the Programs in {self.folder} come with the initial values of seed {self.seed}; "
                "capture them with --state seed to draw others"
            )
        try:
            stored = load_file(self.folder / STATE)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{self.folder / STATE} cannot be read ({error}); capture the Programs again") from None
        seed = self.seed if seed is None else seed
        state = {name: _values(name, how, stored, seed) for name, how in self._initial.items()}
        for program in self.programs.values():
            restart_averages(state, program)
        return state

    def program(self, role: str, state: Mapping[str, np.ndarray]) -> Interface:
        """The Program of this role, which is to run on weights.

        Raises UserError if it was not captured, WeightsError if the weights are not those of its network.
        """
        if role not in self.programs:
            raise UserError(
                f"the Programs in {self.folder} are {', '.join(self.programs)}; '{role}', which this needs, is not among them: "
                "it takes Paddle to build it"
            )
        program = self.programs[role]
        shapes = {name: program.types[program.state[name]].shape for name in program.state_names}
        wrong = [
            f"{name} {list(state[name].shape)} instead of {list(shape)}" if name in state else f"{name} is missing"
            for name, shape in shapes.items()
            if name not in state or state[name].shape != shape
        ]
        if wrong:
            shown = f"{'; '.join(wrong[:5])}{' ...' if wrong[5:] else ''}"
            raise WeightsError(f"the weights are of another network than the Programs in {self.folder}: {shown}")
        return program

    @property
    def reason(self) -> str:
        """Why the engine is the one that it is, for people."""
        return f"the Programs come from {self.folder}"

    def engine(self, asked: str) -> str:
        """The engine that runs them, `--engine` being this; raises EngineError if that one cannot."""
        if asked == "paddle":
            raise EngineError("--engine paddle: Programs from files are run by the xla engine")
        return "xla"

    def settle(self, flags: Flags, names: Collection[str]) -> Flags:
        """`flags`, those in `names` as the Programs were built with; raises UserError for one that is named otherwise."""
        return configuration.as_built(
            flags, self.settings, names, f"the Programs in {self.folder} were", "capture them again"
        )

    def check_settings(self, flags: Any, names: Collection[str]) -> None:
        """Raise UserError unless the flags in `names` are what the Programs were built with."""
        configuration.check_built(
            flags, self.settings, names, f"the Programs in {self.folder} were", "capture them again"
        )

    def check_facts(self, key: str, facts: Mapping[str, Any], source: str, free: Collection[str] = ()) -> None:
        """Raise UserError unless the facts of weights are those of the network that the Programs were built for.

        `free` names facts that no Program depends on.
        """
        before, now = ({name: known[name] for name in known if name not in free} for known in (self.facts[key], facts))
        if different := sorted(differences(before, now)):
            raise UserError(
                f"the Programs in {self.folder} were built for another network than {source}: {'; '.join(different)}"
            )


def choose(named: Path | None, of_the_run: str | None) -> Path | None:
    """Which folder of Programs: the one that --programs names; where Paddle is not installed, that of the run."""
    if named is None and of_the_run is not None and importlib.util.find_spec("paddle") is None:
        return Path(of_the_run)
    return named


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Where two JSON values differ, and how."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before.keys() & after.keys():
            yield from differences(before[name], after[name], f"{where}.{name}" if where else name)
    elif before != after:
        yield f"{where} is {before!r:.60} there, {after!r:.60} here"


def write(
    folder: Path,
    programs: Mapping[str, "Program"],
    state: Mapping[str, np.ndarray],
    *,
    task: str,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    seed: int,
    form: StateForm = "full",
) -> None:
    """Write the Programs of a task, by role, and the state that they share; whole or not at all.

    Raises UserError if the folder exists or cannot be written, EngineError for a Program that the xla engine cannot run.
    """
    from fluid.engine.xla import graph
    from fluid.engine.xla.capture import capture, initialisers

    if folder.exists():
        raise UserError(f"{folder} exists already; choose another --programs, or remove it")
    partial = files.partial(folder)
    known = initialisers(programs.values()) if form == "seed" else {}
    averages = {name for program in programs.values() for name in program.averages}
    initial = {name: known.get(name) or _description(state[name]) for name in sorted(state.keys() - averages)}
    description = {
        "format": FORMAT,
        "task": task,
        "settings": dict(settings),
        "facts": dict(facts),
        "seed": seed,
        "programs": list(programs),
        "initial": initial,
    }
    stored = {name: state[name] for name, how in initial.items() if how["kind"] == "stored"}
    try:
        partial.mkdir(parents=True)
        for role, program in programs.items():
            graph.save_graph(partial / f"{role}.json", capture(program))
        save_file({name: np.require(array, requirements="C") for name, array in stored.items()}, partial / STATE)
        (partial / DESCRIPTION).write_text(json.dumps(description, indent=1, default=str) + "\n", encoding="utf-8")
        shutil.copymode(partial / DESCRIPTION, partial / STATE)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        raise UserError(f"the Programs cannot be written to {folder} ({error}); choose another --programs") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read(folder: Path, *, task: str) -> Captured:
    """The Programs in a folder that `write` made; neither imports Paddle nor runs anything.

    Raises UserError if there are none, EngineError or UserError if they are damaged or belong to another task.
    """
    from fluid.engine.xla import graph

    try:
        data = json.loads(files.read_plain(folder / DESCRIPTION))
        if data.pop("format") != FORMAT:
            raise ValueError("written by another version")
        roles, initial = data.pop("programs"), data.pop("initial")
        captured = Captured(folder, programs={}, _initial=initial, **data)
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no captured Programs there (it has no {DESCRIPTION}); `./zoo capture` writes them"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / DESCRIPTION} cannot be read ({error}); capture the Programs again") from None
    if captured.task != task:
        raise UserError(f"the Programs in {folder} belong to the task {captured.task}, not to {task}")
    captured.programs = {role: graph.load_graph(folder / f"{role}.json") for role in roles}
    return captured


def _description(array: np.ndarray) -> dict[str, Any]:
    """How an array is written: as one number where it holds no other."""
    if array.size > 1 and (array == array.flat[0]).all():
        return constant(array.flat[0].item(), array.shape, str(array.dtype))
    return {"kind": "stored"}


def constant(value: Any, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """The description of an array that holds one number."""
    return {"kind": "constant", "value": value, "shape": list(shape), "dtype": dtype}


def _values(name: str, how: Mapping[str, Any], stored: Mapping[str, np.ndarray], seed: int) -> np.ndarray:
    if how["kind"] == "stored":
        return stored[name]
    shape, dtype = tuple(how["shape"]), how["dtype"]
    if how["kind"] == "constant":
        return np.full(shape, how["value"], dtype)
    # By name, so that a variable begins alike whatever others there are.
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    if how["kind"] == "uniform":
        return rng.uniform(how["low"], how["high"], shape).astype(dtype)
    return rng.normal(how["mean"], how["std"], shape).astype(dtype)
