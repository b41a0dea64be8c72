"""Scripts from outside: arrays in and out, exported models, recordings, the terminal, help texts and messages."""

import json
import runpy
import sys
from pathlib import Path
from unittest import mock

from DeepQNetwork import eval as evaluation
from DeepQNetwork import export, infer, pictures
from fluid.arrays import read_npz
from fluid.errors import DataError, UserError, WeightsError

import cv2
import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent
GOLDEN = FOLDER.parent / "fluid" / "tests" / "golden" / "dqn_breakout_2018.npz"


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return export.main(
        export.Flags(pretrained_model="breakout_2018", export_dir=tmp_path_factory.mktemp("export") / "breakout")
    )


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_feed_and_fetch(tmp_path, exported, dtype):
    """Checkpoint-like weights on both engines and the exported model: the Q values of 2018."""
    golden = read_npz(GOLDEN)
    np.savez(tmp_path / "in.npz", state=golden["state"].astype(dtype))
    for spec in (
        {"pretrained_model": "breakout_2018", "engine": "xla"},
        {"pretrained_model": str(FOLDER / "data" / "breakout_2018"), "env": "Breakout", "engine": "paddle"},
        {"exported_model": exported},
    ):
        infer.main(infer.Flags(**spec, feed=tmp_path / "in.npz", fetch=tmp_path / "out.npz"))
        q = read_npz(tmp_path / "out.npz")["q_values"]
        assert np.abs(q - golden["q"]).max() / np.abs(golden["q"]).max() < 1e-5, spec


def test_wrong_arrays_are_refused(tmp_path):
    fetch = tmp_path / "out.npz"
    for content, message in (
        ({"state": np.zeros((2, 84, 84, 4), np.uint8)}, r"must be float32 \[any, 4, 84, 84\]"),
        ({"image": np.zeros((1, 4, 84, 84))}, "takes the inputs state; missing: state; unknown: image"),
        ({"state": np.array(["a"])}, r"must be float32 \[any, 4, 84, 84\]"),
    ):
        np.savez(tmp_path / "in.npz", **content)
        with pytest.raises(DataError, match=message):
            infer.main(infer.Flags(feed=tmp_path / "in.npz", fetch=fetch))
    (tmp_path / "in.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a readable"):
        infer.main(infer.Flags(feed=tmp_path / "in.npz", fetch=fetch))
    with pytest.raises(UserError, match="go together"):
        infer.main(infer.Flags(feed=tmp_path / "in.npz"))
    assert not fetch.exists()


@pytest.mark.parametrize("script", ["eval", "infer"])
def test_the_flags_of_2018_that_played_act_or_are_told_of(script, capsys, monkeypatch):
    """`play.py --rom pong.bin --alg DQN --model_path DIR --viz 0.01`."""
    words = ["--rom", "Pong", "--alg", "DQN", "--model_path", "weights", "--viz", "0.01"]
    parsed = []
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    monkeypatch.setattr("fluid.weights.open", lambda folder, flags, **options: parsed.append(flags) or sys.exit(0))
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(FOLDER / f"{script}.py"), run_name="__main__")
    assert stop.value.code == 0 and (parsed[0].env, parsed[0].pretrained_model) == ("Pong", "weights")
    told = capsys.readouterr().err
    assert "--alg has no effect" in told and "--show window" in told


def test_recording_and_terminal(tmp_path, capsys):
    """Two seconds of a game: as many frames as that takes, of the screen's size, and drawn in colours."""
    for name, env in (("game.gif", None), ("game.mp4", "Breakout")):
        records = infer.main(
            infer.Flags(
                video=tmp_path / name,
                max_seconds=2.0,
                show="terminal",
                env=env,
                output_file=tmp_path / "games.jsonl",
            )
        )
        assert len(records) == 1 and not records[0]["finished"] and records[0]["steps"] == 30
        assert [json.loads(line) for line in (tmp_path / "games.jsonl").read_text().splitlines()] == records
    with Image.open(tmp_path / "game.gif") as gif:
        assert gif.size == (160, 210) and gif.n_frames > 10
        assert sum(_durations(gif)) == 2000
    video = cv2.VideoCapture(str(tmp_path / "game.mp4"))
    assert abs(int(video.get(cv2.CAP_PROP_FRAME_COUNT)) - 60) <= 2
    printed = capsys.readouterr().out
    assert (
        "\x1b[38;2;" in printed and "pong, protocol standard" in printed and "breakout, protocol baselines" in printed
    )
    with pytest.raises(UserError, match=".gif or .mp4"):
        infer.main(infer.Flags(video=tmp_path / "game.avi"))


def _durations(image: Image.Image) -> list[int]:
    found = []
    for index in range(image.n_frames):
        image.seek(index)
        found.append(image.info["duration"])
    return found


def test_no_window_without_a_desktop(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(UserError, match="--show terminal"):
        pictures.WindowScreen()


def test_a_window_that_is_closed_ends_the_game(monkeypatch):
    class Gone(Exception):
        pass

    shown = mock.MagicMock(TclError=Gone)
    monkeypatch.setitem(sys.modules, "tkinter", shown)
    screen = pictures.WindowScreen()
    screen.show(np.zeros((210, 160, 3), np.uint8), "score 0")
    assert shown.PhotoImage.return_value.configure.call_args.kwargs["data"].startswith(b"P6 480 630 255 ")
    shown.Tk.return_value.update.side_effect = Gone
    with pytest.raises(KeyboardInterrupt):
        screen.show(np.zeros((210, 160, 3), np.uint8), "score 1")


def test_agents_and_games_must_fit(tmp_path):
    with pytest.raises(UserError, match="6 actions .* 4 actions"):
        evaluation.main(evaluation.Flags(pretrained_model="pong", env="Breakout", test_episodes=1))
    with pytest.raises(WeightsError, match="no such file"):
        evaluation.main(evaluation.Flags(pretrained_model=str(tmp_path / "nothing")))


def test_agent_that_comes_along_plays_pong():
    """20.4 +- 0.8 was measured over ten episodes."""
    scores = evaluation.main(evaluation.Flags(test_episodes=2, num_envs=2))
    assert scores.result()["score"] >= 17


@pytest.mark.full
def test_agent_that_comes_along_plays_breakout():
    """453 +- 113 (381 to 841) was measured over thirty episodes."""
    scores = evaluation.main(evaluation.Flags(env="Breakout", test_episodes=4))
    assert scores.result()["score"] >= 300


@pytest.mark.full
def test_agent_of_2018_plays_breakout():
    """395 +- 27 and 385 +- 53 were measured over ten episodes each; the wrong resize filter scores about 20."""
    scores = evaluation.main(evaluation.Flags(pretrained_model="breakout_2018", test_episodes=10))
    assert scores.result()["score"] >= 350
