"""./zoo demo: what each task shows is there to be run, and the page and the picture show it."""

import shlex

from fluid.commands import demo

import pytest
from PIL import Image

SHOWS = {show.task: show for show in demo.shows()}


def test_every_task_is_shown():
    assert set(SHOWS) == {path.parent.name for path in demo.ROOT.glob("*/infer.py")}
    for show in SHOWS.values():
        for command in show.commands:
            name, *words = shlex.split(command)
            assert (demo.ROOT / show.task / f"{name}.py").is_file(), command
            for word in words:
                if "/" in word and "{output}" not in word:
                    assert (demo.ROOT / word).exists(), command


def test_page_and_picture(tmp_path, capsys):
    """Of the quickest task: the command as a person types it, what it printed, and one tile."""
    demo.main(["--output_dir", str(tmp_path), "caffe2fluid"])
    page = (tmp_path / "index.html").read_text()
    assert "./zoo convert caffe2fluid caffe2fluid/data/" in page and "multiply-adds" in page
    with Image.open(tmp_path / "demo.png") as picture:
        assert picture.width > demo.TILE[0] and len(set(picture.convert("L").getdata())) > 10
    assert "index.html" in capsys.readouterr().out


def test_an_installed_zoo_shows_commands_that_work_there(tmp_path, monkeypatch):
    """Without ./zoo, and with what comes along where it lies."""
    (tmp_path / "icnet" / "data").mkdir(parents=True)
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    words = ["icnet/data", "good morning", "--output_dir", "/elsewhere/demo"]
    said = demo.typed("icnet", "infer", words)
    assert said == f"python -m icnet.infer {tmp_path}/icnet/data 'good morning' --output_dir /elsewhere/demo"


def test_a_show_that_fails_is_named(tmp_path, monkeypatch, capsys):
    broken = demo.Show("caffe2fluid", "No net", ["convert nothing.prototxt --output {output}/net"], [])
    monkeypatch.setattr(demo, "shows", lambda: [broken])
    with pytest.raises(SystemExit) as stopped:
        demo.main(["--output_dir", str(tmp_path)])
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    assert "failed: caffe2fluid" in printed and "nothing.prototxt" in printed
    with pytest.raises(SystemExit) as stopped:
        demo.main(["no_such_task"])
    assert stopped.value.code == 2


@pytest.mark.full
def test_every_show_runs(tmp_path):
    demo.main(["--output_dir", str(tmp_path)])
    page = (tmp_path / "index.html").read_text()
    assert page.count("<h2>") == len(SHOWS) and page.count("<img") >= 10
