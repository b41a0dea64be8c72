"""Downloading one file so that it arrives whole or not at all: progress, retries, resume, checksum, atomic rename."""

import hashlib
import http.client
import json
import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fluid.errors import WeightsError

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

CHUNK = 2**20
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as lost."""

_PERMANENT = {400, 401, 403, 404, 405, 410, 451}
_USER_AGENT = "fluid-model-zoo"


class _Failed(Exception):
    """An attempt that failed, and how many attempts at this address it is worth in all; None: as many as there are."""

    def __init__(self, reason: str, worth: int | None = None):
        super().__init__(reason)
        self.worth = sys.maxsize if worth is None else worth


def download(
    urls: Sequence[str],
    path: str | os.PathLike,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    attempts: int = 5,
    pause: float = 1.0,
    progress: bool = True,
) -> None:
    """Fetch the first of `urls` that answers into `path`.

    Bytes go to `PATH.part`, which a later call continues if the server still has the same file; `path` appears only
    when the file is complete and its checksum, where one is given, is right.

    Args:
        urls: http, https or file addresses of the same file, the preferred one first.
        path: where the file shall be.
        sha256, md5: expected checksums in hexadecimal.
        attempts: how often to try one address before the next; broken connections and overloaded servers are worth it.
        pause: seconds before the second attempt; doubled each time.
        progress: show a progress bar on standard error, if that is a terminal.

    Raises:
        WeightsError: no address gave the file (the message names each and its reason), the checksum is wrong, or the
            disk is full or not writable.
    """
    reasons = []
    for url in urls:
        for attempt in range(1, attempts + 1):
            try:
                return _attempt(url, Path(path), sha256, md5, progress)
            except _Failed as failure:
                reasons.append(f"{url}: {failure}")
                if attempt >= failure.worth:
                    break
            if attempt < attempts:
                time.sleep(pause * 2 ** (attempt - 1))
    raise WeightsError("The download failed:\n" + "\n".join(f"  {reason}" for reason in dict.fromkeys(reasons)))


def file_digest(path: str | os.PathLike, kind: str) -> str:
    """The `sha256` or `md5` of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _attempt(url: str, path: Path, sha256: str | None, md5: str | None, progress: bool) -> None:
    """Fetch one address once. Raises _Failed for what its server or the connection does, WeightsError for the disk."""
    part = Path(f"{path}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, path.name, progress)
        if wrong := _wrong_checksum(part, sha256, md5):
            part.unlink(missing_ok=True)
            _resume_file(part).unlink(missing_ok=True)
            # A resumed file may have been put together from two; a second wrong one is what the server has.
            raise _Failed(wrong, worth=2)
        os.replace(part, path)
        _resume_file(part).unlink(missing_ok=True)
    except urllib.error.HTTPError as error:
        raise _Failed(str(error), worth=1 if error.code in _PERMANENT else None) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error
        said = (str(reason) or type(reason).__name__).splitlines()[0][:200]
        raise _Failed(said, worth=1 if isinstance(reason, FileNotFoundError) else None) from None
    except ValueError as error:
        raise _Failed(f"not an address that can be asked ({error})", worth=1) from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror or error}).") from error


def _wrong_checksum(part: Path, sha256: str | None, md5: str | None) -> str | None:
    """What to say of a file that is not the expected one."""
    for kind, expected in (("sha256", sha256), ("md5", md5)):
        if expected is not None and (actual := file_digest(part, kind)) != expected.lower():
            return f"its {kind} is {actual}, it should be {expected}"
    return None


def _resume_file(part: Path) -> Path:
    return Path(f"{part}.json")


def _fetch(url: str, part: Path, label: str, progress: bool) -> None:
    """Bring `part` to completeness. Raises where the connection breaks; what has arrived stays for the next attempt."""
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise _Failed("not an http, https or file address", worth=1)
    request = urllib.request.Request(url, headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"})
    have, validator = _arrived(url, part)
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after what is here: the file has changed, or it was complete but for the rename
            part.unlink(missing_ok=True)
        raise
    with response:
        if have and not _continues(response, have):
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None and length.isdigit() else None
        if total is not None and total - have > shutil.disk_usage(part.parent).free:
            raise WeightsError(f"{part.parent}: {total - have} bytes are needed, the disk has less free.")
        _resume_file(part).write_text(json.dumps({"url": url, "validator": _validator(response)}))
        with open(part, "r+b" if have else "wb") as file, _bar(label, progress) as bar:
            file.seek(have)
            file.truncate()
            task = bar.add_task(label, total=total, completed=have)
            for chunk in _chunks(response):
                file.write(chunk)
                have += len(chunk)
                bar.update(task, completed=have)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {have} of {total} bytes")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What arrives. Raises ConnectionError where the server announced more."""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except http.client.IncompleteRead as error:
        yield error.partial
        raise ConnectionError("the connection ended before the end of the file") from error


def _arrived(url: str, part: Path) -> tuple[int, str]:
    """How many bytes an earlier attempt left, and the mark by which the server tells whether its file is the same."""
    try:
        noted = json.loads(_resume_file(part).read_text())
        have = part.stat().st_size
    except (OSError, ValueError):
        return 0, ""
    if not isinstance(noted, dict) or noted.get("url") != url or not isinstance(noted.get("validator"), str):
        return 0, ""
    return have, noted["validator"]


def _continues(response: http.client.HTTPResponse, have: int) -> bool:
    return response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _validator(response: http.client.HTTPResponse) -> str | None:
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):  # a weak one does not promise the same bytes
        return etag
    return response.headers.get("Last-Modified")


def _bar(label: str, progress: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=not (progress and sys.stderr.isatty()),
    )
