"""Translate.

python infer.py "Where is the train station?"          a sentence
python infer.py letters/ notes.txt                     files and folders of *.txt, a sentence a line
cat notes.txt | python infer.py -                      standard input
python infer.py --interactive                          line by line, answered at once
python infer.py --feed in.npz --fetch out.npz          src_word, trg_word [N, T] int64 -> logits [N, T, V]
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import ArrayFlags, Count, ExportedFlags, Natural, Positive
from fluid.errors import UserError
from fluid.interface import Interface
from fluid.records import json_lines, make_folder
from fluid.run import console, script
from fluid.runner import Runner, run_arrays
from neural_machine_translation.options import ALIASES, RETIRED, SEARCH, ModelFlags, with_pairs
from neural_machine_translation.reader import EMBEDDED, input_lines, read_tsv
from neural_machine_translation.scoring import draw_attentions, has_text, open_model
from neural_machine_translation.shipped import made_of_search
from neural_machine_translation.translate import Hypothesis, Run, runner, translate
from neural_machine_translation.translator import Transformer, Translator

import numpy as np
import tyro


@dataclass
class Flags(ModelFlags, ArrayFlags, ExportedFlags):
    """Translate."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Sentences, files, folders, patterns, @LIST of files, or - for standard input; by default some everyday sentences."""
    test_file_pattern: str | None = None
    """Files of pairs (source, tab, target), of which the sources are translated, as in 2018."""
    n_best: Count = 1
    """Translations of each sentence, with their scores."""
    sampling: bool = False
    """Draw translations at random instead of searching for the most probable one."""
    temperature: Positive = 1.0
    """sampling: below 1 prefers the probable words, above 1 the others."""
    top_k: Natural = 0
    """sampling: draw from the most probable words alone; 0 draws from all."""
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


def main(flags: Flags) -> list[list[Hypothesis]]:
    """Translate as `flags` say; returns the hypotheses of each sentence."""
    arrays = flags.arrays()
    if arrays is not None:
        opened = open_model(flags)
        run_arrays(
            Runner(opened, flags),
            lambda: build_program("score", opened.facts.config, flags),
            *arrays,
            role="score",
            check=lambda feed: check_words(feed, opened.facts),
        )
        return []
    if flags.interactive:
        translator, run, _ = open_search(flags, None)
        answer_lines(flags, translator, run)
        return []
    lines = list(lines_to_translate(flags))
    places, texts = [place for place, _ in lines], [text for _, text in lines]
    copies = flags.n_best if flags.sampling else 1
    translator, run, own = open_search(flags, len(lines) * copies)

    def warn(index: int, message: str) -> None:
        print(f"warning: {places[index]}: {message}", file=sys.stderr)

    copied = [text for text in texts for _ in range(copies)]
    with json_lines(flags.output_file) as write:
        found = translate(run, translator, copied, batch_size=rows_for(flags, copied), warn=warn)
        results = [sum(found[first : first + copies], []) for first in range(0, len(found), copies)]
        results = [
            sorted(some, key=lambda item: -item.score)[: flags.n_best] if copies > 1 else some[: flags.n_best]
            for some in results
        ]
        for place, text, hypotheses in zip(places, texts, results, strict=True):
            show(text, hypotheses, flags)
            write(to_record(place, text, hypotheses))
    if flags.attention_dir is not None:
        best = [hypotheses[0] for hypotheses in results]
        program = own.program("score", lambda: build_program("score", translator.config, flags))
        for path in draw_attentions(make_folder(flags.attention_dir), own.engine, program, translator, texts, best):
            console.print(str(path), markup=False)
    return results


def rows_for(flags: Flags, sentences: list[str]) -> int:
    """Sentences in a batch: no more than there are."""
    return max(1, min(flags.test_batch_size, len(sentences)))


def open_search(flags: Flags, sentences: int | None) -> tuple[Translator, Run, Runner]:
    """The translator, what runs its search, and what runs its other Programs.

    `sentences` is how many are to be translated, None if nobody knows.
    """
    opened = open_model(flags, say=to_stderr)
    flags, translator, model = opened.settle(flags, *SEARCH), opened.facts, opened.exported
    if not flags.sampling and flags.n_best > flags.beam_size:
        raise UserError(f"--n_best {flags.n_best} must be between 1 and --beam_size {flags.beam_size}")
    if model is not None:
        if model.facts.get("what") != "search":
            raise UserError(f"{flags.exported_model} was exported for scoring; translate with one of --what search")
        if flags.sampling:
            raise UserError("--sampling needs a checkpoint; the exported model is a beam search")
        if flags.attention_dir is not None:
            raise UserError("--attention_dir needs a checkpoint: an exported search does not tell where it looked")
    elif not has_text(translator):
        raise UserError("give the vocabulary of these weights: --src_vocab_fpath, --trg_vocab_fpath")
    own = Runner(opened, flags, runs=sentences)
    role = "sample" if flags.sampling else "search"
    made_of = made_of_search(translator.config, flags) if role == "search" else None
    program = own.program(role, lambda: build_program(role, translator.config, flags), made_of)
    return translator, runner(own.engine, program), own


def build_program(role: str, config: Transformer, flags: Flags) -> Interface:
    """The Program that translates, `search` or `sample`, or the one for raw arrays, `score`; built with Paddle."""
    from neural_machine_translation.network import sampling_program, scoring_program, search_program

    if role == "score":
        return scoring_program(config)
    if role == "search":
        return search_program(config, flags.search())
    options = {"temperature": flags.temperature, "top_k": flags.top_k}
    return sampling_program(config, max_out_len=flags.max_out_len, **options)


def to_stderr(line: str) -> None:
    """Print a line that is no translation."""
    print(line, file=sys.stderr)


def lines_to_translate(flags: Flags) -> Iterator[tuple[str, str]]:
    """(place, sentence) of everything to translate."""
    if flags.test_file_pattern is not None:
        pairs = read_tsv(flags.test_file_pattern)
        yield from ((pairs.where(index), source) for index, source in enumerate(pairs.sources))
    yield from input_lines(flags.inputs)
    if not flags.inputs and flags.test_file_pattern is None:
        everyday = read_tsv(EMBEDDED / "everyday.tsv")
        yield from ((everyday.where(index), everyday.sources[index]) for index in range(0, len(everyday), 10))


def answer_lines(flags: Flags, translator: Translator, run: Run) -> None:
    """Translate standard input line by line until it ends."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        print(prompt, end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        warn = lambda index, message: print(f"warning: {message}", file=sys.stderr)  # noqa: E731
        hypotheses = translate(run, translator, [line.strip()], batch_size=1, warn=warn)[0]
        show(None, hypotheses[: flags.n_best], flags)
        sys.stdout.flush()


def show(text: str | None, hypotheses: list[Hypothesis], flags: Flags) -> None:
    """Print the translations of one sentence: the text alone, or with scores if several were asked for."""
    if flags.n_best == 1:
        print(hypotheses[0].text)
        return
    if text is not None:
        print(text)
    for hypothesis in hypotheses:
        print(f"{hypothesis.score:9.4f}  {hypothesis.text}")


def to_record(place: str, text: str, hypotheses: list[Hypothesis]) -> dict[str, Any]:
    """A line of --output_file."""
    translations = [{"text": item.text, "score": item.score, "complete": item.complete} for item in hypotheses]
    return {"place": place, "source": text, "translations": translations}


def check_words(feed: Mapping[str, np.ndarray], translator: Translator) -> None:
    """Raise UserError unless the arrays are word indices of this network's vocabularies."""
    config = translator.config
    sizes = {"src_word": config.src_vocab_size, "trg_word": config.trg_vocab_size}
    for name, array in feed.items():
        if not array.size:
            raise UserError(f"--feed: {name} is empty")
        if array.min() < 0 or array.max() >= sizes[name]:
            raise UserError(f"{name} holds {array.max()}; the vocabulary has the words 0 to {sizes[name] - 1}")
        if array.shape[1] > config.max_length:
            raise UserError(f"{name} holds sentences of {array.shape[1]} words; the network takes {config.max_length}")


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, with_pairs(), aliases=ALIASES, retired=RETIRED)))
