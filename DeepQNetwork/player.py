"""An agent ready to play: what the flags name, opened, with what computes its values."""

from DeepQNetwork.agent import Agent
from DeepQNetwork.environments import Environment
from DeepQNetwork.episodes import QFunction
from DeepQNetwork.flags import PlayerFlags
from DeepQNetwork.pretrained import load_agent
from fluid.errors import UserError
from fluid.interface import Interface
from fluid.runner import Runner

import numpy as np


def load_player(flags: PlayerFlags) -> tuple[Agent, QFunction, str]:
    """The agent of the flags, its Q function, and what computes it, for people."""
    opened = load_agent(flags)
    runner = Runner(opened, flags, runs=None)
    program = runner.program("act", lambda: build_program(opened.facts), opened.facts.made_of)
    return (
        opened.facts,
        lambda states: np.asarray(runner.engine.run(program, {"state": states})["q_values"]),
        runner.how,
    )


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
