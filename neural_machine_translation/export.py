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
from fluid.export import export, export_onnx
from fluid.run import console, script
from neural_machine_translation.eval import ModelFlags
from neural_machine_translation.network import scoring_program, search_program
from neural_machine_translation.options import ALIASES, RETIRED, with_pairs
from neural_machine_translation.scoring import open_model


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
    folder = export(program, opened.state, flags.export_dir, facts=facts)
    if flags.onnx:
        export_onnx(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    console.print(f"{folder}: {size / 1e6:.1f} MB, inputs {', '.join(program.inputs)}", markup=False)
    return folder


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, with_pairs(), aliases=ALIASES, retired=RETIRED)))
