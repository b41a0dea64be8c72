"""Compares a converted net layer by layer with what Caffe computed, and names the first layer that differs.

    python caffe2fluid/compare.py DIR --dump blobs.npz                    against a dump
    python caffe2fluid/compare.py DIR --engine opencv --prototxt NET.prototxt --caffemodel NET.caffemodel
    python caffe2fluid/compare.py DIR --engine caffe --python /path/to/python/with/caffe --prototxt ... --caffemodel ...

A dump holds the blobs by name, as np.savez("blobs.npz", **{k: b.data for k, b in net.blobs.items()}) writes it; keys may
carry the prefixes in__ (inputs) and blob__. An engine runs in a process of its own, on the same input, with in-place
layers taken apart. Exit code 0: all equal, 1: something differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from caffe2fluid.converted import Converted, open_converted, random_feed, read_arrays, read_feed, run_blobs
from caffe2fluid.errors import ConvertError, run_script
from caffe2fluid.network import layer_messages, read_network
from caffe2fluid.prototxt import Message, format_message, read_prototxt
from caffe2fluid.storage import replaced_file

import numpy as np

Values = dict[tuple[str, str], np.ndarray]
"""Arrays by (layer, blob): what that layer wrote."""


@dataclass
class Difference:
    """One line of the comparison; ``relative`` is max |a - b| / max |b|, None if the shapes differ."""

    layer: str
    type: str
    blob: str
    shape: list[int]
    reference_shape: list[int]
    largest: float
    absolute: float | None
    relative: float | None
    equal: bool


def compare_arrays(ours: np.ndarray, reference: np.ndarray) -> tuple[float, float, float | None]:
    """max |reference|, max |difference|, and their ratio (inf where NaNs differ). Arrays of one size."""
    ours, reference = ours.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    if not np.array_equal(np.isnan(ours), np.isnan(reference)):
        return float(np.nanmax(np.abs(reference), initial=0.0)), float("inf"), float("inf")
    with np.errstate(invalid="ignore"):
        difference = np.where(ours == reference, 0.0, np.abs(ours - reference))
    absolute = float(np.nanmax(difference, initial=0.0))
    finite = reference[np.isfinite(reference)]
    largest = float(np.max(np.abs(finite), initial=0.0))
    return largest, absolute, 0.0 if absolute == 0 else absolute / largest if largest else float("inf")


def compare(converted: Converted, values: list[tuple[str, np.ndarray]], reference: Values, tolerance: float):
    """Differences in the order of the layers. ``values``: every write of model.py, as run_blobs gives it."""
    writes = iter(values[len(converted.inputs) :])
    result = []
    for layer in converted.report["layers"]:
        writer = layer["folded"][-1] if layer["folded"] else layer["name"]
        for top in layer["tops"]:
            blob, ours = next(writes, (None, None))
            if blob != top:
                raise ConvertError(f"{converted.folder}/model.py writes {blob!r} where the report has {top!r}: edited?")
            expected = reference.get((writer, top))
            if expected is None:
                continue
            expected = _without_padding(expected, ours) if layer["type"] == "DetectionOutput" else expected
            difference = Difference(
                writer, layer["type"], top, list(ours.shape), list(expected.shape), 0.0, None, None, False
            )
            if ours.size == expected.size and _essential(ours.shape) == _essential(expected.shape):
                largest, absolute, relative = compare_arrays(ours, expected)
                difference.largest, difference.absolute, difference.relative = largest, absolute, relative
                difference.equal = relative <= tolerance
            result.append(difference)
    return result


def _essential(shape: tuple[int, ...]) -> list[int]:
    return [dim for dim in shape if dim != 1]


def _without_padding(expected: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """OpenCV fills up detections with rows of zeros."""
    rows = expected.reshape(-1, 7)
    if expected.size > ours.size and not rows[ours.size // 7 :].any():
        rows = rows[: ours.size // 7]
    return rows.reshape(1, 1, -1, 7)


def from_dump(converted: Converted, path: Path) -> tuple[dict[str, np.ndarray], Values]:
    """The inputs and the values of a dump; of a blob written in place only the last value is known."""
    arrays = read_arrays(path)
    blobs = {key.removeprefix("blob__"): array for key, array in arrays.items() if not key.startswith("in__")}
    inputs = {key.removeprefix("in__"): array for key, array in arrays.items() if key.startswith("in__")}
    feed = {name: inputs.get(name, blobs.get(name)) for name in converted.inputs}
    absent = [name for name, array in feed.items() if array is None]
    if absent:
        raise ConvertError(f"{path}: the input {', '.join(absent)} is not in the dump; it has: {', '.join(arrays)}")
    last = {}
    for layer in converted.report["layers"]:
        writer = layer["folded"][-1] if layer["folded"] else layer["name"]
        last |= {top: writer for top in layer["tops"]}
    return feed, {(layer, blob): blobs[blob] for blob, layer in last.items() if blob in blobs}


def from_engine(
    engine: str, python: str, prototxt: Path, caffemodel: Path, feed: dict[str, np.ndarray], phase: str, timeout: float
) -> Values:
    """Runs the net in a subprocess. Raises ConvertError with the engine's own words if that fails."""
    written, text = without_in_place(read_prototxt(prototxt), phase)
    with tempfile.TemporaryDirectory() as folder:
        net, source, target = Path(folder, "net.prototxt"), Path(folder, "in.npz"), Path(folder, "out.npz")
        net.write_text(
            text if engine == "caffe" else prototxt.read_text("utf-8", "surrogateescape"), "utf-8", "surrogateescape"
        )
        np.savez(source, **feed)
        script = str(Path(__file__).with_name("_reference.py"))
        command = [python, script, engine, str(net), str(caffemodel.resolve()), str(source), str(target)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout)
        except FileNotFoundError:
            raise ConvertError(f"--python {python}: no such program") from None
        except subprocess.TimeoutExpired:
            raise ConvertError(f"{engine} did not finish in {timeout:.0f} s (--timeout)") from None
        if done.returncode or not target.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()][-5:]
            raise ConvertError(f"{engine} failed with exit code {done.returncode}:\n  " + "\n  ".join(lines))
        values = read_arrays(target)
    if engine == "caffe":
        return {key: values[blob] for key, blob in written.items() if blob in values}
    tops: dict[str, list[str]] = {}
    for layer, top in written:
        tops.setdefault(layer, []).append(top)
    pairs = ((key.rpartition(":"), array) for key, array in values.items())
    return {
        (layer, tops[layer][int(index)]): array
        for (layer, _, index), array in pairs
        if layer in tops and int(index) < len(tops[layer])
    }


def without_in_place(net: Message, phase: str) -> tuple[dict[tuple[str, str], str], str]:
    """The net with a blob of its own for every write: names by (layer, blob), and its text."""
    current: dict[str, str] = {}
    taken: set[str] = set()
    written: dict[tuple[str, str], str] = {}
    kept: dict[str, list[Message]] = {"layers": [], "layer": []}
    for field, message in layer_messages(net, phase):
        tops = []
        for top in message.texts("top"):
            name, number = top, 1
            while name in taken:
                number += 1
                name = f"{top}~{number}"
            taken.add(name)
            tops.append(name)
        bottoms = [current.get(bottom, bottom) for bottom in message.texts("bottom")]
        current |= dict(zip(message.texts("top"), tops, strict=True))
        inner = message.message("layer") if field == "layers" and "layer" in message else message
        written |= {(inner.text("name", ""), top): name for top, name in zip(message.texts("top"), tops, strict=True)}
        fields = {key: values for key, values in message.fields.items() if key not in ("bottom", "top")}
        kept[field].append(Message(message.where, {"bottom": bottoms, "top": tops} | fields))
    rest = {key: values for key, values in net.fields.items() if key not in kept}
    return written, format_message(Message(net.where, rest | {key: value for key, value in kept.items() if value}))


def print_table(differences: list[Difference]) -> None:
    """A line a blob, those that differ marked."""
    rows = [("", "layer", "type", "blob", "shape", "max |ref|", "max |diff|", "relative")]
    for d in differences:
        shape = "x".join(map(str, d.shape))
        if d.relative is None:
            rows.append(("DIFF", d.layer, d.type, d.blob, shape, f"shape {d.reference_shape}", "-", "-"))
        else:
            mark = "" if d.equal else "DIFF"
            rows.append(
                (mark, d.layer, d.type, d.blob, shape, f"{d.largest:.3g}", f"{d.absolute:.2e}", f"{d.relative:.2e}")
            )
    widths = [max(len(row[column]) for row in rows) for column in range(8)]
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:5], widths, strict=False)]
        print("  ".join(left + [cell.rjust(width) for cell, width in zip(row[5:], widths[5:], strict=True)]).rstrip())


def plot(differences: list[Difference], tolerance: float, path: Path) -> None:
    """The relative difference along the net, on a logarithmic scale."""
    try:
        import matplotlib
    except ImportError:
        raise ConvertError("--plot needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    known = [
        (index, max(d.relative, 1e-9)) for index, d in enumerate(differences) if d.relative not in (None, float("inf"))
    ]
    wrong = [index for index, d in enumerate(differences) if not d.equal]
    figure, axes = pyplot.subplots(figsize=(max(6.4, min(0.16 * len(differences), 40)), 4.2), layout="constrained")
    axes.plot(*zip(*known, strict=True) if known else ([], []), ".-", label="max |a - b| / max |b|")
    for number, index in enumerate(wrong):
        axes.axvspan(index - 0.5, index + 0.5, color="tab:red", alpha=0.25, label=None if number else "differs")
    axes.axhline(tolerance, color="tab:gray", linestyle="--", label=f"tolerance {tolerance:g}")
    step = max(1, len(differences) // 80)
    ticks = range(0, len(differences), step)
    axes.set_xticks(ticks, [differences[index].layer for index in ticks], rotation=90, fontsize=6)
    axes.set(yscale="log", ylabel="relative difference", title="Converted net against the reference, layer by layer")
    axes.legend(loc="upper left", fontsize=8)
    with replaced_file(path) as file:
        figure.savefig(file, dpi=120, format=path.suffix[1:] or "png")
    pyplot.close(figure)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="DIR", help="folder that convert.py wrote")
    parser.add_argument("--dump", metavar="BLOBS.npz", help="blobs that Caffe computed, with the input")
    parser.add_argument("--engine", choices=["caffe", "opencv"], help="run the original here, in a subprocess")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the engine (default: this one)")
    parser.add_argument("--prototxt", help="original definition, for --engine")
    parser.add_argument("--caffemodel", help="original weights, for --engine")
    parser.add_argument("--feed", metavar="IN.npz", help="input for --engine (default: random, see --seed)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest relative difference, of the blob's maximum"
    )
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for --engine")
    parser.add_argument("--plot", metavar="FILE.png", help="picture of the differences")
    parser.add_argument("--json", metavar="FILE.json", help="the table for programs")
    args = parser.parse_args(argv)
    if bool(args.dump) == bool(args.engine):
        parser.error("give one of --dump and --engine")
    if args.engine and not (args.prototxt and args.caffemodel):
        parser.error("--engine needs --prototxt and --caffemodel")
    return args


def read_reference(args: argparse.Namespace, converted: Converted) -> tuple[dict[str, np.ndarray], Values]:
    """Inputs and what the reference makes of them: from the dump, or from the engine."""
    if args.dump:
        return from_dump(converted, Path(args.dump))
    feed = read_feed(args.feed) if args.feed else random_feed(converted, args.seed)
    phase = converted.report["phase"]
    read_network(args.prototxt, phase, input_shapes={})  # a clear error before the engine's
    prototxt, caffemodel = Path(args.prototxt), Path(args.caffemodel)
    return feed, from_engine(args.engine, args.python, prototxt, caffemodel, feed, phase, args.timeout)


def main(argv: list[str] | None = None) -> int:
    """Compare, print the table, and return 1 if something differs."""
    args = parse(argv)
    converted = open_converted(args.model)
    feed, reference = read_reference(args, converted)
    differences = compare(converted, run_blobs(converted, feed), reference, args.tolerance)
    if not differences:
        raise ConvertError("nothing to compare: no blob of the reference has the name of one of the net")
    print_table(differences)
    if args.plot:
        plot(differences, args.tolerance, Path(args.plot))
    if args.json:
        with replaced_file(Path(args.json)) as file:
            file.write_text(json.dumps([asdict(d) for d in differences], indent=1), "utf-8")
    wrong = [d for d in differences if not d.equal]
    total = sum(len(layer["tops"]) for layer in converted.report["layers"])
    print(f"{len(differences)} of {total} blobs compared, {len(wrong)} differ by more than {args.tolerance:g}")
    if wrong:
        first = wrong[0]
        what = "another shape" if first.relative is None else f"relative difference {first.relative:.2e}"
        print(f"first diverging layer: {first.layer} ({first.type}), blob {first.blob}: {what}")
    return 1 if wrong else 0


if __name__ == "__main__":
    run_script(main)
