"""Agents to play with: those that come with this folder, checkpoints, and weights of any format."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from DeepQNetwork.agent import Agent, AgentFlags
from DeepQNetwork.environments import game_id
from fluid import weights
from fluid.errors import UserError, WeightsError
from fluid.weights import Bare, Opened, Report

import numpy as np

FOLDER = Path(__file__).resolve().parent
SHIPPED = {"pong": "pong", "breakout": "breakout"}
"""The agents that come along, by game; Pong's plays where no game of theirs is named."""


def open_agent(flags: AgentFlags) -> Opened[Agent]:
    """The agent that the flags name, for the game they name; raises UserError for what cannot be."""
    read, fit = Agent.from_facts, partial(fit_agent, flags=flags)
    default = SHIPPED.get(game_id(flags.env or ""), SHIPPED["pong"])
    opened = weights.open(FOLDER, flags, default=default, key="agent", from_facts=read, fit=fit)
    agent = opened.facts
    return replace(opened, facts=replace(agent, env=flags.env or agent.env, protocol=flags.protocol or agent.protocol))


def fit_agent(bare: Bare, flags: AgentFlags) -> tuple[Agent, dict[str, np.ndarray], Report]:
    """Weights alone: the network is read off their names and shapes, the game is listed or a flag.

    Without a flag the weights of the net of 2018 are shown the game as in 2018. Raises UserError without a game,
    WeightsError if they are not an agent's.
    """
    from DeepQNetwork.network import act_program, describe_weights
    from fluid.program import initialise

    arrays = bare.read()
    facts = bare.entry.facts if bare.entry is not None else {}
    try:
        agent = describe_weights(arrays, flags.env or facts.get("env", ""), "standard")
    except ValueError as error:
        raise WeightsError(f"{bare.spec}: not the weights of an agent of this folder: {error}") from error
    if not agent.env:
        raise UserError(f"{bare.spec} does not say which game it is for; add --env, such as --env Pong")
    own = "2018" if agent.network == "fluid2018" else "standard"
    agent = replace(agent, protocol=flags.protocol or facts.get("protocol", own))
    initial = initialise(act_program(agent), seed=0)
    state, report = weights.load_into(
        initial,
        {name: array for name, array in arrays.items() if name in initial},
        head=(),
        allow_partial=flags.allow_partial,
    )
    return agent, state, report
