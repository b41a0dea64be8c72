"""Kaldi's tables: read as Kaldi's own code reads them, written so that it reads them; and files that hold something else.

golden/tables.ark was written by kaldi_native_io 1.23 (Kaldi's code, Apache-2.0), and golden/tables.npz is what it reads there.
"""

import gzip
import os
import struct
import sys
from pathlib import Path

from DeepASR.kaldi import tables
from DeepASR.kaldi.tables import ArchiveWriter, Kind, read_archive, read_script, read_text
from DeepASR.legacy import read_features
from fluid.errors import DataError, UserError

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GOLDEN = Path(__file__).parent / "golden"
ARCHIVE = (GOLDEN / "tables.ark").read_bytes()
KINDS: tuple[Kind, ...] = ("FM", "DM", "CM", "CM2", "CM3")


def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "tables.npz") as arrays:
        return dict(arrays)


def matrix(rows: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, 5)) * [1, 3, 0.1, 20, 0] + [0, 9, -4, 1, 2]).astype(np.float32)


def written(folder: Path, text: str, name: str = "feats.scp") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_every_kind_is_read_as_kaldi_reads_it(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "tables"
    path.write_bytes(gzip.compress(ARCHIVE) if packed else ARCHIVE)
    arrays, wanted = dict(read_archive(path)), golden()
    assert list(arrays) == list(wanted)
    for key, array in wanted.items():
        assert arrays[key].dtype == array.dtype, key
        np.testing.assert_allclose(arrays[key], array, rtol=0, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 40])
def test_what_is_written_is_read_again(tmp_path: Path, kind: Kind, rows: int) -> None:
    arrays = {
        "a": matrix(rows),
        "vector": matrix()[0],
        "pdfs": np.arange(rows),
        "常量": np.full((rows, 2), -7, np.float32),
    }
    with ArchiveWriter(tmp_path / "x.ark", tmp_path / "x.scp", kind) as archive:
        for key, array in arrays.items():
            archive.write(key, array)
    entries = read_script(tmp_path / "x.scp")
    assert list(entries) == list(arrays)
    span = float(np.ptp(arrays["a"]))
    # CM has 64 steps between a column's minimum and its lower quartile; the other two have one scale.
    step = {"FM": 0, "DM": 0, "CM": span / 63, "CM2": span / 65535, "CM3": span / 255}[kind]
    for key, array in read_archive(tmp_path / "x.ark"):
        np.testing.assert_array_equal(entries[key].read(), array)
        np.testing.assert_allclose(array, arrays[key], rtol=0, atol=(step / 2 if array.ndim == 2 else 0) + 1e-5)


def test_compressing_what_was_compressed_by_kaldi_gives_its_bytes(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "x.ark", kind="CM3") as archive:
        archive.write("CM3", golden()["FM"])
    assert (tmp_path / "x.ark").read_bytes() in ARCHIVE


def test_parts_of_matrices(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "x.ark", tmp_path / "x.scp") as archive:
        archive.write("a", matrix())
    place = (tmp_path / "x.scp").read_text().split()[1]
    # The archive is also found beside the script file.
    beside = place.rpartition("/")[2]
    ranges = {
        "[3:7]": np.s_[3:8],
        "[3:7,1:2]": np.s_[3:8, 1:3],
        "[:,0:0]": np.s_[:, :1],
        "[0:41]": np.s_[:],
        "": np.s_[:],
    }
    for text, part in ranges.items():
        for name in (place, beside):
            entry = read_script(written(tmp_path, f"a {name}{text}\n"))["a"]
            np.testing.assert_array_equal(entry.read(), matrix()[part])
    for text in ("[3:43]", "[40:41]", "[7:3]", "[0:3,0:5]"):
        with pytest.raises(DataError, match=r"feats.scp:1: .*x\.ark: .* are asked for of an array of shape \[40, 5\]"):
            read_script(written(tmp_path, f"a {place}{text}\n"))["a"].read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a gunzip -c ali.1.gz |\n", "feats.scp:1: 'gunzip -c ali.1.gz |' is a command, and commands"),
        ("a x.ark:3\n\n", "feats.scp:2: '' is not 'UTTERANCE FILE'"),
        ("a x.ark:3\nb\n", "feats.scp:2: 'b' is not 'UTTERANCE FILE'"),
        ("a x.ark:3\na x.ark:9\n", "feats.scp:2: 'a' is listed before, at .*feats.scp:1"),
        ("a x.ark:3[1-2]\n", "feats.scp:1: .*cannot be read"),
        ("a x.ark:3[1:2:3]\n", r"feats.scp:1: \[1:2:3\] is no range"),
        ("a x.ark:99999\n", "feats.scp:1: .*x.ark: the file ends before the array"),
        ("a missing.ark:3\n", "feats.scp:1: missing.ark: cannot be read"),
    ],
)
def test_script_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with ArchiveWriter(tmp_path / "x.ark") as archive:
        archive.write("a", matrix())
    with pytest.raises(DataError, match=message):
        read_script(written(tmp_path, text))["a"].read()


@pytest.mark.parametrize(
    "line",
    ["\ufeffa {}\n", "a\t{}\n", "a {}\r\n", " a  \t {} \n", "a {}"],
    ids=["byte order mark", "tab", "CRLF", "more blanks", "no last newline"],
)
def test_tables_as_editors_leave_them(tmp_path: Path, line: str) -> None:
    with ArchiveWriter(tmp_path / "x.ark") as archive:
        archive.write("a", matrix())
    entries = read_script(written(tmp_path, line.format("x.ark:2"), "x.scp"))
    assert list(entries) == ["a"]
    np.testing.assert_array_equal(entries["a"].read(), matrix())
    assert read_text(written(tmp_path, line.format("1 2"), "text")) == {"a": "1 2"}
    (tmp_path / "x.txt").write_bytes(line.format("1 2").encode())
    assert {key: ids.tolist() for key, ids in read_archive(tmp_path / "x.txt")} == {"a": [1, 2]}


def test_white_space_that_kaldi_does_not_know_belongs_to_words(tmp_path: Path) -> None:
    text = "a x\x85y\nb x\u2028y\n\u3000 5\nc\xa0d 6\n"
    assert read_text(written(tmp_path, text)) == {"a": "x\x85y", "b": "x\u2028y", "\u3000": "5", "c\xa0d": "6"}


def test_text_tables(tmp_path: Path) -> None:
    assert read_text(written(tmp_path, "a 开 灯\nb\t x \nc\n")) == {"a": "开 灯", "b": "x", "c": ""}
    with pytest.raises(DataError, match="feats.scp:2: 'a' is listed before"):
        read_text(written(tmp_path, "a 1\na 2\n"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="binary:1: is not UTF-8 text"):
        read_text(tmp_path / "binary")


def test_an_archive_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="written before"), ArchiveWriter(tmp_path / "x.ark") as archive:
        archive.write("a", matrix())
        archive.write("a", matrix())
    assert not list(tmp_path.iterdir())
    with ArchiveWriter(tmp_path / "x.ark", kind="CM") as archive:
        for array in (np.array([[np.nan]], np.float32), np.zeros((2, 2, 2)), np.array([2**40]), np.array(["a"])):
            with pytest.raises(ValueError):
                archive.write(str(array.shape) + array.dtype.kind, array)
        with pytest.raises(ValueError, match="no white space"):
            archive.write("a b", matrix())
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        ArchiveWriter(tmp_path / "file" / "x.ark")


def read_all(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for _, array in read_archive(path):
        assert array.dtype in (np.float32, np.float64, np.int32)


def test_every_cut_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    """A cut between two entries leaves a whole archive, and one in a line of text leaves a shorter line."""
    path, errors = tmp_path / "cut.ark", 0
    binary = ARCHIVE[: ARCHIVE.index(b"text ")]
    for length in range(len(binary)):
        try:
            read_all(path, binary[:length])
        except DataError as error:
            assert str(error).startswith(str(path))
            errors += 1
    # One whole archive before each of the entries, the first included.
    assert errors == len(binary) - 9
    packed = gzip.compress(ARCHIVE)
    for length in range(2, len(packed), 7):
        with pytest.raises(DataError, match="cut.ark: "):
            read_all(path, packed[:length])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(ARCHIVE) - 1), st.binary(min_size=1, max_size=6))
def test_any_damage_is_an_array_or_one_error(tmp_path: Path, place: int, change: bytes) -> None:
    try:
        read_all(tmp_path / "damaged.ark", ARCHIVE[:place] + change + ARCHIVE[place + len(change) :])
    except DataError as error:
        assert "damaged.ark: " in str(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"a \0BFM \4" + struct.pack("<i", 2**31 - 1) + b"\4" + struct.pack("<i", 2**31 - 1),
            "a: an array of .* is claimed",
        ),
        (b"a \0BFM \4" + struct.pack("<i", -1) + b"\4" + struct.pack("<i", -1), r"shape \[-1, -1\] is claimed"),
        (b"a \0BCM3 " + struct.pack("<ffii", np.nan, 1, 1, 1) + b"x", "compressed to the scale nan"),
        (b"a \0BCM2 " + struct.pack("<ffii", 0, 1, 99999, 99999), "an array of 19999600002 bytes is claimed"),
        (b"a \0BCM4 " + b"x" * 99, "'CM4' is no kind of matrix"),
        (b"a 1 2 3\na 1 2 3\n", "utterance a: there are two entries"),
        (b"a 99999999999\n", "more than 32 bits"),
        (b"a 1 two 3\n", "text that is not numbers"),
        (b"a [\n 1 2\n 3 ]\n", "rows of a matrix have different lengths"),
        (b"a [\n 1 2\n 3 4\n", "ends before the bracket"),
        (b"a 1 [ 3 4 ]\n", "before the bracket"),
        (b"a [ 3 4 ] 5\n", "behind the bracket"),
        (b"\0BFM \4", "not an archive of Kaldi's"),
        (b"x" * 5000, "not an archive of Kaldi's"),
    ],
)
def test_what_is_no_archive(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_all(tmp_path / "x.ark", data)
    with pytest.raises(DataError, match="missing.ark: cannot be read"):
        list(read_archive(tmp_path / "missing.ark"))


def test_a_matrix_as_text_has_no_more_rows_than_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_ROWS", 1000)
    (tmp_path / "a.ark").write_bytes(gzip.compress(b"a [\n" + b"1\n" * 2000 + b"]\n"))
    with pytest.raises(DataError, match="utterance a: a matrix has more than 1000 rows"):
        list(tables.read_archive(tmp_path / "a.ark"))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.ark")
    with pytest.raises(DataError, match="a pipe, a socket or a device"):
        list(tables.read_archive(tmp_path / "a.ark"))


STAND_IN = """
import numpy as np
from pathlib import Path
print("a greeting in five lines")

def read_mat_scp(path):
    for number, line in enumerate(Path(path).read_text().splitlines()):
        name, place = line.split()
        if place == "broken":
            raise ValueError("no such place")
        if place != "compressed":
            yield name, np.full((2, 3), number)
"""


def test_the_package_kaldi_io_reads_what_the_readers_here_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The package itself, which knows no compressed kind but the first, and with NumPy 2.4 none."""
    wanted = {"a": matrix(2), "b": matrix(5)}
    with ArchiveWriter(tmp_path / "feats.ark", tmp_path / "feats.scp") as writer:
        for name, array in wanted.items():
            writer.write(name, array)
    for path in (tmp_path / "feats.scp", tmp_path / "feats.ark"):
        found = dict(read_features(path, "kaldi_io"))
        assert list(found) == list(wanted)
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array)
    assert not capsys.readouterr().out


def test_what_the_package_kaldi_io_passes_over_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """By a stand-in of its name and interface, which passes over utterances as the real one does."""
    with monkeypatch.context() as without:
        without.setattr(sys, "path", [str(tmp_path)])
        with pytest.raises(UserError, match=r"pip install '.\[kaldi-io\]'"):
            list(read_features(tmp_path / "feats.scp", "kaldi_io"))
    (tmp_path / "kaldi_io").mkdir()
    (tmp_path / "kaldi_io" / "kaldi_io.py").write_text(STAND_IN)
    (tmp_path / "kaldi_io-0.9.8.dist-info").mkdir()
    (tmp_path / "kaldi_io-0.9.8.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: kaldi-io\nVersion: 0.9.8\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "feats.scp").write_text("a x\nb y\n")
    found = dict(read_features(tmp_path / "feats.scp", "kaldi_io"))
    assert {name: array.tolist() for name, array in found.items()} == {"a": [[0] * 3] * 2, "b": [[1] * 3] * 2}
    assert found["a"].dtype == np.float32 and not capsys.readouterr().out
    (tmp_path / "feats.scp").write_text("a x\nb compressed\n")
    with pytest.raises(DataError, match="passed over 1 of 2 utterances; use --reader own"):
        list(read_features(tmp_path / "feats.scp", "kaldi_io"))
    (tmp_path / "feats.scp").write_text("a broken\n")
    with pytest.raises(DataError, match="feats.scp: kaldi-io cannot read it .ValueError: no such place"):
        list(read_features(tmp_path / "feats.scp", "kaldi_io"))
