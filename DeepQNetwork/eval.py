"""Play whole episodes with a trained agent and print the mean score, beside the protocol it was measured under.

python eval.py                                                         the best of ./output, or the agent that comes along
python eval.py --checkpoint output --episodes 30                       the best checkpoint of a run
python eval.py --pretrained_model saved_model/pong --env Pong          weights of 2018 or in any other format
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepQNetwork import environments
from DeepQNetwork.agent import Agent, AgentFlags
from DeepQNetwork.environments import Environment
from DeepQNetwork.episodes import QFunction, Scores, play
from DeepQNetwork.network import act_program
from DeepQNetwork.pretrained import load_agent
from DeepQNetwork.train import command_line
from fluid import config as configuration
from fluid import engine as engines
from fluid.config import EngineFlags, ExportedFlags
from fluid.errors import UserError
from fluid.run import console, script

import numpy as np


@dataclass
class PlayerFlags(AgentFlags, ExportedFlags, EngineFlags):
    """Which agent plays what."""

    epsilon: float = 0.01
    """Share of random actions."""


@dataclass
class Flags(PlayerFlags):
    """Evaluate an agent."""

    episodes: int = 10
    """Whole episodes to play."""
    num_envs: int | None = None
    """Environments side by side; by default one an episode, at most 16. Changes the speed, and which random numbers go where."""


ALIASES = {"rom": "env", "model_path": "pretrained_model", "target": "export_dir"}
RETIRED = {"viz": "infer.py shows the game: --show window or --show terminal"}


def main(flags: Flags) -> Scores:
    """Play and print; returns the scores."""
    if flags.episodes < 1:
        raise UserError(f"--episodes {flags.episodes}: must be at least 1")
    agent, q_function, engine = load_player(flags)
    count = min(flags.num_envs or 16, flags.episodes)
    environment = environments.make(agent.env, count, protocol=agent.protocol)
    check_actions(agent, environment)
    console.print(f"{environment.description}", markup=False)
    console.print(f"{agent.network}{', dueling' if agent.dueling else ''}; {engine}; seed {flags.seed}", markup=False)
    scores = play(
        q_function,
        environment,
        agent,
        episodes=flags.episodes,
        epsilon=flags.epsilon,
        seed=flags.seed,
        on_episode=lambda score, done: console.print(f"episode {done}/{flags.episodes}: {score:g}"),
    )
    environment.close()
    console.print(f"score: {scores}", markup=False)
    return scores


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


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, command_line(), aliases=ALIASES, retired=RETIRED)))
