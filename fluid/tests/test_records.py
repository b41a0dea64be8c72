"""What infer.py and eval.py write: at once, and with one message where it cannot be."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

from fluid.errors import UserError
from fluid.records import json_lines, make_folder, refuse_existing, refuse_unwritable, set_aside, write_result

import pytest


def test_a_record_can_be_read_as_soon_as_it_is_written(tmp_path):
    path = tmp_path / "new" / "records.jsonl"
    with json_lines(path) as write:
        for number in range(3):
            write({"place": f"图 {number}", "score": number / 2})
            lines = path.read_text(encoding="utf-8").splitlines()
            assert [json.loads(line)["score"] for line in lines] == [place / 2 for place in range(number + 1)]
    assert "图 2" in lines[2]
    with json_lines(None) as write:
        write({"nothing": object()})


def test_what_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    for attempt in (
        lambda: make_folder(tmp_path / "file"),
        lambda: write_result(tmp_path / "file", {}, weights="", data="", samples=0, seconds=0),
        lambda: json_lines(tmp_path / "file" / "x.jsonl").__enter__(),
    ):
        with pytest.raises(UserError, match="file.*cannot be written"):
            attempt()
    with pytest.raises(UserError, match="/dev/full: cannot be written"), json_lines(Path("/dev/full")) as write:
        write({})
    with pytest.raises(UserError, match="cannot be written"), json_lines(tmp_path) as write:
        write({})


@pytest.mark.parametrize(
    ("name", "place"),
    [("output_dir", "file"), ("label_dir", "file/x"), ("output_file", "."), ("output_file", "file/x")],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, name, place):
    (tmp_path / "file").write_text("")
    refuse_unwritable(SimpleNamespace(output_dir=tmp_path / "new" / "folder", output_file=tmp_path / "new" / "x.txt"))
    refuse_unwritable(SimpleNamespace(output_dir=None))
    with pytest.raises(UserError, match="cannot be written"):
        refuse_unwritable(SimpleNamespace(**{name: tmp_path / place}))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_of_the_work_itself_is_not_taken_for_one_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError), json_lines(tmp_path / "x.jsonl"):
        raise FileNotFoundError("elsewhere")


def test_a_result_holds_its_numbers_and_is_named(tmp_path, capsys):
    of = {"weights": "output", "data": "clothes", "samples": 8, "seconds": 1.5}
    write_result(tmp_path, {"acc1": 0.25}, **of, pictures=[tmp_path / "confusion.png"])
    assert json.loads((tmp_path / "result.json").read_text()) == {**of, "acc1": 0.25}
    assert "result.json, confusion.png" in capsys.readouterr().out


def test_results_of_an_earlier_call_are_kept(tmp_path, capsys):
    names = ("found.jsonl", "[0-9]_*.png")
    assert set_aside(tmp_path / "new", names) == tmp_path / "new" and capsys.readouterr().out == ""
    for number in range(2):
        (tmp_path / "new" / "found.jsonl").write_text(str(number))
        (tmp_path / "new" / f"{number}_word.png").write_text("")
        (tmp_path / "new" / "own.png").write_text("")
        set_aside(tmp_path / "new", names)
        assert "earlier call" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["before", "before.1", "own.png"]
    assert (tmp_path / "new" / "before.1" / "found.jsonl").read_text() == "1"
    assert (tmp_path / "new" / "before.1" / "1_word.png").exists()


def test_a_folder_that_is_there_or_cannot_be_made_is_refused(tmp_path):
    refuse_existing(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file exists already; choose another --output_dir"):
        refuse_existing(tmp_path / "file")
    with pytest.raises(UserError, match=r"file/folder: cannot be written \(Not a directory\)"):
        refuse_existing(tmp_path / "file" / "folder")


def test_of_a_result_that_cannot_be_written_the_earlier_one_stays(tmp_path, monkeypatch):
    write_result(tmp_path, {"acc1": 1.0}, weights="w", data="d", samples=1, seconds=2)
    before = (tmp_path / "result.json").read_text()

    def full(path: Path, text: str, **options: str) -> None:
        path.write_bytes(text[:9].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"result.json: cannot be written \(No space"):
        write_result(tmp_path, {"acc1": 0.5}, weights="w", data="d", samples=1, seconds=2)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert (tmp_path / "result.json").read_text() == before


def test_names_that_are_no_text_come_back_from_json(tmp_path):
    name = os.fsdecode(b"\xff.jpg")
    with json_lines(tmp_path / "records.jsonl") as write:
        write({"image": name, "said": "图"})
    write_result(tmp_path, {}, weights=name, data="", samples=1, seconds=2)
    assert json.loads((tmp_path / "records.jsonl").read_bytes()) == {"image": name, "said": "图"}
    assert json.loads((tmp_path / "result.json").read_bytes()) == {
        "weights": name,
        "data": "",
        "samples": 1,
        "seconds": 2,
    }
