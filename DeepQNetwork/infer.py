"""Watch an agent play, record it, or run its network on given states.

python infer.py --show terminal                            the agent that comes with this folder, in the terminal
python infer.py --video game.gif --max_seconds 20          a recording, .gif or .mp4
python infer.py --feed in.npz --fetch out.npz              `state` [N, 4, 84, 84] in, `q_values` [N, actions] out
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepQNetwork import pictures
from DeepQNetwork.agent import Agent
from DeepQNetwork.environments import make_game
from DeepQNetwork.flags import ALIASES, RETIRED, PlayerFlags
from DeepQNetwork.opening import open_agent
from DeepQNetwork.player import check_actions, load_player
from DeepQNetwork.video import check_name, recording
from DeepQNetwork.watch import watch
from fluid import config as configuration
from fluid.config import ArrayFlags, Count, Positive, Range, Was
from fluid.interface import Interface
from fluid.records import json_lines
from fluid.run import console, script
from fluid.runner import Runner, run_arrays
from fluid.text import number_of


@dataclass
class Flags(PlayerFlags, ArrayFlags):
    """Watch or record an agent, or run its network on arrays."""

    test_episodes: Annotated[Count, Was("episodes")] = 1
    """Whole episodes to play."""
    show: Literal["none", "terminal", "window"] = "none"
    """Where to show the game while it is played, at its own speed."""
    video: Path | None = None
    """Record the games to this .gif or .mp4."""
    video_fps: Annotated[int, Range(1, 120)] | None = None
    """Frames a second of the video; by default 30, 15 for .gif. The game keeps its speed."""
    max_seconds: Positive | None = None
    """Stop after this much time of the game."""
    output_file: Annotated[Path | None, Was("results")] = None
    """File for JSON lines: one an episode."""
    feed: Path | None = None
    """Raw inputs: an .npz with `state` [N, 4, 84, 84], gray levels 0..255, oldest frame first."""
    fetch: Path | None = None
    """Raw outputs: the .npz to write, with `q_values` [N, actions]."""


def main(flags: Flags) -> list[dict[str, Any]]:
    """Do what the flags say; returns one record an episode."""
    arrays = flags.arrays()
    if arrays is not None:
        opened = open_agent(flags)
        run_arrays(Runner(opened, flags), lambda: build_program(opened.facts), *arrays)
        return []
    if flags.video is not None:
        check_name(flags.video)
    player = load_player(flags)
    agent = player.agent
    game = make_game(agent.env, protocol=agent.protocol, view=agent.view)
    check_actions(agent, game)
    console.print(game.description)
    console.print(f"{agent.network}; {player.how}; epsilon {flags.test_epsilon:g}, seed {flags.seed}")
    screen = {"none": None, "terminal": pictures.TerminalScreen, "window": pictures.WindowScreen}[flags.show]
    rate = flags.video_fps or (15 if flags.video and flags.video.suffix == ".gif" else 30)
    recorded = recording(flags.video, rate, game.screens_per_second)
    with json_lines(flags.output_file) as write, recorded as recorder:
        records = watch(
            player,
            game,
            episodes=flags.test_episodes,
            seed=flags.seed,
            screen=screen() if screen else None,
            recorder=recorder,
            max_seconds=flags.max_seconds,
            write=write,
        )
    if recorder is not None:
        console.print(f"{flags.video}: {number_of(recorder.frames, 'frame')} at {rate}/s")
    return records


def build_program(agent: Agent) -> Interface:
    """The Program for raw arrays, built with Paddle."""
    from DeepQNetwork.network import inference_program

    return inference_program(agent)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
