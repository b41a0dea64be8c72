"""Write a trained network for deployment."""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import WeightsFlags
from fluid.export import export
from fluid.run import console, script
from points_task.network import inference_program, open_net


@dataclass
class Flags(WeightsFlags):
    """Export a network for deployment."""

    export_dir: Path = Path("exported")
    """Folder of the exported model."""


def main(flags: Flags) -> Path:
    """Export; returns the folder."""
    opened = open_net(flags)
    facts = {"net": opened.facts.to_facts()}
    folder = export(inference_program(opened.facts), opened.state, flags.export_dir, facts=facts)
    console.print(f"{opened.source} exported to {folder}", markup=False)
    return folder


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
