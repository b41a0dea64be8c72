"""Playing one game with its screen: shown as it is played, recorded, or both. Free of Paddle."""

import time
from typing import Any, Protocol

from DeepQNetwork.environments import Game
from DeepQNetwork.episodes import Player
from DeepQNetwork.video import Recorder
from fluid.records import Write
from fluid.run import console
from fluid.text import number_of

import numpy as np


class Screen(Protocol):
    """Where frames [H, W, 3] uint8 are shown."""

    def show(self, frame: np.ndarray, caption: str) -> None: ...

    def close(self) -> None: ...


def watch(
    player: Player,
    game: Game,
    *,
    episodes: int,
    seed: int,
    screen: Screen | None = None,
    recorder: Recorder | None = None,
    max_seconds: float | None = None,
    write: Write = lambda record: None,
    say: bool = True,
) -> list[dict[str, Any]]:
    """Play `episodes` games, at their own speed if a screen shows them; one record each, written when it ends.

    `seed` begins the first game. `max_seconds` of game time cut the last one short; its record says `finished: False`.
    `say` prints a line an episode.
    """
    game.keep_screens = screen is not None or recorder is not None
    agent = player.agent
    player.begin(seed)
    observation, first = game.reset(seed), np.ones(1, bool)
    records: list[dict[str, Any]] = []
    total, steps, played, cut = 0.0, 0, 0, False
    pace = game.screens_per_step / game.screens_per_second
    most = None if max_seconds is None else max(round(max_seconds / pace), 1)
    while len(records) < episodes and not cut:
        began = time.perf_counter()
        game.send(player.act(observation, first))
        step = game.receive()
        total, steps = (0.0, 0) if step.first[0] else (total + float(step.reward[0]), steps + 1)
        played += 1
        if recorder is not None:
            recorder.add(game.screens)
        if screen is not None:
            screen.show(game.screens[-1], f"{agent.env}  score {total:g}  step {steps}")
            time.sleep(max(pace - (time.perf_counter() - began), 0.0))
        cut = played == most
        over = bool(step.terminated[0] or step.truncated[0])
        if over or cut:
            records.append(
                {"env": agent.env, "protocol": agent.protocol, "score": total, "steps": steps, "finished": over}
            )
            write(records[-1])
            if say:
                console.print(
                    f"episode {len(records)}: score {total:g} after {number_of(steps, 'step')}{'' if over else ' (cut)'}"
                )
        observation, first = step.observation, step.first
    if screen is not None:
        screen.close()
    return records
