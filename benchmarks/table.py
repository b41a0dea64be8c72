"""Writes the tables of the READMEs that come from measurements: scores, speed beside peers, several GPUs, first answers.

    python -m benchmarks.table            writes them, and results/curves.svg
    python -m benchmarks.table --check    says whether they are what the files of results/ say; exit code 1 if not

Where a table goes, a README (README.md and README_cn.md, here and in the folders) has a line `<!-- table: NAME -->` before it and
`<!-- end -->` after it; `<!-- table: speed TASK -->` stands in the pages of a task. To add or change a figure, change one file of
results/ and run this:

* `scores`: a file of results/scores/ is a row, in the order of the tasks and of the names of the files. It has

      task, what       folder, and what was scored on which data (texts)
      scores           {metric: number or [number, lowest, highest] of seeds, or text}; shown by `formats` {metric: ".3f" or "{:.2f}%"}
      kind             here; 2018 (a figure of the releases); published (the best or a well known one of others)
      source           who published it; the next are for `here` alone
      command          what made or measured it
      date, hardware   a text
      steps, seconds, seed    numbers or texts; null where it was not recorded
      curve            {title: text, of: metric, points: [[step, number], ...]}, or null; those of one title share a frame;
                       of several seeds {title, of, runs: [[[step, number], ...], ...]}
      runs             what the runs of several seeds made, if scores has their mean alone; not shown

  Instead of a number there may be {file: a name of results/, path: where it stands in there}. A path is a list of keys, places
  and {key: value} for the first item of a list that has these values.
* `speed`: a row of results/speed.json says what is compared, on what, and by such paths in which file the two figures stand; rows
  with `detail` are for the pages of their task alone.
* `scaling`: likewise, results/scaling.json; `alone` is where one GPU's figure of the same call stands, null if there is none.
* `start`: the newest results/start_cpu_DATE.json, as benchmarks/start.py writes it.

A text is a string for both languages, or {en: ..., cn: ...}.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.curves import Points, picture

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
READMES = {"en": "README.md", "cn": "README_cn.md"}
FIELDS = {
    "here": {"task", "what", "scores", "kind", "command", "date", "hardware", "steps", "seconds", "seed", "curve"},
    "2018": {"task", "what", "scores", "kind", "source"},
    "published": {"task", "what", "scores", "kind", "source"},
}
HEADS = {
    "scores": {
        "en": ["task", "what", "score", "steps", "time", "hardware", "seed", "made by"],
        "cn": ["任务", "内容", "结果", "步数", "时间", "硬件", "随机种子", "命令或来源"],
    },
    "speed": {
        "en": ["what", "zoo", "peer", "who that is", "zoo / peer", "on"],
        "cn": ["内容", "本库", "对照", "对照是谁", "本库 / 对照", "硬件，日期"],
    },
    "scaling": {
        "en": ["network", "batch statistics", "GPUs", "zoo, one process", "zoo, `./zoo launch`", "PyTorch DDP"],
        "cn": ["网络", "批统计量", "GPU", "本库，单进程", "本库，`./zoo launch`", "PyTorch DDP"],
    },
    "start": {"en": ["task", "the first time", "later"], "cn": ["任务", "第一次", "以后"]},
}
COMMA = {"en": ", ", "cn": "，"}
WORDS = {
    "published": {"en": "*published by {}*", "cn": "*{} 发表*"},
    "2018": {"en": "*released in 2018-2020: {}*", "cn": "*2018-2020 年发布：{}*"},
    "seconds": {"en": "{} s", "cn": "{} 秒"},
    "range": {"en": "{} ({} to {})", "cn": "{}（{} 至 {}）"},
    "to": {"en": " to ", "cn": " 至 "},
    "curve": {"en": "curve", "cn": "曲线"},
}


def load(name: str) -> Any:
    """A file of results/: JSON, or a JSON value a line."""
    text = (RESULTS / name).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def find(value: Any, path: list[Any]) -> Any:
    """What stands at a path. Raises KeyError if nothing does."""
    for place in path:
        if isinstance(place, Mapping):
            found = [item for item in value if place.items() <= item.items()]
            if not found:
                raise KeyError(f"no item has {dict(place)}")
            value = found[0]
        else:
            value = value[place]
    return value


def number(entry: Any) -> Any:
    """A number, a list of them or a text, or what stands where a reference says."""
    return find(load(entry["file"]), entry["path"]) if isinstance(entry, Mapping) else entry


def text(entry: Any, language: str) -> str:
    """A text in a language."""
    return entry[language] if isinstance(entry, Mapping) else str(entry)


def tasks() -> list[str]:
    """The folders in the order in which README.md lists them."""
    listed = re.findall(r"^\| \[(\w+)\]\(\1/README", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    return list(dict.fromkeys(listed))


def records() -> list[dict[str, Any]]:
    """The rows of `scores` in their order. Raises ValueError for one that lacks a field or has an unknown one."""
    found, order = [], tasks()
    for file in sorted((RESULTS / "scores").glob("*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        wanted = FIELDS[record["kind"]]
        if not wanted <= record.keys() <= wanted | {"formats", "runs"}:
            raise ValueError(f"{file.name}: has {sorted(record)}, wanted {sorted(wanted)}, and perhaps formats, runs")
        found.append(record | {"name": file.stem})
    return sorted(found, key=lambda record: order.index(record["task"]))


def scores(language: str) -> list[list[str]]:
    """The table of scores."""
    rows, before = [], None
    page = READMES[language] if all((ROOT / task / READMES[language]).exists() for task in tasks()) else READMES["en"]
    for record in records():
        task = record["task"]
        link = f"[{task}]({task}/{page})"
        formats = record.get("formats", {})
        shown = COMMA[language].join(
            f"{metric} {_score(number(entry), formats.get(metric, '.3f'), language)}"
            for metric, entry in record["scores"].items()
        )
        made = ["", "", "", "", text(record.get("source", ""), language)]
        if record["kind"] == "here":
            curve = f", [{text(WORDS['curve'], language)}](benchmarks/results/curves.svg)" if record["curve"] else ""
            seconds = number(record["seconds"])
            made = [
                _count(number(record["steps"]), language),
                "" if seconds is None else text(WORDS["seconds"], language).format(_count(seconds, language)),
                text(record["hardware"], language),
                _count(record["seed"], language),
                f"`{record['command']}`{curve}",
            ]
        else:
            made[-1] = text(WORDS[record["kind"]], language).format(made[-1])
        rows.append([link if task != before else "", text(record["what"], language), shown, *made])
        before = task
    return rows


def speed(language: str, task: str = "") -> list[list[str]]:
    """The table of speeds beside peers, of one task or the main page's; of CPUs, which are never alike, the ratios alone. A ratio
    is above 1 where the zoo is the faster, whatever the unit."""
    rows = []
    for row in [row for row in load("speed.json") if (row["task"] == task if task else not row.get("detail"))]:
        found = load(row["file"])
        if "ratio" in row:
            ratio, shown = find(found, row["ratio"]), ["", ""]
        else:
            ours, peer = (_middle(find(found, row[side])) for side in ("zoo", "peer"))
            ratio = ours / peer if row["more_is_faster"] else peer / ours
            shown = [f"{ours:,.0f}", f"{peer:,.0f}"] if "unit" in row else ["", ""]
        what = COMMA[language].join(text(row[key], language) for key in ("what", "unit") if key in row)
        on = COMMA[language].join([text(row["hardware"], language), row["date"]])
        rows.append([what, *shown, text(row["who"], language), f"{ratio:.2f}", on])
    return rows


def scaling(language: str) -> list[list[str]]:
    """The table of several GPUs: figures, and in brackets their share of so many times one GPU's."""
    rows = []
    for row in load("scaling.json"):
        cells = []
        for side in ("one_process", "launch", "peer"):
            paths = row[side]
            if paths is None:
                cells.append("")
                continue
            found = load(paths["file"])
            value = _middle(find(found, paths["path"]))
            share = ""
            if row["gpus"] > 1 and paths["alone"] is not None:
                share = f" ({value / _middle(find(found, paths['alone'])) / row['gpus']:.3f})"
            cells.append(f"{value:,.0f}{share}")
        rows.append(
            [
                text(row["network"], language),
                text(row["statistics"], language),
                text(row["gpus_shown"], language),
                *cells,
            ]
        )
    return rows


def start(language: str) -> list[list[str]]:
    """The table of first answers, in CPU seconds; the same in any language."""
    newest = max(RESULTS.glob("start_cpu_*.json")).name
    return [[run["task"], f"{run['cold']:.1f}", f"{run['warm']:.1f}"] for run in load(newest)["runs"]]


TABLES: dict[str, Callable[..., list[list[str]]]] = {
    "scores": scores,
    "speed": speed,
    "scaling": scaling,
    "start": start,
}


def _middle(value: Any) -> float:
    """A number, or the median of a list of them."""
    return sorted(value)[len(value) // 2] if isinstance(value, list) else value


def _score(value: Any, shown: str, language: str) -> str:
    if isinstance(value, list):
        return text(WORDS["range"], language).format(*(_score(item, shown, language) for item in value))
    if isinstance(value, str):
        return value
    return shown.format(value) if "{" in shown else format(value, shown)


def _count(value: Any, language: str) -> str:
    if isinstance(value, str):
        return value.replace(" to ", text(WORDS["to"], language))
    return "" if value is None else f"{value:,.0f}"


def names() -> list[str]:
    """What can stand in a mark."""
    return [*TABLES, *(f"speed {task}" for task in tasks())]


def pages() -> list[Path]:
    """All READMEs in both languages."""
    return [page for name in READMES.values() for page in [ROOT / name, *sorted(ROOT.glob(f"[!.]*/{name}"))]]


def language_of(page: Path) -> str:
    """The language of a README."""
    return next(language for language, name in READMES.items() if page.name == name)


def table(name: str, language: str) -> str:
    """A table as the READMEs have it, between its marks."""
    kind, *task = name.split()
    head = HEADS[kind][language]
    lines = [head, ["---"] * len(head), *TABLES[kind](language, *task)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def written(page: Path) -> str:
    """A README with its tables as they are to be. Raises ValueError for a mark without an end or of no table."""
    parts = page.read_text(encoding="utf-8").split("<!-- table: ")
    done = [parts[0]]
    for part in parts[1:]:
        name, _, rest = part.partition(" -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if name not in names() or not end:
            raise ValueError(f"{page}: table '{name}' is none of {', '.join(names())}, or has no end")
        done.append(f"<!-- table: {name} -->\n{table(name, language_of(page))}\n{end}{after}")
    return "".join(done)


def curves() -> str:
    """The curves of all scores as a picture (SVG): those of one title and metric share a frame."""
    frames: dict[str, list[Points]] = {}
    for record in records():
        if curve := record.get("curve"):
            runs = curve["runs"] if "runs" in curve else [curve["points"]]
            frames.setdefault(f"{curve['title']}: {curve['of']}", []).extend(map(number, runs))
    return picture(frames)


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if something is not up to date"
    )
    check = parser.parse_args().check
    wanted = {page: written(page) for page in pages()}
    wanted[RESULTS / "curves.svg"] = curves()
    old = [file for file, content in wanted.items() if not file.exists() or file.read_text(encoding="utf-8") != content]
    for file in old:
        print(f"{file.relative_to(ROOT)}: {'not up to date: python -m benchmarks.table' if check else 'written'}")
        if not check:
            file.write_text(wanted[file], encoding="utf-8")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
