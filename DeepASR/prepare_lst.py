"""Make a data set of the binary files and lists of 2018.

    ./zoo prepare DeepASR lst --train_feature_lst train_feature.lst --train_label_lst train_label.lst \\
        --val_feature_lst val_feature.lst --val_label_lst val_label.lst --class_num 3040 --output_dir prepared
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.corpus import PartData, write_corpus
from DeepASR.legacy import read_lists
from fluid import config as configuration
from fluid.config import Count, Was
from fluid.errors import UserError
from fluid.records import refuse_existing
from fluid.run import console, script


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
    output_dir: Annotated[Path, Was("data_dir")] = Path("prepared")
    """Folder to write, which must not be there yet."""


def main(flags: Flags) -> None:
    """Check and write."""
    refuse_existing(flags.output_dir)
    features, labels = flags.train_feature_lst, flags.train_label_lst
    val_features, val_labels = flags.val_feature_lst, flags.val_label_lst
    if features is None or labels is None or val_features is None or val_labels is None:
        raise UserError("--train_feature_lst, --train_label_lst, --val_feature_lst and --val_label_lst are needed")
    corpus, parts = read_lists(features, labels, val_features, val_labels, flags.class_num)
    data = {name: PartData(dict(part), part.texts, {}, part.alignments) for name, part in parts.items()}
    write_corpus(replace(corpus, folder=flags.output_dir), data, kind="FM")
    counts = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
    console.print(f"{flags.output_dir}: {counts} utterances, {flags.class_num} classes")


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
