"""Agents to play with: those that come with this folder, checkpoints, and weights of any format."""

from dataclasses import dataclass, replace
from pathlib import Path

from DeepQNetwork.agent import TASK, Agent
from DeepQNetwork.network import describe_weights
from fluid import checkpoint
from fluid.config import nearest
from fluid.errors import UserError, WeightsError
from fluid.export import SIGNATURE, ExportedModel
from fluid.program import Program
from fluid.weights import load_into, read_weights

import numpy as np

DATA = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True)
class Shipped:
    """An agent in the folder `data`."""

    file: str
    env: str
    protocol: str
    origin: str


SHIPPED = {
    "pong": Shipped(
        "pong.safetensors", "Pong", "standard", "trained with this folder's code, see data/README.md; Apache-2.0"
    ),
    "breakout_2018": Shipped(
        "breakout_2018", "Breakout", "2018", "the 2018 repository's own Dueling DQN (commit 7cd8ee2de), Apache-2.0"
    ),
}
DEFAULT = "pong"


def load_agent(
    spec: str | None, env: str | None = None, protocol: str | None = None
) -> tuple[Agent, dict[str, np.ndarray]]:
    """An agent and its arrays.

    Args:
        spec: a name in SHIPPED (the default one if None), a checkpoint or run folder, or weights of any format that
            `fluid.weights.read_weights` knows; the network is then read off the names and shapes of the arrays.
        env: the environment; needed with bare weights, which do not tell it.
        protocol: how a game is shown; by default as in training, or as in 2018 for bare weights of the 2018 net.

    Raises UserError if something is missing, WeightsError or CheckpointError if the weights cannot be read.
    """
    name = spec or DEFAULT
    path = Path(name)
    if name in SHIPPED and not path.exists():
        shipped = SHIPPED[name]
        weights = read_weights(DATA / shipped.file)
        return describe_weights(weights, env or shipped.env, protocol or shipped.protocol), weights
    if not path.exists():
        raise WeightsError(
            f"{name}: no such file or folder, nor one of {', '.join(SHIPPED)}.{nearest(name, list(SHIPPED))}"
        )
    if checkpoint.is_checkpoint(path):
        state, meta = checkpoint.load(path, task=TASK)
        agent = Agent.from_facts(meta.extra.get("agent", {}))
        if env is not None or protocol is not None:
            agent = replace(agent, env=env or agent.env, protocol=protocol or agent.protocol)
        return agent, state
    weights = read_weights(path)
    try:
        agent = describe_weights(weights, env or "", protocol or "standard")
    except ValueError as error:
        raise WeightsError(f"{path}: not the weights of an agent of this folder: {error}") from error
    if not agent.env:
        raise UserError(f"{path} does not say which game it is for; add --env, such as --env Pong")
    if protocol is None and agent.network == "fluid2018":
        agent = replace(agent, protocol="2018")
    return agent, weights


def fit(program: Program, weights: dict[str, np.ndarray], initial: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The variables of `program` from `weights`. Raises WeightsError with a report if they do not fit."""
    own = {name: initial[name] for name in program.state_names}
    loaded, _ = load_into(own, {name: weights[name] for name in weights if name in own}, head=())
    return loaded


def is_exported(path: str | None) -> bool:
    """Whether `path` is a folder that export.py wrote."""
    return path is not None and (Path(path) / SIGNATURE).is_file()


def load_exported(path: str) -> tuple[Agent, ExportedModel]:
    """An exported model and the agent it was made from; raises WeightsError if it is damaged."""
    model = ExportedModel(Path(path))
    return Agent.from_facts(model.facts.get("agent", {})), model
