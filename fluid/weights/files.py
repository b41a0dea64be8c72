"""Weights as files: reading them whatever they are stored as, writing and converting them."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from fluid import checkpoint
from fluid.errors import WeightsError
from fluid.files import open_plain, scratch
from fluid.formats import archive, legacy, legacy_model, pdparams, safetensors_file
from fluid.interface import EMA_SUFFIX
from fluid.weights import compact

import numpy as np

FOREIGN = (".pt", ".pth", ".bin", ".npz")
"""Suffixes of files that hold arrays, or programs, in ways that are neither read nor written here."""


def read_weights(path: str | os.PathLike, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read weights as `{variable name: array}`, optimizer state left out.

    Args:
        path: a Fluid folder of one file a variable, an inference model's folder (`__model__` + files, `model` +
            `params`), a checkpoint or a run's folder (its best checkpoint), an archive (tar, tar.gz, zip) of any of
            these, a `.safetensors` or `.pdparams` file, or a combined Fluid file.
        names: the network's variables, where known. A combined file of its own cannot be read without them, and they
            tell which folder inside an archive holds the files.

    Raises:
        WeightsError: the path is missing, of no known format, damaged or truncated. No pickle is ever executed.
        CheckpointError: a checkpoint is damaged.
    """
    path = Path(path)
    if path.is_dir():
        weights = _read_folder(path, names)
    elif not path.exists():
        raise WeightsError(f"{path}: no such file or folder.")
    else:
        weights = _read_file(path, names)
    weights = {name: array for name, array in weights.items() if not legacy.is_optimizer_state(name, weights)}
    if not weights:
        raise WeightsError(f"{path}: no weights in it.")
    return weights


def with_averages(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A checkpoint's `state` with every parameter replaced by its moving average, where the run kept averages."""
    averages = {name.removesuffix(EMA_SUFFIX): array for name, array in state.items() if name.endswith(EMA_SUFFIX)}
    return {**state, **{name: array for name, array in averages.items() if name in state}}


def write_weights(path: str | os.PathLike, weights: Mapping[str, np.ndarray]) -> None:
    """Write weights as a `.safetensors` or `.pdparams` file, or (no suffix) as a Fluid folder. Nothing is overwritten.

    Raises WeightsError if the place is taken or not writable, or the format cannot hold a name or data type.
    """
    path = Path(path)
    if path.suffix in FOREIGN:
        raise WeightsError(
            f"{path}: a {path.suffix} file is not written here. Call it .safetensors or .pdparams, or leave the suffix out "
            "for a Fluid folder."
        )
    if path.suffix not in (".safetensors", ".pdparams"):
        legacy.write_folder(path, weights)
        return
    if path.exists():
        raise WeightsError(f"{path}: exists already. Choose another name, or remove it first.")
    if path.suffix == ".safetensors":
        safetensors_file.write(path, weights)
        return
    pdparams.write_pdparams(path, weights)


def convert(
    source: str | os.PathLike, target: str | os.PathLike, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Convert weights from any format `read_weights` knows to the one `target`'s suffix asks for; return them."""
    weights = read_weights(source, names)
    write_weights(target, weights)
    return weights


def _read_folder(path: Path, names: Collection[str] | None) -> dict[str, np.ndarray]:
    if checkpoint.is_checkpoint(path):
        return with_averages(checkpoint.load(checkpoint.find_best(path))[0])
    folder = archive.find_parameters(path, names)
    if legacy_model.find_model(folder):
        return legacy_model.read_model(folder).weights
    # Not what desktop systems leave behind: ._model.safetensors, say.
    visible = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    files = [file for file in visible if file.suffix in (".safetensors", ".pdparams")]
    if len(files) > 1:
        shown = ", ".join(file.name for file in files[:8])
        raise WeightsError(f"{folder}: holds several files of weights ({shown}). Name the one that is meant.")
    if not files and names is not None:
        files = [file for file in visible if legacy.starts_like_record(file)]
    # Several files are variables; one is all of them: a combined file, as text recognition was released.
    return _read_file(files[0], names) if len(files) == 1 else legacy.read_folder(folder)


def _read_file(path: Path, names: Collection[str] | None) -> dict[str, np.ndarray]:
    try:
        with open_plain(path) as file:
            head = file.read(16)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if not head:
        raise WeightsError(f"{path}: an empty file; it was never completely written or downloaded.")
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return compact.read(path)[0]
    if legacy.starts_like_record(path):
        if names is None:
            return {path.name: legacy.read_tensor(path)}
        return legacy.read_combined(path, [name for name in names if not legacy.is_optimizer_state(name, names)])
    if head[:1] == b"\x80" or path.suffix in (".pdparams", ".pdopt"):
        return pdparams.read_pdparams(path)
    if archive.is_archive(path):
        if path.suffix in FOREIGN:
            raise WeightsError(
                f"{path}: a {path.suffix} file is not read here (it may hold a program). "
                "Save the arrays as .safetensors first."
            )
        with scratch("weights") as folder:
            archive.unpack(path, folder / "files")
            return read_weights(folder / "files", names)
    raise WeightsError(
        f"{path}: neither a Fluid parameter file, nor .safetensors, nor .pdparams, nor an archive of them."
    )
