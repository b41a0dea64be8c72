"""Write a model for deployment: a Paddle inference model of the whole beam search or of forced scoring, or one for CTranslate2.

python export.py --checkpoint output --export_dir exported
python infer.py --exported_model exported "Where is the manual?"
python export.py --format ctranslate2 --storage int8
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import engine as engines
from fluid.config import BatchFlags, ExportFlags
from fluid.deployment import deploy
from fluid.errors import UserError
from fluid.program import Program
from fluid.run import console, script
from fluid.weights import Opened
from fluid.weights.opening import SETTINGS
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.metrics import quality
from neural_machine_translation.network import scoring_program, search_program
from neural_machine_translation.opening import has_text, open_translator
from neural_machine_translation.options import ALIASES, RETIRED, SEARCH, NetworkFlags, SearchFlags, with_pairs
from neural_machine_translation.reader import open_pairs
from neural_machine_translation.translate import runner, translate
from neural_machine_translation.translator import TASK, Translator

import numpy as np


@dataclass
class Flags(NetworkFlags, SearchFlags, BatchFlags, ExportFlags):
    """Write a model for deployment."""

    format: Literal["paddle", "ctranslate2"] = "paddle"
    """paddle: a Paddle inference model, with --onnx for ONNX Runtime too. ctranslate2: a folder that CTranslate2 loads."""
    data_dir: Path | None = None
    """Data set on whose test part --storage is measured; by default the embedded sentences."""
    what: Literal["search", "scoring"] = "search"
    """search: input src_word, outputs ids and scores. scoring: inputs src_word and trg_word, output logits."""


def main(flags: Flags) -> Path:
    """Export as `flags` say; returns the folder."""
    opened = open_translator(flags)
    translator = opened.facts
    if flags.format == "ctranslate2":
        return to_ctranslate2(opened, flags)
    search = flags.search()
    program = (
        search_program(translator.config, search) if flags.what == "search" else scoring_program(translator.config)
    )
    return deploy(
        opened,
        program,
        flags,
        lambda state: bleu(translator, state, flags),
        task=TASK,
        facts={"translator": translator.to_facts()},
        of_the_model={"what": flags.what, SETTINGS: {name: getattr(flags, name) for name in SEARCH}},
        examples=[example(program, translator, rows) for rows in (1, 3)],
    )


def to_ctranslate2(opened: Opened[Translator], flags: Flags) -> Path:
    """Write a model for CTranslate2, and say what was written.

    Raises UserError for flags that it cannot hold, and as `for_ctranslate2.write`.
    """
    from neural_machine_translation import for_ctranslate2

    if idle := [f"--{name}" for name in ("what", "onnx", "data_dir", *SEARCH) if name in configuration.named(flags)]:
        raise UserError(
            f"a model for CTranslate2 does not hold {', '.join(idle)}: beam and length penalty are said when it runs"
        )
    if (asked := flags.storage or "fp32") not in for_ctranslate2.STORAGES:
        raise UserError(f"CTranslate2 knows no {asked}; --storage may be {', '.join(for_ctranslate2.STORAGES)}")
    storage = for_ctranslate2.STORAGES[asked]
    folder = flags.export_dir
    difference = for_ctranslate2.write(opened.facts, opened.state, folder, storage)
    size = sum(file.stat().st_size for file in folder.iterdir())
    said = f"log-probabilities differ by {difference:.1g} a word"
    console.print(f"{opened.source} for CTranslate2 in {folder}: {size / 1e6:.1f} MB, {storage}; {said}")
    return folder


def bleu(translator: Translator, state: dict[str, np.ndarray], flags: Flags) -> dict[str, float]:
    """BLEU and chrF of the translator with these weights on the test part. Raises UserError without a vocabulary."""
    if not has_text(translator):
        raise UserError(f"--storage {flags.storage} is measured on text: give --src_vocab_fpath, --trg_vocab_fpath")
    pairs = open_pairs("test", data_dir=flags.data_dir, pattern=None, languages=translator.languages)
    program = search_program(translator.config, flags.search())
    engine, _ = engines.create(runs=len(pairs), programs=[program])
    engine.load(state)
    run = runner(engine, program)
    found = translate(run, translator, pairs.sources, batch_size=engine.shared_rows(flags.test_batch_size))
    references = [translator.target.plain(text) for text in pairs.targets]
    result = quality([best[0].text for best in found], references)
    return {"BLEU": result.bleu, "chrF": result.chrf}


def example(program: Program, translator: Translator, rows: int) -> dict[str, np.ndarray]:
    """Some words for each input, [rows, 8]: what the written model is tried out with."""
    rng = np.random.default_rng(rows)
    config = translator.config
    sizes = {"src_word": config.src_vocab_size, "trg_word": config.trg_vocab_size}
    words = {name: rng.integers(0, sizes[name], (rows, 8)) for name in program.inputs}
    for array in words.values():
        array[:, 0], array[:, -1] = BOS, EOS
    return words


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, with_pairs(), aliases=ALIASES, retired=RETIRED)))
