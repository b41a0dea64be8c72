"""Replay memory: every frame is stored once, and a sample is a set of row numbers.

The table of frames is a ring of L = capacity / E steps of the E environments, which advance together. Frame t of environment
e lies in row `t % L * E + e` of [L * E + 1, ...], so that the newest frames are one piece of memory, and the last row stays
zero: it stands for the frames before the start of an episode. A state is therefore `stack` row numbers, whether the table
is in host memory or on a device, and a transition over n steps is two states and three numbers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

CONTINUES, TERMINATED, TRUNCATED, LAST_FRAME = range(4)
"""What followed a frame: the episode went on; it ended here; it was cut here; nothing, it is the last of its episode."""


@dataclass
class Transitions:
    """N sampled transitions; `stack` row numbers a state."""

    rows: np.ndarray
    """[N] int64: where the first frame of each transition lies; what `update_priorities` takes."""
    state_rows: np.ndarray
    """[N, stack] int32, oldest frame first."""
    action: np.ndarray
    """[N] int32"""
    reward: np.ndarray
    """[N] float32: sum of gamma^k r_k over the steps of the transition."""
    next_rows: np.ndarray
    """[N, stack] int32"""
    discount: np.ndarray
    """[N] float32: gamma^steps, or 0 where the episode ended."""
    weight: np.ndarray
    """[N] float32: importance weights, 1 for uniform sampling."""


LAYOUT = ("environments", "steps a transition", "frames a state", "groups of environments")
"""What a saved memory must have in common with the one that it is put into, beside its size."""

OWN_FLAGS = "Use the run's own flags"
STEPS_FIRST = 1
"""How the frames of a saved memory are ordered; the memories before it had one environment after the other."""


class Replay:
    """The ring and what is known about each frame.

    Args:
        capacity: frames in all; rounded down to a multiple of `num_envs`.
        num_envs: E.
        observation_shape: of one frame.
        dtype: of one frame.
        stack: frames in a state.
        n_step: steps a transition spans (Sutton, 1988); 1 is plain DQN.
        gamma: discount a step.
        on_device: the frames are kept elsewhere, `frames` is None.
        alpha: exponent of the priorities (Schaul et al., arXiv:1511.05952); None samples uniformly.
        groups: equal parts of the environments that step in turn, the first of them first.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation_shape: tuple[int, ...],
        dtype: Any,
        *,
        stack: int,
        n_step: int = 1,
        gamma: float = 0.99,
        on_device: bool = False,
        alpha: float | None = None,
        groups: int = 1,
    ):
        self.length = capacity // num_envs
        if self.length < stack + n_step + 1:
            raise ValueError(f"{capacity} frames are too few for {num_envs} environments")
        self.num_envs, self.stack, self.n_step, self.gamma = num_envs, stack, n_step, gamma
        self.rows = self.length * num_envs
        self.frame_bytes = int(np.prod(observation_shape)) * np.dtype(dtype).itemsize
        self.frames = None if on_device else np.zeros((self.rows + 1, *observation_shape), dtype)
        self.action = np.zeros(self.rows, np.int16)
        self.reward = np.zeros(self.rows, np.float32)
        self.outcome = np.zeros(self.rows, np.uint8)
        self.age = np.zeros(self.rows, np.int32)
        """Earlier frames of the same episode, counted up to `stack`."""
        self._times = np.zeros(groups, np.int64)
        """Frames seen, an environment of each group."""
        self.priorities = None if alpha is None else Priorities(self.rows, alpha)
        self._environments = np.arange(num_envs).reshape(groups, -1)
        self._gammas = np.power(gamma, np.arange(n_step + 1)).astype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes at full capacity, wherever the frames are kept."""
        tables = (self.action, self.reward, self.outcome, self.age)
        tree = 0 if self.priorities is None else self.priorities.nbytes
        return (self.rows + 1) * self.frame_bytes + sum(table.nbytes for table in tables) + tree

    def __len__(self) -> int:
        """Frames held."""
        return min(int(self._times.min()), self.length) * self.num_envs

    def add_frames(self, first: np.ndarray, group: int = 0) -> np.ndarray:
        """Make room for the newest frames of a group of G environments; returns their rows [G], one after the other.

        `first` [G]: begins an episode.
        """
        time = int(self._times[group])
        rows, before = self._rows_at(time, group), self._rows_at(time - 1, group)
        self.age[rows] = np.where(first, 0, np.minimum(self.age[before] + 1, self.stack)) if time else 0
        self.outcome[rows] = LAST_FRAME
        self._times[group] += 1
        if self.priorities is not None:
            self._admit(group)
        return rows

    def add_outcome(
        self,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        first: np.ndarray,
        group: int = 0,
    ) -> None:
        """What followed the newest frames, [G] each; where `first`, they were the last of their episodes and nothing did."""
        rows = self._rows_at(int(self._times[group]) - 1, group)
        self.action[rows], self.reward[rows] = action, reward
        outcome = np.where(terminated, TERMINATED, np.where(truncated, TRUNCATED, CONTINUES))
        self.outcome[rows] = np.where(first, LAST_FRAME, outcome)

    def newest(self, group: int = 0) -> np.ndarray:
        """The current states of a group as row numbers [G, stack] int32."""
        environments = self._environments[group]
        return self._stacked(environments, np.full(len(environments), self._times[group] - 1))

    def sampleable(self) -> int:
        """Steps of each environment that a transition can start from."""
        oldest, newest = self._window()
        return max(newest - oldest + 1, 0)

    def sample(self, count: int, random: np.random.Generator, beta: float = 1.0, minibatches: int = 1) -> Transitions:
        """Draw `count` transitions with replacement, those of one minibatch after those of another.

        Args:
            beta: exponent of the importance weights of prioritised sampling, whose largest in each minibatch is 1.
            minibatches: equal parts, each drawn from the whole memory; a divisor of `count`.
        """
        if self.priorities is not None:
            drawn = [self.priorities.sample(count // minibatches, random, beta) for _ in range(minibatches)]
            rows, weight = (np.concatenate(parts) for parts in zip(*drawn))
        else:
            rows, weight = self._draw(count, random), np.ones(count, np.float32)
        place, environment = np.divmod(rows, self.num_envs)
        newest = self._times[environment // self._environments.shape[1]] - 1
        time = newest - (newest - place) % self.length
        return self._transitions(rows, environment, time, weight)

    def update_priorities(self, rows: np.ndarray, errors: np.ndarray) -> None:
        """Absolute temporal-difference errors [N] of sampled transitions; nothing happens without priorities."""
        if self.priorities is not None:
            current = self.priorities.is_set(rows)
            self.priorities.set(rows[current], errors[current])

    def save(self) -> dict[str, np.ndarray]:
        """Everything but the frames, as arrays."""
        arrays = {name: getattr(self, name) for name in ("action", "reward", "outcome", "age")}
        arrays["times"] = self._times.copy()
        arrays["layout"] = np.array(self._layout, np.int64)
        arrays["order"] = np.array(STEPS_FIRST, np.int64)
        if self.priorities is not None:
            arrays |= {"leaves": self.priorities.leaves().copy(), "largest": np.array(self.priorities.largest)}
        return arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from `save`; raises ValueError if it came from a memory of another size or kind."""
        if arrays["action"].shape != self.action.shape or ("leaves" in arrays) != (self.priorities is not None):
            raise ValueError(f"a memory of {len(arrays['action'])} frames does not fit one of {self.rows}. {OWN_FLAGS}")
        if arrays.get("order") != STEPS_FIRST:
            raise ValueError(
                "an earlier version saved it, with its frames in another order. Go on from the run's weights: --pretrained_model RUN"
            )
        for what, before, now in zip(LAYOUT, arrays["layout"].tolist(), self._layout, strict=True):
            if before != now:
                raise ValueError(f"it was filled with {before} {what}, not {now}. {OWN_FLAGS}")
        for name in ("action", "reward", "outcome", "age"):
            getattr(self, name)[:] = arrays[name]
        self._times[:] = arrays["times"]
        if self.priorities is not None:
            self.priorities.restore(arrays["leaves"], float(arrays["largest"]))

    @property
    def _layout(self) -> tuple[int, ...]:
        return self.num_envs, self.n_step, self.stack, len(self._times)

    def _rows_at(self, time: int, group: int) -> np.ndarray:
        return self._row(self._environments[group], time)

    def _row(self, environment: np.ndarray, time: Any) -> np.ndarray:
        """Where the frames of `environment` at `time` lie."""
        return time % self.length * self.num_envs + environment

    def _window(self, groups: slice = slice(None)) -> tuple[int, int]:
        """First and last time step that a transition of some groups can start from: its stack and its n steps are there."""
        first, last = int(self._times[groups].max()), int(self._times[groups].min())
        oldest = first - self.length + self.stack - 1 if first > self.length else 0
        return oldest, last - 1 - self.n_step

    def _draw(self, count: int, random: np.random.Generator) -> np.ndarray:
        oldest, newest = self._window()
        rows = np.empty(count, np.int64)
        missing = np.arange(count)
        while len(missing):
            environment = random.integers(self.num_envs, size=len(missing))
            time = random.integers(oldest, newest + 1, size=len(missing))
            rows[missing] = self._row(environment, time)
            missing = missing[self.outcome[rows[missing]] == LAST_FRAME]
        return rows

    def _transitions(
        self, rows: np.ndarray, environment: np.ndarray, time: np.ndarray, weight: np.ndarray
    ) -> Transitions:
        count = len(rows)
        reward, steps = np.zeros(count, np.float32), np.zeros(count, np.int64)
        ended, running = np.zeros(count, bool), np.ones(count, bool)
        for step in range(self.n_step):
            at = self._row(environment, time + step)
            reward += np.where(running, self._gammas[step] * self.reward[at], 0)
            steps += running
            ended |= running & (self.outcome[at] == TERMINATED)
            running &= self.outcome[at] == CONTINUES
        return Transitions(
            rows=rows,
            state_rows=self._stacked(environment, time),
            action=self.action[rows].astype(np.int32),
            reward=reward,
            next_rows=self._stacked(environment, time + steps),
            discount=np.where(ended, 0, self._gammas[steps]).astype(np.float32),
            weight=weight,
        )

    def _stacked(self, environment: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Row numbers [N, stack] of the states at `time`, the zero row where an episode had not begun."""
        back = np.arange(self.stack - 1, -1, -1)
        rows = self._row(environment[:, None], time[:, None] - back)
        age = self.age[self._row(environment, time)]
        return np.where(back > age[:, None], self.rows, rows).astype(np.int32)

    def _admit(self, group: int) -> None:
        """Give the step that has just become complete the largest priority, and none to steps about to be overwritten."""
        oldest, newest = self._window(slice(group, group + 1))
        time = int(self._times[group])
        if newest >= oldest:
            rows = self._rows_at(newest, group)
            self.priorities.set(rows[self.outcome[rows] != LAST_FRAME])
        for gone in range(max(time - self.length, 0), oldest):
            self.priorities.clear(self._rows_at(gone, group))
        self.priorities.clear(self._rows_at(time - 1, group))


class Priorities:
    """Proportional priorities in a binary tree of sums: node i has the children 2 i and 2 i + 1, leaves come last."""

    EPSILON = 1e-6
    """Added to every error, so that no transition is lost for ever."""

    def __init__(self, rows: int, alpha: float):
        self.alpha, self.largest = alpha, 1.0
        self._rows = rows
        self._offset = 1 << max(rows - 1, 1).bit_length()
        self._sums = np.zeros(2 * self._offset)

    @property
    def nbytes(self) -> int:
        """Bytes of the tree."""
        return self._sums.nbytes

    def leaves(self) -> np.ndarray:
        """Priority^alpha by row."""
        return self._sums[self._offset : self._offset + self._rows]

    def set(self, rows: np.ndarray, errors: np.ndarray | None = None) -> None:
        """Priorities from errors [N], or the largest seen so far."""
        if errors is None:
            values = np.full(len(rows), self.largest)
        else:
            values = (np.abs(errors) + self.EPSILON) ** self.alpha
            self.largest = max(self.largest, float(values.max(initial=0.0)))
        self._write(rows, values)

    def clear(self, rows: np.ndarray) -> None:
        """Rows that must not be drawn."""
        self._write(rows, np.zeros(len(rows)))

    def is_set(self, rows: np.ndarray) -> np.ndarray:
        """Whether each row can be drawn, [N] bool."""
        return self._sums[self._offset + rows] > 0

    def sample(self, count: int, random: np.random.Generator, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows [count], one from each of `count` equal shares of the total, and their importance weights, at most 1."""
        total = self._sums[1]
        targets = (np.arange(count) + random.random(count)) / count * total
        nodes = np.ones(count, np.int64)
        while nodes[0] < self._offset:
            left = self._sums[2 * nodes]
            # A right subtree of sum 0 is never entered: rounding may leave the target a hair beyond the left one.
            right = (targets >= left) & (self._sums[2 * nodes + 1] > 0)
            targets = np.where(right, targets - left, targets)
            nodes = 2 * nodes + right
        probability = self._sums[nodes] / total
        weight = probability**-beta
        return nodes - self._offset, (weight / weight.max()).astype(np.float32)

    def restore(self, leaves: np.ndarray, largest: float) -> None:
        """Continue from saved leaves."""
        self._write(np.arange(self._rows), leaves)
        self.largest = largest

    def _write(self, rows: np.ndarray, values: np.ndarray) -> None:
        nodes = self._offset + rows
        self._sums[nodes] = values
        while len(nodes) and nodes[0] > 1:
            nodes = np.unique(nodes // 2)
            self._sums[nodes] = self._sums[2 * nodes] + self._sums[2 * nodes + 1]
