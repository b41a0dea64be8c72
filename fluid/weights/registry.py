"""Released weights by name: what each task's weights.toml lists, fetched once into a cache.

weights.toml
    [defaults]              any field of Entry, for all entries of the file
    [weights.NAME]          the fields of Entry that differ
"""

import dataclasses
import difflib
import fcntl
import hashlib
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import unquote

from fluid import cache
from fluid.errors import WeightsError
from fluid.files import new_folder
from fluid.formats import archive
from fluid.weights.download import download, file_digest
from fluid.weights.files import read_weights


@dataclass(frozen=True)
class Entry:
    """One release of weights: where it is, what it was measured to do, and how its input is prepared."""

    name: str
    task: str
    """The task's folder."""
    model: str
    """The network, by its name in the task's MODELS."""
    licence: str
    """An SPDX expression, and what is to be said beside it."""
    source: str
    """Who published it and its metric."""
    urls: tuple[str, ...] = ()
    """Addresses of the same archive, or .safetensors or .pdparams file, the preferred one first."""
    file: Path | None = None
    """Instead of addresses: a file or folder that comes with the task's folder, relative to it in the list."""
    listed: str = ""
    """Date and commit of the list that first named it."""
    metric: str = ""
    """As published; not measured by this project unless it says so."""
    naming: str = "named"
    """`named`: variables carry this project's names; `auto_2018`: those that Fluid gave by itself in June 2018."""
    variables: int = 0
    """Number of arrays the network needs from it."""
    size: int = 0
    """Bytes of these arrays (the archive is about as large, more if it holds optimizer state)."""
    sha256: str | None = None
    md5: str | None = None
    optional: tuple[str, ...] = ()
    """Variables (shell patterns) that may be absent from the file; see `fluid.weights.load_into`."""
    class_dim: int | None = None
    image_shape: tuple[int, int, int] | None = None
    """Channels, height, width."""
    resize_short: int | None = None
    """Length of the image's short side before the central crop."""
    mean: tuple[float, ...] | None = None
    """Subtracted from each channel in 0..1, in RGB order; then divided by `std`."""
    std: tuple[float, ...] | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What else the task must know to use weights that do not say it themselves."""
    command: str = ""
    """How this project trained or made them."""
    note: str = ""

    @property
    def verified(self) -> bool:
        """Whether a checksum is known against which a download can be checked."""
        return self.sha256 is not None or self.md5 is not None

    @property
    def spdx(self) -> str:
        """The licence alone."""
        found = re.match(r"[\w.+-]+(?: (?:AND|OR|WITH) [\w.+-]+)*", self.licence)
        return found.group() if found else ""

    @property
    def stored(self) -> int:
        """Bytes of what comes with the task's folder."""
        if self.file is None:
            return 0
        files = [self.file] if self.file.is_file() else self.file.rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())

    @property
    def archive_name(self) -> str:
        """File name of the release."""
        if self.file is not None:
            return self.file.name
        # An address may end in anything: in nothing, in "..", in more than a file can be called.
        name = PurePosixPath(unquote(self.urls[0].partition("://")[2].partition("?")[0])).name
        return re.sub(r"[^\w.+-]", "_", name)[-100:].lstrip(".") or "weights"


def load_registry(task_folder: str | os.PathLike) -> dict[str, Entry]:
    """The entries of a task's weights.toml (none if the task has no such file).

    Raises WeightsError if the file is wrong.
    """
    path = Path(task_folder, "weights.toml")
    if not path.is_file():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = {}
        for name, own in content.get("weights", {}).items():
            entries[name] = _entry(path, name, {"model": name} | content.get("defaults", {}) | own)
    except (tomllib.TOMLDecodeError, TypeError, AttributeError, UnicodeDecodeError, RecursionError) as error:
        raise WeightsError(f"{path}: {error}") from error
    return entries


def _entry(path: Path, name: str, values: dict[str, Any]) -> Entry:
    """An entry of the list at `path`. Raises WeightsError for what it must not say, TypeError for what an Entry lacks."""
    hints = {key: hint for key, hint in get_type_hints(Entry).items() if key not in ("name", "task")}
    where = f"{path}: [weights.{name}]"
    # It becomes the name of a folder.
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise WeightsError(f"{where} has a name that no folder should have.")
    if unknown := set(values) - set(hints):
        raise WeightsError(f"{where} has unknown fields {', '.join(sorted(unknown))}.")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    if wrong := [key for key, value in values.items() if not _is_a(value, str if key == "file" else hints[key])]:
        raise WeightsError(f"{where} has a {wrong[0]} of the wrong type.")
    if "file" in values:
        values["file"] = path.parent / values["file"]
        if not values["file"].resolve().is_relative_to(path.parent.resolve()):
            raise WeightsError(f"{where} has a file outside its folder.")
    entry = Entry(name=name, task=path.parent.name, **values)
    if bool(entry.urls) == bool(entry.file):
        raise WeightsError(f"{where} needs either urls or a file.")
    return entry


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value has the type of a field of Entry."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is UnionType:
        return any(_is_a(value, part) for part in parts)
    if kind is tuple:
        fits = isinstance(value, tuple) and (parts[-1] is Ellipsis or len(value) == len(parts))
        return fits and all(_is_a(item, parts[0]) for item in value)
    if hint is float:
        return _is_a(value, int) or isinstance(value, float)
    return isinstance(value, kind or hint) and not isinstance(value, bool)


def find_entry(name: str, task_folder: str | os.PathLike) -> Entry | None:
    """The entry called `name` in any case, or whose archive is called so, with or without its suffix."""
    entries = load_registry(task_folder)
    by_name = {known.lower(): entry for known, entry in entries.items()}
    if name.lower() in by_name:
        return by_name[name.lower()]
    for entry in entries.values():
        stem = entry.archive_name.removesuffix(".gz").rsplit(".", 1)[0]
        if name in (entry.archive_name, stem):
            return entry
    return None


def resolve(
    spec: str | os.PathLike, task_folder: str | os.PathLike, names: Collection[str] | None = None
) -> tuple[Path, Entry | None]:
    """What `--pretrained_model` means: a path as it is, or a registered name, fetched if need be.

    Args:
        spec: a path that exists, a name of the task's weights.toml, or the address of an archive or a file of weights.
        task_folder: folder of the task.
        names: the network's variables, by which the right folder inside an archive is found.

    Returns:
        The file or folder for `fluid.weights.read_weights`, and the entry (None for a path or an address).

    Raises:
        WeightsError: neither a path nor a name (the message has the nearest names), or fetching failed.
    """
    if "://" in str(spec):
        return fetch(_entry_of_address(str(spec), Path(task_folder).name), names), None
    entry = identify(spec, task_folder)
    return (Path(spec) if entry is None else fetch(entry, names)), entry


def identify(spec: str | os.PathLike, task_folder: str | os.PathLike) -> Entry | None:
    """The entry that `spec` names; None if it is an address, or a path that exists. Raises WeightsError for neither."""
    if "://" in str(spec):
        return None
    entry = None if os.sep in str(spec) else find_entry(str(spec), task_folder)
    if Path(spec).exists() and (entry is None or not Path(spec).is_dir() or any(Path(spec).iterdir())):
        return None
    if entry is None:
        known = list(load_registry(task_folder))
        near = difflib.get_close_matches(str(spec), known, n=3, cutoff=0.5)
        hint = f"Did you mean {', '.join(near)}? " if near else ""
        raise WeightsError(
            f"{spec}: no such file or folder, nor released weights of that name. {hint}`./zoo list weights` shows all."
        )
    return entry


def _entry_of_address(url: str, task: str) -> Entry:
    entry = Entry(name="", task=task, model="", licence="", source=url, urls=(url,))
    # Different servers may have different files of one name.
    return dataclasses.replace(entry, name=f"{entry.archive_name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}")


def cache_folder(entry: Entry) -> Path:
    """The folder of an entry in the cache."""
    return cache.folder() / entry.task / entry.name


def is_fetched(entry: Entry) -> bool:
    """Whether an entry can be used without a download."""
    return entry.file is not None or (cache_folder(entry) / "files").is_dir()


def fetch(entry: Entry, names: Collection[str] | None = None, *, progress: bool = True) -> Path:
    """The folder with an entry's parameter files: what comes with the task, from the cache, or downloaded and unpacked.

    Several processes may ask for one entry at once; one downloads and the others wait for it. Where no checksum is
    published the first download's is recorded beside it, a later one has to agree, and the weights are called
    unverified on standard error.

    Raises:
        WeightsError: the download failed (the message says from where to fetch the file by hand, and where to put it),
            its checksum is wrong, or the archive is damaged or unsafe.
    """
    if entry.file is not None:
        if not entry.file.exists():
            raise WeightsError(f"{entry.file} comes along with the task, but is missing. Fetch the project anew.")
        if entry.sha256 is not None and (actual := content_digest(entry.file)) != entry.sha256:
            raise WeightsError(
                f"{entry.file}: its sha256 is {actual}, it should be {entry.sha256}. Fetch the project anew."
            )
        return entry.file
    folder = cache_folder(entry)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")
    except OSError as error:
        raise WeightsError(
            f"{folder}: cannot be written ({error.strerror}). Set {cache.VARIABLE} to a folder that can."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{entry.name}: waiting for another process that is fetching it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_fetched(entry):
            _fetch_locked(entry, folder, progress)
    return archive.find_parameters(folder / "files", names)


def content_digest(path: Path) -> str:
    """The sha256 of a file; of a folder, that of the listing which `sha256sum` gives of its files, sorted by name."""
    if path.is_file():
        return file_digest(path, "sha256")
    # Not what a desktop leaves behind.
    visible = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    files = sorted(file.relative_to(path).as_posix() for file in visible)
    listing = "".join(f"{file_digest(path / name, 'sha256')}  {name}\n" for name in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _fetch_locked(entry: Entry, folder: Path, progress: bool) -> None:
    file = folder / entry.archive_name
    given = file.is_file()
    print(f"{entry.name}: {f'using {file}' if given else f'downloading {entry.urls[0]}'}", file=sys.stderr)
    if not given:
        try:
            download(entry.urls, file, sha256=entry.sha256, md5=entry.md5, progress=progress)
        except WeightsError as error:
            addresses = "\n".join(f"  {url}" for url in entry.urls)
            raise WeightsError(
                f"{error}\nOn a machine without this connection: fetch\n{addresses}\nelsewhere, put it here as it is "
                f"(not unpacked)\n  {file}\nand run the same command again."
            ) from error
    try:
        actual = _check(entry, file)
        _unpack(file, folder / "files")
    except WeightsError:
        if not given:
            file.unlink(missing_ok=True)
        raise
    # The format of the sha256sum tool.
    _record(file).write_text(f"{actual}  {file.name}\n", encoding="utf-8", errors="surrogateescape")
    if not entry.verified:
        print(
            f"{entry.name}: UNVERIFIED: no checksum was ever published for this file. Its sha256 {actual} is noted in "
            f"{_record(file)}; a later download has to agree.",
            file=sys.stderr,
        )
    if not given:
        file.unlink()


def _unpack(file: Path, folder: Path) -> None:
    """Make the folder of what was fetched, an archive or one file of weights. Raises WeightsError if that is damaged."""
    if file.suffix not in (".safetensors", ".pdparams"):
        archive.unpack(file, folder)
        return
    read_weights(file)
    with new_folder(folder, WeightsError) as unfinished:
        shutil.copy(file, unfinished)


def _record(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _check(entry: Entry, file: Path) -> str:
    """Compare a file with the published checksum, or else with that of the first download; returns its sha256."""
    actual = file_digest(file, "sha256")
    if entry.sha256 is not None and actual != entry.sha256.lower():
        raise WeightsError(
            f"{file}: its sha256 is {actual}, it should be {entry.sha256}. Remove the file and fetch it again."
        )
    if entry.md5 is not None and (md5 := file_digest(file, "md5")) != entry.md5.lower():
        raise WeightsError(f"{file}: its md5 is {md5}, it should be {entry.md5}. Remove the file and fetch it again.")
    recorded = [actual]
    if _record(file).is_file():
        recorded = _record(file).read_text(encoding="utf-8", errors="surrogateescape").split()[:1]
    if not entry.verified and recorded != [actual]:
        raise WeightsError(
            f"{file}: its sha256 is {actual}, but the first download had {''.join(recorded)} (noted in {_record(file)}). "
            "If the change is expected, remove that note and fetch the weights again."
        )
    return actual
