"""One training run from its flags to its end, the same for every task; in two stages.

    settled = settle(flags, TASK)                  # what is continued gives the flags that were not named
    flags = settled.flags
    ...                                            # the task's own: data, facts, Programs
    length = settled.length(...)
    programs = settled.programs(lambda: ...)
    engine = settled.start_engine(...)
    with settled.open(facts=..., data=..., load=...) as session:
        outcome = session.train(open_batches, unit="images", evaluations=[...])

A run that is continued remembers what it was started with; Programs from files remember what they were built with.
Nothing here imports Paddle.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Generic, TypeVar

from fluid import checkpoint, trainer
from fluid import config as configuration
from fluid import engine as engines
from fluid import programs as captures
from fluid.checkpoint import Meta, Resumed
from fluid.config import TrainFlags
from fluid.data import Batches, BatchSource, EndlessSource, Plan, Stream, training_batches
from fluid.engine import Engine
from fluid.errors import CheckpointError, DataError, UserError
from fluid.interface import Interface, restart_averages
from fluid.keeper import Evaluation
from fluid.programs import Captured
from fluid.run import Run, check_folder
from fluid.signals import stop_on_signals
from fluid.trainer import OpenBatches, Outcome, Position

import numpy as np

Flags = TypeVar("Flags", bound=TrainFlags)
State = dict[str, np.ndarray]

OF_THE_CALL = {
    "checkpoint",
    "output_dir",
    "max_minutes",
    "coordinator",
    "num_hosts",
    "host_id",
    "benchmark",
    "profile",
    "other_data",
    "programs",
    "capture",
    "capture_state",
}
"""Flags that speak of this call and not of the run, which does not remember them."""
OF_THE_START = ("pretrained_model", "recipe")
"""Flags of tasks that say how a run begins, and mean nothing to one that has begun."""
WITHOUT_PROGRAM = ("data_dir", "pretrained_model", "allow_partial", "test_batch_size")
"""Flags of tasks that no Program is built with."""
STEPS_PER_EPOCH = "steps_per_epoch"
"""Among the facts of captured Programs."""


@dataclass(frozen=True)
class Length:
    """How long a run is, and how its input is divided."""

    steps_per_epoch: int
    total_steps: int
    batches_per_epoch: int
    batches_per_step: int
    batch_size: int
    position: Position = Position()
    note: str = ""
    """What is to be said about it."""


@dataclass
class Settled(Generic[Flags]):
    """The first stage: which flags hold, and what is being continued."""

    flags: Flags
    task: str
    resumed: Resumed | None = None
    captured: Captured | None = None
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """Flags of the run that are named anew -> value before and now."""
    planned: Length | None = None
    """How long the run is, once `length` has been asked; for the trainer's loop."""
    _programs: dict[str, Interface] = field(default_factory=dict)
    _engine: Engine | None = None
    _engine_reason: str = ""

    @property
    def facts(self) -> dict[str, Any] | None:
        """What the task wrote down about its network, if there is a run or a capture that says so."""
        if self.resumed is not None:
            return self.resumed.meta.extra
        return self.captured.facts if self.captured is not None else None

    def refuse_changes(self, *names: str) -> None:
        """Raise CheckpointError if one of these flags, which make another network, has changed."""
        changed = [
            f"--{name} is {self.changes[name][0]} there, not {self.changes[name][1]}"
            for name in names
            if name in self.changes
        ]
        if changed and self.resumed is not None:
            raise CheckpointError(
                f"{self.resumed.folder} is a run of another network: {'; '.join(changed)}. Leave the flag out to go on; to "
                "start from its weights use --pretrained_model"
            )

    def length(self, batches_per_epoch: int, num_epochs: int, *, batch_size: int, accumulate: int = 1) -> Length:
        """Updates of the whole run, the batches of one pass over the data being known.

        Where the division into batches has changed, the run goes on with the next epoch. Raises UserError if the data do
        not fill one update.
        """
        steps_per_epoch = batches_per_epoch // accumulate
        if steps_per_epoch == 0:
            raise UserError(
                f"the training data do not fill one update of {accumulate} x {batch_size}; lower --batch_size"
                + (" or --accumulate_batches" if accumulate > 1 else "")
            )
        position, note = Position(), ""
        if self.resumed is not None and (kept := self.resumed.meta.position):
            position = Position(kept["step"], kept["batches"], kept["epoch"])
            before = tuple(kept[name] for name in ("batches_per_epoch", "batches_per_step", "batch_size"))
            if before != (batches_per_epoch, accumulate, batch_size):
                step = self.resumed.meta.step
                passed = -(-(step - position.step) * kept["batches_per_step"] // kept["batches_per_epoch"])
                epoch = position.epoch + passed
                position = Position(step, epoch * batches_per_epoch, epoch)
                note = (
                    f"batches are now {accumulate} x {batch_size}, {batches_per_epoch} an epoch (before: "
                    f"{before[1]} x {before[2]}, {before[0]}): the run goes on at the start of epoch {epoch}"
                )
        total = position.step + (num_epochs - position.epoch) * steps_per_epoch
        total = min(total, self.flags.max_steps or total)
        self.planned = Length(steps_per_epoch, total, batches_per_epoch, accumulate, batch_size, position, note)
        return self.planned

    def refuse_other_length(self, length: Length) -> None:
        """Raise DataError if Programs from files, whose schedule counts epochs, were built for data of another length.

        Where the loop is only measured any data will do.
        """
        if self.captured is None or self.flags.benchmark:
            return
        if (built := self.captured.facts[STEPS_PER_EPOCH]) != length.steps_per_epoch:
            raise DataError(
                f"the Programs in {self.captured.folder} were built for {built} updates an epoch, and these data make "
                f"{length.steps_per_epoch}; give the data that they were captured with, or capture them again"
            )

    def programs(self, build: Callable[[], Mapping[str, Interface]]) -> Mapping[str, Interface]:
        """The Programs by role: those from files, else what `build` makes with Paddle. `start_engine` chooses by them."""
        programs = self.captured.programs if self.captured is not None else build()
        self._programs |= programs
        return programs

    def start_engine(
        self,
        runs: int | None = 1,
        *,
        batch_size: int | None = None,
        one_machine: bool = False,
    ) -> Engine:
        """The engine for so many `runs` of the training Program (None: very many), which a continued run keeps.

        What `programs` gave before is to run on it. Raises EngineError if it is not there or cannot share the batches.
        """
        flags = self.flags
        if one_machine and flags.coordinator is not None:
            raise UserError("--coordinator: this task trains on one machine")
        engine, reason = engines.create(
            flags.engine if self.captured is None else self.captured.engine(flags.engine),
            flags.device,
            flags.precision,
            flags.seed,
            kernels=flags.kernels,
            hosts=None if one_machine else flags.hosts,
            runs=runs,
            programs=list(self._programs.values()),
        )
        if batch_size is not None:
            engine.check_batch_size(batch_size)
        if self.captured is not None:
            reason = self.captured.reason
        elif self.resumed is not None and "engine" not in self.changes:
            reason = "that of the run"
        self._engine, self._engine_reason = engine, reason
        self.flags = configuration.changed(flags, {"engine": "paddle" if engine.name == "paddle" else "xla"})
        return engine

    @contextmanager
    def open(
        self,
        *,
        initial: Callable[[], State] | None = None,
        facts: Mapping[str, Any],
        data: Mapping[str, str] | None = None,
        load: Callable[[State], tuple[State, object]] | None = None,
        beside: str = "",
    ) -> Iterator["Session[Flags]"]:
        """The second stage: the state on the engine, the run's folder claimed, the opening lines said.

        The engine is that of `start_engine`, which comes before; the Programs are those of `programs`, among them `train`, and
        with gradient accumulation `apply`.

        Args:
            initial: makes the state that training starts from; by default the initialisers of the Programs.
            facts: what else has to be known to use the weights, kept in checkpoints; a continued run must have the same.
            data: fingerprints of the parts of the data; a continued run must have the same, or --other_data.
            load: puts the weights of --pretrained_model into a state; returns it with what is to be said about that.
                Programs from files that hold their initial values begin with those, unless other weights are named now;
                captured as distributions alone they call it too, where Paddle may be missing.
            beside: prefix of arrays in a checkpoint that do not belong to the engine's state.

        Raises CheckpointError if another network is being continued, DataError for other data; UserError as `Run`.
        """
        assert self._engine is not None
        engine, programs = self._engine, self._programs
        with stop_on_signals():
            resumed, flags = self.resumed, self.flags
            state = self._fresh_state(initial)
            meta, others, report = Meta(self.task, 0, extra=dict(facts)), {}, None
            data_changed = False
            if resumed is not None:
                others = {name: array for name, array in resumed.state.items() if beside and name.startswith(beside)}
                own = {name: array for name, array in resumed.state.items() if name not in others}
                self._check_facts(facts)
                data_changed = self._check_data(data or {})
                check_fits(own, state, resumed)
                state, meta = own, resumed.meta
                meta.extra |= facts
            elif load is not None and not self._has_weights():
                state, report = load(state)
                for program in programs.values():
                    restart_averages(state, program)
            meta.config, meta.data = configuration.to_dict(flags), dict(data or {})
            if self.captured is not None:
                meta.programs = str(self.captured.folder.absolute())
            engine.load(state)
            with Run(
                flags.output_dir,
                flags,
                task=self.task,
                resumed=resumed,
                writes=engine.host_id == 0,
                records=_leaves_records(flags),
            ) as run:
                session = Session(run, engine, flags, meta, programs, self.planned, resumed, others, state)
                self._say_opening(session, report, data_changed)
                yield session

    def _fresh_state(self, initial: Callable[[], State] | None) -> State:
        """What training starts from where nothing is continued, before any weights are put into it."""
        if self.captured is not None:
            return self.captured.initial_state(self.flags.seed)
        return initial() if initial is not None else _initialised(self._programs, self.flags.seed)

    def _say_opening(self, session: "Session[Flags]", report: object, data_changed: bool) -> None:
        run, engine, flags = session.run, session.engine, self.flags
        run.say(
            f"engine {engine.name} on {engine.device} ({self._engine_reason}), {flags.precision}, seed {flags.seed}"
        )
        if report is not None:
            run.say(f"weights of {getattr(flags, 'pretrained_model', None)}:\n{report}")
        if self.resumed is not None:
            run.say_resumed(self.resumed)
            self._say_changes(session, data_changed)

    def _has_weights(self) -> bool:
        """Whether the values that Programs from files hold are those of --pretrained_model already."""
        if self.captured is None or not self.captured.is_complete:
            return False
        asked = getattr(self.flags, "pretrained_model", None)
        named = "pretrained_model" in configuration.named(self.flags)
        return not named or asked == self.captured.settings.get("pretrained_model")

    def _check_facts(self, facts: Mapping[str, Any]) -> None:
        assert self.resumed is not None
        before = {name: value for name, value in self.resumed.meta.extra.items() if name in facts}
        different = sorted(captures.differences(before, json.loads(json.dumps(facts))))
        if different:
            raise CheckpointError(
                f"{self.resumed.folder} is a run of another network or of other classes: {'; '.join(different)}. Use the "
                "run's own flags and data; to start from its weights use --pretrained_model"
            )

    def _check_data(self, data: Mapping[str, str]) -> bool:
        assert self.resumed is not None
        kept = self.resumed.meta.data
        changed = [part for part, value in data.items() if kept.get(part, value) != value]
        if changed and not self.flags.other_data:
            raise DataError(
                f"the data of {self.resumed.folder} were others ({', '.join(changed)}: other names, labels or contents). Give "
                "the run's own, or --other_data to go on with these"
            )
        return bool(changed)

    def _say_changes(self, session: "Session[Flags]", data_changed: bool) -> None:
        run, meta = session.run, session.meta
        for name, (before, after) in self.changes.items():
            run.say(f"--{name} is {after} from here on, not {before}")
            meta.changes.append({"flag": name, "before": before, "after": after, "step": meta.step})
        if data_changed:
            run.say("the data are not those that the run has seen so far")
        if self.changes or data_changed:
            run.record(
                "changes",
                meta.step,
                other_data=data_changed,
                flags={name: str(now) for name, (_, now) in self.changes.items()},
            )
        if session.length is not None and session.length.note:
            run.say(session.length.note)
        schedule = session.update.schedule
        rate = schedule(meta.step) if schedule is not None else None
        if rate is not None and meta.rate is not None and not np.isclose(rate, meta.rate, rtol=1e-6, atol=0):
            run.say(
                f"the learning rate of the next update is {rate:.3g}; by the flags before it would be {meta.rate:.3g}"
            )


@dataclass
class Session(Generic[Flags]):
    """The second stage: a run that is open."""

    run: Run
    engine: Engine
    flags: Flags
    meta: Meta
    programs: Mapping[str, Interface]
    length: Length | None
    resumed: Resumed | None
    beside: State
    """Arrays of the checkpoint that do not belong to the engine's state."""
    initial: State
    """What training starts from."""

    @property
    def update(self) -> Interface:
        """The Program that changes the parameters."""
        return self.programs.get("apply", self.programs["train"])

    def capture(self) -> bool:
        """Write the Programs to files if --capture asks for that."""
        flags = self.flags
        if flags.capture is None:
            return False
        captures.write(
            flags.capture,
            self.programs,  # type: ignore[arg-type]
            self.initial,
            task=self.run.task,
            settings=configuration.to_dict(flags),
            facts={**self.meta.extra, STEPS_PER_EPOCH: self.length.steps_per_epoch if self.length else 0},
            seed=flags.seed,
            form=flags.capture_state,
        )
        self.run.say(f"{flags.capture}: {', '.join(self.programs)}; run them with --programs {flags.capture}")
        return True

    def batches(
        self, source: EndlessSource | BatchSource | Stream, start: int, *, plan: Plan | None = None, max_bad: int = 100
    ) -> Batches:
        """The training batches of this process from a position on; `plan` and `max_bad` as of `training_batches`."""
        assert self.length is not None
        return training_batches(
            source,
            self.length.batch_size,
            seed=self.flags.seed,
            start=start,
            num_workers=self.flags.num_workers,
            max_bad=max_bad,
            shard=(self.engine.host_id, self.engine.num_hosts),
            plan=plan,
        )

    def compile_ahead(self, feeds: Iterable[Mapping[str, np.ndarray]], shapes: str) -> None:
        """Compile the training Program for feeds of all `shapes`, as people call them, at once where that takes long.

        That is on GPUs: on an H200 one length of a Transformer took 21 seconds, four side by side 28.
        """
        if self.engine.on_gpu and self.engine.name == "xla" and not self.flags.capture:
            self.run.say(f"compiling for {shapes} (or finding it in the cache)")
            self.engine.compile([(self.programs["train"], feed) for feed in feeds])

    def train(
        self,
        open_batches: OpenBatches,
        *,
        unit: str,
        evaluations: Sequence[Evaluation],
        finish: Callable[[Outcome], None] | None = None,
    ) -> Outcome:
        """Train to the end, or do what --benchmark, --profile or --capture ask for instead; arguments as of `trainer.train`.

        Where something was trained, `finish` shows what it came to, in the process that writes.
        """
        assert self.length is not None
        if self.capture():
            return Outcome(step=self.meta.step, nothing_left=True)
        if self.flags.profile:
            self.run.say(trainer.profile(self.run, self.engine, self.programs["train"], open_batches))
            return Outcome(step=self.meta.step, nothing_left=True)
        if self.flags.benchmark:
            rates = trainer.benchmark(
                self.run, self.engine, self.programs["train"], open_batches, self.flags.num_workers
            )
            for name, value in rates.items():
                self.run.say(f"{name:>12} {value:.4g}{f' {unit}/s' if name in ('synthetic', 'reader', 'real') else ''}")
            return Outcome(step=self.meta.step, nothing_left=True)
        length = self.length
        self.meta.position = {
            **asdict(length.position),
            "batches_per_epoch": length.batches_per_epoch,
            "batches_per_step": length.batches_per_step,
            "batch_size": length.batch_size,
        }
        outcome = trainer.train(
            self.run,
            self.engine,
            self.programs["train"],
            open_batches,
            flags=self.flags,
            steps_per_epoch=length.steps_per_epoch,
            total_steps=length.total_steps,
            apply=self.programs.get("apply"),
            batches_per_step=length.batches_per_step,
            position=length.position,
            evaluations=evaluations,
            meta=self.meta,
            resumed=self.resumed,
        )
        if finish is not None and self.run.writes and not outcome.nothing_left:
            finish(outcome)
        return outcome


def settle(flags: Flags, task: str, *, free: Iterable[str] = ()) -> Settled[Flags]:
    """The flags of this call, where it names none those of the run that --checkpoint continues or of --programs.

    Args:
        flags: of the command line.
        task: whose run it must be.
        free: flags of the task that may differ from those that Programs from files were built with, beside those of
            `WITHOUT_PROGRAM` and in TrainFlags.

    Raises CheckpointError or UserError for a run or a folder of Programs that cannot be used, for a folder that the run
    cannot write, and for flags of the start of a run that has begun.
    """
    resumed = captured = None
    remembered: dict[str, Any] = {}
    if flags.checkpoint is not None:
        folder = checkpoint.find_newest(flags.checkpoint)
        resumed = Resumed(folder, *checkpoint.load(folder, task=task))
    programs = captures.choose(flags.programs, None if resumed is None else resumed.meta.programs)
    if programs is not None:
        captured = captures.read(programs, task=task)
        # What was captured on one machine is made for another.
        remembered |= {name: value for name, value in captured.settings.items() if name not in ("engine", "device")}
    if resumed is not None:
        remembered |= resumed.meta.config
        if captured is not None:
            remembered["engine"] = "xla"
    remembered = {name: value for name, value in remembered.items() if name not in OF_THE_CALL}
    own = configuration.remembered(type(flags), remembered)
    before, now = configuration.to_dict(type(flags)(**own)), configuration.to_dict(flags)
    changes = {
        name: (before[name], now[name])
        for name in sorted(configuration.named(flags) & own.keys())
        if before[name] != now[name]
    }
    if resumed is not None and (late := [name for name in OF_THE_START if name in changes]):
        raise CheckpointError(
            f"--{late[0]} says how a run begins, and --checkpoint {resumed.folder} has begun: leave out one of them"
        )
    flags = configuration.changed(flags, configuration.unnamed(flags, own))
    settled = Settled(flags, task, resumed, captured, changes if resumed is not None else {})
    if captured is not None:
        general = {item.name for item in fields(TrainFlags)}.union(WITHOUT_PROGRAM, free)
        captured.check_settings(flags, {item.name for item in fields(flags)} - general)
    if _leaves_records(flags) and not flags.host_id:
        check_folder(flags.output_dir, resumed)
    return settled


def _leaves_records(flags: TrainFlags) -> bool:
    """Whether a run claims a folder, and does not only measure or capture."""
    return not (flags.benchmark or flags.profile or flags.capture)


def _initialised(programs: Mapping[str, Interface], seed: int) -> State:
    from fluid.program import initialise

    return initialise(*(programs[role] for role in ("train", "apply") if role in programs), seed=seed)  # type: ignore[arg-type]


def check_fits(state: Mapping[str, np.ndarray], names: Mapping[str, np.ndarray], resumed: Resumed) -> None:
    """Raise CheckpointError unless a resumed state has exactly the variables, with their shapes, of a fresh one."""
    missing = sorted(names.keys() - state.keys())
    unknown = sorted(state.keys() - names.keys())
    shapes = [
        f"{name} {state[name].shape} instead of {names[name].shape}"
        for name in sorted(names.keys() & state.keys())
        if state[name].shape != names[name].shape
    ]
    if missing or unknown or shapes:
        parts = [
            f"{label}: {', '.join(items[:5])}{' ...' if len(items) > 5 else ''}"
            for label, items in (("missing", missing), ("unknown", unknown), ("another shape", shapes))
            if items
        ]
        raise CheckpointError(
            f"the checkpoint {resumed.folder} does not fit this model and optimizer ({'; '.join(parts)}). To continue a run "
            f"use its own flags; to start from its weights use --pretrained_model"
        )


def fingerprint(*parts: Iterable[str] | np.ndarray | str) -> str:
    """A short name of what a data set consists of: names, labels, texts or settings, in their order; never pixels."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            for text in [part] if isinstance(part, str) else part:
                digest.update(text.encode(errors="surrogateescape") + b"\0")
        digest.update(b"\0\0")
    return digest.hexdigest()[:32]
