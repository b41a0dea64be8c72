"""What travels with the weights of an agent, and the roles of its Programs. Free of Paddle, as is all of the loop."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from DeepQNetwork.environments import FRAME_SKIP, View, is_atari
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
    """2018, standard, baselines or sticky; by default the one the agent was trained under."""


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
    """Of one frame: an image [H, W] or [C, H, W], or numbers [D]."""
    image: bool = True
    """Frames are images, 0..255; otherwise numbers as they are."""
    dtype: str = "uint8"
    """Of a frame."""
    stack: int = 4
    """Frames in a state."""
    protocol: str = "standard"
    """Key of environments.PROTOCOLS; without meaning outside Atari."""
    frame_skip: int = FRAME_SKIP
    """Frames an action is repeated for."""
    resize: int | None = None
    """See environments.View, as `wrapper`."""
    wrapper: str | None = None
    returns: Literal["mean", "places", "quantiles"] = "mean"
    """What is predicted of the return of an action: its mean, how probable each of `atoms` places is (C51), or `atoms` of its
    quantiles (QR-DQN)."""
    atoms: int = 1
    v_min: float = 0.0
    """The lowest of the places, which lie at equal distances."""
    v_max: float = 0.0
    """The highest of them."""

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Of one state: [stack * C, H, W] of images, [stack * D] of numbers."""
        channels, *size = (1, *self.observation_shape) if len(self.observation_shape) == 2 else self.observation_shape
        return (self.stack * channels, *size)

    @property
    def view(self) -> View:
        """How its environment is made, if that is no Atari game."""
        return View() if is_atari(self.env) else View(self.frame_skip, self.resize, self.wrapper)

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        return dataclasses.asdict(self)

    @property
    def made_of(self) -> dict[str, Any]:
        """What its Programs are built from, whatever the game is called and however it is shown."""
        beside = ("env", "protocol", "frame_skip", "resize", "wrapper")
        return {name: value for name, value in self.to_facts().items() if name not in beside}

    @staticmethod
    def from_facts(facts: dict[str, Any]) -> "Agent":
        """The inverse of `to_facts`, also of those of earlier versions; raises UserError if something is missing."""
        try:
            image = facts["dtype"] == "uint8"
            later = {"image": image, "frame_skip": FRAME_SKIP if image else 1, "resize": None, "wrapper": None}
            later |= {"returns": "mean", "atoms": 1, "v_min": 0.0, "v_max": 0.0}
            values = {item.name: {**later, **facts}[item.name] for item in dataclasses.fields(Agent)}
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
