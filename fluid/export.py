"""Exported models: a Paddle inference model, ONNX, and running the former through `paddle.inference`.

FOLDER/inference.json inference.pdiparams    what paddle.inference loads
       signature.json                        names, shapes and types of inputs and outputs, the task's own facts, and how
                                             paddle.inference computes what the Program does
       model.onnx                            on request

Who loads the model without this module sets `paddle.inference.Config` as the signature says, since Paddle 3.3 runs oneDNN
kernels and all passes unless told otherwise:

    if not signature["onednn"]:
        config.disable_mkldnn()
    for name in signature["delete_passes"]:
        config.delete_pass(name)

What is written is run in a process of its own before it appears: some Programs cannot be converted, crash or never return
in `paddle.inference` or ONNX Runtime, or compute something else there. Run as a script this module is that process.
"""

import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fluid import CPU_THREADS, files
from fluid.arrays import read_npz, write_npz
from fluid.engine.paddle import PaddleEngine
from fluid.errors import UserError, WeightsError
from fluid.interface import Input
from fluid.program import Program, temporary_scope
from fluid.run import console

import numpy as np
import paddle

STEM = "inference"
SIGNATURE = "signature.json"
ONNX = "model.onnx"
OPSET = 13

HARMFUL_PASSES = ("inplace_pass", "common_subexpression_elimination_pass")
"""Of Paddle 3.3: with oneDNN the first overwrites some values that are read again, after the second one of two outputs that are
alike may not be found."""

TRIAL = "trial"
"""Folder of the inputs and outputs of a trial run, inside the unfinished export."""

BATCH_SIZES = (1, 3)
FREE_LENGTH = 32
"""Length of an axis without a known one in trial inputs."""

TOLERANCE = 1e-3
"""Largest difference of an output from the Program's, as a share of the largest number in it."""

Feed = Mapping[str, np.ndarray]


def export(
    program: Program,
    state: Mapping[str, np.ndarray],
    folder: Path,
    *,
    facts: Mapping[str, Any],
    onnx: bool = False,
    examples: Sequence[Feed] | None = None,
    near_ties: Mapping[str, float] | None = None,
    time_limit: float = 300.0,
) -> Path:
    """Write `program` with the weights in `state` as a Paddle inference model; the folder appears whole or not at all.

    Args:
        facts: what the task must know to use the model (class names, preprocessing); it lands in signature.json.
        onnx: write model.onnx as well; needs paddle2onnx (extra `onnx`).
        examples: inputs for which the written model must compute what the Program does, batches of different sizes. By
            default random numbers, and ones for whole numbers, in batches of 1 and 3.
        near_ties: of outputs that say which number is the largest, the share of them that may differ, because two numbers
            are equal but for rounding.
        time_limit: seconds that loading it and computing the examples may take.

    Raises UserError if the folder exists and is something else than an exported model, if it cannot be written, or if what
    was written does not do what the Program does; there is nothing new in its place then.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / SIGNATURE).is_file():
        raise UserError(f"{folder} exists and is not an exported model; choose another folder")
    if onnx and importlib.util.find_spec("paddle2onnx") is None:
        raise UserError("ONNX export needs paddle2onnx, for Python before 3.13: pip install '.[onnx]'")
    partial = files.partial(folder)
    try:
        partial.mkdir(parents=True)
        _write_model(program, state, partial)
        trial = _Trial(partial, program, state, examples or _examples(program), near_ties or {}, time_limit)
        _write_signature(program, partial, facts, _settings(program, trial))
        if onnx:
            trial.convert()
        shutil.rmtree(partial / TRIAL)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: the exported model cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


class ExportedModel:
    """An exported model run by `paddle.inference` on CPU, with oneDNN kernels and all passes unless its signature says otherwise.

    Attributes: `inputs` and `outputs` (names), `facts` (as given to `export`).
    """

    def __init__(self, folder: Path):
        """Raises WeightsError if `folder` does not hold an exported model."""
        folder = Path(folder)
        try:
            signature = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))
            self.inputs = {item["name"]: item for item in signature["inputs"]}
            self.outputs, self.facts = list(signature["outputs"]), dict(signature["facts"])
            # Models of before have no passes to delete.
            settings = Settings(bool(signature.get("onednn", True)), tuple(signature.get("delete_passes", ())))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise WeightsError(
                f"{folder} is not an exported model ({SIGNATURE}: {reason}); make one with export.py"
            ) from error
        self._predictor = _predictor(folder, settings)

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name; raises UserError for inputs the model does not have."""
        if feed.keys() != self.inputs.keys():
            raise UserError(
                f"the exported model takes the inputs {', '.join(self.inputs)}, not {', '.join(feed) or 'none'}"
            )
        arrays = {name: np.asarray(array, self.inputs[name]["dtype"]) for name, array in feed.items()}
        return dict(zip(self.outputs, _predict(self._predictor, arrays), strict=True))


class Settings(NamedTuple):
    """How `paddle.inference` runs a model."""

    onednn: bool
    delete_passes: tuple[str, ...] = ()


_SETTINGS = {
    "onednn": Settings(True),
    "onednn-passes": Settings(True, HARMFUL_PASSES),
    "plain": Settings(False),
    "plain-passes": Settings(False, HARMFUL_PASSES),
}
"""By the job of a trial that tries them, the fastest first."""


class _NoAnswer(UserError):
    """A job did not end in time."""


class _Trial:
    """An unfinished export, and what must come out of it."""

    def __init__(
        self,
        folder: Path,
        program: Program,
        state: Mapping[str, np.ndarray],
        examples: Sequence[Feed],
        near_ties: Mapping[str, float],
        limit: float,
    ):
        self._folder, self._near_ties, self._limit = folder, near_ties, limit
        engine = PaddleEngine()
        engine.load({name: state[name] for name in program.state_names})
        self._expected = [engine.run(program, feed) for feed in examples]
        for number, feed in enumerate(examples):
            write_npz(_inputs(folder, number), feed)

    def run(self, job: str) -> None:
        """Compute the examples in a process of its own; raises UserError if that fails or gives something else."""
        self._call(job)
        for number, expected in enumerate(self._expected):
            outputs = list(read_npz(_outputs(self._folder, number)).values())
            for (name, want), have in zip(expected.items(), outputs, strict=True):
                want = np.asarray(want)
                if name in self._near_ties and have.shape == want.shape:
                    if (have != want).mean() > self._near_ties[name]:
                        raise UserError(
                            f"{_RUNTIMES[job]} computes something else than the Program: {(have != want).mean():.2%} of its "
                            f"output '{name}' differ"
                        )
                    continue
                difference = _difference(have, want)
                if difference > TOLERANCE:
                    raise UserError(
                        f"{_RUNTIMES[job]} computes something else than the Program: its output '{name}' is "
                        f"{have.dtype} {list(have.shape)} and differs by {difference:.1g} of its largest number"
                    )

    def convert(self) -> None:
        """Write model.onnx, and compute the examples with it where ONNX Runtime is installed."""
        self._call("convert")
        if importlib.util.find_spec("onnxruntime") is None:
            console.print("ONNX Runtime is not installed: model.onnx was not tried out")
            return
        self.run("onnx")

    def _call(self, job: str) -> None:
        root = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "fluid.export", job, str(self._folder), str(self._limit)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self._limit, env={**os.environ, "PYTHONPATH": path}
            )
        except subprocess.TimeoutExpired:
            raise _NoAnswer(
                f"{_RUNTIMES[job]} did not answer within {self._limit:g} seconds, and nothing was exported. Loops that "
                "Paddle can train never return there: a network should write its recurrences with fluid.recurrent"
            ) from None
        if done.returncode:
            reason = _last_error(done.stdout + done.stderr) or f"exit code {done.returncode}"
            raise UserError(f"{_RUNTIMES[job]} failed, and nothing was exported: {reason}")


_RUNTIMES = {**dict.fromkeys(_SETTINGS, "paddle.inference"), "convert": "paddle2onnx", "onnx": "ONNX Runtime"}
"""Jobs of the trial process -> what does them."""


def _last_error(text: str) -> str:
    """The last line that says what went wrong, rather than that something did."""
    lines = [line.strip() for line in text.splitlines() if "error" in line.lower()]
    return next((line for line in reversed(lines) if not re.match("FatalError: `|Error Message Summary", line)), "")


def _settings(program: Program, trial: _Trial) -> Settings:
    """Try the model out; the first settings with which it works. Raises UserError if there are none."""
    loops = any(op.name() == "pd_op.while" for op in program.main.global_block().ops)
    errors: list[UserError] = []
    for job, settings in _SETTINGS.items():
        # Loops are several times slower with oneDNN, which converts what goes round at every step. No pass keeps a model from
        # answering.
        if (loops and settings.onednn) or (settings.delete_passes and isinstance(errors[-1], _NoAnswer)):
            continue
        try:
            trial.run(job)
        except UserError as error:
            errors.append(error)
            continue
        if errors:
            left_out = ["oneDNN kernels"] * (not settings.onednn) + [*settings.delete_passes]
            console.print(f"The model is marked to be run without {', '.join(left_out)}: {errors[0]}")
        return settings
    raise errors[-1]


def _write_model(program: Program, state: Mapping[str, np.ndarray], folder: Path) -> None:
    block = program.main.global_block()
    feeds = {op.attrs()["name"]: op.results()[0] for op in block.ops if op.name() == "pd_op.data"}
    with temporary_scope() as scope:
        for name in program.state_names:
            scope.var(name).get_tensor().set(np.asarray(state[name]), paddle.CPUPlace())
        paddle.static.save_inference_model(
            str(folder / STEM),
            [feeds[name] for name in program.inputs],
            [program.values[name] for name in program.outputs],
            paddle.static.Executor(paddle.CPUPlace()),
            program=program.main,
        )


def _write_signature(program: Program, folder: Path, facts: Mapping[str, Any], settings: Settings) -> None:
    inputs = program.inputs.values()
    signature = {
        "inputs": [{"name": item.name, "shape": list(item.shape), "dtype": item.dtype} for item in inputs],
        "outputs": list(program.outputs),
        **settings._asdict(),
        "facts": dict(facts),
    }
    (folder / SIGNATURE).write_text(json.dumps(signature, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _examples(program: Program) -> list[Feed]:
    rng = np.random.default_rng(0)
    inputs = program.inputs.values()
    free = any(item.batch is not None and item.shape[item.batch] is None for item in inputs)
    return [{item.name: _example(item, rows, rng) for item in inputs} for rows in BATCH_SIZES[: None if free else 1]]


def _example(item: Input, rows: int, rng: np.random.Generator) -> np.ndarray:
    lengths = [rows if axis == item.batch else FREE_LENGTH for axis in range(len(item.shape))]
    shape = [free if length is None else length for length, free in zip(item.shape, lengths, strict=True)]
    if item.dtype.startswith("float"):
        return rng.normal(size=shape).astype(item.dtype)
    # A one is a word, a class and a length wherever there are any.
    return np.ones(shape, item.dtype)


def _difference(have: np.ndarray, want: np.ndarray) -> float:
    """max |a - b| / max |b| where both are finite; infinite for other shapes, other infinite places or other whole numbers."""
    if have.shape != want.shape:
        return np.inf
    if want.dtype.kind != "f":
        return 0.0 if np.array_equal(have, want) else np.inf
    finite = np.isfinite(want)
    if not np.array_equal(finite, np.isfinite(have)):
        return np.inf
    have, want = have[finite].astype(np.float64), want[finite].astype(np.float64)
    return float(np.max(np.abs(have - want), initial=0) / max(np.max(np.abs(want), initial=0), 1e-12))


def _inputs(folder: Path, number: int) -> Path:
    return folder / TRIAL / f"inputs_{number}.npz"


def _outputs(folder: Path, number: int) -> Path:
    return folder / TRIAL / f"outputs_{number}.npz"


def _predictor(folder: Path, settings: Settings) -> Any:
    config = paddle.inference.Config(str(folder / f"{STEM}.json"), str(folder / f"{STEM}.pdiparams"))
    config.disable_glog_info()
    config.disable_gpu()
    if settings.onednn:
        config.enable_mkldnn()
    else:
        config.disable_mkldnn()
    for name in settings.delete_passes:
        config.delete_pass(name)
    config.set_cpu_math_library_num_threads(CPU_THREADS)
    return paddle.inference.create_predictor(config)


def _predict(predictor: Any, feed: Feed) -> list[np.ndarray]:
    """The outputs in their order."""
    for name, array in feed.items():
        predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(array))
    predictor.run()
    return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]


def _convert(folder: Path) -> None:
    """Translate to model.onnx, with the Program's names of outputs instead of Paddle's `fetch_name_0`, ...

    An output called like an input, as a carried state may be, gets the suffix `_out`: ONNX has one name for one value.
    """
    import onnx
    import paddle2onnx

    target = str(folder / ONNX)
    paddle2onnx.export(
        str(folder / f"{STEM}.json"),
        str(folder / f"{STEM}.pdiparams"),
        save_file=target,
        opset_version=OPSET,
        # Its default optimiser installs packages without asking.
        optimize_tool="None",
    )
    names = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))["outputs"]
    model = onnx.load(target)
    _fill_pads(model, folder / f"{STEM}.json")
    taken = {item.name for item in model.graph.input}
    names = [f"{name}_out" if name in taken else name for name in names]
    renamed = {output.name: name for output, name in zip(model.graph.output, names, strict=True)}
    for output in model.graph.output:
        output.name = renamed[output.name]
    for node in model.graph.node:
        node.output[:] = [renamed.get(name, name) for name in node.output]
        node.input[:] = [renamed.get(name, name) for name in node.input]
    onnx.save(model, target)


def _fill_pads(model: Any, program: Path) -> None:
    """Give paddings the value that they have in the Program: paddle2onnx 2.1 takes it from memory that nobody wrote."""
    import onnx

    values: list[float] = []

    def note(item: dict[str, Any]) -> dict[str, Any]:
        if str(item.get("#")).endswith(".pad3d"):
            values.extend(attribute["AT"]["D"] for attribute in item["A"] if attribute["N"] == "pad_value")
        return item

    json.loads(program.read_text(encoding="utf-8"), object_hook=note)
    pads = [node for node in model.graph.node if node.op_type == "Pad" and "pad3d" in node.output[0]]
    for index, (node, value) in enumerate(zip(pads, values, strict=True)):
        if len(node.input) > 2:
            node.input[2] = f"pad_value_{index}"
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), node.input[2]))


def _try_out(job: str, folder: Path) -> None:
    """Do one job of a trial on the inputs in `folder`."""
    if job == "convert":
        _convert(folder)
        return
    if job == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])
    else:
        predictor = _predictor(folder, _SETTINGS[job])
    number = 0
    while _inputs(folder, number).exists():
        feed = read_npz(_inputs(folder, number))
        outputs = session.run(None, feed) if job == "onnx" else _predict(predictor, feed)
        write_npz(_outputs(folder, number), {f"{place:03}": array for place, array in enumerate(outputs)})
        number += 1


def _main(job: str, folder: str, limit: str) -> None:
    # Should the export be killed meanwhile, nobody else would end a run that never returns.
    signal.alarm(math.ceil(float(limit)) + 1)
    _try_out(job, Path(folder))


if __name__ == "__main__":
    _main(*sys.argv[1:])
