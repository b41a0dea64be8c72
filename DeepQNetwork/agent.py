"""What travels with the weights of an agent, and the roles of its Programs. Free of Paddle, as is all of the loop."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from fluid.config import WeightsFlags
from fluid.errors import UserError

import numpy as np

TASK = "DeepQNetwork"
POLICY, TARGET = "policy", "target"
"""Prefixes of the parameters of the network that learns and of its delayed copy, as in 2018."""
MEMORY = "replay_frames"
"""State variable of a replay memory on the device; never part of a checkpoint."""


@dataclass
class AgentFlags(WeightsFlags):
    """Which agent, and which game it plays."""

    env: str | None = None
    """Game or gymnasium id; bare weights need it, everything else knows its own."""
    protocol: str | None = None
    """2018, standard or sticky; by default the one the agent was trained under."""


@dataclass(frozen=True)
class Agent:
    """A Q network and the world it belongs to: stored in checkpoints and exported models."""

    env: str
    """Game or gymnasium id."""
    network: str
    """Key of network.NETWORKS."""
    dueling: bool
    """Value and advantage heads (Wang et al., arXiv:1511.06581)."""
    num_actions: int
    observation_shape: tuple[int, ...] = (84, 84)
    """Of one frame."""
    dtype: str = "uint8"
    stack: int = 4
    """Frames in a state."""
    protocol: str = "standard"
    """Key of environments.PROTOCOLS; without meaning outside Atari."""

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Of one state: [stack, 84, 84], or [D] where a single frame of numbers is the state."""
        return (self.stack, *self.observation_shape) if len(self.observation_shape) > 1 else self.observation_shape

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        return dataclasses.asdict(self)

    @property
    def made_of(self) -> dict[str, Any]:
        """What its Programs are built from, whatever the game is called."""
        return {name: value for name, value in self.to_facts().items() if name not in ("env", "protocol")}

    @staticmethod
    def from_facts(facts: dict[str, Any]) -> "Agent":
        """The inverse of `to_facts`; raises UserError if something is missing."""
        try:
            values = {item.name: facts[item.name] for item in dataclasses.fields(Agent)}
            return Agent(**{**values, "observation_shape": tuple(values["observation_shape"])})
        except (KeyError, TypeError) as error:
            raise UserError(f"the weights do not say which environment they are for ({error} is missing)") from error


def target_name(policy_name: str) -> str:
    """`policy_conv1` -> `target_conv1`."""
    return TARGET + policy_name.removeprefix(POLICY)


def with_equal_networks(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`state` with the target network replaced by a copy of the policy network."""
    copies = {target_name(name): array.copy() for name, array in state.items() if name.startswith(POLICY)}
    return {**state, **{name: array for name, array in copies.items() if name in state}}
