"""READMEs in Chinese say what the English ones beside them say: the same sections, commands, names, links and figures."""

import calendar
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UNITS = {"million": 10**6, "万": 10**4, "亿": 10**8}
MONTHS = list(calendar.month_name)[1:]
CHINESE = sorted([ROOT / "README_cn.md", *ROOT.glob("*/README_cn.md")])


def sections(path: Path) -> list[tuple[str, list[str], str]]:
    """Of each section the marks of its heading, its code blocks, and the rest of it."""
    parts: list[tuple[str, list[str], list[str]]] = [("", [], [])]
    block: list[str] | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            parts[-1][1].append("\n".join([*(block or []), line]))
            block = [line] if block is None else None
        elif block is not None:
            block.append(line)
        else:
            if heading := re.match("#+ ", line):
                parts.append((heading.group(), [], []))
            parts[-1][2].append(line)
    assert block is None, f"{path}: a code block has no end"
    return [(marks, blocks, "\n".join(lines)) for marks, blocks, lines in parts]


def said(text: str) -> Counter[str]:
    """Names in backticks, targets of links without their anchors, rows of tables by their number of cells, and figures of the rest."""
    names = [" ".join(name.split()) for name in re.findall(r"`[^`]+`", text)]
    text = re.sub(r"`[^`]+`", "", text)
    targets = [target.partition("#")[0].replace("_cn.md", ".md") for target in re.findall(r"\]\(([^)]*)\)", text)]
    text = re.sub(r"\]\([^)]*\)", "]", text)
    rows = [f"row of {line.count('|') - 1}" for line in text.splitlines() if line.startswith("|")]
    return Counter([*names, *targets, *rows, *re.findall(r"\d+(?:[.,]\d+)*", without_words_for_numbers(text))])


def without_words_for_numbers(text: str) -> str:
    """The same with digits alone: 2.6 million and 260 万 are 2600000, of July 2018 and 2018 年 7 月 the month is 7."""
    text = re.sub(
        r"(\d+(?:\.\d+)?)\s*(million|万|亿)", lambda found: str(round(float(found[1]) * UNITS[found[2]])), text
    )
    return re.sub(rf"\b({'|'.join(MONTHS)})(?= \d{{4}})", lambda found: str(MONTHS.index(found[1]) + 1), text)


@pytest.mark.parametrize("chinese", CHINESE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_chinese_readme_says_what_the_english_one_says(chinese: Path) -> None:
    ours, theirs = sections(chinese), sections(chinese.with_name("README.md"))
    assert [marks for marks, _, _ in ours] == [marks for marks, _, _ in theirs], "headings and their levels"
    for (_, blocks, text), (_, known, english) in zip(ours, theirs, strict=True):
        where = f"{english.partition(chr(10))[0]} / {text.partition(chr(10))[0]}"
        assert blocks == known, f"code blocks of {where}"
        here, there = said(text), said(english)
        assert here == there, f"{where}: in Chinese alone {dict(here - there)}, in English alone {dict(there - here)}"


def test_every_folder_with_a_readme_has_one_in_chinese() -> None:
    folders = {path.parent for path in [ROOT / "README.md", *ROOT.glob("[!.]*/README.md")]}
    assert {path.parent for path in CHINESE} == folders
