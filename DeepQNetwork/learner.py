"""The learner: acting, remembering and learning, so arranged that emulators and network work at the same time.

    q = memory.observe(newest frames)          # queued on the device behind the updates of the round before
    batches = replay.sample(...)               # the host draws row numbers meanwhile
    environment.send(actions of q)             # the emulators start, in their own threads
    memory.train(batches)                      # the device updates, several times in one call
    environment.receive()                      # the host waits for the emulators alone

In two groups (`--groups 2`) the environments take turns: what is received is the other group's, whose emulators have run
since the round before, and neither they nor the device wait for each other.

Nothing here imports Paddle: the same loop runs Programs, or Graphs captured from them on a machine with JAX only.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from DeepQNetwork.agent import MEMORY, Agent
from DeepQNetwork.environments import Environment
from DeepQNetwork.episodes import greedy_with_noise
from DeepQNetwork.recipe import Recipe, epsilon_at
from DeepQNetwork.replay import Replay, Transitions
from fluid.engine import Engine
from fluid.errors import CheckpointError, DivergenceError
from fluid.interface import FINITE
from fluid.keeper import outside
from fluid.trainer import Window

import numpy as np

REPLAY_PREFIX = "replay/"
"""Arrays of a checkpoint that belong to the replay memory, kept on request."""
RECENT = 100
"""Episodes that the logged return is the mean of."""


class HostMemory:
    """The frames lie in host memory; batches of states are copied out of it and fed."""

    on_device = False

    def __init__(self, engine: Engine, programs: Mapping[str, Any], agent: Agent, replay: Replay):
        self.engine, self.programs, self.agent, self.replay = engine, programs, agent, replay

    def observe(self, observation: np.ndarray, rows: np.ndarray, state_rows: np.ndarray) -> Any:
        """Store the newest frames [E, ...] in `rows` [E]; Q [E, actions] of the states `state_rows` [E, stack]."""
        self.replay.frames[rows] = observation
        return self.engine.run(self.programs["act"], {"state": self._states(state_rows)})["q_values"]

    def feeds(self, batch: Transitions, updates: int) -> dict[str, np.ndarray]:
        """Feeds [updates, B, ...] of the training Program out of one draw of transitions."""
        states = {"state": self._states(batch.state_rows), "next_state": self._states(batch.next_rows)}
        return _stacked({**states, **_numbers(batch)}, updates)

    def save(self) -> np.ndarray:
        """The table of frames."""
        return self.replay.frames

    def restore(self, frames: np.ndarray, rows: np.ndarray, observation: np.ndarray) -> None:
        """Put saved frames back, and the newest ones [E, ...], which had not been stored yet, into `rows` [E]."""
        self.replay.frames[:] = frames
        self.replay.frames[rows] = observation

    def _states(self, rows: np.ndarray) -> np.ndarray:
        return self.replay.frames[rows].reshape(-1, *self.agent.state_shape)


class DeviceMemory(HostMemory):
    """The frames are a variable of the engine's state; what is fed are row numbers."""

    on_device = True

    def __init__(self, engine: Engine, programs: Mapping[str, Any], agent: Agent, replay: Replay):
        super().__init__(engine, programs, agent, replay)
        engine.load({MEMORY: np.zeros((replay.rows + 1, *agent.observation_shape), agent.dtype)})

    def observe(self, observation: np.ndarray, rows: np.ndarray, state_rows: np.ndarray) -> Any:
        feed = {"frame": observation, "first_row": rows[:1].astype(np.int32), "state_rows": state_rows}
        return self.engine.run(self.programs["observe"], feed)["q_values"]

    def feeds(self, batch: Transitions, updates: int) -> dict[str, np.ndarray]:
        rows = {"state_rows": batch.state_rows, "next_rows": batch.next_rows}
        return _stacked({**rows, **_numbers(batch)}, updates)

    def save(self) -> np.ndarray:
        return self.engine.state([MEMORY])[MEMORY]

    def restore(self, frames: np.ndarray, rows: np.ndarray, observation: np.ndarray) -> None:
        table = frames.copy()
        table[rows] = observation
        self.engine.load({MEMORY: table})


@dataclass
class Group:
    """Environments that step together."""

    number: int
    environment: Environment
    observation: np.ndarray
    """[G, ...]: the newest frames, not in the memory yet."""
    rows: np.ndarray
    """[G]: where they go."""
    running: bool = False
    """Its environments were sent actions, and what became of them has not been received."""

    @property
    def here(self) -> slice:
        """Its environments among all."""
        size = self.environment.num_envs
        return slice(self.number * size, (self.number + 1) * size)


class Learner:
    """Everything that changes during a run, and one round of it.

    Args:
        engine: loaded with the parameters of both networks and the optimizer's state.
        programs: `act` (or `observe` for a memory on the device), `train` and `sync`; Programs or captured Graphs.
        agent: the network's description.
        recipe: filled (`recipe.fill`).
        environments: to learn in, a group each, of one size.
        total_steps: environment steps of the whole run; the importance weights follow it.
        seed: of exploration, sampling and the environments.
        on_device: keep the frames with the engine.
    """

    def __init__(
        self,
        engine: Engine,
        programs: Mapping[str, Any],
        agent: Agent,
        recipe: Recipe,
        environments: Sequence[Environment],
        *,
        total_steps: int,
        seed: int,
        on_device: bool = False,
    ):
        self.engine, self.programs, self.agent, self.recipe = engine, programs, agent, recipe
        self.total_steps = total_steps
        self.replay = Replay(
            recipe.mem_size,
            recipe.num_envs,
            agent.observation_shape,
            agent.dtype,
            stack=agent.stack,
            n_step=recipe.n_step,
            gamma=recipe.gamma,
            on_device=on_device,
            alpha=recipe.priority_alpha if recipe.prioritized else None,
            groups=len(environments),
        )
        self.memory = (DeviceMemory if on_device else HostMemory)(engine, programs, agent, self.replay)
        self.updates_per_call = recipe.updates_per_call
        exploring, drawing = np.random.SeedSequence(seed).spawn(2)
        self.exploring, self.drawing = np.random.default_rng(exploring), np.random.default_rng(drawing)
        self.step, self.updates, self.synced, self.credit = 0, 0, 0, 0.0
        self.recent: deque[float] = deque(maxlen=RECENT)
        """Returns of the last episodes."""
        self.recent_lengths: deque[int] = deque(maxlen=RECENT)
        self.episodes = 0
        self.returns, self.lengths = np.zeros(recipe.num_envs), np.zeros(recipe.num_envs, np.int64)
        """Of the episodes under way."""
        self.outputs = Window(programs["train"], engine)
        """Scalars of the updates since they were last read."""
        self._unread: tuple[np.ndarray, Any] | None = None
        self.groups = [
            Group(number, item, item.reset(seed + number * item.num_envs), self._begin_episodes(number, item.num_envs))
            for number, item in enumerate(environments)
        ]
        self._turn = 0

    @property
    def environment(self) -> Environment:
        """Of the first group; the others are like it."""
        return self.groups[0].environment

    @property
    def epsilon(self) -> float:
        """Share of random actions now."""
        return epsilon_at(self.recipe, self.step)

    def round(self) -> None:
        """One step in every environment of the group whose turn it is, and the updates that have become due."""
        group = self.groups[self._turn]
        steps = group.environment.num_envs
        q = self.memory.observe(group.observation, group.rows, self.replay.newest(group.number))
        self._update_priorities()
        due = self._due(steps)
        batches = [self._draw() for _ in range(due)]
        with outside():
            group.environment.send(greedy_with_noise(np.asarray(q), self.epsilon, self.exploring))
        group.running = True
        for batch in batches:
            self._train(batch)
        self._turn = (self._turn + 1) % len(self.groups)
        if self.groups[self._turn].running:
            self._remember(self.groups[self._turn])
        self.step += steps

    def update(self) -> None:
        """One call of the training Program, of transitions drawn now."""
        self._train(self._draw())

    def save(self, with_replay: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON-able data to continue from; the memory and the emulator's state only `with_replay`."""
        self._update_priorities()
        facts = {name: getattr(self, name) for name in ("step", "updates", "synced", "credit", "episodes")}
        facts |= {"recent": list(self.recent), "recent_lengths": list(self.recent_lengths)}
        facts["exploring"] = self.exploring.bit_generator.state
        facts["drawing"] = self.drawing.bit_generator.state
        arrays: dict[str, np.ndarray] = {}
        if with_replay:
            arrays = {REPLAY_PREFIX + name: array for name, array in self.replay.save().items()}
            arrays[REPLAY_PREFIX + "frames"] = self.memory.save()
            arrays[REPLAY_PREFIX + "observation"] = np.concatenate([group.observation for group in self.groups])
            facts |= {"returns": self.returns.tolist(), "lengths": self.lengths.tolist()}
            if self.environment.saveable:
                saved = self.environment.save()
                arrays[REPLAY_PREFIX + "emulator"] = saved.pop("emulator")
                facts["environment"] = saved
        return arrays, facts

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Continue from `save`. Without the memory it fills anew, with the restored policy, before updates go on."""
        for name in ("step", "updates", "synced", "credit", "episodes"):
            setattr(self, name, facts[name])
        self.recent.extend(facts["recent"])
        self.recent_lengths.extend(facts.get("recent_lengths", ()))
        self.exploring.bit_generator.state = facts["exploring"]
        self.drawing.bit_generator.state = facts["drawing"]
        kept = {
            name.removeprefix(REPLAY_PREFIX): array for name, array in arrays.items() if name.startswith(REPLAY_PREFIX)
        }
        if not kept:
            return
        try:
            self.replay.restore(kept)
        except ValueError as error:
            raise CheckpointError(f"the saved replay memory cannot be used: {error}") from error
        for group in self.groups:
            group.rows = self.replay.newest(group.number)[:, -1].astype(np.int64)
        self.memory.restore(kept["frames"], np.concatenate([group.rows for group in self.groups]), kept["observation"])
        if "environment" in facts and self.environment.saveable:
            (group,) = self.groups
            group.environment.restore({**facts["environment"], "emulator": kept["emulator"]})
            group.observation, self.returns = kept["observation"], np.array(facts["returns"])
            self.lengths = np.array(facts.get("lengths", np.zeros_like(self.lengths)))
        else:
            # The environments begin new episodes: what they had shown last has no continuation.
            for group in self.groups:
                group.rows = self._begin_episodes(group.number, group.environment.num_envs)

    def _begin_episodes(self, group: int, count: int) -> np.ndarray:
        return self.replay.add_frames(np.ones(count, bool), group)

    def _due(self, steps: int) -> int:
        """Calls of the training Program that a round of `steps` owes."""
        if len(self.replay) < self.recipe.learning_starts or self.replay.sampleable() < 1:
            return 0
        self.credit += steps / self.recipe.update_every
        calls = int(self.credit // self.updates_per_call)
        self.credit -= calls * self.updates_per_call
        return calls

    def _draw(self) -> Transitions:
        start = self.recipe.priority_beta
        beta = start + (1.0 - start) * min(self.step / self.total_steps, 1.0)
        count = self.recipe.batch_size * self.updates_per_call
        return self.replay.sample(count, self.drawing, beta, minibatches=self.updates_per_call)

    def _train(self, batch: Transitions) -> None:
        feeds = self.memory.feeds(batch, self.updates_per_call)
        logged = ["loss", "q", FINITE]
        fetch = [*logged, "error"] if self.recipe.prioritized else logged
        outputs = self.engine.run_many(self.programs["train"], feeds, step=self.updates, fetch=fetch)
        self.outputs.add(self.updates + 1, {name: outputs[name] for name in logged})
        if self.recipe.prioritized:
            self._update_priorities()
            self._unread = batch.rows, outputs["error"]
        self.updates += self.updates_per_call
        if self.updates // self.recipe.sync_every > self.synced:
            self.synced = self.updates // self.recipe.sync_every
            self.engine.run(self.programs["sync"], {})

    def _update_priorities(self) -> None:
        """Read the errors of the last call; it was queued before the observation that has just been waited for."""
        if self._unread is not None:
            rows, errors = self._unread
            self.replay.update_priorities(rows, np.asarray(errors).reshape(-1))
            self._unread = None

    def _remember(self, group: Group) -> None:
        with outside():
            step = group.environment.receive()
        group.running = False
        for name in ("observation", "reward"):
            finite = np.isfinite(getattr(step, name)).reshape(group.environment.num_envs, -1).all(axis=1)
            if not finite.all():
                raise DivergenceError(
                    f"NaN or infinity came from the environment {group.environment.description}: the {name} of its copy "
                    f"{int(np.argmin(finite))} after step {self.step}"
                )
        reward = np.clip(step.reward, -1, 1) if self.recipe.clip_rewards else step.reward
        terminated = step.terminated | step.life_lost if self.recipe.life_loss_ends else step.terminated
        self.replay.add_outcome(step.action, reward, terminated, step.truncated, step.first, group.number)
        returns, lengths = self.returns[group.here], self.lengths[group.here]
        returns[:] = np.where(step.first, 0, returns) + step.reward
        lengths[:] = np.where(step.first, 0, lengths + 1)
        ended = step.terminated | step.truncated
        self.recent.extend(returns[ended].tolist())
        self.recent_lengths.extend(lengths[ended].tolist())
        self.episodes += int(ended.sum())
        group.observation = step.observation
        group.rows = self.replay.add_frames(step.first, group.number)


def _numbers(batch: Transitions) -> dict[str, np.ndarray]:
    return {name: getattr(batch, name) for name in ("action", "reward", "discount", "weight")}


def _stacked(feed: dict[str, np.ndarray], updates: int) -> dict[str, np.ndarray]:
    """[updates * B, ...] -> [updates, B, ...], views of the same memory."""
    return {name: array.reshape(updates, -1, *array.shape[1:]) for name, array in feed.items()}
