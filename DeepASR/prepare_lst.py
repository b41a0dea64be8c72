"""Make a data set of the binary files and lists of 2018.

    ./zoo prepare DeepASR lst --train_feature_lst train_feature.lst --train_label_lst train_label.lst \\
        --val_feature_lst val_feature.lst --val_label_lst val_label.lst --class_num 3040 --data_dir prepared
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.corpus import Corpus, PartData, write_corpus
from DeepASR.legacy import read_list
from fluid import config as configuration
from fluid.config import Count
from fluid.errors import DataError, UserError
from fluid.run import console, script

import numpy as np


@dataclass
class Flags:
    """Make a data set of the binary files and lists of 2018."""

    train_feature_lst: Path | None = None
    """List of features to train on."""
    train_label_lst: Path | None = None
    """List of their labels."""
    val_feature_lst: Path | None = None
    """List of features to choose by."""
    val_label_lst: Path | None = None
    """List of the labels of those."""
    class_num: Count = 3040
    """Tied states (pdfs)."""
    data_dir: Path = Path("prepared")
    """Folder to write."""


def main(flags: Flags) -> None:
    """Check and write."""
    lists = {
        "train": (flags.train_feature_lst, flags.train_label_lst),
        "dev": (flags.val_feature_lst, flags.val_label_lst),
    }
    parts = {}
    for name, (features, labels) in lists.items():
        if features is None or labels is None:
            raise UserError("--train_feature_lst, --train_label_lst, --val_feature_lst and --val_label_lst are needed")
        parts[name] = read_part(features, labels, flags.class_num)
    widths = {array.shape[1] for part in parts.values() for array in part.features.values()}
    if len(widths) > 1:
        raise DataError(f"features have different widths: {', '.join(map(str, sorted(widths)))}")
    about = {"language": "data of your own", "made by": f"prepare_lst.py of {flags.train_feature_lst}"}
    write_corpus(
        Corpus(flags.data_dir, widths.pop(), flags.class_num, "cer", None, None, None, about), parts, kind="FM"
    )
    counts = ", ".join(f"{name} {len(part.features)}" for name, part in parts.items())
    console.print(f"{flags.data_dir}: {counts} utterances, {flags.class_num} classes", markup=False)


def read_part(features_list: Path, labels_list: Path, class_num: int) -> PartData:
    """Features and labels by name. Raises DataError for what does not fit."""
    features, labels = dict(read_list(features_list)), dict(read_list(labels_list, labels=True))
    for name, array in features.items():
        if name not in labels or len(labels[name]) != len(array):
            raise DataError(f"{labels_list}: {name}: {len(labels.get(name, ()))} labels for {len(array)} frames")
        if not np.isfinite(array).all():
            raise DataError(f"{features_list}: {name}: a feature is not a number")
        if labels[name].min() < 0 or labels[name].max() >= class_num:
            raise DataError(
                f"{labels_list}: {name}: the label {labels[name].max()} where there are {class_num} classes"
            )
    return PartData(features, dict.fromkeys(features, ""), {}, {name: labels[name] for name in features})


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
