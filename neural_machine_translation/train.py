"""Train a Transformer that translates.

python train.py                                        the embedded English-German sentences, minutes on a CPU
python train.py --digit_copy                           copy strings of digits: the quickest check
python train.py --data_dir corpora --model base --batch_size 8192 --warmup_steps 8000     on a GPU
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.averages import MeasuredWeights
from fluid.checkpoint import Meta
from fluid.config import BatchFlags, Count, Decay, TrainFlags, defaults
from fluid.data import Plan
from fluid.engine import Engine
from fluid.errors import DataError, UserError
from fluid.interface import Interface
from fluid.keeper import Evaluation
from fluid.metrics import measure
from fluid.optimizers import OptimizerFlags, counts_epochs, schedule
from fluid.pictures import draw_curves
from fluid.run import Run, console, events, script, show, show_summary
from fluid.session import Length, Settled, fingerprint, settle
from fluid.text import number_of
from fluid.trainer import Outcome
from fluid.weights import load_into
from neural_machine_translation import pictures
from neural_machine_translation.metrics import Perplexity, quality
from neural_machine_translation.opening import open_translator, read_vocabularies
from neural_machine_translation.options import ALIASES, RETIRED, NetworkFlags, SearchFlags, with_pairs
from neural_machine_translation.reader import (
    MESSAGES_SHOWN,
    PairSource,
    SortType,
    TextPairs,
    Words,
    blank,
    cut_in_turn,
    digit_pairs,
    open_pairs,
    random_cuts,
    sorted_together,
)
from neural_machine_translation.scoring import draw_attentions
from neural_machine_translation.translate import Hypothesis, compile_ahead, runner, translate
from neural_machine_translation.translator import SIZES, TASK, Transformer, Translator
from neural_machine_translation.vocabulary import SPECIAL_WORDS, Vocabulary, WordList, train_sentencepiece

import numpy as np
from rich.table import Table

MULTIPLE = "sentences_in_multiples_of"
"""Among the facts of a checkpoint: `Buckets.multiple` of its batches."""


@dataclass
@defaults(
    optimizer="adam",
    lr=2.0,
    lr_strategy="noam",
    beta2=0.997,
    adam_epsilon=1e-9,
    label_smoothing=0.1,
    test_batch_size=32,
)
class Flags(SearchFlags, OptimizerFlags, BatchFlags, TrainFlags):
    """Train a Transformer that translates."""

    data_dir: Path | None = None
    """Folder with train, dev and test: PART.tsv (source, tab, target) or PART.en and PART.de; by default the embedded."""
    train_file_pattern: str | None = None
    """Files of pairs (source, tab, target) to train on, instead of data_dir."""
    val_file_pattern: str | None = None
    """Files of pairs to evaluate on, instead of data_dir."""
    languages: tuple[str, str] = ("en", "de")
    """Of source and target: file names, and the detokeniser of pre-tokenised data."""
    digit_copy: bool = False
    """Learn to copy generated strings of digits instead."""
    src_vocab_fpath: Path | None = None
    """Vocabulary: a sentencepiece *.model, or one word a line for text cut into byte pairs; by default one is trained."""
    trg_vocab_fpath: Path | None = None
    """Vocabulary of the target; by default the source's, shared."""
    special_token: tuple[str, str, str] = SPECIAL_WORDS
    """Begin, end and unknown word: the first three of a vocabulary."""
    vocab_size: Count = 2000
    """Words of the vocabulary trained by default."""
    bpe_dropout: Decay = 0.0
    """Share of merges left out where training text is cut into pieces, so that it is cut in several ways."""
    bpe_cuts: Count = 8
    """bpe_dropout: in so many ways, one an epoch, in turn."""

    model: Literal["base", "big", "small", "tiny"] = "tiny"
    """Sizes of the network: base and big of the paper, small and tiny for small data."""
    n_layer: Count | None = None
    """Layers of encoder and of decoder; by default those of --model."""
    n_decoder_layer: Count | None = None
    """Layers of the decoder, where they are not as many as the encoder's: it is the slow part of a search."""
    n_head: Count | None = None
    """Attention heads."""
    d_model: Count | None = None
    """Width."""
    d_inner_hid: Count | None = None
    """Width inside the feed-forward layers."""
    dropout: Decay | None = None
    """Share of values set to zero in training; where --pretrained_model does not say its own, that."""
    max_length: Count = 256
    """Longest sentence in words, special words included; longer pairs are left out of training."""
    norm: Literal["pre", "post"] = "pre"
    """Layer normalisation before each sublayer (released weights, 2019) or after it (paper, July 2018)."""
    weight_sharing: bool = True
    """One table for source words, target words and output layer."""

    batch_size: Count = 1024
    """Words in a batch, padding included, over all devices; sentences if not --use_token_batch."""
    use_token_batch: bool = True
    """Whether batch_size counts words."""
    pool_size: Count = 10000
    """Pairs that are shuffled and then sorted by length together."""
    sort_type: SortType = "pool"
    """Sort by length within pools, globally, or not at all."""
    shuffle: bool = True
    """Shuffle the pairs in every epoch."""
    shuffle_batch: bool = True
    """Shuffle the batches in every epoch."""
    num_epochs: Count = 20
    """Passes over the training pairs."""
    pretrained_model: str | None = None
    """Weights: those to start from, a file or folder of any format, or a checkpoint; their vocabulary is used."""
    allow_partial: bool = False
    """Accept weights that fit only in part."""

    eval_metric: Literal["bleu", "ppl"] = "bleu"
    """What decides which checkpoint is the best and when to stop early."""


WARMUP_STEPS = 400
"""Where no flag says it."""
NETWORK_FLAGS = (
    *("model", "n_layer", "n_decoder_layer", "n_head", "d_model", "d_inner_hid", "dropout", "max_length", "norm"),
    *("weight_sharing", "languages", "vocab_size", "src_vocab_fpath", "trg_vocab_fpath", "special_token"),
)
"""Flags that make another network of a run."""
EMBEDDED_RECIPE = {
    "vocab_size": 4000,
    "dropout": 0.2,
    "lr_strategy": "cosine_decay_warmup",
    "lr": 0.004,
    "warmup_steps": 200,
    "num_epochs": 30,
    "eval_every": 700,
}
"""What few sentences are learned best with."""
FREE = ("train_file_pattern", "val_file_pattern", "eval_metric")
"""Flags that Programs from files were not built with."""


def main(flags: Flags) -> Outcome:
    """Train as `flags` say; returns how the run ended."""
    settled = settle(with_recipe(flags), TASK, free=FREE)
    flags = settled.flags
    settled.refuse_changes(*NETWORK_FLAGS)
    train_pairs, dev_pairs = read_data(flags)
    translator, start = describe(flags, train_pairs, settled.facts, settled.resumed is not None)
    source, dev_source = sources(flags, translator, train_pairs, dev_pairs)
    measuring = settled.programs(lambda: evaluation_programs(flags, translator.config))
    engine = settled.start_engine(
        length_of(settled, source).total_steps, batch_size=None if flags.use_token_batch else flags.batch_size
    )
    before = None if settled.resumed is None else settled.resumed.meta
    multiple, recut = sentences_in_multiples_of(engine.num_devices, before)
    source.buckets = dataclasses.replace(source.buckets, multiple=multiple)
    length = length_of(settled, source)
    if counts_epochs(flags):
        settled.refuse_other_length(length)
    updating = settled.programs(lambda: updating_programs(flags, translator.config, length.steps_per_epoch))
    programs = {**measuring, **updating}

    with settled.open(
        facts={"translator": translator.to_facts()},
        data={"training pairs": fingerprint_of(train_pairs), "dev pairs": fingerprint_of(dev_pairs)},
        load=(lambda state: load_into(state, start, allow_partial=flags.allow_partial)) if start is not None else None,
    ) as session:
        session.meta.extra[MULTIPLE] = multiple
        announce(session.run, flags, translator, source, dev_pairs, session.update.parameter_count)
        if recut:
            session.run.say(f"{engine.num_devices} devices cannot share the batches of this run: they are cut anew")
        feeds = source.buckets.blanks(blank, engine.num_hosts)
        session.compile_ahead(feeds, f"sentences of up to {', '.join(map(str, source.buckets.edges))} words")
        evaluator = Evaluator(engine, session.update, programs, translator, dev_pairs, dev_source, flags)
        bleu = flags.eval_metric == "bleu"
        return session.train(
            lambda start: session.batches(source, start, plan=training_plan(flags, source)),
            unit="pairs",
            evaluations=[Evaluation("eval", evaluator, decides=flags.eval_metric, higher_is_better=bleu)],
            finish=lambda outcome: finish(session.run, outcome, evaluator),
        )


def with_recipe(flags: Flags) -> Flags:
    """The flags, and for a network that learns the embedded sentences those of `EMBEDDED_RECIPE` that are not named."""
    other = (flags.data_dir, flags.train_file_pattern, flags.val_file_pattern, flags.pretrained_model)
    begun = (flags.checkpoint, flags.programs)
    if flags.digit_copy or any(value is not None for value in (*other, *begun)):
        return flags
    own = configuration.left_open(flags, EMBEDDED_RECIPE)
    words = " ".join(f"--{name} {value}" for name, value in own.items())
    console.print(f"the embedded sentences are learned with {words}")
    return configuration.with_recipe(flags, own)


def read_data(flags: Flags) -> tuple[TextPairs, TextPairs]:
    """Training and dev pairs. Raises UserError for data beside --digit_copy."""
    if flags.digit_copy:
        files = ("data_dir", "train_file_pattern", "val_file_pattern")
        if idle := [f"--{name}" for name in files if getattr(flags, name) is not None]:
            raise UserError(f"--digit_copy makes its own strings of digits; leave out {', '.join(idle)}")
        return digit_pairs(4000, flags.seed), digit_pairs(200, flags.seed + 1)
    if flags.train_file_pattern is not None and flags.val_file_pattern is None and flags.data_dir is None:
        console.print(
            "neither --val_file_pattern nor --data_dir: the dev pairs are the embedded English and German ones"
        )
    read = partial(open_pairs, data_dir=flags.data_dir, languages=flags.languages)
    return read("train", pattern=flags.train_file_pattern), read("dev", pattern=flags.val_file_pattern)


def describe(
    flags: Flags, pairs: TextPairs, facts: dict[str, Any] | None, resumed: bool = False
) -> tuple[Translator, dict[str, np.ndarray] | None]:
    """The translator of the run that goes on, of Programs from files, or that the flags and the data describe; and the
    weights to start from, if any."""
    if resumed or (facts is not None and flags.pretrained_model is None):
        assert facts is not None
        return Translator.from_facts(facts["translator"]), None
    if flags.pretrained_model is not None:
        names = {item.name for item in fields(NetworkFlags)} - {"checkpoint", "newest", "norm"}
        norm = flags.norm if "norm" in configuration.named(flags) else None
        opened = open_translator(NetworkFlags(norm=norm, **{name: getattr(flags, name) for name in names}))
        if facts is not None:
            translator = Translator.from_facts(facts["translator"])
        else:
            refuse_idle_flags(flags, opened.facts)
            rate = opened.facts.config.dropout if flags.dropout is None else flags.dropout
            config = dataclasses.replace(opened.facts.config, dropout=rate)
            corpora = (*opened.facts.corpora, fingerprint_of(pairs))
            translator = dataclasses.replace(opened.facts, config=config, corpora=corpora)
        return translator, with_other_dropout(opened.state, opened.facts.config, translator.config.dropout)
    source, target = vocabularies(flags, pairs)
    sizes = SIZES[flags.model] | {
        name: getattr(flags, name)
        for name in ("n_layer", "n_decoder_layer", "n_head", "d_model", "d_inner_hid", "dropout")
        if getattr(flags, name) is not None
    }
    config = Transformer(
        src_vocab_size=source.size,
        trg_vocab_size=target.size,
        max_length=flags.max_length,
        norm=flags.norm,
        weight_sharing=flags.weight_sharing,
        **sizes,
    )
    return Translator(config, source, target, flags.languages, (fingerprint_of(pairs),)), None


def with_other_dropout(state: dict[str, np.ndarray], config: Transformer, rate: float) -> dict[str, np.ndarray]:
    """Weights of the network `config` for training it with this rate of dropout."""
    if rate == config.dropout:
        return state
    # Its module needs Paddle, and running Programs from files does not.
    from neural_machine_translation.model import with_dropout

    return with_dropout(state, config, rate)


def refuse_idle_flags(flags: Flags, translator: Translator) -> None:
    """Raise UserError for flags of another network than that of --pretrained_model, which they cannot change."""
    config = {name: value for name, value in dataclasses.asdict(translator.config).items() if name != "dropout"}
    decided = {
        **config,
        "n_decoder_layer": translator.config.decoder_depth,
        "vocab_size": translator.source.size,
        "languages": translator.languages,
    }
    if any(config[name] != size for name, size in SIZES[flags.model].items() if name in config):
        decided["model"] = "another"
    named = [name for name in NETWORK_FLAGS if name in configuration.named(flags)]
    if idle := [name for name in named if name in decided and decided[name] != getattr(flags, name)]:
        shown = "; ".join(f"--{name} {getattr(flags, name)} (it has {decided[name]})" for name in idle)
        raise UserError(f"--pretrained_model {flags.pretrained_model} decides the network; leave out {shown}")


def vocabularies(flags: Flags, pairs: TextPairs) -> tuple[Vocabulary, Vocabulary]:
    """Vocabularies of source and target: of digits, read from files, or one trained on both sides of the training pairs."""
    if flags.digit_copy:
        digits = WordList((*SPECIAL_WORDS, *"0123456789"))
        return digits, digits
    files = flags.src_vocab_fpath, flags.trg_vocab_fpath
    if (read := read_vocabularies(*files, flags.special_token, flags.languages[1])) is not None:
        return read
    texts = [*pairs.sources, *pairs.targets]
    if not any(texts):
        raise DataError(f"{', '.join(pairs.files)}: no sentence to learn from")
    shared = train_sentencepiece(texts, flags.vocab_size)
    return shared, shared


def sources(
    flags: Flags, translator: Translator, train_pairs: TextPairs, dev_pairs: TextPairs
) -> tuple[PairSource, PairSource]:
    """Training and dev pairs as word indices."""
    source, target, longest = translator.source, translator.target, translator.config.max_length
    cuts: Sequence[Sequence[Words]] = ()
    if flags.bpe_dropout:
        cuts = random_cuts(train_pairs, source, target, dropout=flags.bpe_dropout, number=flags.bpe_cuts)
    training = PairSource(
        train_pairs,
        source,
        target,
        max_length=longest,
        batch_size=flags.batch_size,
        use_token_batch=flags.use_token_batch,
        cuts=cuts,
    )
    return training, PairSource(
        dev_pairs,
        source,
        target,
        max_length=longest,
        batch_size=flags.test_batch_size,
        use_token_batch=False,
        strict=True,
    )


def evaluation_programs(flags: Flags, config: Transformer) -> dict[str, Interface]:
    """The Programs of evaluations by role, built with Paddle."""
    from neural_machine_translation import building

    return {**building.evaluation_programs(flags, config)}


def length_of(settled: Settled[Flags], source: PairSource) -> Length:
    """Updates of the run; their number depends on what the sentences of a batch are a multiple of."""
    flags = settled.flags
    batches = len(source.buckets.training_plan(seed=flags.seed)(0))
    return settled.length(batches, flags.num_epochs, batch_size=flags.batch_size, accumulate=flags.accumulate_batches)


def sentences_in_multiples_of(devices: int, resumed: Meta | None) -> tuple[int, bool]:
    """What the sentences of a batch are a multiple of, and whether that changes the batches of a resumed run.

    A run keeps its batches wherever it is continued, if the devices there can share them.
    """
    kept = devices if resumed is None else resumed.extra.get(MULTIPLE, 1)
    return (devices, True) if kept % devices else (kept, False)


def updating_programs(flags: Flags, config: Transformer, steps_per_epoch: int) -> dict[str, Interface]:
    """The training Programs by role, built with Paddle."""
    from neural_machine_translation import building

    rate = schedule(
        flags,
        steps_per_epoch=steps_per_epoch,
        num_epochs=flags.num_epochs,
        warmup_steps=WARMUP_STEPS,
        width=config.d_model,
    )
    return {**building.updating_programs(flags, config, rate)}


def fingerprint_of(pairs: TextPairs) -> str:
    """A fingerprint of the sentences."""
    return fingerprint(pairs.sources, pairs.targets)


def announce(
    run: Run, flags: Flags, translator: Translator, source: PairSource, dev_pairs: TextPairs, parameters: int
) -> None:
    """Say what is trained on what, and which lines are left out."""
    config = translator.config
    run.say(
        f"Transformer {flags.model}, {config.n_layer} + {config.decoder_depth} layers of width {config.d_model}, "
        f"{parameters:,} parameters, vocabulary {config.src_vocab_size}"
        + ("" if config.weight_sharing else f" and {config.trg_vocab_size}")
    )
    run.say(
        f"{number_of(len(source), 'training pair')}, {number_of(source.target_words, 'target word')}, {number_of(len(dev_pairs), 'dev pair')}"
    )
    if source.left_out:
        shown = "".join(f"\n  {message}" for message in source.left_out[:MESSAGES_SHOWN])
        run.say(
            f"left out: {number_of(len(source.left_out), 'training pair')}{shown}{' ...' if source.left_out[MESSAGES_SHOWN:] else ''}"
        )
        for message in source.left_out[MESSAGES_SHOWN:]:
            run.note(f"left out: {message}")


def training_plan(flags: Flags, source: PairSource) -> Plan:
    """How the pairs are divided into batches."""
    plan = source.buckets.training_plan(
        seed=flags.seed,
        pool_size=sorted_together(flags.sort_type, flags.pool_size, len(source)),
        shuffle=flags.shuffle,
        shuffle_batches=flags.shuffle_batch,
    )
    return cut_in_turn(plan, source.cuts)


class Evaluator:
    """Dev perplexity and BLEU of the weights in training, or of their averages; keeps the last translations to show."""

    def __init__(
        self,
        engine: Engine,
        update: Interface,
        programs: Mapping[str, Interface],
        translator: Translator,
        pairs: TextPairs,
        source: PairSource,
        flags: Flags,
    ):
        self.engine, self.programs, self.translator = engine, programs, translator
        self.pairs, self.source, self.flags = pairs, source, flags
        names = {name for role in ("eval", "search", "score") for name in programs[role].state_names}
        self.weights = MeasuredWeights(engine, update, names, flags)
        self.hypotheses: list[list[Hypothesis]] = []

    def __call__(self) -> dict[str, float]:
        """`loss` (nats a word), `ppl`, `bleu` and `chrf`."""
        engine = self.weights.engine()
        rows = engine.shared_rows(self.flags.test_batch_size)
        plan = self.source.buckets.evaluation_plan(rows)
        if not self.hypotheses:
            compile_ahead(engine, (self.programs["eval"], self.programs["search"]), self.source.buckets, rows)
        perplexity = measure(engine, self.programs["eval"], self.source, Perplexity(), batch_size=rows, plan=plan)
        self.hypotheses = translate(
            runner(engine, self.programs["search"]), self.translator, self.pairs.sources, batch_size=rows
        )
        references = [self.translator.target.plain(text) for text in self.pairs.targets]
        measured = quality([best[0].text for best in self.hypotheses], references)
        return {**perplexity.result(), "bleu": measured.bleu, "chrf": measured.chrf}


def finish(run: Run, outcome: Outcome, evaluator: Evaluator) -> None:
    """Draw the run's pictures, show some translations, and print the summary."""
    folder, pairs, translator = run.output_dir, evaluator.pairs, evaluator.translator
    drawn = [draw_curves(folder / "curves.png", pictures.CURVES, events(folder, "train"), events(folder, "eval"))]
    shown = Table(title="translations of dev sentences", show_lines=True)
    for column in ("source", "translation", "reference"):
        shown.add_column(column, overflow="fold")
    count = min(5, len(pairs)) if evaluator.hypotheses else 0
    numbers = np.linspace(0, len(pairs) - 1, count).astype(int).tolist()
    for number in numbers:
        shown.add_row(pairs.sources[number], evaluator.hypotheses[number][0].text, pairs.targets[number])
    show(shown)
    if len(numbers) and evaluator.engine.num_hosts > 1:
        run.say("attention maps need one process: infer.py --attention_dir draws them")
    elif len(numbers):
        best = [evaluator.hypotheses[number][0] for number in numbers[:3]]
        texts = [pairs.sources[number] for number in numbers[:3]]
        engine = evaluator.weights.engine()
        drawn += draw_attentions(folder, engine, evaluator.programs["score"], translator, texts, best)
    names = {"BLEU": "bleu", "chrF": "chrf", "perplexity": "ppl"}
    show_summary(f"{number_of(len(pairs), 'dev pair')}", outcome.summary("pairs", names, digits=2))
    run.say_left(drawn)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, with_pairs(), aliases=ALIASES, retired=RETIRED)))
