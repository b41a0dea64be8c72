"""Playing whole episodes with a fixed share of random actions: how agents are evaluated, shown and recorded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from DeepQNetwork.agent import Agent
from DeepQNetwork.environments import Environment
from fluid.text import number_of

import numpy as np

QFunction = Callable[[np.ndarray], np.ndarray]
"""States [E, ...] -> Q [E, actions]."""


@dataclass
class Scores:
    """Raw, unclipped returns of whole episodes."""

    returns: list[float]
    lengths: list[int]
    """Agent steps."""
    epsilon: float

    def result(self) -> dict[str, float]:
        """`score` (the mean), `deviation` (population), `minimum`, `maximum`, `episodes`, `length`."""
        values = np.array(self.returns)
        return {
            "score": float(values.mean()),
            "deviation": float(values.std()),
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "episodes": len(values),
            "length": float(np.mean(self.lengths)),
        }

    def __str__(self) -> str:
        result = self.result()
        return (
            f"mean {result['score']:.2f} +- {result['deviation']:.2f} (min {result['minimum']:g}, max {result['maximum']:g}) "
            f"over {number_of(len(self.returns), 'episode')} at epsilon {self.epsilon:g}"
        )


class States:
    """The last `stack` frames of E environments; frames before the start of an episode are zero."""

    def __init__(self, agent: Agent, num_envs: int):
        self._agent = agent
        self._frames = np.zeros((num_envs, agent.stack, *agent.observation_shape), agent.dtype)

    def push(self, observation: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Add the newest frames [E, ...]; returns the states [E, ...]. `first` [E] bool: begins an episode."""
        self._frames[first] = 0
        self._frames[:, :-1] = self._frames[:, 1:]
        self._frames[:, -1] = observation
        return self._frames.reshape(-1, *self._agent.state_shape)


class Player:
    """An agent that plays, in one environment or in several side by side; it remembers the frames that make a state.

    Args:
        agent: its description.
        q_values: its network.
        epsilon: share of random actions.
        seed: of those.
        how: what computes the network, for people.
        weights: where they came from, likewise.
    """

    def __init__(
        self,
        agent: Agent,
        q_values: QFunction,
        *,
        epsilon: float = 0.0,
        seed: int = 0,
        how: str = "",
        weights: str = "",
    ):
        self.agent, self.q_values, self.epsilon, self.how, self.weights = agent, q_values, epsilon, how, weights
        self.begin(seed)

    def begin(self, seed: int | None = None) -> None:
        """The next observations begin episodes, in any number of environments; with `seed` random actions begin anew."""
        self._states: States | None = None
        if seed is not None:
            self._random = np.random.default_rng(seed)

    def act(self, observation: np.ndarray, first: np.ndarray | None = None) -> Any:
        """The actions [E] int32 for the newest frames [E, ...], or the action for one frame.

        Args:
            observation: as `environments.make` shows them; vectors of numbers as a gymnasium task gives them.
            first: [E] bool: which of them begin an episode; by default none but the very first.
        """
        frames = np.asarray(observation)
        one = frames.ndim == len(self.agent.observation_shape)
        frames = frames[None] if one else frames
        if self._states is None:
            self._states, first = States(self.agent, len(frames)), np.ones(len(frames), bool)
        state = self._states.push(frames, np.zeros(len(frames), bool) if first is None else first)
        actions = greedy_with_noise(np.asarray(self.q_values(state)), self.epsilon, self._random)
        return int(actions[0]) if one else actions


def greedy_with_noise(q: np.ndarray, epsilon: float, random: np.random.Generator) -> np.ndarray:
    """The best actions [E] int32 of Q [E, actions], each replaced by a random one with probability `epsilon`."""
    count, actions = q.shape
    anything = random.integers(actions, size=count)
    return np.where(random.random(count) < epsilon, anything, q.argmax(axis=1)).astype(np.int32)


def play(
    player: Player,
    environment: Environment,
    *,
    episodes: int,
    seed: int,
    on_episode: Callable[[float, int], None] | None = None,
) -> Scores:
    """Play exactly `episodes` whole episodes, with random actions and games by `seed`.

    Each environment plays a number of episodes fixed beforehand: taking the first ones to finish would favour the short
    ones, which are the bad ones in Breakout and the good ones in Pong.
    """
    count = environment.num_envs
    quota = np.full(count, episodes // count) + (np.arange(count) < episodes % count)
    player.begin(seed)
    observation, first = environment.reset(seed), np.ones(count, bool)
    totals, lengths = np.zeros(count), np.zeros(count, np.int64)
    scores = Scores([], [], player.epsilon)
    while len(scores.returns) < episodes:
        environment.send(player.act(observation, first))
        step = environment.receive()
        totals, lengths = np.where(step.first, 0, totals) + step.reward, np.where(step.first, 0, lengths + 1)
        for index in np.flatnonzero((step.terminated | step.truncated) & (quota > 0)):
            quota[index] -= 1
            scores.returns.append(float(totals[index]))
            scores.lengths.append(int(lengths[index]))
            if on_episode is not None:
                on_episode(scores.returns[-1], len(scores.returns))
        observation, first = step.observation, step.first
    return scores
