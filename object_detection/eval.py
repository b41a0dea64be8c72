"""Measure a detector: its average precision over every picture of a split, exactly once each.

python eval.py                                                     the run in ./output, or what comes along, on drawn shapes
python eval.py --pretrained_model ssd_mobilenet_v1_voc --data_dir VOC2007 --split test --ap_version 11point
python eval.py --data_dir COCO --ap_version cocoMAP
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.run import script
from object_detection.evaluation import ALIASES, RETIRED, EvaluationFlags, evaluate


@dataclass
class Flags(EvaluationFlags):
    """Measure a detector's average precision."""


def main(flags: Flags) -> dict[str, float]:
    """Measure, print, and return the figures."""
    return evaluate(flags)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
