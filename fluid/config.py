"""Command lines: a dataclass with one documented field a flag, read by tyro, with the spellings of 2018 accepted.

The flags that mean the same everywhere are defined in groups, here and in `fluid.optimizers`; tasks inherit them. A field
of a number declares its range by its type (`Count`, `Share`, ...), and what spellings it had before by `Was`:

    test_batch_size: Annotated[Count, Was("eval_batch_size")] = 64
"""

import dataclasses
import difflib
import math
import re
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fluid.engine import Hosts
from fluid.errors import UserError
from fluid.interface import Window

import tyro

Config = TypeVar("Config")
_NAMED = "_named"
"""Attribute of a parsed configuration."""
INSTEAD = {"num_epochs": "max_steps", "warmup_epochs": "warmup_steps", "use_ema": "average_window"}
"""A flag -> the flag of the same in other terms, which no recipe sets where the first is named."""
_TRUE, _FALSE = ("true", "1", "yes", "t", "y", "on"), ("false", "0", "no", "f", "n", "off")


@dataclass(frozen=True)
class Range:
    """The numbers that a flag takes, all finite."""

    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.without_low else value >= self.low
        below = value < self.high if self.without_high else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        words = []
        if self.low > -math.inf:
            words.append(f"{'above' if self.without_low else 'at least'} {self.low}")
        if self.high < math.inf:
            words.append(f"{'below' if self.without_high else 'at most'} {self.high}")
        return " and ".join(words) or "a finite number"


@dataclass(frozen=True)
class Was:
    """Spellings that a flag had in earlier versions; they are still accepted."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


@dataclass(frozen=True)
class WasSwitch:
    """A switch that stood beside a flag in earlier versions: on it meant `value` where the flag was not named, off 0."""

    name: str
    value: float


Declared = TypeVar("Declared", Range, Was, WasSwitch)
# More than that is a slip of the keyboard, and too much for one library or another.
Count = Annotated[int, Range(1, 2**31 - 1)]
Natural = Annotated[int, Range(0, 2**31 - 1)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Workers = Annotated[int, Range(0, 1024)]
Beam = Annotated[int, Range(1, 1000)]
Number = Annotated[float, Range(-math.inf)]
Positive = Annotated[float, Range(0, without_low=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, without_high=True)]


@dataclass
class EngineFlags:
    """Where and how Programs run."""

    device: Annotated[Literal["auto", "cpu", "gpu"], Was("use_gpu", "use_cuda")] = "auto"
    """Where to compute; auto takes a GPU if JAX sees one."""
    engine: Literal["auto", "paddle", "xla"] = "auto"
    """What runs the Program: Paddle's executor, or the same Program compiled by XLA."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Arithmetic of matrix products and convolutions; parameters and losses stay float32. tf32 and bf16 need xla."""
    kernels: Literal["auto", "off"] = "auto"
    """The zoo's own GPU kernels where they fit and are faster, or none of them. Of xla alone."""
    seed: Seed = 0
    """Seed of initialisation, data order, augmentation and dropout."""
    num_workers: Workers = 0
    """Workers: processes that read the data; 0 reads in the training process."""
    programs: Path | None = None
    """Folder that `./zoo capture` wrote: run the Programs in it, without Paddle, instead of building them."""


@dataclass
class WeightsFlags:
    """Which weights; without any of these the best of the run in ./output, else those that come along."""

    checkpoint: Path | None = None
    """Run: its output folder, which means its best checkpoint, or one of its checkpoints."""
    newest: bool = False
    """The newest checkpoint of the run instead of its best."""
    pretrained_model: str | None = None
    """Weights: a name that `./zoo list weights` shows, or a file or folder of any format."""
    allow_partial: bool = False
    """Accept weights that fit only in part."""


@dataclass
class ExportedFlags:
    """A model that is ready for use, where a script can run one."""

    exported_model: Path | None = None
    """Folder that export.py wrote, run by paddle.inference, instead of weights."""


@dataclass
class ExportFlags:
    """Flags of every export.py."""

    export_dir: Path = Path("exported")
    """Folder to write; an earlier export there is replaced."""
    onnx: bool = False
    """Write model.onnx too (needs the extra `onnx`)."""
    storage: Literal["fp32", "fp16", "int8", "int6"] | None = None
    """Round the weights to half precision, 8 or 6 bits, write them to weights.safetensors too, and measure what that costs."""


@dataclass
class AverageFlags:
    """A moving average of the parameters, as the weights to evaluate and use."""

    use_ema: bool = False
    """Keep a moving average of the parameters, and evaluate it."""
    ema_decay: Decay = 0.9999
    """Decay of that average, an update."""
    average_window: Share = 0.0
    """Instead, keep the mean of the parameters over this share of the updates so far, and evaluate it; 0: none."""
    min_average_window: Count = 10_000
    """average_window: over so many updates at least."""
    max_average_window: Count = 12_500
    """average_window: over so many updates, from which on the share does not matter."""

    @property
    def averaging(self) -> float | Window | None:
        """As `fluid.program.build` takes it; None: no average is kept. Raises UserError if two are asked for."""
        if self.use_ema and self.average_window:
            raise UserError("--use_ema and --average_window are two averages; give one of them")
        if self.average_window:
            return Window(self.average_window, self.min_average_window, self.max_average_window)
        return self.ema_decay if self.use_ema else None


@dataclass
class BatchFlags:
    """Batches in which nothing is learned."""

    test_batch_size: Annotated[Count, Was("eval_batch_size", "batch_size")] = 32
    """Samples in a batch where nothing is learned; changes the speed, not the result."""


@dataclass
class ResultFlags:
    """Flags of every eval.py."""

    output_dir: Path | None = None
    """Folder for results: result.json and pictures; by default they are only printed."""


@dataclass
class ArrayFlags:
    """Raw arrays through the inference Program, in every infer.py."""

    feed: Path | None = None
    """Raw inputs: an .npz with the Program's arrays by name."""
    fetch: Path | None = None
    """Raw outputs: the .npz to write, with --feed."""

    def arrays(self) -> tuple[Path, Path] | None:
        """The two files, None without them. Raises UserError if one is given alone."""
        if (self.feed is None) != (self.fetch is None):
            raise UserError("--feed and --fetch go together: raw inputs in, raw outputs out")
        return None if self.feed is None or self.fetch is None else (self.feed, self.fetch)


@dataclass
class HostFlags:
    """Several machines as one; without these flags they are found from the cluster's environment, if there is one."""

    coordinator: str | None = None
    """HOST:PORT of machine 0, for training on several machines with the xla engine."""
    num_hosts: Count | None = None
    """How many machines take part."""
    host_id: Natural | None = None
    """Number of this machine, from 0."""

    @property
    def hosts(self) -> Hosts:
        """As the engines want it. Raises UserError for a coordinator without a port."""
        if self.coordinator is not None and not re.fullmatch(r"\S+:\d{1,5}", self.coordinator):
            raise UserError(f"--coordinator {self.coordinator}: give HOST:PORT of machine 0, 10.0.0.1:1234 say")
        return Hosts(self.coordinator, self.num_hosts, self.host_id)


@dataclass
class TrainFlags(HostFlags, EngineFlags):
    """Flags of every train.py."""

    output_dir: Path | None = None
    """Folder for results: log, checkpoints, pictures; by default ./output, or with --checkpoint the folder of that run. An
    earlier run there is renamed aside, never overwritten."""
    checkpoint: Path | None = None
    """Run: its output folder, or one of its checkpoints, to continue exactly where it stopped."""
    max_steps: Count | None = None
    """Length of the run in steps; by default as num_epochs says. A step is an update."""
    max_minutes: Positive | None = None
    """Stop after this time, whatever max_steps says; the last evaluation comes on top."""
    log_every: Count = 10
    """Steps between log lines."""
    save_every: Count | None = None
    """Steps between checkpoints; by default one an epoch."""
    eval_every: Count | None = None
    """Steps between evaluations; by default one an epoch."""
    keep_checkpoints: Count = 3
    """Newest checkpoints to keep, beside the best one."""
    early_stop: Count | None = None
    """Stop after this many evaluations without improvement."""
    benchmark: bool = False
    """Measure instead of training: the loop with synthetic and with real data."""
    profile: bool = False
    """Instead of training, list what takes the time of a training step; a trace goes to OUTPUT_DIR/profile."""
    other_data: bool = False
    """With --checkpoint: go on though the data are not those that the run has seen so far."""
    capture: Path | None = None
    """Write the Programs to this folder instead of training them; what `./zoo capture` does."""
    capture_state: Literal["full", "seed"] = "full"
    """What --capture writes of the initial state: its values, or the distributions that they are drawn from."""


Trained = TypeVar("Trained", bound=TrainFlags)


def parse(
    config: type[Config],
    argv: Sequence[str] | None = None,
    *,
    aliases: Mapping[str, str] | None = None,
    retired: Mapping[str, str] | None = None,
) -> Config:
    """Read the command line into `config`; a wrong flag or value, one outside its range too, exits with code 2.

    Args:
        config: dataclass type; its fields are the flags.
        argv: the words after the script's name; None takes those of the process.
        aliases: older spelling of a flag -> name of the field, beside those that the fields declare by `Was`.
        retired: flags that mean nothing any more -> a note, printed once.

    Beside tyro's own forms it takes what users of 2018 write: `--use_gpu=True`, `--image_shape 3,224,224`, `--flag
    True|False|1|0` for a switch, and underscores or dashes in names.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    words = _translate(words, config, {**former_names(config), **(aliases or {})}, retired or {})
    result = tyro.cli(config, args=words, config=(tyro.conf.FlagConversionOff,), use_underscores=True)
    _check_ranges(result)
    object.__setattr__(result, _NAMED, {word[2:] for word in words if word.startswith("--")})
    return result


def defaults(**values: Any) -> Callable[[type[Config]], type[Config]]:
    """Other defaults for flags of groups: a decorator of a class, below `@dataclass`. Their help stays that of the group."""

    def apply(config: type[Config]) -> type[Config]:
        inherited = typing.get_type_hints(config, include_extras=True)
        for name, value in values.items():
            config.__annotations__[name] = inherited[name]
            setattr(config, name, value)
        return config

    return apply


def former_names(config: type) -> dict[str, str]:
    """Spellings that the fields declare by `Was` -> name of the field."""
    types = typing.get_type_hints(config, include_extras=True)
    return {former: name for name, kind in types.items() for was in declared(kind, Was) for former in was.names}


def former_switches(config: type) -> dict[str, tuple[str, float]]:
    """Switches that the fields declare by `WasSwitch` -> name of the field, and what the switch meant."""
    types = typing.get_type_hints(config, include_extras=True)
    return {was.name: (name, was.value) for name, kind in types.items() for was in declared(kind, WasSwitch)}


def declared(kind: Any, what: type[Declared]) -> Iterator[Declared]:
    """The declarations `Annotated` anywhere in the type of a field."""
    yield from (item for item in getattr(kind, "__metadata__", ()) if isinstance(item, what))
    for part in typing.get_args(kind):
        yield from declared(part, what)


def _check_ranges(config: Any) -> None:
    """Exit with code 2 and one line if a number lies outside its range."""
    types = typing.get_type_hints(type(config), include_extras=True)
    for name, kind in types.items():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            for allowed in declared(kind, Range):
                if isinstance(number, int | float) and number not in allowed:
                    wanted = allowed if isinstance(number, int) or math.isfinite(number) else "a finite number"
                    print(f"error: --{name} {number}: must be {wanted}", file=sys.stderr)
                    raise SystemExit(2)


def named(config: Any) -> set[str]:
    """The flags that the command line named; of a configuration made in Python, those that are not at their defaults."""
    if hasattr(config, _NAMED):
        return getattr(config, _NAMED)
    return {field.name for field in dataclasses.fields(config) if getattr(config, field.name) != _default(field)}


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """The same with these values; what the command line named stays named, even where it is the default."""
    result = dataclasses.replace(config, **values)  # type: ignore[type-var]
    object.__setattr__(result, _NAMED, named(config) | named(result))
    return result


def with_named(config: Config, values: Mapping[str, Any]) -> Config:
    """The same with these values, as if the command line had named them too."""
    result = changed(config, values)
    object.__setattr__(result, _NAMED, named(config) | values.keys())
    return result


def unnamed(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` whose flags the command line does not name."""
    return {name: value for name, value in values.items() if name not in named(config)}


def left_open(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a recipe's `values` about which the command line says nothing, in other terms (`INSTEAD`) either."""
    told = {INSTEAD[name] for name in INSTEAD.keys() & named(config) if getattr(config, name) is not False}
    return {name: value for name, value in unnamed(config, values).items() if name not in told}


def with_recipe(config: Trained, values: Mapping[str, Any]) -> Trained:
    """The flags of a train.py with the values of a recipe where the command line names none.

    A run that goes on and Programs from files remember what they began with, and get nothing.
    """
    if config.checkpoint is not None or config.programs is not None:
        return config
    return with_named(config, left_open(config, values))


def as_built(config: Config, settings: Mapping[str, Any], names: Collection[str], what: str, mend: str) -> Config:
    """`config`; the flags in `names` are what something was built with, as `to_dict` wrote it into `settings`.

    Raises UserError for one that is named otherwise; see `check_built`.
    """
    built = unnamed(config, remembered(type(config), settings))
    result = changed(config, {name: value for name, value in built.items() if name in names})
    check_built(result, settings, names, what, mend)
    return result


def check_built(config: Any, settings: Mapping[str, Any], names: Collection[str], what: str, mend: str) -> None:
    """Raise UserError, `what` built with the others, unless the flags in `names` are those of `settings`."""
    built = from_dict(type(config), settings)
    different = [
        f"--{item.name} {getattr(built, item.name)}, not {getattr(config, item.name)}"
        for item in dataclasses.fields(config)
        if item.name in names and getattr(config, item.name) != getattr(built, item.name)
    ]
    if different:
        raise UserError(f"{what} built with {'; '.join(different)}: {mend}")


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as JSON-able data, for the run's records. Paths are absolute: they are read again elsewhere."""
    return {
        field.name: str(value.absolute()) if isinstance(value := getattr(config, field.name), Path) else value
        for field in dataclasses.fields(config)
    }


def remembered(config: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """The flags in `data`, as `to_dict` wrote it, by the names that they have today; those that are no more are left out."""
    types, former = typing.get_type_hints(config), former_names(config)
    known = {former.get(name, name) if name not in types else name: value for name, value in data.items()}
    for switch, (name, meant) in former_switches(config).items():
        if switch in data:
            known[name] = known.get(name, meant) if data[switch] else 0.0
    return {name: _typed(types[name], value) for name, value in known.items() if name in types}


def from_dict(config: type[Config], data: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`; flags that `data` lacks are at their defaults."""
    return config(**remembered(config, data))


def _typed(kind: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if isinstance(value, str) and Path in (kind, *typing.get_args(kind)) else value


def nearest(name: str, known: Sequence[str]) -> str:
    """` Did you mean X?` for the known name closest to `name`, or nothing."""
    lowered = {item.lower(): item for item in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f" Did you mean {lowered[close[0]]}?" if close else ""


def _translate(words: list[str], config: type, aliases: Mapping[str, str], retired: Mapping[str, str]) -> list[str]:
    types, switches = typing.get_type_hints(config), former_switches(config)
    asked: dict[tuple[str, float], bool] = {}
    result: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("--") or word == "--":
            result.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        values = [value] if equals else []
        while not equals and position < len(words) and not _is_flag(words[position]):
            values.append(words[position])
            position += 1
        if name in retired and name not in types:
            print(f"note: --{name} has no effect any more: {retired[name]}", file=sys.stderr)
            # What comes after its value is something else, the pictures of an infer.py say.
            result.extend(values[1:])
            continue
        if name not in types and name.startswith("no_") and types.get(name[3:]) is bool:
            name, values = name[3:], ["False", *values]
        if name in ("use_gpu", "use_cuda") and name not in types and "device" in types:
            on, values = _switched(values)
            values = ["gpu" if on else "cpu", *values]
        if name in switches:
            asked[switches[name]], values = _switched(values)
            result.extend(values)
            continue
        name = name if name in types else aliases.get(name, name)
        result.append(f"--{name}")
        result.extend(_values_for(types.get(name), values))
    for (target, meant), on in asked.items():
        if not on or f"--{target}" not in result:
            result += [f"--{target}", f"{meant:g}" if on else "0"]
    return result


def _is_flag(word: str) -> bool:
    return word.startswith("--") or (word.startswith("-") and len(word) > 1 and not _is_number(word))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _switched(values: list[str]) -> tuple[bool, list[str]]:
    """What the words behind a switch say, and those of them that say something else."""
    if not values or values[0].lower() not in _TRUE + _FALSE:
        return True, values
    return values[0].lower() in _TRUE, values[1:]


def _values_for(kind: Any, values: list[str]) -> list[str]:
    if kind is bool:
        on, others = _switched(values)
        return [str(on), *others]
    if "tuple" in str(kind) and len(values) == 1 and "," in values[0]:
        return values[0].split(",")
    return values
