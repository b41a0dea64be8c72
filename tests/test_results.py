"""The tables of the READMEs are what the measurements say."""

import json
import re
from pathlib import Path
from unittest import mock

from benchmarks import shipped, start, table
from benchmarks.curves import WIDTH, picture

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in table.pages()]
THOUSANDS = r"\d{1,3}(?:,\d{3})+"


@pytest.mark.parametrize("page", PAGES)
def test_tables_of_readmes_are_those_of_the_files(page: Path) -> None:
    readme = page.read_text(encoding="utf-8")
    folder = page.parent.name
    wanted = list(table.TABLES) if page.parent == ROOT else [f"speed {folder}"] * (folder in table.tasks())
    assert re.findall(r"<!-- table: (.*) -->", readme) == wanted
    assert readme == table.written(page), "run ./zoo benchmark table"


@pytest.mark.parametrize("page", PAGES)
def test_figures_of_the_speed_tables_stand_nowhere_by_hand(page: Path) -> None:
    """From a thousand on: smaller ones are too often others by chance."""
    names = [name for name in table.names() if name != "scores"]
    measured = set(re.findall(THOUSANDS, "".join(table.table(name, table.language_of(page)) for name in names)))
    by_hand = re.sub(r"<!-- table: .*?<!-- end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert sorted(measured & set(re.findall(THOUSANDS, by_hand))) == []


def test_every_row_of_speed_stands_on_a_page_of_a_task() -> None:
    rows = table.load("speed.json")
    assert sum(len(table.speed("en", task)) for task in table.tasks()) == len(rows)
    assert len(table.speed("en")) == len([row for row in rows if "detail" not in row])


def test_curves_are_those_of_the_files() -> None:
    assert (table.RESULTS / "curves.svg").read_text(encoding="utf-8") == table.curves(), "run ./zoo benchmark table"


def test_runs_of_one_title_share_a_frame() -> None:
    drawn = picture({"loss": [[(1, 2.0), (4, 0.5)], [(2, 1.0), (3, 1.5)]], "score": [[(10, -5.0), (20, 5.0)]]})
    assert re.findall(r"<text[^>]*>([a-z][^<]*)<", drawn) == ["loss, 2 seeds", "score"]
    lines = re.findall(r'<polyline points="([^"]*)"', drawn)
    places, heights = np.array([point.split(",") for line in lines[:2] for point in line.split()], float).T
    # Steps 1, 4, 2 and 3 of 4, to the decimal that is written; a value is higher where it is larger.
    assert places - places[0] == pytest.approx(np.array([0, 3, 1, 2]) * WIDTH / 4, abs=0.11)
    assert np.argsort(heights).tolist() == [0, 3, 2, 1]


def test_every_task_has_a_score_with_its_command_and_one_of_others() -> None:
    kinds: dict[str, set[str]] = {}
    for record in table.records():
        kinds.setdefault(record["task"], set()).add(record["kind"])
        if record["kind"] == "here":
            assert record["command"], record["name"]
            assert record["date"], record["name"]
    assert kinds.keys() == set(table.tasks())
    assert [task for task, found in kinds.items() if "here" not in found] == []
    # Nobody published figures of a converter, and the README of 2018 had none of Atari games.
    assert [task for task, found in kinds.items() if "published" not in found] == ["caffe2fluid"]
    assert [task for task, found in kinds.items() if "2018" not in found] == ["caffe2fluid", "DeepQNetwork"]


OURS = [
    pytest.param(record["task"], row[2], id=record["name"])
    for record, row in zip(table.records(), table.scores("en"), strict=True)
    if record["kind"] == "here"
]


@pytest.mark.parametrize(("task", "scores"), OURS)
def test_a_score_of_ours_is_the_same_on_the_page_of_its_task(task: str, scores: str) -> None:
    """The page says more of it: this is about the first metric's value, or mean."""
    page = (ROOT / task / "README.md").read_text(encoding="utf-8")
    found = re.search(r" (\d+(?:\.\d+)?)", scores)
    assert found and re.search(rf"(?<![\d.]){re.escape(found[1])}(?!\d)", page), scores


@pytest.mark.parametrize(
    ("name", "rest"), [("scores", "| no end |"), ("prices", "<!-- end -->"), ("speed prices", "<!-- end -->")]
)
def test_a_table_outside_its_marks_or_without_an_end_is_an_error(name: str, rest: str, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"<!-- table: {name} -->\n{rest}\n")
    with pytest.raises(ValueError, match=f"README.md: table '{name}' is none of"):
        table.written(page)


def test_a_path_finds_items_by_their_values() -> None:
    rows = {"rows": [{"who": "zoo", "batch": 1, "median": 3}, {"who": "zoo", "batch": 8, "median": 5}]}
    assert table.find(rows, ["rows", {"who": "zoo", "batch": 8}, "median"]) == 5
    assert table.find(rows, ["rows", -1, "median"]) == 5
    with pytest.raises(KeyError, match="no item has"):
        table.find(rows, ["rows", {"who": "torch"}, "median"])


@pytest.mark.parametrize(("more_is_faster", "ratio"), [(True, "0.50"), (False, "2.00")])
def test_a_ratio_above_one_says_that_the_zoo_is_faster(more_is_faster: bool, ratio: str) -> None:
    row = {
        "task": "icnet",
        "what": "this",
        "file": "f",
        "zoo": [0],
        "peer": [1],
        "who": "others",
        "hardware": "one",
        "date": "2026-11-27",
    }
    files = {"speed.json": [row | {"more_is_faster": more_is_faster}], "f": [[4, 5, 6], 10]}
    with mock.patch.object(table, "load", files.__getitem__):
        assert table.speed("en") == [["this", "", "", "others", ratio, "one, 2026-11-27"]]


def test_a_record_with_a_field_too_many_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    record = {"task": "icnet", "what": "", "scores": {}, "kind": "published", "source": "", "price": 1}
    (tmp_path / "scores" / "one.json").write_text(json.dumps(record))
    with mock.patch.object(table, "RESULTS", tmp_path), pytest.raises(ValueError, match="one.json: has .*price"):
        table.records()


def test_what_is_evaluated_is_there() -> None:
    for name, evaluation in shipped.EVALUATIONS.items():
        verb, task, *_ = evaluation.command.split()
        assert (ROOT / task / f"{verb}.py").is_file(), name


def test_what_the_starts_are_given_is_there() -> None:
    patterns = [word for words in start.INPUTS.values() for word in words if "/" in word]
    assert patterns and [pattern for pattern in patterns if not any(ROOT.glob(pattern))] == []
