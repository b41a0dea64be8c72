"""Unpacking: what arrives whole, and the archives that must not be unpacked."""

import gzip
import io
import os
import random
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

from fluid.errors import WeightsError
from fluid.formats import archive

import pytest


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for info, data in members:
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def member(name: str, **attributes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar(tmp_path, mode):
    long_name = "net/" + "x" * 150 + "/conv1_weights"
    source = tar(tmp_path / "a.tar", (member("./net/fc_0.w_0"), b"1234"), (member(long_name), b""), mode=mode)
    archive.unpack(source, tmp_path / "out")
    assert contents(tmp_path / "out") == {"net/fc_0.w_0": b"1234", long_name: b""}


def test_zip(tmp_path):
    source = zipped(tmp_path / "a.zip", ("net/", b""), ("net/a/b", b"12"), ("net/c", b"3"))
    archive.unpack(source, tmp_path / "out")
    assert contents(tmp_path / "out") == {"net/a/b": b"12", "net/c": b"3"}


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path):
    inner = zipped(tmp_path / "inner.zip", ("x", b"1")).read_bytes()
    source = tar(tmp_path / "a.tar", (member("w"), b"1234"), (member("z.npz"), inner))
    archive.unpack(source, tmp_path / "out")
    assert contents(tmp_path / "out") == {"w": b"1234", "z.npz": inner}


LINKS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]


@pytest.mark.parametrize("kind", LINKS)
def test_tar_links_and_devices(tmp_path, kind):
    good, bad = (member("net/good"), b"1"), (member("net/bad", type=kind, linkname="/etc/passwd"), b"")
    with pytest.raises(WeightsError, match="net/bad is a link, a device"):
        archive.unpack(tar(tmp_path / "a.tar", good, bad), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


NAMES = ["../evil", "net/../../evil", "/evil", "..", "C:/evil", "net\\..\\..\\evil"]


@pytest.mark.parametrize("name", NAMES)
def test_paths_that_leave_the_folder(tmp_path, name):
    (tmp_path / "deep").mkdir()
    for source in (
        tar(tmp_path / "deep" / "a.tar", (member("net/good"), b"1"), (member(name), b"2")),
        zipped(tmp_path / "deep" / "a.zip", ("net/good", b"1"), (name, b"2")),
    ):
        with pytest.raises(WeightsError, match="outside the folder"):
            archive.unpack(source, tmp_path / "deep" / "out")
        source.unlink()
    assert list(tmp_path.rglob("*")) == [tmp_path / "deep"]


def test_zip_symlinks(tmp_path):
    link = zipfile.ZipInfo("net/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(WeightsError, match="net/link is a link"):
        archive.unpack(zipped(tmp_path / "a.zip", (link, b"/etc/passwd")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bombs(tmp_path):
    zeros = bytes(40 * 2**20)
    for source in (
        zipped(tmp_path / "a.zip", ("net/w", zeros)),
        tar(tmp_path / "a.tar.gz", (member("net/w"), zeros), mode="w:gz"),
        zipped(tmp_path / "b.zip", *((f"net/{i}", bytes(2**20)) for i in range(40))),
    ):
        assert source.stat().st_size < 2**20
        with pytest.raises(WeightsError, match="decompression bomb"):
            archive.unpack(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE])
def test_bombs_in_headers_are_not_read_into_memory(tmp_path, kind):
    info = member("././@LongLink", type=kind, size=2**30)
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(tar(tmp_path / "a.tar", (member("net/w"), b"1234")).read_bytes()[:1024])
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(WeightsError, match="bytes where at most|sparse|bomb"):
        archive.unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20
    assert not (tmp_path / "out").exists()


def test_what_follows_the_end_is_read_within_bounds(tmp_path):
    whole = tar(tmp_path / "a.tar", (member("net/w"), b"1234")).read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole + bytes(40 * 2**20)))
    with pytest.raises(WeightsError, match="decompression bomb"):
        archive.unpack(tmp_path / "a.tar.gz", tmp_path / "out")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz", "zip"])
def test_one_bit_turned_over_is_never_accepted(tmp_path, mode):
    drawn, path = random.Random(0), tmp_path / "a"
    members = [(f"net/w{number}", drawn.randbytes(20_000)) for number in range(3)]
    if mode == "zip":
        zipped(path, *members)
    else:
        tar(path, *((member(name), data) for name, data in members), mode=mode)
    archive.unpack(path, tmp_path / "whole")
    data = path.read_bytes()
    for number in range(40):
        position = drawn.randrange(len(data) // 10, len(data) * 9 // 10)
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << drawn.randrange(8)]) + data[position + 1 :])
        try:
            archive.unpack(path, tmp_path / f"out{number}")
        except WeightsError:
            assert not (tmp_path / f"out{number}").exists()
        else:
            # Of a time or an owner in a zip's directory, which nothing depends on.
            assert contents(tmp_path / f"out{number}") == contents(tmp_path / "whole")


def test_an_archive_cut_off_where_a_file_ends(tmp_path):
    whole = tar(tmp_path / "a.tar", (member("net/w"), bytes(512)), (member("net/x"), b"1")).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:1024])
    with pytest.raises(WeightsError, match="without the mark of an end"):
        archive.unpack(tmp_path / "a.tar", tmp_path / "out")


def test_a_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(WeightsError, match="a pipe, a socket or a device"):
        archive.unpack(tmp_path / "a.tar", tmp_path / "out")


def test_a_stated_size_that_is_a_lie(tmp_path):
    # A sparse or huge member costs nothing before its size is checked.
    info = member("net/w")
    data = bytearray(tar(tmp_path / "a.tar", (info, b"1234")).read_bytes())
    info.size = 2**40
    data[:512] = info.tobuf()
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(WeightsError, match="bomb|truncated|damaged"):
        archive.unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_twice(tmp_path):
    source = tar(tmp_path / "a.tar", (member("net/w"), b"1"), (member("net/w"), b"2"))
    with pytest.raises(WeightsError, match="holds net/w twice"):
        archive.unpack(source, tmp_path / "out")
    source = tar(tmp_path / "b.tar", (member("net/w"), b"1"), (member("net/w/x"), b"2"))
    with pytest.raises(WeightsError, match="twice"):
        archive.unpack(source, tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_damage(tmp_path, kind):
    data = bytes(random.Random(0).randbytes(50_000))
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        zipped(path, ("net/w", data), ("net/x", data))
    else:
        tar(path, (member("net/w"), data), (member("net/x"), data), mode="w:gz" if kind == "tar.gz" else "w")
    whole = path.read_bytes()
    if kind == "tar":
        path.write_bytes(whole[: 512 + 50_176] + b"x" + whole[512 + 50_177 :])
        with pytest.raises(WeightsError, match="no valid header"):
            archive.unpack(path, tmp_path / "out")
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(WeightsError):
        archive.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()

    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for i in range(40):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            archive.unpack(path, tmp_path / f"out{i}")
        except WeightsError:
            assert not (tmp_path / f"out{i}").exists()


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"\0" * 2000, "no files in it"),
        (b"\1" * 2000, "not a tar or zip"),
    ],
)
def test_things_that_are_no_archives(tmp_path, data, message):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        archive.unpack(tmp_path / "a.tar", tmp_path / "out")


def test_finding_the_folder(tmp_path):
    def put(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"\0")

    put("a/resnet_50/115/conv1_weights", "a/__MACOSX/x", "a/.hidden")
    assert archive.find_parameters(tmp_path / "a") == tmp_path / "a/resnet_50/115"
    put("b/net/xception/conv/weights", "b/net/fc_weights")
    assert archive.find_parameters(tmp_path / "b") == tmp_path / "b/net"
    put("c/one/fc_weights", "c/two/fc_weights", "c/two/fc_offset")
    with pytest.raises(WeightsError, match=r"several folders \(one, two\)"):
        archive.find_parameters(tmp_path / "c")
    assert archive.find_parameters(tmp_path / "c", ["fc_weights", "fc_offset"]) == tmp_path / "c/two"
    # Nested names alone look like one more folder; the network's names tell.
    put("d/xception/conv/weights", "d/xception/bn/gamma")
    assert archive.find_parameters(tmp_path / "d", ["xception/conv/weights"]) == tmp_path / "d"
    (tmp_path / "e" / "empty").mkdir(parents=True)
    with pytest.raises(WeightsError, match="no files"):
        archive.find_parameters(tmp_path / "e")
