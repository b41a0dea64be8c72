"""Watch an agent play, record it, or run its network on given states.

python infer.py --show terminal                            the agent that comes with this folder, in the terminal
python infer.py --video game.gif --max_seconds 20          a recording, .gif or .mp4
python infer.py --feed in.npz --fetch out.npz              `state` [N, 4, 84, 84] in, `q_values` [N, actions] out
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepQNetwork import pictures
from DeepQNetwork.agent import Agent
from DeepQNetwork.environments import PROTOCOLS, AtariGame, game_id, is_atari
from DeepQNetwork.flags import ALIASES, PlayerFlags
from DeepQNetwork.network import inference_program
from DeepQNetwork.player import check_actions, load_player
from DeepQNetwork.pretrained import load_agent
from DeepQNetwork.watch import Recorder, watch
from fluid import config as configuration
from fluid import engine as engines
from fluid.commands import read_npz, write_npz
from fluid.errors import DataError, UserError
from fluid.run import console, script

import numpy as np


@dataclass
class Flags(PlayerFlags):
    """Watch or record an agent, or run its network on arrays."""

    episodes: int = 1
    """Games to play."""
    show: Literal["none", "terminal", "window"] = "none"
    """Where to show the game while it is played, at its own speed."""
    video: Path | None = None
    """Record the games to this .gif or .mp4."""
    video_fps: int | None = None
    """Frames a second of the video; by default 30, 15 for .gif. The game keeps its speed."""
    max_seconds: float | None = None
    """Stop after this much time of the game."""
    results: Path | None = None
    """Write a JSON line an episode here."""
    feed: Path | None = None
    """Run the network on the arrays of this .npz: `state` [N, 4, 84, 84], gray levels 0..255, oldest frame first."""
    fetch: Path | None = None
    """Where the outputs go: `q_values` [N, actions]."""


def main(flags: Flags) -> list[dict[str, Any]]:
    """Do what the flags say; returns one record an episode."""
    if (flags.feed is None) != (flags.fetch is None):
        raise UserError("--feed and --fetch belong together: --feed in.npz --fetch out.npz")
    if flags.feed is not None:
        run_arrays(flags)
        return []
    if flags.video is not None and flags.video.suffix not in (".gif", ".mp4"):
        raise UserError(f"--video {flags.video}: videos are written as .gif or .mp4")
    agent, q_function, engine = load_player(flags)
    if not is_atari(agent.env):
        raise UserError(f"{agent.env} has no screen here; eval.py plays it and prints the score")
    game = AtariGame(game_id(agent.env), PROTOCOLS[agent.protocol])
    check_actions(agent, game)
    console.print(f"{game.description}", markup=False)
    console.print(f"{agent.network}; {engine}; epsilon {flags.epsilon:g}, seed {flags.seed}", markup=False)
    screen = {"none": None, "terminal": pictures.TerminalScreen, "window": pictures.WindowScreen}[flags.show]
    rate = flags.video_fps or (15 if flags.video and flags.video.suffix == ".gif" else 30)
    recorder = Recorder(rate) if flags.video else None
    records = watch(
        q_function,
        agent,
        game,
        episodes=flags.episodes,
        epsilon=flags.epsilon,
        seed=flags.seed,
        screen=screen() if screen else None,
        recorder=recorder,
        max_seconds=flags.max_seconds,
    )
    if recorder is not None:
        pictures.write_video(flags.video, recorder.frames, rate)
        console.print(f"{flags.video}: {len(recorder.frames)} frames at {rate}/s", markup=False)
    if flags.results is not None:
        flags.results.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return records


def run_arrays(flags: Flags) -> None:
    """`--feed` and `--fetch`: the inference Program on raw arrays."""
    arrays = read_npz(flags.feed)
    if set(arrays) != {"state"}:
        raise DataError(f"{flags.feed}: must hold one array, state; it holds {', '.join(arrays) or 'nothing'}")
    opened = load_agent(flags)
    agent = opened.facts
    state = checked_state(flags.feed, arrays["state"], agent)
    if opened.exported is not None:
        outputs = opened.exported.run({"state": state})
    else:
        program = inference_program(agent)
        engine, _ = engines.create(flags.engine, flags.device, flags.precision, flags.seed)
        engine.load({name: opened.state[name] for name in program.state_names})
        outputs = engine.run(program, {"state": state})
    outputs = {name: np.asarray(array) for name, array in outputs.items()}
    write_npz(flags.fetch, outputs)
    for name, array in outputs.items():
        console.print(f"{flags.fetch}: {name} {array.dtype} {list(array.shape)}", markup=False)


def checked_state(path: Path, state: np.ndarray, agent: Agent) -> np.ndarray:
    """The fed states as float32; raises DataError for another shape or for no numbers."""
    if (
        state.dtype.kind not in "uif"
        or state.ndim != len(agent.state_shape) + 1
        or state.shape[1:] != agent.state_shape
    ):
        wanted = ", ".join(map(str, agent.state_shape))
        raise DataError(f"{path}: state must be numbers [N, {wanted}], not {state.dtype} {list(state.shape)}")
    return state.astype(np.float32)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES)))
