"""Write a model as a Paddle inference model: the whole beam search, or forced scoring.

python export.py --checkpoint output --export_dir exported
python infer.py --exported_model exported "Where is the manual?"
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.errors import UserError
from fluid.export import export
from fluid.program import Program
from fluid.run import console, script
from neural_machine_translation.eval import ModelFlags
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.network import Translator, scoring_program, search_program
from neural_machine_translation.options import ALIASES, RETIRED, with_pairs
from neural_machine_translation.scoring import open_model

import numpy as np


@dataclass
class Flags(ModelFlags):
    """Write a model as a Paddle inference model."""

    export_dir: Path = Path("exported")
    """Folder to write."""
    what: Literal["search", "scoring"] = "search"
    """search: input src_word, outputs ids and scores. scoring: inputs src_word and trg_word, output logits."""
    onnx: bool = False
    """Write model.onnx as well (scoring only: ONNX Runtime has no loop like the search's)."""


def main(flags: Flags) -> Path:
    """Export as `flags` say; returns the folder."""
    if flags.onnx and flags.what == "search":
        raise UserError("--onnx needs --what scoring: the loop of the search is not translated to ONNX")
    opened = open_model(flags)
    translator = opened.facts
    search = flags.search()
    program = (
        search_program(translator.config, search) if flags.what == "search" else scoring_program(translator.config)
    )
    facts = {"translator": translator.to_facts(), "what": flags.what}
    examples = [_sentences(program, translator, rows) for rows in (1, 3)]
    folder = export(program, opened.state, flags.export_dir, facts=facts, onnx=flags.onnx, examples=examples)
    size = sum(file.stat().st_size for file in folder.iterdir())
    console.print(f"{folder}: {size / 1e6:.1f} MB, inputs {', '.join(program.inputs)}", markup=False)
    return folder


def _sentences(program: Program, translator: Translator, rows: int) -> dict[str, np.ndarray]:
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
