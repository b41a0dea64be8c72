"""Words of an LMDB in the layout of clovaai's recognition benchmark. Imports neither paddle nor jax."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluid import isolated
from fluid.errors import DataError
from fluid.media import image_size

_HEAD = 2 * 4096
"""Bytes of the two pages that every LMDB begins with."""


@dataclass
class LmdbWords:
    """Words of an LMDB in the layout of clovaai's recognition benchmark; opened once in each process."""

    origin: str
    texts: list[str | tuple[int, ...]]
    shapes: list[tuple[int, int] | None]
    _reader: Any = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    def content(self, index: int) -> bytes:
        data = self.entry(b"image-%09d" % (index + 1))
        if data is None:
            raise DataError(f"the data base has no image-{index + 1:09d}")
        return data

    def entry(self, key: bytes) -> bytes | None:
        """What stands under a key."""
        lmdb = _lmdb(self.origin)
        try:
            if self._reader is None:
                self._reader = _open_lmdb(Path(self.origin)).begin()
            return self._reader.get(key)
        except lmdb.Error as error:
            raise DataError(f"{self.origin}: {key.decode()}: the data base is damaged ({error})") from None

    def where(self, index: int) -> str:
        return f"{self.origin}: image-{index + 1:09d}"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None}


def read_lmdb(path: Path) -> LmdbWords:
    """Words of a folder with data.mdb. Raises DataError if it is none, lacks an entry or holds no text."""
    # A page that names one outside the file ends whatever process follows it: here every page is seen, in one apart.
    try:
        return isolated.call(_words_of_lmdb, path)
    except isolated.Crashed as crash:
        raise DataError(f"{path}: the data base is damaged: reading it ends with exit code {crash}") from None


def _words_of_lmdb(path: Path) -> LmdbWords:
    words = LmdbWords(str(path), [], [])
    try:
        count = int((words.entry(b"num-samples") or b"")[:20])
    except ValueError:
        raise DataError(f"{path}: has no num-samples; it is not an LMDB of words") from None
    for number in range(1, count + 1):
        label = words.entry(b"label-%09d" % number)
        if not label:
            raise DataError(f"{path}: has no text label-{number:09d} of the {count} that it declares")
        try:
            words.texts.append(label.decode("utf-8"))
        except UnicodeDecodeError:
            raise DataError(f"{path}: label-{number:09d} is not UTF-8 text") from None
    words.shapes = [_lmdb_shape(words, index) for index in range(count)]
    return words


def _lmdb_shape(words: LmdbWords, index: int) -> tuple[int, int] | None:
    try:
        return image_size(words.content(index))
    except DataError:
        return None


def _lmdb(path: str | Path) -> Any:
    try:
        import lmdb
    except ModuleNotFoundError:
        raise DataError(
            f"{path}: is an LMDB, which needs the package lmdb: pip install 'fluid-model-zoo[ocr]'"
        ) from None
    return lmdb


def _open_lmdb(path: Path) -> Any:
    lmdb = _lmdb(path)
    # It is mapped into memory: whoever touches a page that the file lacks is killed.
    size = (path / "data.mdb").stat().st_size
    if size < _HEAD:
        raise DataError(f"{path}: data.mdb is cut off, or no LMDB: it has {size} bytes")
    try:
        opened = lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise DataError(f"{path}: cannot be opened as an LMDB ({error})") from None
    whole = (opened.info()["last_pgno"] + 1) * opened.stat()["psize"]
    if whole > size:
        opened.close()
        raise DataError(f"{path}: data.mdb is cut off: it has {size} bytes of {whole}. Fetch it again")
    return opened
