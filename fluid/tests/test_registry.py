"""Released weights by name: the list, the cache, and everything between an address and a folder of parameters."""

import hashlib
import http.server
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

from fluid import weights
from fluid.cache import VARIABLE
from fluid.errors import WeightsError
from fluid.formats import legacy
from fluid.weights import registry

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
ARRAYS = {"conv1_weights": np.arange(8, dtype=np.float32).reshape(2, 4), "fc_offset": np.ones(3, np.float32)}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path) -> Path:
    legacy.write_folder(tmp_path / "server" / "net" / "115", ARRAYS)
    with tarfile.open(tmp_path / "server" / "net_pretrained.tar", "w") as file:
        file.add(tmp_path / "server" / "net", "net")
    return tmp_path / "server" / "net_pretrained.tar"


def task(tmp_path: Path, url: str, **fields: object) -> Path:
    """A task's folder whose weights.toml has one entry `Net`."""
    folder = tmp_path / "some_task"
    folder.mkdir(exist_ok=True)
    lines = [
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for key, value in fields.items()
    ]
    text = [
        "[defaults]",
        'licence = "CC0"',
        'source = "a test"',
        "mean = [0.5, 0.5, 0.5]",
        "[weights.Net]",
        f'urls = ["{url}"]',
        *lines,
    ]
    (folder / "weights.toml").write_text("\n".join(text))
    return folder


def same(read: dict) -> bool:
    return read.keys() == ARRAYS.keys() and all(np.array_equal(read[name], array) for name, array in ARRAYS.items())


def test_from_name_to_arrays(tmp_path, cache, archive, capsys):
    folder = task(tmp_path, archive.as_uri(), image_shape=[3, 299, 299])
    for spec in ("Net", "net", "net_pretrained", "net_pretrained.tar"):
        path, entry = registry.resolve(spec, folder)
        assert path == cache / "some_task" / "Net" / "files" / "net" / "115"
        assert entry.image_shape == (3, 299, 299) and entry.mean == (0.5, 0.5, 0.5) and entry.model == "Net"
        assert same(weights.read_weights(path))
    said = capsys.readouterr().err
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert said.count("UNVERIFIED: no checksum was ever published") == 1 and digest in said
    assert sorted(p.name for p in (cache / "some_task" / "Net").iterdir()) == [
        ".lock",
        "files",
        "net_pretrained.tar.sha256",
    ]
    assert registry.is_fetched(entry)


def test_a_known_checksum(tmp_path, cache, archive, capsys):
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    registry.resolve("Net", task(tmp_path, archive.as_uri(), sha256=digest))
    assert "UNVERIFIED" not in capsys.readouterr().err
    wrong = task(tmp_path, archive.as_uri(), sha256="0" * 64, model="Other")
    (cache / "some_task").rename(cache / "aside")
    with pytest.raises(WeightsError, match=f"its sha256 is {digest}, it should be 0000"):
        registry.resolve("Net", wrong)
    assert [p.name for p in (cache / "some_task" / "Net").iterdir()] == [".lock"]


def test_a_later_download_has_to_agree(tmp_path, cache, archive):
    folder = task(tmp_path, archive.as_uri())
    path, entry = registry.resolve("Net", folder)
    subprocess.run(["rm", "-r", registry.cache_folder(entry) / "files"], check=True)
    archive.write_bytes(archive.read_bytes() + bytes(512))
    with pytest.raises(WeightsError, match="but the first download had"):
        registry.resolve("Net", folder)
    assert not path.exists()


def test_offline_says_what_to_do(tmp_path, cache, archive):
    folder = task(tmp_path, "http://127.0.0.1:9/x/net_pretrained.tar")
    entry = registry.find_entry("Net", folder)
    place = registry.cache_folder(entry) / "net_pretrained.tar"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(WeightsError) as caught:
        patch.setattr(time, "sleep", lambda _: None)
        registry.resolve("Net", folder)
    assert "http://127.0.0.1:9/x/net_pretrained.tar" in str(caught.value) and str(place) in str(caught.value)
    assert "refused" in str(caught.value)
    # ... and having done so, it works, and the file stays.
    place.write_bytes(archive.read_bytes())
    assert same(weights.read_weights(registry.resolve("Net", folder)[0]))
    assert place.is_file()


def test_a_web_page_instead_of_weights(tmp_path, cache):
    (tmp_path / "net.tar").write_text("<html>The bucket is gone</html>")
    folder = task(tmp_path, (tmp_path / "net.tar").as_uri())
    with pytest.raises(WeightsError, match="a web page, not an archive"):
        registry.resolve("Net", folder)
    assert [p.name for p in (cache / "some_task" / "Net").iterdir()] == [".lock"]


def test_hostile_archives_leave_nothing(tmp_path, cache):
    link = tarfile.TarInfo("net/conv1_weights")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "net.tar", "w") as file:
        file.addfile(link)
    with pytest.raises(WeightsError, match="is a link"):
        registry.resolve("Net", task(tmp_path, (tmp_path / "net.tar").as_uri()))
    assert [p.name for p in (cache / "some_task" / "Net").iterdir()] == [".lock"]


class Slow(http.server.BaseHTTPRequestHandler):
    requests = 0
    data = b""

    def do_GET(self):
        type(self).requests += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()
        half = len(self.data) // 2
        self.wfile.write(self.data[:half])
        self.wfile.flush()
        time.sleep(1.0)
        self.wfile.write(self.data[half:])

    def log_message(self, *_):
        pass


def test_two_processes_at_once(tmp_path, cache, archive):
    Slow.requests, Slow.data = 0, archive.read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        folder = task(tmp_path, f"http://127.0.0.1:{server.server_port}/net_pretrained.tar")
        code = f"path, _ = registry.resolve('Net', {str(folder)!r}); print(len(weights.read_weights(path)))"
        code = f"from fluid import weights; from fluid.weights import registry; {code}"
        command = [sys.executable, "-c", code]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), **pipes) for _ in range(2)]
        outputs = [process.communicate(timeout=60) for process in processes]
        server.shutdown()
        thread.join()
    assert [out for out, _ in outputs] == ["2\n", "2\n"], outputs
    assert Slow.requests == 1
    assert sum("waiting for another process" in err for _, err in outputs) == 1


def test_an_address(tmp_path, cache, archive):
    path, entry = registry.resolve(archive.as_uri(), tmp_path / "some_task")
    assert entry is None and path.is_relative_to(cache / "some_task") and same(weights.read_weights(path))
    with pytest.raises(WeightsError, match="No such file"):
        registry.resolve(f"{archive.as_uri()}.gz", tmp_path / "some_task")


@pytest.mark.parametrize("suffix", [".safetensors", ".pdparams"])
def test_an_address_of_one_file(tmp_path, cache, suffix):
    file = tmp_path / f"net{suffix}"
    file.write_text("<html>The bucket is gone</html>")
    with pytest.raises(WeightsError, match="not a (readable|complete)"):
        registry.resolve(file.as_uri(), tmp_path / "some_task")
    file.unlink()
    weights.write_weights(file, ARRAYS)
    path, _ = registry.resolve(file.as_uri(), tmp_path / "some_task", list(ARRAYS))
    assert path.is_relative_to(cache / "some_task") and same(weights.read_weights(path))
    assert sorted(item.name for item in path.parent.iterdir()) == [".lock", "files", f"{file.name}.sha256"]


@pytest.mark.parametrize("end", ["", "..", "%2e%2e", ".lock", "x%00y.tar", "a%2Fb.tar", "n" * 300 + ".tar"])
def test_the_end_of_an_address_names_a_file_whatever_it_is(tmp_path, cache, end):
    entry = registry._entry_of_address(f"http://127.0.0.1/{end}", "some_task")
    file = registry.cache_folder(entry) / entry.archive_name
    assert file.parent.parent == cache / "some_task" and file.name == os.path.basename(os.path.normpath(file))
    file.parent.mkdir(parents=True)
    file.with_name(f"{file.name}.part.json").touch()


def test_a_broken_archive_is_not_what_later_ones_are_compared_with(tmp_path, cache, archive):
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-5000].rstrip(b"\0"))
    with pytest.raises(WeightsError, match="damaged"):
        registry.resolve("Net", task(tmp_path, archive.as_uri()))
    archive.write_bytes(whole)
    path, _ = registry.resolve("Net", task(tmp_path, archive.as_uri()))
    assert same(weights.read_weights(path))


def test_weights_that_come_with_the_task(tmp_path, cache):
    folder = task(tmp_path, "")
    (folder / "weights.toml").write_text(
        "[weights.Small]\nfile = 'data/small.safetensors'\nlicence = 'CC0'\nsource = 'this project'"
    )
    weights.write_weights(folder / "data" / "small.safetensors", ARRAYS)
    path, entry = registry.resolve("Small", folder)
    assert path == folder / "data" / "small.safetensors" and same(weights.read_weights(path))
    assert registry.is_fetched(entry) and not cache.exists()


def test_the_checksum_of_what_comes_along(tmp_path, cache):
    """Of a file as ever; of a folder that of the listing which sha256sum gives."""
    folder = task(tmp_path, "")
    (folder / "data").mkdir()
    legacy.write_folder(folder / "data" / "net", {"b/w": np.ones(2, np.float32), "a": np.zeros(1, np.float32)})
    listing = subprocess.run(["sha256sum", "a", "b/w"], cwd=folder / "data" / "net", capture_output=True, check=True)
    digest = hashlib.sha256(listing.stdout).hexdigest()
    text = f"[weights.Net]\nfile = 'data/net'\nlicence = 'CC0'\nsource = 'here'\nsha256 = '{digest}'"
    (folder / "weights.toml").write_text(text)
    (folder / "data" / "net" / ".DS_Store").write_bytes(b"")
    assert registry.resolve("Net", folder)[0] == folder / "data" / "net"
    (folder / "data" / "net" / "a").write_bytes(b"")
    with pytest.raises(WeightsError, match="data/net: its sha256 is .*, it should be"):
        registry.resolve("Net", folder)


def test_paths_go_first_and_unknown_names_are_explained(tmp_path, cache, archive):
    folder = task(tmp_path, archive.as_uri())
    assert registry.resolve(tmp_path / "server" / "net", folder) == (tmp_path / "server" / "net", None)
    with pytest.raises(WeightsError, match="Nett: no such file or folder, nor released weights.*Did you mean Net?"):
        registry.resolve("Nett", folder)
    with pytest.raises(WeightsError, match="no such file or folder"):
        registry.resolve("Net", tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[weights.Net]\nurl = 3", "unknown fields url"),
        ("[weights.Net]\nurls = []\nlicence = ''\nsource = ''", "needs either urls or a file"),
        ("[weights.Net]", "missing"),
        ("[weights", "weights.toml"),
        (f"a = {'[' * 5000}", "weights.toml"),
        ("[weights]\nNet = 'x'", "weights.toml"),
        ("[weights.'../../escape']\nurls = ['x']\nlicence = ''\nsource = ''", "no folder should have"),
        ("[weights.Net]\nfile = '../../etc'\nlicence = ''\nsource = ''", "a file outside its folder"),
        ("[weights.Net]\nurls = [1]\nlicence = ''\nsource = ''", "a urls of the wrong type"),
        ("[weights.Net]\nurls = 'x'\nlicence = ''\nsource = ''", "a urls of the wrong type"),
        ("[weights.Net]\nurls = ['x']\nlicence = ''\nsource = ''\nsha256 = 5", "a sha256 of the wrong type"),
        ("[weights.Net]\nurls = ['x']\nlicence = ''\nsource = ''\nmean = ['a']", "a mean of the wrong type"),
    ],
)
def test_mistakes_in_the_list(tmp_path, text, message):
    (tmp_path / "weights.toml").write_text(text)
    with pytest.raises(WeightsError, match=message):
        registry.load_registry(tmp_path)


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/weights.toml")), ids=lambda path: path.parent.name)
def test_the_lists_of_the_tasks(path):
    entries = registry.load_registry(path.parent)
    assert entries
    for entry in entries.values():
        assert entry.licence and entry.source and entry.naming in ("named", "auto_2018")
        assert entry.file is not None or entry.variables > 0
        assert all(url.startswith(("http://", "https://")) for url in entry.urls)
        assert entry.file is None or entry.file.exists()
    archives = [entry.archive_name for entry in entries.values()]
    urls = [url for entry in entries.values() for url in entry.urls]
    assert len(set(urls)) == len(urls) and all(archives)
