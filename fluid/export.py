"""Exported models: a Paddle inference model, ONNX, and running the former through `paddle.inference`.

FOLDER/inference.json inference.pdiparams    what paddle.inference loads
       signature.json                        names, shapes and types of inputs and outputs, and the task's own facts
       model.onnx                            on request
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluid import CPU_THREADS
from fluid.errors import UserError, WeightsError
from fluid.program import Program, temporary_scope

import numpy as np
import paddle

STEM = "inference"
SIGNATURE = "signature.json"


def export(program: Program, state: Mapping[str, np.ndarray], folder: Path, *, facts: Mapping[str, Any]) -> Path:
    """Write `program` with the weights in `state` as a Paddle inference model; the folder appears whole or not at all.

    `facts` is what the task must know to use the model (class names, preprocessing); it lands in signature.json.
    Raises UserError if the folder exists and is something else than an exported model, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / SIGNATURE).is_file():
        raise UserError(f"{folder} exists and is not an exported model; choose another folder")
    partial = folder.with_name(f".{folder.name}-{os.getpid()}")
    block = program.main.global_block()
    feeds = {op.attrs()["name"]: op.results()[0] for op in block.ops if op.name() == "pd_op.data"}
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with temporary_scope() as scope:
            for name in program.state_names:
                scope.var(name).get_tensor().set(np.asarray(state[name]), paddle.CPUPlace())
            paddle.static.save_inference_model(
                str(partial / STEM),
                [feeds[name] for name in program.inputs],
                [program.values[name] for name in program.outputs],
                paddle.static.Executor(paddle.CPUPlace()),
                program=program.main,
            )
        signature = {
            "inputs": [
                {"name": item.name, "shape": list(item.shape), "dtype": item.dtype} for item in program.inputs.values()
            ],
            "outputs": list(program.outputs),
            "facts": dict(facts),
        }
        (partial / SIGNATURE).write_text(json.dumps(signature, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"cannot write the exported model to {folder}: {error}") from error
    return folder


def export_onnx(folder: Path, *, opset: int = 13) -> Path:
    """Translate an exported model to FOLDER/model.onnx. Raises UserError without paddle2onnx (extra `onnx`)."""
    try:
        import paddle2onnx
    except ImportError:
        raise UserError("ONNX export needs paddle2onnx, for Python before 3.13: pip install '.[onnx]'") from None
    target = Path(folder) / "model.onnx"
    paddle2onnx.export(
        str(Path(folder) / f"{STEM}.json"),
        str(Path(folder) / f"{STEM}.pdiparams"),
        save_file=str(target),
        opset_version=opset,
        # Its default optimiser installs packages without asking.
        optimize_tool="None",
    )
    _name_onnx_outputs(target, json.loads((Path(folder) / SIGNATURE).read_text(encoding="utf-8"))["outputs"])
    return target


def _name_onnx_outputs(path: Path, names: list[str]) -> None:
    """Paddle calls outputs `fetch_name_0`, ...; give them the names of the Program."""
    import onnx

    model = onnx.load(str(path))
    renamed = {output.name: name for output, name in zip(model.graph.output, names, strict=True)}
    for output in model.graph.output:
        output.name = renamed[output.name]
    for node in model.graph.node:
        node.output[:] = [renamed.get(name, name) for name in node.output]
        node.input[:] = [renamed.get(name, name) for name in node.input]
    onnx.save(model, str(path))


class ExportedModel:
    """An exported model run by `paddle.inference`, on CPU with oneDNN kernels.

    Attributes: `inputs` and `outputs` (names), `facts` (as given to `export`).
    """

    def __init__(self, folder: Path):
        """Raises WeightsError if `folder` does not hold an exported model."""
        folder = Path(folder)
        try:
            signature = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))
            self.inputs = {item["name"]: item for item in signature["inputs"]}
            self.outputs, self.facts = list(signature["outputs"]), dict(signature["facts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{folder} is not an exported model ({SIGNATURE}: {error}); make one with export.py"
            ) from error
        config = paddle.inference.Config(str(folder / f"{STEM}.json"), str(folder / f"{STEM}.pdiparams"))
        config.disable_glog_info()
        config.disable_gpu()
        config.enable_mkldnn()
        config.set_cpu_math_library_num_threads(CPU_THREADS)
        self._predictor = paddle.inference.create_predictor(config)

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name; raises UserError for inputs the model does not have."""
        if feed.keys() != self.inputs.keys():
            raise UserError(
                f"the exported model takes the inputs {', '.join(self.inputs)}, not {', '.join(feed) or 'none'}"
            )
        for name, array in feed.items():
            dtype = self.inputs[name]["dtype"]
            self._predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(array, dtype))
        self._predictor.run()
        handles = [self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()]
        return {name: handle.copy_to_cpu() for name, handle in zip(self.outputs, handles, strict=True)}
