"""Train on a GPU machine that has JAX but no Paddle: Programs and data are captured into one folder here and run there.

python train_captured.py capture --data_dir corpora --folder captured --model small --vocab_size 8000    with Paddle
python train_captured.py run --folder captured --minutes 4 --output_dir trained                          without

`run` does what train.py does on the same Programs with the same batches, less resuming: it is for machines lent by the
minute. It evaluates perplexity and BLEU on the device, and its result is a checkpoint in half precision as others.
"""

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import checkpoint
from fluid.checkpoint import Meta
from fluid.config import parse
from fluid.data import training_batches
from fluid.engine.xla import graph as graphs
from fluid.errors import UserError
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.metrics import quality
from neural_machine_translation.reader import CorpusSource, PairSource, TextPairs, blank, open_pairs, read_tsv
from neural_machine_translation.vocabulary import Vocabulary, from_facts

import numpy as np

TASK = "neural_machine_translation"


@dataclass
class Capture:
    """Write Programs and data into a folder."""

    data_dir: Path
    """Folder with train.tsv, dev.tsv and test.tsv."""
    folder: Path
    """New folder to write."""
    model: Literal["base", "big", "small", "tiny"] = "small"
    """Sizes of the network."""
    n_layer: int | None = None
    """Layers of encoder and of decoder; by default those of --model."""
    dropout: float | None = None
    """Dropout; by default that of --model."""
    vocab_size: int = 8000
    """Words of the vocabulary, which is trained on the training pairs."""
    lr: float = 2.0
    """Factor of the Noam schedule."""
    warmup_steps: int = 2000
    """Updates until the learning rate is largest."""
    beta2: float = 0.98
    """Adam: decay of the second moment."""
    label_smooth_eps: float = 0.1
    """Share of the target probability spread over all words."""
    beam_size: int = 4
    """Beam of the evaluation."""
    max_length: int = 128
    """Longest sentence in words."""
    everyday: Path | None = None
    """Further pairs (source, tab, target) whose BLEU is reported by itself."""


@dataclass
class RunCaptured:
    """Train on what `capture` wrote."""

    folder: Path
    """Folder that `capture` wrote."""
    output_dir: Path = Path("trained")
    """Where the checkpoint and the translations of dev and test sentences go."""
    minutes: float = 4.0
    """Time for training, compilation included; the final evaluation comes on top."""
    batch_size: int = 16384
    """Words in a batch, padding included."""
    average_last: float = 0.25
    """Share of the time at the end over which weights are averaged, one sample every 5 seconds."""
    max_steps: int | None = None
    """Stop after this many updates."""
    dev_sentences: int = 400
    """Dev pairs that are translated at intermediate evaluations."""
    eval_seconds: float = 110.0
    """Seconds between evaluations."""
    num_workers: int = 1
    """Reader processes; 0 reads in the training process."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute."""
    precision: Literal["fp32", "tf32", "bf16"] = "bf16"
    """Arithmetic of matrix products."""
    seed: int = 1
    """Of initial weights, data order and dropout."""


def capture(config: Capture) -> None:
    """Write `folder`: programs/, translator.json, corpus.npz and the evaluation pairs."""
    from fluid.engine.xla.capture import capture as capture_program
    from fluid.program import initialise
    from fluid.schedule import Noam
    from neural_machine_translation.decode import Search
    from neural_machine_translation.model import SIZES, Transformer
    from neural_machine_translation.network import Translator, evaluation_program, search_program, training_programs
    from neural_machine_translation.vocabulary import train_sentencepiece

    import paddle

    train, dev, test = (
        open_pairs(part, data_dir=config.data_dir, pattern=None, languages=("en", "de"))
        for part in ("train", "dev", "test")
    )
    vocabulary = train_sentencepiece([*train.sources, *train.targets], config.vocab_size)
    sizes = SIZES[config.model] | {
        name: value for name in ("n_layer", "dropout") if (value := getattr(config, name)) is not None
    }
    network = Transformer(vocabulary.size, vocabulary.size, max_length=config.max_length, **sizes)
    program, _ = training_programs(
        network,
        label_smoothing=config.label_smooth_eps,
        optimizer=lambda: paddle.optimizer.Adam(1.0, 0.9, config.beta2, 1e-9),
        schedule=Noam(network.d_model, config.warmup_steps, config.lr),
    )
    programs = [
        program,
        evaluation_program(network),
        search_program(network, Search(config.beam_size, max_out_len=config.max_length)),
    ]
    state = initialise(program, seed=0)
    # Moments are zero and weights random: neither need travel.
    small = {name: array for name, array in state.items() if name not in program.trainable and np.any(array)}
    small |= {name: array for name, array in state.items() if name in program.trainable and array.ndim == 1}
    config.folder.mkdir(parents=True)
    graphs.save(config.folder / "programs", [capture_program(item) for item in programs], small)
    facts = Translator(network, vocabulary, vocabulary).to_facts()
    (config.folder / "translator.json").write_text(json.dumps(facts), encoding="utf-8")
    source = PairSource(train, vocabulary, vocabulary, max_length=network.max_length, batch_size=1)
    np.savez_compressed(
        config.folder / "corpus.npz",
        words=source.words.astype(np.uint16),
        sizes=source.sizes.reshape(-1).astype(np.uint16),
    )
    extra = {} if config.everyday is None else {"everyday": read_tsv(config.everyday)}
    for part, pairs in {"dev": dev, "test": test, **extra}.items():
        text = "".join(f"{left}\t{right}\n" for left, right in zip(pairs.sources, pairs.targets, strict=True))
        (config.folder / f"{part}.tsv").write_text(text, encoding="utf-8")
    megabytes = sum(file.stat().st_size for file in config.folder.rglob("*") if file.is_file()) / 1e6
    print(f"{config.folder}: {program.parameter_count:,} parameters, {len(source)} pairs, {megabytes:.1f} MB")


def fill(state: dict[str, np.ndarray], graph: graphs.Graph, seed: int) -> None:
    """Add the variables that did not travel: weights as `create_parameters` draws them, zeros for moments."""
    rng = np.random.default_rng(seed)
    for name, number in graph.state.items():
        item = graph.types[number]
        if name in state or name == "learning_rate_0":
            continue
        if name.endswith("_word_emb_table"):
            state[name] = rng.normal(0.0, item.shape[1] ** -0.5, item.shape).astype(item.dtype)
        elif name.endswith(".w_0"):
            limit = (6.0 / sum(item.shape)) ** 0.5
            state[name] = rng.uniform(-limit, limit, item.shape).astype(item.dtype)
        else:
            state[name] = np.zeros(item.shape, item.dtype)


BUCKETS = (8, 16, 32, 64)
"""Fewer than train.py has: here compilation is paid for by the minute."""
EVALUATION_BUCKETS = (24, 64)
EVALUATION_ROWS = 128


def run(config: RunCaptured) -> None:
    """Train, evaluate, write the checkpoint."""
    from fluid.engine.xla import create

    captured, state = graphs.load(config.folder / "programs")
    facts = json.loads((config.folder / "translator.json").read_text(encoding="utf-8"))
    vocabulary, max_length = from_facts(facts["source"]), facts["network"]["max_length"]
    train, evaluate, search = captured["train"], captured["eval"], captured["search"]
    state.pop("learning_rate_0", None)
    fill(state, train, config.seed)
    parameters = list(evaluate.state)
    engine = create(config.device, config.precision, config.seed)
    engine.load(state)
    pairs = {path.stem: read_tsv(path) for path in sorted(config.folder.glob("*.tsv"))}
    short = {name: shortened(part, vocabulary, config.dev_sentences) for name, part in pairs.items() if name != "test"}
    source = CorpusSource(config.folder / "corpus.npz", max_length, config.batch_size, BUCKETS)
    source.buckets = dataclasses.replace(source.buckets, multiple=engine.num_devices)
    print(f"{len(source)} pairs, {engine.device}, {config.precision}", flush=True)

    def report(step: int, began: float, parts: dict[str, TextPairs]) -> dict[str, float]:
        scores: dict[str, float] = {}
        for name, part in parts.items():
            texts = decode_all(engine, search, vocabulary, part.sources)
            scores[name] = quality(texts, part.targets).bleu
            scores[f"{name} chrf"] = quality(texts, part.targets).chrf
            config.output_dir.mkdir(parents=True, exist_ok=True)
            lines = (f"{row[0]}\t{row[1]}\t{row[2]}\n" for row in zip(part.sources, texts, part.targets, strict=True))
            (config.output_dir / f"{name}.translations.tsv").write_text("".join(lines), encoding="utf-8")
        shown = " ".join(f"{name} {value:.2f}" for name, value in scores.items())
        print(f"[{time.perf_counter() - began:.0f} s] step {step}: {shown}", flush=True)
        return scores

    began, step, words, window = time.perf_counter(), 0, 0, []
    compile_all(engine, train, source, search)
    print(f"[{time.perf_counter() - began:.0f} s] compiled", flush=True)
    end = began + 60 * config.minutes
    averaging_from = end - 60 * config.minutes * config.average_last
    next_evaluation, next_sample = began + config.eval_seconds, averaging_from
    total: dict[str, np.ndarray] = {}
    samples, last_words, last_time, waited = 0, 0, began, 0.0
    plan = source.buckets.training_plan(seed=config.seed, pool_size=0)
    with training_batches(
        source, config.batch_size, seed=config.seed, plan=plan, num_workers=config.num_workers
    ) as batches:
        while True:
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            outputs = engine.run(train, batch.feed, step=step)
            window.append(outputs)
            # The label's padding is everything after its first <e>.
            labels = batch.feed["lbl_word"]
            words += int((labels != EOS).sum()) + len(labels)
            step += 1
            now = time.perf_counter()
            if step % 200 == 0 or step == 10:
                losses = [float(np.asarray(item["nll"])) for item in window]
                now = time.perf_counter()
                rate = (words - last_words) / (now - last_time)
                print(
                    f"[{now - began:.0f} s] step {step} epoch {batch.epoch} nll {np.mean(losses):.4f} "
                    f"{rate:,.0f} target words/s wait {waited / (now - last_time):.0%}",
                    flush=True,
                )
                window, last_words, last_time, waited = [], words, now, 0.0
            if now >= next_sample:
                np.asarray(outputs["nll"])
                for name, array in engine.state(parameters).items():
                    total[name] = total.get(name, 0.0) + array.astype(np.float64)
                samples, next_sample = samples + 1, time.perf_counter() + 5
            if now >= end or step == config.max_steps:
                break
            if now >= next_evaluation:
                np.asarray(outputs["nll"])
                report(step, began, short)
                next_evaluation = time.perf_counter() + config.eval_seconds
                last_words, last_time, waited = words, time.perf_counter(), 0.0
    print(f"{step} updates, {words:,} target words, mean of {samples} samples of the weights", flush=True)
    final = (
        {name: (array / samples).astype(np.float32) for name, array in total.items()}
        if samples
        else engine.state(parameters)
    )
    if not all(np.isfinite(array).all() for array in final.values()):
        raise UserError("training diverged: the weights are not finite numbers; lower --lr of capture")
    engine.load(final)
    meta = Meta(
        TASK, step, extra={"translator": facts}, config=json.loads(json.dumps(dataclasses.asdict(config), default=str))
    )
    half = {name: array.astype(np.float16) for name, array in final.items()}
    meta.metrics = report(step, began, pairs)
    checkpoint.save(config.output_dir, half, meta)
    print(f"checkpoint in {config.output_dir}", flush=True)


def compile_all(engine: Any, train: graphs.Graph, source: CorpusSource, search: graphs.Graph) -> None:
    """Compile the steps of every length at once: one after the other they would take most of the first minutes."""
    searches = [{"src_word": np.full((EVALUATION_ROWS, length), EOS, np.int64)} for length in EVALUATION_BUCKETS]
    engine.compile([*((train, feed) for feed in source.buckets.blanks(blank)), *((search, feed) for feed in searches)])


def shortened(pairs: TextPairs, vocabulary: Vocabulary, number: int) -> TextPairs:
    """Some of the pairs whose sources fit the longest evaluation bucket."""
    fits = [
        index
        for index, words in enumerate(vocabulary.encode_all(pairs.sources))
        if len(words) + 2 <= EVALUATION_BUCKETS[-1]
    ]
    chosen = fits[:: max(1, len(fits) // number)][:number]
    return TextPairs([pairs.sources[index] for index in chosen], [pairs.targets[index] for index in chosen])


def decode_all(engine: Any, search: Any, vocabulary: Vocabulary, sentences: list[str]) -> list[str]:
    """Best translations in the order of the sentences; those beyond the longest evaluation bucket are cut."""
    longest = EVALUATION_BUCKETS[-1] - 2
    encoded = [np.concatenate([[BOS], words[:longest], [EOS]]) for words in vocabulary.encode_all(sentences)]
    results = [""] * len(sentences)
    order = sorted(range(len(sentences)), key=lambda index: len(encoded[index]))
    first = 0
    while first < len(order):
        # A batch ends where the shorter bucket does, so that short sentences do not share a long loop.
        length = next(bucket for bucket in EVALUATION_BUCKETS if bucket >= len(encoded[order[first]]))
        group = [index for index in order[first : first + EVALUATION_ROWS] if len(encoded[index]) <= length]
        feed = np.full((EVALUATION_ROWS, length), EOS, np.int64)
        for row, index in enumerate(group):
            feed[row, : len(encoded[index])] = encoded[index]
        feed[len(group) :] = feed[0]
        ids = np.asarray(engine.run(search, {"src_word": feed})["ids"])[:, 0]
        for row, index in enumerate(group):
            ends = np.flatnonzero(ids[row] == EOS)
            results[index] = vocabulary.decode(ids[row][: ends[0]] if len(ends) else ids[row])
        first += len(group)
    return results


def main(argv: list[str]) -> None:
    """Dispatch to `capture` or `run`."""
    commands = {"capture": (Capture, capture), "run": (RunCaptured, run)}
    if not argv or argv[0] not in commands:
        sys.exit("usage: train_captured.py capture|run --help")
    kind, function = commands[argv[0]]
    try:
        function(parse(kind, argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
