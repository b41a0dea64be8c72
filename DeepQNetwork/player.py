"""An agent ready to play: what the flags name, opened, with what computes its values."""

from DeepQNetwork.agent import Agent
from DeepQNetwork.environments import Environment
from DeepQNetwork.episodes import QFunction
from DeepQNetwork.flags import PlayerFlags
from DeepQNetwork.network import act_program
from DeepQNetwork.pretrained import load_agent
from fluid import engine as engines
from fluid.errors import UserError

import numpy as np


def load_player(flags: PlayerFlags) -> tuple[Agent, QFunction, str]:
    """The agent of the flags, its Q function, and what computes it, for people."""
    opened = load_agent(flags)
    agent, model = opened.facts, opened.exported
    if model is not None:
        return agent, lambda states: model.run({"state": states})["q_values"], "exported model, paddle.inference"
    program = act_program(agent)
    engine, reason = engines.create(flags.engine, flags.device, flags.precision, flags.seed, runs=None)
    engine.load({name: opened.state[name] for name in program.state_names})
    name = f"engine {engine.name} on {engine.device} ({reason})"
    return agent, lambda states: np.asarray(engine.run(program, {"state": states})["q_values"]), name


def check_actions(agent: Agent, environment: Environment) -> None:
    """Raise UserError if the agent was made for another game."""
    if agent.num_actions != environment.num_actions or agent.observation_shape != environment.observation_shape:
        raise UserError(
            f"the agent chooses among {agent.num_actions} actions from frames of {list(agent.observation_shape)}, but "
            f"{agent.env} has {environment.num_actions} actions and frames of {list(environment.observation_shape)}; choose its own --env"
        )
