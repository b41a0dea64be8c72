"""Measure a detector as COCO does: `eval.py` with the averages of COCO and a suppression from IoU .5 on, as in 2018.

python eval_coco_map.py --data_dir COCO --pretrained_model MINE
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import defaults
from fluid.run import script
from object_detection.evaluation import ALIASES, RETIRED, EvaluationFlags, evaluate


@dataclass
@defaults(ap_version="cocoMAP", iou=0.5)
class Flags(EvaluationFlags):
    """Measure a detector as COCO does."""


def main(flags: Flags) -> dict[str, float]:
    """Measure, print, and return the figures."""
    return evaluate(flags)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
