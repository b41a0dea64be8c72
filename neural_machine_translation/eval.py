"""Measure translations of a test set: BLEU and chrF with their signatures, and perplexity.

python eval.py                                             the shipped model on the embedded test sentences
python eval.py --checkpoint output --data_dir corpora      a trained model on PART.tsv of a data set
python eval.py --test_file_pattern newstest.tsv --pretrained_model transformer_base --trg_vocab_fpath vocab.bpe.32000
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import files
from fluid.config import ResultFlags, Was
from fluid.interface import Interface
from fluid.metrics import measure
from fluid.records import say_measured, write_result
from fluid.run import console, script
from fluid.runner import Runner
from fluid.text import number_of
from neural_machine_translation.metrics import Perplexity, Quality, quality
from neural_machine_translation.opening import open_together, refuse_nameless
from neural_machine_translation.options import ALIASES, RETIRED, SEARCH, ModelFlags, with_pairs
from neural_machine_translation.reader import PairSource, TextPairs, open_pairs
from neural_machine_translation.translate import compile_ahead, runner, translate
from neural_machine_translation.translator import Transformer, Translator


@dataclass
class Flags(ModelFlags, ResultFlags):
    """Measure translations of a test set."""

    data_dir: Path | None = None
    """Folder with PART.tsv (source, tab, target) or PART.en and PART.de; by default the embedded sentences."""
    split: Annotated[Literal["test", "val", "dev", "train"], Was("part")] = "test"
    """Which part of the data; val and dev are the same."""
    test_file_pattern: str | None = None
    """Files of pairs (source, tab, target) instead of data_dir."""
    tokenize: Literal["13a", "intl", "char", "none"] = "13a"
    """sacreBLEU's tokeniser."""
    lowercase: bool = False
    """Compare without case."""
    output_file: Path | None = None
    """File for the translations, one a line."""


def main(flags: Flags) -> Quality:
    """Evaluate as `flags` say, print the result and return it."""
    began = time.perf_counter()
    opened, others = open_together(flags)
    flags, translator = opened.settle(flags, *SEARCH), opened.facts
    refuse_nameless(opened)
    pairs = open_pairs(
        "dev" if flags.split == "val" else flags.split,
        data_dir=flags.data_dir,
        pattern=flags.test_file_pattern,
        languages=translator.languages,
    )
    own = Runner(opened, flags, runs=len(pairs))
    search = own.program("search", lambda: build_program("search", translator.config, flags, others))
    console.print(f"{own.how}; {number_of(len(pairs), 'pair')} of {', '.join(pairs.files)}")
    rows = own.engine.shared_rows(flags.test_batch_size)
    perplexity = measure_perplexity(own, search, rows, translator, pairs, flags)
    found = translate(runner(own.engine, search), translator, pairs.sources, batch_size=rows)
    hypotheses = [best[0].text for best in found]
    references = [translator.target.plain(text) for text in pairs.targets]
    measured = quality(hypotheses, references, tokenize=flags.tokenize, lowercase=flags.lowercase)
    result = replace(measured, loss=perplexity.loss)
    cut_off = sum(not best[0].complete for best in found)
    if cut_off:
        console.print(f"cut off at --max_out_len: {number_of(cut_off, 'translation')}")
    of_first = " of the first network" if others else ""
    console.print(
        f"perplexity{of_first} {perplexity.value:.3f} ({perplexity.loss:.4f} nats a word, {perplexity.words} words)"
    )
    console.print(f"chrF {result.chrf:.2f}  {result.chrf_signature}|{flags.signature}")
    console.print(f"BLEU {result.bleu:.2f}  {result.bleu_signature}|{flags.signature}")
    seconds = say_measured(len(pairs), "pair", began)
    if flags.output_file is not None:
        with files.whole(flags.output_file) as unfinished:
            unfinished.write_text("".join(f"{text}\n" for text in hypotheses), encoding="utf-8")
    if flags.output_dir is not None:
        figures = {**perplexity.result(), "bleu": result.bleu, "chrf": result.chrf}
        weights, data = opened.source, ", ".join(pairs.files)
        write_result(flags.output_dir, figures, weights=weights, data=data, samples=len(pairs), seconds=seconds)
    return result


def measure_perplexity(
    own: Runner, search: Interface, rows: int, translator: Translator, pairs: TextPairs, flags: Flags
) -> Perplexity:
    """Of the references, `rows` of them in a batch; what that takes is compiled together with the `search` that follows."""
    source = PairSource(
        pairs,
        translator.source,
        translator.target,
        max_length=translator.config.max_length,
        batch_size=flags.test_batch_size,
        use_token_batch=False,
        strict=True,
    )
    program = own.program("eval", lambda: build_program("eval", translator.config, flags))
    plan = source.buckets.evaluation_plan(rows)
    compile_ahead(own.engine, (program, search), source.buckets, rows)
    return measure(own.engine, program, source, Perplexity(), batch_size=rows, plan=plan)


def build_program(role: str, config: Transformer, flags: Flags, others: Sequence[Transformer] = ()) -> Interface:
    """The Program for perplexity, `eval`, or for translations, `search`; built with Paddle."""
    from neural_machine_translation.network import evaluation_program, search_program

    return evaluation_program(config) if role == "eval" else search_program(config, flags.search(), others=others)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, with_pairs(), aliases=ALIASES, retired=RETIRED)))
