"""Features by the package kaldi-io (extra `kaldi-io`) instead of the readers of DeepASR/kaldi/tables.py, where somebody asks for it.

It runs the commands of script files ("copy-feats ... |"), which the readers here never do; so only read files of your own with it.
Where NumPy is newer than the package, it passes over compressed features with a printed warning: here that is an error.
"""

import contextlib
import importlib.metadata
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from DeepASR.kaldi.tables import read_text
from fluid.errors import DataError, UserError

import numpy as np


def read(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(utterance, features [frames, dim]) of a script file (.scp) or an archive.

    Raises UserError if the package is not installed, DataError for what it cannot read.
    """
    package = _package()
    script = path.suffix == ".scp"
    wanted = len(read_text(path)) if script else None
    found = 0
    try:
        for name, features in (package.read_mat_scp if script else package.read_mat_ark)(str(path)):
            found += 1
            yield name, np.asarray(features, np.float32)
    except Exception as error:  # The package raises what it likes.
        raise DataError(f"{path}: kaldi-io cannot read it ({type(error).__name__}: {error})") from None
    if wanted is not None and found != wanted:
        raise DataError(f"{path}: kaldi-io passed over {wanted - found} of {wanted} utterances; use --reader own")


def _package() -> ModuleType:
    """The module of the package that reads, by its place, whatever else has its name."""
    try:
        place = Path(str(importlib.metadata.distribution("kaldi-io").locate_file("kaldi_io/kaldi_io.py")))
    except importlib.metadata.PackageNotFoundError:
        raise UserError("--reader kaldi_io needs the package: pip install '.[kaldi-io]'") from None
    spec = importlib.util.spec_from_file_location("kaldi_io_of_the_package", place)
    if spec is None or spec.loader is None:
        raise UserError(f"{place}: not a package; install kaldi-io again")
    package = importlib.util.module_from_spec(spec)
    # It greets in five lines where KALDI_ROOT is not set.
    with contextlib.redirect_stdout(io.StringIO()):
        spec.loader.exec_module(package)
    return package
