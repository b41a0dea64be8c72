"""A converted net on disk: what the output folder holds, and how to run it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import quiet_paddle  # noqa: F401 before paddle
from .errors import ConvertError
from .storage import read_arrays, read_weights, replaced_file, write_combined

CODE, WEIGHTS, FLUID, INFERENCE, REPORT = "model.py", "weights.safetensors", "fluid", "inference", "report.json"
PARAMETERS = "model.pdiparams"
OURS = (CODE, WEIGHTS, FLUID, INFERENCE, REPORT)
"""What convert.py writes into its folder, the mark of a converted net last."""


@dataclass
class Converted:
    """A folder that convert.py wrote. ``report`` is its report.json."""

    folder: Path
    report: dict[str, Any]

    @property
    def inputs(self) -> dict[str, list[int | None]]:
        """Shape by blob name; None where any size fits."""
        return {entry["name"]: entry["shape"] for entry in self.report["inputs"]}

    @property
    def sizes(self) -> dict[str, list[int]]:
        """Shape by blob name as the prototxt has it, which fits in any case."""
        return {entry["name"]: entry["size"] for entry in self.report["inputs"]}

    @property
    def outputs(self) -> list[str]:
        return [entry["name"] for entry in self.report["outputs"]]


def open_converted(folder: str | Path) -> Converted:
    """Opens an output folder of convert.py. Raises ConvertError if it is none."""
    path = Path(folder) / REPORT
    if not path.is_file():
        raise ConvertError(
            f"{folder} is no converted net (it has no {REPORT}); write one with convert.py --output_dir {folder}"
        )
    try:
        return Converted(Path(folder), json.loads(path.read_text("utf-8")))
    except (ValueError, RecursionError) as error:
        raise ConvertError(f"{path} is damaged ({error}); convert the net again") from None


def load_module(path: Path) -> Any:
    """Imports a generated module from its file."""
    spec = importlib.util.spec_from_file_location("converted_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def running(path: Path) -> Iterator[None]:
    """What goes wrong in a generated module, which is the user's to edit and holds their layers, is a ConvertError."""
    try:
        yield
    except (ConvertError, OSError):
        raise
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f", line {frames[-1].lineno}, in {frames[-1].name}" if frames else ""
        lines = str(error).strip().splitlines() or [""]
        reason = _reason(error) if "C++ Traceback" in str(error) else lines[0]
        raise ConvertError(f"{path.name}{place}: {type(error).__name__}: {reason}") from error


@contextlib.contextmanager
def static_graph() -> Iterator[None]:
    """Paddle builds static graphs in it, whatever it did before."""
    import paddle

    dynamic = paddle.in_dynamic_mode()
    paddle.enable_static()
    try:
        yield
    finally:
        paddle.disable_static() if dynamic else paddle.enable_static()


def write_inference_graph(folder: Path, target: Path, blobs: str | None = None) -> dict[str, list[int]]:
    """Writes target/model.json, by the code of the folder; returns the shapes of the parameters that belong to it.

    ``blobs`` names other outputs than the net's own, with commas. Raises ConvertError for code that does not run.
    """
    with static_graph():
        with running(folder / CODE):
            module = load_module(folder / CODE)
            _, program, _, inputs, values = module.build()
        outputs = [values[name] for name in (blobs.split(",") if blobs else module.OUTPUTS)]
        return write_graph(program, module.inputs_of(outputs, inputs.values()), outputs, target)


def write_graph(program: Any, feeds: list[Any], outputs: list[Any], target: Path) -> dict[str, list[int]]:
    """Writes target/model.json with what the outputs need of the program; returns the shapes of its parameters."""
    import paddle

    program = paddle.static.normalize_program(program, feeds, outputs)
    target.mkdir(parents=True, exist_ok=True)
    paddle.core.serialize_pir_program(program, f"{target}/model.json", True, False, True)
    operations = [op for op in program.global_block().ops if op.name() == "builtin.parameter"]
    return {op.attrs()["parameter_name"]: list(op.result(0).shape) for op in operations}


def write_inference_model(folder: Path, target: Path, weights: Path | None = None, blobs: str | None = None) -> None:
    """Writes target/model.json and .pdiparams of a folder that holds code and, unless others are named, weights.

    Raises ConvertError if something does not fit.
    """
    source = weights or folder / WEIGHTS
    parameters = write_inference_graph(folder, target, blobs)
    if parameters:
        write_combined(target / PARAMETERS, chosen_weights(source, read_weights(source), parameters))


def chosen_weights(
    source: Path, arrays: dict[str, np.ndarray], parameters: dict[str, list[int]]
) -> dict[str, np.ndarray]:
    """The arrays of these names. Raises ConvertError where one is missing or has another shape."""
    for name, shape in parameters.items():
        if name not in arrays:
            raise ConvertError(f"{source} has no {name}")
        if list(arrays[name].shape) != shape:
            raise ConvertError(f"{source}: {name} is {list(arrays[name].shape)}, the network wants {shape}")
    return {name: arrays[name] for name in parameters}


def inference_parameters(converted: Converted) -> Path:
    """inference/model.pdiparams: written now, from the weights, unless it is there.

    Raises ConvertError where the net was converted without weights.
    """
    path = converted.folder / INFERENCE / PARAMETERS
    shapes = converted.report["inference"]
    if shapes is None:
        raise ConvertError(f"{converted.folder} has no inference model: the net was converted without weights")
    if shapes and not path.is_file():
        source = converted.folder / WEIGHTS
        arrays = chosen_weights(source, read_weights(source), shapes)
        with replaced_file(path) as file:
            write_combined(file, arrays)
    return path


def known_blobs(converted: Converted, words: str) -> list[str]:
    """The blobs that the words name, with commas, or all of the net. Raises ConvertError for an unknown one."""
    known = [*converted.inputs, *(top for layer in converted.report["layers"] for top in layer["tops"])]
    wanted = known if words == "all" else words.split(",")
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConvertError(f"--blobs {', '.join(unknown)}: the net has {', '.join(dict.fromkeys(known))}")
    return wanted


def check_feed(inputs: dict[str, list[int | None]], feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The feed as float32 in the order of the inputs. Raises ConvertError for missing, unknown or misshapen arrays."""
    unknown = sorted(set(feed) - set(inputs))
    missing = [name for name in inputs if name not in feed]
    if unknown or missing:
        wanted = ", ".join(f"{name} {shape}" for name, shape in inputs.items())
        what = [f"{', '.join(missing)} missing"] * bool(missing) + [f"{', '.join(unknown)} unknown"] * bool(unknown)
        raise ConvertError(f"input arrays: {'; '.join(what)}. The net takes: {wanted} (None: any size)")
    result = {}
    for name, shape in inputs.items():
        array = np.asarray(feed[name])
        if array.dtype.kind not in "fiub":
            raise ConvertError(f"the input {name} has the type {array.dtype}; it must be numbers")
        fits = array.ndim == len(shape) and all(
            dim in (None, size) for dim, size in zip(shape, array.shape, strict=True)
        )
        if not fits or array.size == 0:
            raise ConvertError(
                f"the input {name} has the shape {list(array.shape)}, the net takes {shape} (None: any size)"
            )
        result[name] = np.ascontiguousarray(array, dtype=np.float32)
    return result


class Predictor:
    """Runs the inference model with ``paddle.inference`` on the CPU.

    ``onednn``: with oneDNN's kernels, two to three times faster. Not used: enable_memory_optim, which Paddle 3.3 cannot
    do to a model in PIR; inplace_pass, by which oneDNN overwrites values that are outputs or are read again; and
    common_subexpression_elimination_pass, after which of two outputs that are alike one is not found.
    """

    def __init__(self, converted: Converted, onednn: bool = True, threads: int = 1):
        from paddle import inference

        parameters = inference_parameters(converted)
        config = inference.Config(str(parameters.with_suffix(".json")), str(parameters))
        config.disable_gpu()
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(threads)
        config.enable_mkldnn() if onednn else config.disable_mkldnn()
        for name in ("inplace_pass", "common_subexpression_elimination_pass"):
            config.delete_pass(name)
        self._predictor = inference.create_predictor(config)
        self._names = {entry["name"]: entry["variable"] for entry in converted.report["inputs"]}
        self.inputs, self.outputs = converted.inputs, converted.outputs

    def __call__(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by blob name in, arrays of the net's outputs by blob name out. Raises ConvertError for a wrong feed."""
        taken = set(self._predictor.get_input_names())
        for name, array in check_feed(self.inputs, feed).items():
            if self._names[name] in taken:  # an input that only gives its shape is not part of the inference model
                handle = self._predictor.get_input_handle(self._names[name])
                handle.reshape(array.shape)
                handle.copy_from_cpu(array)
        try:
            self._predictor.run()
        except (RuntimeError, ValueError) as error:
            raise ConvertError(f"the net takes no {_sizes(feed)}: {_reason(error)}") from None
        handles = map(self._predictor.get_output_handle, self._predictor.get_output_names())
        return dict(zip(self.outputs, (handle.copy_to_cpu() for handle in handles), strict=True))


def _sizes(feed: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{name} of shape {list(np.shape(array))}" for name, array in feed.items())


def _reason(error: Exception) -> str:
    """The line of Paddle's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error" in line or "Invalid" in line), lines[-1] if lines else "")


class Recorder(dict):
    """A mapping that also remembers every value it was given, in order: in-place layers overwrite blobs."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[tuple[str, Any]] = []

    def __setitem__(self, name: str, value: Any) -> None:
        self.history.append((name, value))
        super().__setitem__(name, value)


@static_graph()
def run_blobs(
    converted: Converted, feed: dict[str, np.ndarray], only: Iterable[str] | None = None, weights: Path | None = None
):
    """Runs model.py in Paddle's plain executor, with the weights of the folder or other ones.

    Returns a list of (blob name, array), one for each time that a layer wrote a blob, in order, inputs first; ``only``
    limits it to these blobs. Raises ConvertError for a wrong feed and for code that does not run.
    """
    import paddle

    feed = check_feed(converted.inputs, feed)
    main, startup = paddle.static.Program(), paddle.static.Program()
    guard = paddle.static.program_guard(main, startup)
    with running(converted.folder / CODE), guard, paddle.utils.unique_name.guard():
        module = load_module(converted.folder / CODE)
        network = next(value for value in vars(module).values() if _is_network(value))()
        network.eval()
        inputs = [paddle.static.data(f"input_{i}", shape) for i, shape in enumerate(module.INPUTS.values())]
        recorder = Recorder()
        network(*inputs, blob=recorder)
    scope = paddle.static.Scope()
    wanted = [(name, value) for name, value in recorder.history if only is None or name in set(only)]
    with paddle.static.scope_guard(scope):
        executor = paddle.static.Executor(paddle.CPUPlace())
        executor.run(startup)
        if network.state_dict():
            module.load_weights(network, str(weights or converted.folder / WEIGHTS), scope)
        arrays = {f"input_{i}": array for i, array in enumerate(feed.values())}
        try:
            fetched = executor.run(main, feed=arrays, fetch_list=[value for _, value in wanted])
        except (RuntimeError, ValueError) as error:
            raise ConvertError(f"the net takes no {_sizes(feed)}: {_reason(error)}") from None
    return [(name, array) for (name, _), array in zip(wanted, fetched, strict=True)]


def _is_network(value: Any) -> bool:
    import paddle

    return isinstance(value, type) and issubclass(value, paddle.nn.Layer) and value.__module__ == "converted_model"


def read_feed(path: str | Path) -> dict[str, np.ndarray]:
    """Input arrays by blob name, from an archive of them or from a dump, whose inputs are called in__NAME."""
    arrays = read_arrays(path)
    marked = {name.removeprefix("in__"): array for name, array in arrays.items() if name.startswith("in__")}
    return marked or arrays


def random_feed(converted: Converted, seed: int) -> dict[str, np.ndarray]:
    """Values in the range of images without their mean: normal, standard deviation 50."""
    generator = np.random.default_rng(seed)
    shapes = {
        name: [dim or size for dim, size in zip(shape, converted.sizes[name], strict=True)]
        for name, shape in converted.inputs.items()
    }
    return {name: (generator.standard_normal(shape) * 50).astype(np.float32) for name, shape in shapes.items()}
