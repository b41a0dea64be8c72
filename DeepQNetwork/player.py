"""Agents ready to play.

player = load("pong")                    # a name, a run's folder, or weights of any format
action = player.act(observation)         # frames are stacked, the network runs, the best action comes out
"""

from pathlib import Path
from typing import Literal

from DeepQNetwork.agent import Agent
from DeepQNetwork.environments import Environment
from DeepQNetwork.episodes import Player
from DeepQNetwork.flags import PlayerFlags
from DeepQNetwork.opening import open_agent
from fluid.errors import UserError
from fluid.interface import Interface
from fluid.runner import Runner

import numpy as np


def load(
    spec: str | Path | None = None,
    *,
    env: str | None = None,
    epsilon: float = 0.0,
    seed: int = 0,
    engine: Literal["auto", "paddle", "xla"] = "auto",
) -> Player:
    """An agent.

    Args:
        spec: a name that `./zoo list weights` shows, a run's folder, or weights of any format; by default the best of
            the run in ./output, else the agent that comes along.
        env: its game; bare weights need it, everything else knows its own.
        epsilon: share of random actions.
        seed: of those.
        engine: what runs its network.

    Raises UserError for what does not exist or is no agent's.
    """
    return load_player(
        PlayerFlags(
            pretrained_model=None if spec is None else str(spec),
            env=env,
            test_epsilon=epsilon,
            seed=seed,
            engine=engine,
        )
    )


def load_player(flags: PlayerFlags) -> Player:
    """The agent of the flags."""
    opened = open_agent(flags)
    runner = Runner(opened, flags, runs=None)
    program = runner.program("act", lambda: build_program(opened.facts), opened.facts.made_of)

    def q_values(states: np.ndarray) -> np.ndarray:
        return np.asarray(runner.engine.run(program, {"state": states})["q_values"])

    said = {"how": runner.how, "weights": opened.source}
    return Player(opened.facts, q_values, epsilon=flags.test_epsilon, seed=flags.seed, **said)


def build_program(agent: Agent) -> Interface:
    """The Program that acts, built with Paddle."""
    from DeepQNetwork.network import act_program

    return act_program(agent)


def check_actions(agent: Agent, environment: Environment) -> None:
    """Raise UserError if the agent was made for another game."""
    if agent.num_actions != environment.num_actions or agent.observation_shape != environment.observation_shape:
        raise UserError(
            f"the agent chooses among {agent.num_actions} actions from frames of {list(agent.observation_shape)}, but "
            f"{agent.env} has {environment.num_actions} actions and frames of {list(environment.observation_shape)}; choose its own --env"
        )
