"""Transformer-base and -big against plain PyTorch (SDPA, torch.compile) on one GPU: training and beam search.

    python benchmarks/neural_machine_translation.py capture graphs             with Paddle: writes the Programs
    python benchmarks/neural_machine_translation.py time graphs --json out.json    without: needs JAX and torch
    python benchmarks/neural_machine_translation.py scale graphs --json out.json   1, 2, 4, ... GPUs of one host, beside PyTorch's DDP
    python benchmarks/neural_machine_translation.py reader corpora             batches alone, of the pairs in a folder

Both sides train on the same batches of random words, padded to one length, in bf16 with dropout 0.1 (big: 0.3), label
smoothing 0.1, tied embeddings and Adam; and search with beam 5 and key/value caches for a fixed number of words (random
weights never end a sentence). A search of compiled PyTorch is one CUDA graph. Results are target words and sentences a second: median
and spread of several rounds.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import add_json, add_row, measure, save, versions
from benchmarks.processes import add_one, in_a_process, join_torchrun, powers_of_two, run
from benchmarks.xla_step import print_kernels
from fluid.commands.launch import visible_gpus

import numpy as np

VOCABULARY = 32000
LENGTH = 64
PAIRS = {"base": 256, "big": 128}
SENTENCES, BEAM = {"gpu": 64, "cuda": 64, "cpu": 8}, 5
"""Searched at once, by the device."""
SIZES = {"base": (512, 2048, 8, 6, 0.1), "big": (1024, 4096, 16, 6, 0.3)}
"""d_model, d_inner, heads, layers, dropout."""


def capture(folder: Path, models: list[str]) -> None:
    """Write the training and search Program of each model."""
    from fluid.engine.xla import graph as graphs
    from fluid.engine.xla.capture import capture as capture_program
    from fluid.schedule import Noam
    from neural_machine_translation.decode import Search
    from neural_machine_translation.network import search_program, training_programs
    from neural_machine_translation.translator import SIZES as OURS
    from neural_machine_translation.translator import Transformer

    import paddle

    for name in models:
        config = Transformer(VOCABULARY, VOCABULARY, **OURS[name])
        train, _ = training_programs(
            config,
            label_smoothing=0.1,
            optimizer=lambda: paddle.optimizer.Adam(1.0, 0.9, 0.98, 1e-9),
            schedule=Noam(config.d_model, 4000, 1.0),
        )
        search = search_program(config, Search(BEAM, max_out_len=LENGTH))
        train.name, search.name = f"{name}_train", f"{name}_search"
        graphs.save(folder, [capture_program(train), capture_program(search)], {})
        print(f"{folder}: {name}")


def random_words(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Sentence pairs of LENGTH random words without padding."""
    rng = np.random.default_rng(seed)
    source, target = rng.integers(3, VOCABULARY, (2, rows, LENGTH))
    source[:, 0], source[:, -1] = 0, 1
    label = np.concatenate([target[:, 1:], np.ones((rows, 1), np.int64)], axis=1)
    target[:, 0] = 0
    return {"src_word": source, "trg_word": target, "lbl_word": label}


def random_state(graph: Any) -> dict[str, np.ndarray]:
    """Weights of a sensible size, zero moments; speed does not depend on the values."""
    rng, state = np.random.default_rng(0), {}
    for name, number in graph.state.items():
        item = graph.types[number]
        if "pow_acc" in name:
            state[name] = np.full(item.shape, 0.9, item.dtype)
        elif "moment" in name or name == "learning_rate_0" or name.endswith("b_0"):
            state[name] = np.zeros(item.shape, item.dtype)
        elif name.startswith("layer_norm"):
            state[name] = np.ones(item.shape, item.dtype)
        else:
            state[name] = rng.normal(0, item.shape[-1] ** -0.5, item.shape).astype(item.dtype)
    return state


def time_zoo(
    folder: str | Path,
    model: str,
    what: str,
    device: str,
    precision: str,
    seconds: float,
    kernels: str = "auto",
    profile: bool = False,
) -> dict[str, Any]:
    """The captured Program on the xla engine; every GPU of all processes gets as many rows as PyTorch's one.

    With `profile` the kernels that take the time are printed.
    """
    from fluid.engine.xla import create, distributed
    from fluid.engine.xla import graph as graphs

    if not (Path(folder) / "state.safetensors").exists():
        raise SystemExit(f"{folder}: run the command `capture` first")
    captured = graphs.load(folder)[0][f"{model}_{what}"]
    engine = create(device, precision, 0, kernels)
    engine.load(random_state(captured))
    rows = engine.num_devices * (PAIRS[model] if what == "train" else SENTENCES[device])
    words = random_words(rows // distributed.num_hosts())
    feed = {name: words[name] for name in captured.inputs}
    steps = iter(range(10**9))
    output = "loss" if what == "train" else "ids"

    def step() -> dict[str, Any]:
        nonlocal feed
        outputs = engine.run(captured, feed, step=next(steps))
        feed = engine.put(feed, captured)
        return outputs

    result = measure(
        step,
        lambda outputs: np.asarray(outputs[output]),
        rows * LENGTH if what == "train" else rows,
        seconds,
        processes=distributed.num_hosts(),
    )
    if profile:
        print_kernels(lambda: np.asarray([step() for _ in range(5)][-1][output]), 5)
    who = "zoo (xla)" if kernels == "auto" else f"zoo (xla), kernels {kernels}"
    return {"who": who, "model": model, "what": what, "device": engine.device, **result}


def time_torch(model: str, what: str, device: str, precision: str, compiled: bool, seconds: float) -> dict[str, Any]:
    """The same work in PyTorch, eager or compiled; where torchrun started a process for each GPU, their work together."""
    gpus = join_torchrun()
    from benchmarks.torch_transformer import Transformer

    import torch

    torch.compiler.reset()  # of two models, the second's shapes would be compiled as variable
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    network = Transformer(*SIZES[model], VOCABULARY, LENGTH).to(device)
    words = {
        name: torch.from_numpy(array).to(device)
        for name, array in random_words(PAIRS[model] if what == "train" else SENTENCES[device]).items()
    }
    autocast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")
    if what == "train":
        optimizer = torch.optim.Adam(network.parameters(), 1e-4, (0.9, 0.98), 1e-9, fused=device == "cuda")
        parallel = torch.nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True) if gpus else network
        forward = torch.compile(parallel) if compiled else parallel

        def step() -> Any:
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                loss = forward(words["src_word"], words["trg_word"], words["lbl_word"])
            loss.backward()
            optimizer.step()
            return loss

        count = max(gpus, 1)
        result = measure(step, lambda loss: loss.item(), count * PAIRS[model] * LENGTH, seconds, processes=count)
    else:
        network = network.eval().to(torch.bfloat16 if precision == "bf16" else torch.float32)
        search = torch_search(network, model, compiled)
        with torch.no_grad():
            result = measure(lambda: search(words["src_word"]), lambda ids: ids.cpu(), SENTENCES[device], seconds)
    if gpus:
        torch.distributed.destroy_process_group()
    who = f"torch {'compiled' if compiled else 'eager'}"
    return {"who": who, "model": model, "what": what, **result}


def torch_search(network: Any, model: str, compiled: bool) -> Callable[[Any], Any]:
    """Beam search as in neural_machine_translation/decode.py; the encoder and the step of all positions are compiled functions.

    On a GPU a compiled search is one CUDA graph, and the next search overwrites its result.
    """
    import torch

    d_model, _, heads, layers, _ = SIZES[model]

    def advance(word, position, score, ids, keys, values, memory):
        rows = word.shape[0]
        logits = network.step(word, position, keys, values, memory).float()
        best, words = logits.topk(2 * BEAM, dim=2)
        best = best - logits.logsumexp(2, keepdim=True) + score[:, :, None]
        score, place = best.flatten(1).topk(2 * BEAM, dim=1)
        parent, word = place // (2 * BEAM), words.flatten(1).gather(1, place)
        score, order = score.masked_fill(word == 1, -1e9).topk(BEAM, dim=1)
        parent, word = parent.gather(1, order), word.gather(1, order)
        ids = ids.gather(1, parent[:, :, None].expand_as(ids)).index_copy(2, position, word[:, :, None])
        flat = (torch.arange(rows, device=word.device)[:, None] * BEAM + parent).flatten()
        return word, score, ids, keys[:, flat], values[:, flat]

    prepare, one = (torch.compile(part) if compiled else part for part in (network.prepare, advance))

    def search(source: Any) -> Any:
        rows, device = len(source), source.device
        memory = prepare(source)
        kind = memory[0][0].dtype
        keys = torch.zeros(layers, rows * BEAM, heads, LENGTH, d_model // heads, device=device, dtype=kind)
        values = torch.zeros_like(keys)
        word = torch.zeros(rows, BEAM, dtype=torch.long, device=device)
        score = torch.zeros(rows, BEAM, device=device)
        score[:, 1:] = -1e9
        ids = torch.ones(rows, BEAM, LENGTH, dtype=torch.long, device=device)
        for position in torch.arange(LENGTH, device=device).split(1):
            word, score, ids, keys, values = one(word, position, score, ids, keys, values, memory)
        return ids

    on_gpu = next(network.parameters()).is_cuda
    return in_graph(search) if compiled and on_gpu else search


def in_graph(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of one array on the GPU, recorded by its first call and replayed as one CUDA graph by all."""
    import torch

    graph, place, result = torch.cuda.CUDAGraph(), None, None

    def replayed(array: Any) -> Any:
        nonlocal place, result
        if place is None:
            place = array.clone()
            # What is recorded must be compiled, and by PyTorch's rule it has run on another stream before.
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    function(place)
            torch.cuda.current_stream().wait_stream(stream)
            # JAX's threads in this process may call CUDA meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = function(place)
        place.copy_(array)
        graph.replay()
        return result

    return replayed


def time_reader(folder: Path, rounds: int = 5, batches: int = 1000) -> None:
    """Target words a second that one process cuts out of a corpus, in batches of 16,384 words."""
    from fluid.data import training_batches
    from neural_machine_translation import train
    from neural_machine_translation.indices import EOS

    flags = train.Flags(data_dir=folder, vocab_size=8000, batch_size=16384, max_length=128)
    pairs = train.read_data(flags)
    source, _ = train.sources(flags, train.describe(flags, pairs[0], None)[0], *pairs)
    rates = []
    with training_batches(source, 16384, seed=0, plan=source.buckets.training_plan(seed=0)) as reader:
        for _ in range(rounds):
            words, seconds = 0, 0.0
            for _ in range(batches):
                began = time.perf_counter()
                labels = next(reader).feed["lbl_word"]
                seconds += time.perf_counter() - began
                words += int((labels != EOS).sum()) + len(labels)
            rates.append(words / seconds)
    print(f"reader: {statistics.median(rates):,.0f} target words/s ({min(rates):,.0f} to {max(rates):,.0f})")


def scale(arguments: argparse.Namespace) -> None:
    """Training on 1, 2, 4, ... GPUs in one process and in one for each GPU, beside DistributedDataParallel; each GPU gets
    the pairs that one has alone."""
    rows: list[dict] = []
    alone: dict[str, float] = {}
    for model in arguments.models:
        for gpus in powers_of_two(len(visible_gpus())):
            zoo = ("time_zoo", str(arguments.folder), model, "train", "gpu", arguments.precision, arguments.seconds)
            torch = ("time_torch", model, "train", "cuda", arguments.precision, True, arguments.seconds)
            sides = {f"zoo, {count} processes": (zoo, count, False) for count in sorted({1, gpus})}
            if "compiled" in arguments.who:
                sides["torch compiled"] = (torch, gpus, True)
            for side, (job, processes, is_torch) in sides.items():
                row = in_a_process(__file__, *job, gpus=gpus, processes=processes, torch=is_torch)
                if row is not None:
                    one = alone.setdefault(f"{model} {row['who']}", row["median"])
                    efficiency = round(row["median"] / gpus / one, 3)
                    add_row(rows, {"side": side, "gpus": gpus, **row, "efficiency": efficiency}, arguments.json)


def compare(arguments: argparse.Namespace) -> None:
    """Training and search on the GPUs (or CPU) of this process, ours and PyTorch's."""
    torch_device = "cuda" if arguments.device == "gpu" else "cpu"
    packages = versions("jax", "jaxlib", "torch", "numpy")
    found: list[dict[str, Any]] = []
    for model in arguments.models:
        for what in arguments.what:
            rows = []
            for who in arguments.who:
                if who == "zoo":
                    row = time_zoo(
                        arguments.folder,
                        model,
                        what,
                        arguments.device,
                        arguments.precision,
                        arguments.seconds,
                        arguments.kernels,
                        arguments.profile,
                    )
                else:
                    row = time_torch(
                        model, what, torch_device, arguments.precision, who == "compiled", arguments.seconds
                    )
                rows.append(row)
                found.append(row)
                unit = "target words/s" if what == "train" else "sentences/s"
                ratio = f", {row['median'] / rows[0]['median']:.2f} x {rows[0]['who']}" if len(rows) > 1 else ""
                print(
                    f"{model} {what}: {row['who']:15} {row['median']:,.0f} {unit} ({row['min']:,.0f} to {row['max']:,.0f}; first step "
                    f"{row['first_step_s']:.0f} s){ratio}",
                    flush=True,
                )
                save(arguments.json, versions=packages, precision=arguments.precision, rows=found)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    functions: dict[str, Callable[[argparse.Namespace], None]] = {
        "capture": lambda arguments: capture(arguments.folder, arguments.models),
        "time": compare,
        "scale": scale,
        "reader": lambda arguments: time_reader(arguments.folder),
    }
    for name, function in functions.items():
        command = commands.add_parser(name)
        command.set_defaults(run=function)
        command.add_argument("folder", type=Path)
        if name == "reader":
            continue
        command.add_argument(
            "--models", nargs="+", default=["base"] if name == "scale" else ["base", "big"], choices=list(SIZES)
        )
        if name == "capture":
            continue
        command.add_argument("--what", nargs="+", default=["train", "search"], choices=["train", "search"])
        command.add_argument(
            "--who", nargs="+", default=["zoo", "torch", "compiled"], choices=["zoo", "torch", "compiled"]
        )
        command.add_argument("--device", default="gpu", choices=("gpu", "cpu"))
        command.add_argument("--precision", default="bf16", choices=("bf16", "tf32", "fp32"))
        command.add_argument("--seconds", type=float, default=1.5, help="length of one of the five rounds")
        if name == "time":
            command.add_argument("--kernels", default="auto", choices=("auto", "off"), help="as of the scripts")
            command.add_argument("--profile", action="store_true", help="list the kernels that take the time")
        add_json(command)
    add_one(commands, {"time_zoo": time_zoo, "time_torch": time_torch})
    run(parser.parse_args())


if __name__ == "__main__":
    main()
