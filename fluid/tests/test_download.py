"""Downloads from a local server that does everything wrong that servers do."""

import contextlib
import errno
import hashlib
import http.server
import random
import threading
from collections.abc import Iterator
from pathlib import Path

from fluid.errors import WeightsError
from fluid.weights import download as module
from fluid.weights.download import download

import pytest

DATA = random.Random(7).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA under every path; the path says what goes wrong. `log` holds (path, Range header) of each request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.log: list[tuple[str, str | None]] = []
        self.data = DATA
        self.etag = '"1"'

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.log.append((self.path, self.headers.get("Range")))
        seen = sum(path == self.path for path, _ in self.server.log)
        what = self.path.strip("/").split("/")[0]
        data, start, status = self.server.data, 0, 200
        if what.isdigit():
            return self.send_error(int(what))
        if what == "redirect":
            self.send_response(302)
            self.send_header("Location", f"{self.server.url}/plain/target")
            self.end_headers()
            return None
        if what == "redirect-to-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return None
        if what == "busy" and seen < 3:
            return self.send_error(503)
        if what == "loop":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
            return None
        if what == "chunked-cut":
            self.protocol_version = "HTTP/1.1"
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % 100_000 + data[:100_000] + b"\r\n")
            return None
        same = self.headers.get("If-Range") == self.server.etag
        if self.headers.get("Range") and same and what != "no-range":
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                return self.send_error(416)
            status = 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if what != "no-etag":
            self.send_header("ETag", self.server.etag)
        if what != "no-length":
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if what in ("cut", "no-range", "no-etag") and seen < 3:
            body = body[:100_000]
        if what == "always-cut":
            body = body[:1000]
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(url: str, path: Path, **options) -> None:
    download([url], path, **{"pause": 0.01, "progress": False} | options)


def test_plain_and_redirected(server, tmp_path):
    for what in ("plain", "redirect", "no-length"):
        fetch(f"{server.url}/{what}/net.tar", tmp_path / what, sha256=SHA256)
        assert (tmp_path / what).read_bytes() == DATA
    assert sorted(path.name for path in tmp_path.iterdir()) == ["no-length", "plain", "redirect"]


def test_file_addresses(tmp_path):
    (tmp_path / "source").write_bytes(DATA)
    fetch((tmp_path / "source").as_uri(), tmp_path / "a", sha256=SHA256, md5=hashlib.md5(DATA).hexdigest())
    assert (tmp_path / "a").read_bytes() == DATA
    with pytest.raises(WeightsError, match="No such file"):
        fetch((tmp_path / "missing").as_uri(), tmp_path / "b")


def test_a_broken_connection_is_resumed(server, tmp_path):
    fetch(f"{server.url}/cut/net.tar", tmp_path / "a", sha256=SHA256)
    assert (tmp_path / "a").read_bytes() == DATA
    assert [range_ for _, range_ in server.log] == [None, "bytes=100000-", "bytes=200000-"]


@pytest.mark.parametrize("what", ["no-range", "no-etag"])
def test_servers_that_cannot_resume(server, tmp_path, what):
    fetch(f"{server.url}/{what}/net.tar", tmp_path / "a", sha256=SHA256)
    assert (tmp_path / "a").read_bytes() == DATA


def test_resuming_in_another_process(server, tmp_path):
    with pytest.raises(WeightsError, match="the connection ended after 3000 of 300000 bytes"):
        fetch(f"{server.url}/always-cut/net.tar", tmp_path / "a", attempts=3)
    assert not (tmp_path / "a").exists()
    part = (tmp_path / "a.part").read_bytes()
    assert part == DATA[: len(part)] and len(part) == 3000
    server.log.clear()
    module._resume_file(tmp_path / "a.part").write_text(
        module._resume_file(tmp_path / "a.part").read_text().replace("always-cut", "plain")
    )
    fetch(f"{server.url}/plain/net.tar", tmp_path / "a", sha256=SHA256)
    assert server.log == [("/plain/net.tar", "bytes=3000-")]
    assert (tmp_path / "a").read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_changed_meanwhile_starts_anew(server, tmp_path):
    with pytest.raises(WeightsError):
        fetch(f"{server.url}/always-cut/net.tar", tmp_path / "a", attempts=1)
    module._resume_file(tmp_path / "a.part").write_text(
        module._resume_file(tmp_path / "a.part").read_text().replace("always-cut", "plain")
    )
    server.data, server.etag = DATA[::-1], '"2"'
    fetch(f"{server.url}/plain/net.tar", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA[::-1]


def test_busy_servers_are_asked_again(server, tmp_path):
    fetch(f"{server.url}/busy/net.tar", tmp_path / "a", sha256=SHA256)
    assert len(server.log) == 3


@pytest.mark.parametrize("what, requests", [("404", 1), ("403", 1), ("500", 4)])
def test_errors(server, tmp_path, what, requests):
    with pytest.raises(WeightsError, match=f"{what}"):
        fetch(f"{server.url}/{what}/net.tar", tmp_path / "a", attempts=4)
    assert len(server.log) == requests
    assert list(tmp_path.iterdir()) == []


def test_the_next_address(server, tmp_path):
    download(
        [f"{server.url}/404/net.tar", f"{server.url}/plain/net.tar"],
        tmp_path / "a",
        sha256=SHA256,
        pause=0,
        progress=False,
    )
    assert (tmp_path / "a").read_bytes() == DATA


def test_corruption(server, tmp_path):
    server.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    wrong = hashlib.sha256(server.data).hexdigest()
    with pytest.raises(WeightsError, match=f"its sha256 is {wrong}, it should be {SHA256}"):
        fetch(f"{server.url}/plain/net.tar", tmp_path / "a", sha256=SHA256)
    assert len(server.log) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_chunks_that_ends_too_early(server, tmp_path):
    with pytest.raises(WeightsError, match="the connection ended before the end of the file"):
        fetch(f"{server.url}/chunked-cut/net.tar", tmp_path / "a", attempts=2)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "url",
    [
        *("http://[bad", "http://127.0.0.1:port/x.tar", f"http://{'a' * 70}.com/x", "http:///x.tar", "javascript://x"),
        *("http://\u4f8b.\u30c6\u30b9\u30c8/x.tar", "http://127.0.0.1:9/\u6587.tar", "http://127.0.0.1:9/a b.tar"),
    ],
)
def test_odd_addresses_are_one_message(tmp_path, url):
    with pytest.raises(WeightsError, match="The download failed"):
        fetch(url, tmp_path / "a", attempts=1)


def test_no_server_and_no_such_scheme(tmp_path):
    with pytest.raises(WeightsError, match=r"http://127\.0\.0\.1:9/net\.tar: .*refused"):
        fetch("http://127.0.0.1:9/net.tar", tmp_path / "a", attempts=2)
    with pytest.raises(WeightsError, match="not an http, https or file address"):
        fetch("ftp://127.0.0.1/net.tar", tmp_path / "a")


def test_an_error_without_words_is_told_by_its_kind(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise TimeoutError

    monkeypatch.setattr(module.urllib.request, "urlopen", refuse)
    with pytest.raises(WeightsError, match=r"net\.tar: TimeoutError"):
        fetch("http://127.0.0.1:9/net.tar", tmp_path / "a", attempts=1)


def test_redirects_cannot_reach_local_files_or_run_for_ever(server, tmp_path):
    for what in ("redirect-to-file", "loop"):
        with pytest.raises(WeightsError, match="The download failed"):
            fetch(f"{server.url}/{what}/net.tar", tmp_path / "a", attempts=2)
    assert not (tmp_path / "a").exists()


def test_a_folder_that_is_not_writable(server, tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # The folder's mode would not do: root may write everywhere.
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(WeightsError, match="cannot be written"):
        fetch(f"{server.url}/plain/net.tar", tmp_path / "a")


def test_a_path_below_a_file(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot be written"):
        fetch(f"{server.url}/plain/net.tar", tmp_path / "file" / "a")


def test_a_full_disk(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(WeightsError, match="300000 bytes are needed, the disk has less free"):
        fetch(f"{server.url}/plain/net.tar", tmp_path / "a")
