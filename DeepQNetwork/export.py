"""Export an agent for deployment: a Paddle inference model, and ONNX on request.

python export.py                                   the best of ./output, or the agent that comes along, to ./exported
python export.py --checkpoint output --onnx        the best checkpoint of a run
python export.py --storage int8                    8-bit weights too, in exported/weights.safetensors

Input `state` [N, 4, 84, 84] float32, gray levels 0..255, oldest frame first; output `q_values` [N, actions].
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepQNetwork import environments
from DeepQNetwork.agent import TASK, Agent, AgentFlags
from DeepQNetwork.episodes import Player, play
from DeepQNetwork.flags import ALIASES
from DeepQNetwork.network import act_program, inference_program
from DeepQNetwork.opening import open_agent
from fluid import config as configuration
from fluid import engine as engines
from fluid.config import Count, ExportFlags, Was
from fluid.deployment import deploy
from fluid.run import script

import numpy as np


@dataclass
class Flags(AgentFlags, ExportFlags):
    """Export an agent."""

    test_episodes: Annotated[Count, Was("episodes")] = 10
    """Whole episodes to play; by them --storage is measured."""


def main(flags: Flags) -> Path:
    """Export; returns the folder."""
    opened = open_agent(flags)
    agent = opened.facts
    return deploy(
        opened,
        inference_program(agent),
        flags,
        lambda state: score(agent, state, flags.test_episodes),
        task=TASK,
        facts={"agent": agent.to_facts()},
    )


def score(agent: Agent, state: dict[str, np.ndarray], episodes: int) -> dict[str, float]:
    """Mean return of an agent with these weights, as eval.py measures it by default."""
    program = act_program(agent)
    engine, _ = engines.create(runs=None)
    engine.load(state)
    environment = environments.make(agent.env, min(16, episodes), protocol=agent.protocol, view=agent.view)
    player = Player(agent, lambda states: np.asarray(engine.run(program, {"state": states})["q_values"]), epsilon=0.01)
    scores = play(player, environment, episodes=episodes, seed=0)
    environment.close()
    return {"score": scores.result()["score"]}


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES)))
