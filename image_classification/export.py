"""Export a classifier for deployment: a Paddle inference model and, with --onnx, ONNX.

python export.py --checkpoint output --export_dir exported
python infer.py --exported exported photo.jpg
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.export import ONNX, export
from fluid.run import console, script
from image_classification.classifier import NetworkFlags
from image_classification.network import inference_program, open_classifier


@dataclass
class Flags(NetworkFlags):
    """Export a classifier for deployment."""

    export_dir: Path = Path("exported")
    """Folder of the exported model."""
    onnx: bool = False
    """Write model.onnx too (needs the extra `onnx`)."""


def main(flags: Flags) -> Path:
    """Export; returns the folder."""
    opened = open_classifier(flags)
    classifier = opened.facts
    program, facts = inference_program(classifier), {"classifier": classifier.to_facts()}
    folder = export(program, opened.state, flags.export_dir, facts=facts, onnx=flags.onnx)
    console.print(f"{classifier.model} of {opened.source} exported to {folder}", markup=False)
    if flags.onnx:
        console.print(f"ONNX: {folder / ONNX}", markup=False)
    return folder


def cli(argv: Sequence[str] | None = None) -> None:
    """Run with these words of a command line; None takes those of the process."""
    script(lambda: main(configuration.parse(Flags, argv, aliases={"model_save_dir": "export_dir"})))


if __name__ == "__main__":
    cli()
