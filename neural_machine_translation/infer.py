"""Translate.

python infer.py "Where is the train station?"          a sentence
python infer.py letters/ notes.txt                     files and folders of *.txt, a sentence a line
cat notes.txt | python infer.py -                      standard input
python infer.py --interactive                          line by line, answered at once
python infer.py --feed in.npz --fetch out.npz          src_word, trg_word [N, T] int64 -> logits [N, T, V]
"""

import itertools
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import ArrayFlags, Count, ExportedFlags, Natural, Positive
from fluid.errors import UserError
from fluid.interface import Interface
from fluid.records import json_lines, make_folder
from fluid.run import script
from fluid.runner import Runner, run_arrays
from fluid.text import decoded_lines, number_of
from fluid.weights import Opened
from neural_machine_translation.guided import begun_lines, read_glossary, with_copies, with_terms
from neural_machine_translation.lines import Line, Rules, Search, translate_lines
from neural_machine_translation.opening import open_together, open_translator, refuse_nameless
from neural_machine_translation.options import ALIASES, RETIRED, SEARCH, ModelFlags, with_pairs
from neural_machine_translation.reader import EMBEDDED, input_lines, numbered, read_tsv
from neural_machine_translation.scoring import draw_attentions
from neural_machine_translation.shipped import made_of_search
from neural_machine_translation.translate import Hypothesis, runner, translate
from neural_machine_translation.translator import Transformer, Translator
from neural_machine_translation.vocabulary import SentencePiece

import numpy as np
import tyro

BATCHES_AHEAD = 8
"""So many batches of lines are read, and written, together: among them sentences of similar length share a batch."""
CUT = " […]"
"""Behind a translation that reached --max_out_len."""


@dataclass
class Flags(ModelFlags, ArrayFlags, ExportedFlags):
    """Translate."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Sentences, files, folders, patterns, @LIST of files, or - for standard input; by default some everyday sentences."""
    test_file_pattern: str | None = None
    """Files of pairs (source, tab, target), of which the sources are translated, as in 2018."""
    n_best: Count = 1
    """Translations of each line: always so many, a line each: number, rank, score and text, with tabs between."""
    sampling: bool = False
    """Draw translations at random instead of searching for the most probable one."""
    temperature: Positive = 1.0
    """sampling: below 1 prefers the probable words, above 1 the others."""
    top_k: Natural = 0
    """sampling: draw from the most probable words alone; 0 draws from all."""
    split_over: Natural = 1
    """Lines of more words (pieces of the vocabulary) are translated sentence by sentence; 0: as long as the network takes."""
    keep_markup: bool = True
    """Carry markup, places for values, addresses, options and numbers over as they are (text of sentencepiece)."""
    prefix: bool = False
    """Lines are a sentence, a tab and how its translation begins."""
    terms: Path | None = None
    """A glossary, lines of term, tab and what it must be called: where a term occurs, the translation holds that."""
    replace_unknown: bool = False
    """Copy the word that the network looked at most where it writes the unknown one."""
    interactive: bool = False
    """Translate standard input line by line, answering each at once."""
    output_file: Path | None = None
    """File for JSON lines: place, source, translations with scores."""
    attention_dir: Path | None = None
    """Draw there where the decoder looked, a picture for each sentence."""
    feed: Path | None = None
    """Raw inputs: an .npz for forced scoring, src_word [N, S] and trg_word [N, T] int64, padded with 1."""
    fetch: Path | None = None
    """Raw outputs: the .npz to write, with logits [N, T, V]."""


def main(flags: Flags) -> int:
    """Translate as `flags` say; returns how many lines were translated."""
    arrays = flags.arrays()
    if arrays is not None:
        opened = open_translator(flags)
        run_arrays(
            Runner(opened, flags),
            lambda: build_program("score", opened.facts, flags),
            *arrays,
            role="score",
            check=lambda feed: check_words(feed, opened.facts),
        )
        return 0
    count = 0
    with json_lines(flags.output_file) as write:
        for count, line in enumerate(translated(flags), 1):
            show(line, count, flags)
            write(to_record(line))
    return count


def translated(flags: Flags) -> Iterator[Line]:
    """Each line that `flags` ask for, translated, in order and as they come; draws where the decoder looked."""
    window = 1 if flags.interactive else BATCHES_AHEAD * flags.test_batch_size
    lines, known = counted(lines_to_translate(flags), window)
    translator, own, search = open_search(flags, known)
    looks = flags.attention_dir is not None or flags.replace_unknown
    score = own.program("score", lambda: build_program("score", translator, flags)) if looks else None
    if score is not None and flags.replace_unknown:
        search = with_copies(search, own.engine, score, translator)
    drawn, started = 0, time.monotonic()
    found = translate_lines(
        lines, search, rules(flags, translator), window=window, n_best=flags.n_best, drawn=flags.sampling
    )
    for count, line in enumerate(found, 1):
        yield line
        if score is not None and flags.attention_dir is not None and line.sentences:
            texts, best = zip(*line.sentences, strict=True)
            folder = make_folder(flags.attention_dir)
            drawn += len(draw_attentions(folder, own.engine, score, translator, texts, best, after=drawn))
        if known is None and not flags.interactive and count % window == 0:
            to_stderr(f"{count:,} lines, {count / (time.monotonic() - started):.1f} a second")
    if drawn:
        to_stderr(f"{number_of(drawn, 'attention map')} in {flags.attention_dir}")


def counted(lines: Iterator[tuple[str, str]], window: int) -> tuple[Iterator[tuple[str, str]], int | None]:
    """The lines, and how many they are; None if a `window` of them is not all."""
    first = list(itertools.islice(lines, window))
    return itertools.chain(first, lines), len(first) if len(first) < window else None


def rules(flags: Flags, translator: Translator) -> Rules:
    """What is done with lines before and after the network; those with a beginning are translated as they are."""
    return Rules(
        words_of=lambda text: len(translator.source.encode(text)),
        room=sys.maxsize if flags.prefix else translator.config.max_length - 2,
        split_over=0 if flags.prefix else flags.split_over,
        keep_markup=flags.keep_markup and isinstance(translator.source, SentencePiece) and not flags.prefix,
        warn=lambda message: to_stderr(f"warning: {message}"),
    )


def open_search(flags: Flags, lines: int | None) -> tuple[Translator, Runner, Search]:
    """The translator, what runs its Programs, and what searches, or draws, translations of sentences.

    `lines` is how many are to be translated, None if nobody knows.
    """
    opened, others = open_together(flags, say=to_stderr)
    flags, translator = opened.settle(flags, *SEARCH), opened.facts
    check_search(flags, opened)
    glossary = None if flags.terms is None else read_glossary(flags.terms)
    copies = flags.n_best if flags.sampling else 1
    sentences = None if lines is None else lines * copies
    own = Runner(opened, flags, runs=sentences)
    role, begun = "sample" if flags.sampling else "search", flags.prefix or flags.terms is not None
    made_of = made_of_search(translator.config, flags) if role == "search" and not (begun or others) else None
    program = own.program(role, lambda: build_program(role, translator, flags, others), made_of)
    rows = flags.test_batch_size if sentences is None else max(1, min(flags.test_batch_size, sentences))
    batch_size = 1 if flags.interactive else rows
    run = partial(translate, runner(own.engine, program), translator, batch_size=batch_size)
    if flags.sampling:
        return translator, own, partial(draws, run, copies)
    if not begun:
        return translator, own, run

    def from_beginnings(texts: Sequence[str], beginnings: Sequence[Sequence[int]]) -> list[list[Hypothesis]]:
        def warn(index: int, message: str) -> None:
            # Lines without a beginning are split, and told of there.
            if flags.prefix:
                to_stderr(f"warning: {texts[index][:60]!r}: {message}")

        return run(texts, beginnings=beginnings, warn=warn)

    if glossary is not None:
        return translator, own, with_terms(from_beginnings, translator, glossary)
    return translator, own, begun_lines(from_beginnings, translator)


def check_search(flags: Flags, opened: Opened[Translator]) -> None:
    """Raise UserError for flags that contradict each other, or that the model cannot honour."""
    model = opened.exported
    if not flags.sampling and flags.n_best > flags.beam_size:
        raise UserError(f"--n_best {flags.n_best} must be between 1 and --beam_size {flags.beam_size}")
    if flags.prefix and flags.terms is not None:
        raise UserError("--prefix and --terms each say what a translation holds; give one of them")
    for name in ("prefix", "terms", "ensemble"):
        if flags.sampling and getattr(flags, name):
            raise UserError(f"--{name} is about searching; leave out --sampling")
        if (model is not None or opened.captured is not None) and getattr(flags, name):
            raise UserError(f"--{name} needs a checkpoint or weights: this search was written without it")
    if model is not None:
        if model.facts.get("what") != "search":
            raise UserError(f"{flags.exported_model} was exported for scoring; translate with one of --what search")
        if flags.sampling:
            raise UserError("--sampling needs a checkpoint; the exported model is a beam search")
        if flags.attention_dir is not None or flags.replace_unknown:
            name = "replace_unknown" if flags.replace_unknown else "attention_dir"
            raise UserError(f"--{name} needs a checkpoint: an exported search does not tell where it looked")
    refuse_nameless(opened)


def draws(run: Search, copies: int, sentences: Sequence[str]) -> list[list[Hypothesis]]:
    """So many random translations of each sentence, the most probable first."""
    drawn = iter(run([sentence for sentence in sentences for _ in range(copies)]))
    return [
        sorted(
            (hypothesis for some in itertools.islice(drawn, copies) for hypothesis in some),
            key=lambda item: -item.score,
        )
        for _ in sentences
    ]


def build_program(role: str, translator: Translator, flags: Flags, others: Sequence[Transformer] = ()) -> Interface:
    """The Program that translates, `search` or `sample`, or the one for raw arrays, `score`; built with Paddle."""
    from neural_machine_translation.network import sampling_program, scoring_program, search_program

    if role == "score":
        return scoring_program(translator.config)
    if role == "search":
        begun = flags.prefix or flags.terms is not None
        return search_program(translator.config, flags.search(), others=others, begun=begun)
    return sampling_program(
        translator.config,
        max_out_len=flags.max_out_len,
        temperature=flags.temperature,
        top_k=flags.top_k,
        forbidden=translator.target.unspeakable,
    )


def to_stderr(line: str) -> None:
    """Print a line that is no translation."""
    print(line, file=sys.stderr)


def lines_to_translate(flags: Flags) -> Iterator[tuple[str, str]]:
    """(place, line) of everything to translate. Raises UserError for flags that contradict each other."""
    if flags.interactive:
        if flags.inputs or flags.test_file_pattern is not None:
            raise UserError("--interactive translates standard input; leave out the sentences and files")
        yield from asked_lines()
        return
    if flags.test_file_pattern is not None:
        pairs = read_tsv(flags.test_file_pattern)
        yield from ((pairs.where(index), source) for index, source in enumerate(pairs.sources))
    yield from input_lines(flags.inputs)
    if not flags.inputs and flags.test_file_pattern is None:
        everyday = read_tsv(EMBEDDED / "everyday.tsv")
        yield from ((everyday.where(index), everyday.sources[index]) for index in range(0, len(everyday), 10))


def asked_lines() -> Iterator[tuple[str, str]]:
    """Lines of standard input, each asked for when the one before has been answered. Raises DataError for what is no text."""
    prompt = "> " if sys.stdin.isatty() else ""

    def answers() -> Iterator[bytes]:
        while True:
            print(prompt, end="", flush=True)
            line = sys.stdin.buffer.readline()
            if not line:
                return
            yield line

    yield from numbered("standard input", decoded_lines(answers(), "standard input"))


def show(line: Line, number: int, flags: Flags) -> None:
    """Print the translation of a line; of several asked for, always so many lines: number, rank, score and text in columns."""
    texts = [f"{item.text}{'' if item.complete else CUT}" for item in line.hypotheses]
    if flags.n_best == 1:
        print(texts[0], flush=True)
        return
    scores = [item.score for item in line.hypotheses]
    missing = flags.n_best - len(texts)
    ranked = zip(scores + [-math.inf] * missing, texts + [""] * missing, strict=True)
    for rank, (score, text) in enumerate(ranked, 1):
        print(number, rank, f"{score:.4f}", text, sep="\t", flush=True)


def to_record(line: Line) -> dict[str, Any]:
    """A line of --output_file."""
    translations = [{"text": item.text, "score": item.score, "complete": item.complete} for item in line.hypotheses]
    return {"place": line.place, "source": line.text, "translations": translations}


def check_words(feed: Mapping[str, np.ndarray], translator: Translator) -> None:
    """Raise UserError unless the arrays are word indices of this network's vocabularies."""
    config = translator.config
    sizes = {"src_word": config.src_vocab_size, "trg_word": config.trg_vocab_size}
    for name, array in feed.items():
        if not array.size:
            raise UserError(f"--feed: {name} is empty")
        outside = array[(array < 0) | (array >= sizes[name])]
        if outside.size:
            raise UserError(f"--feed: {name} holds {outside[0]}; the vocabulary has the words 0 to {sizes[name] - 1}")
        if array.shape[1] > (longest := config.max_length):
            raise UserError(f"--feed: {name} holds sentences of {array.shape[1]} words; the network takes {longest}")


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, with_pairs(), aliases=ALIASES, retired=RETIRED)))
