"""The training loop: acting, remembering and learning, so arranged that emulators and network work at the same time.

    q = memory.observe(newest frames)          # queued on the device behind the updates of the round before
    batches = replay.sample(...)               # the host draws row numbers meanwhile
    environment.send(actions of q)             # the emulators start, in their own threads
    memory.train(batches)                      # the device updates, several times in one call
    environment.receive()                      # the host waits for the emulators alone

Nothing here imports Paddle: the same loop runs Programs, or Graphs captured from them on a machine with JAX only.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from DeepQNetwork.agent import MEMORY, Agent
from DeepQNetwork.environments import FRAME_SKIP, Environment
from DeepQNetwork.episodes import Scores, greedy_with_noise
from DeepQNetwork.recipe import Recipe, epsilon_at
from DeepQNetwork.replay import Replay, Transitions
from fluid import checkpoint
from fluid.checkpoint import Meta
from fluid.config import TrainFlags
from fluid.engine import Engine
from fluid.errors import CheckpointError, DivergenceError
from fluid.run import Run, progress_bar, stop_on_signals

import numpy as np

REPLAY_PREFIX = "replay/"
"""Arrays of a checkpoint that belong to the replay memory, kept on request."""
RECENT = 100
"""Episodes that the logged return is the mean of."""


@dataclass
class Outcome:
    """How a run ended."""

    step: int
    updates: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_step: int = 0
    steps_per_second: float = 0.0
    """Agent steps, over the time spent training."""
    updates_per_second: float = 0.0


class HostMemory:
    """The frames lie in host memory; batches of states are copied out of it and fed."""

    on_device = False

    def __init__(self, engine: Engine, programs: Mapping[str, Any], agent: Agent, replay: Replay):
        self.engine, self.programs, self.agent, self.replay = engine, programs, agent, replay

    def observe(self, observation: np.ndarray, rows: np.ndarray, state_rows: np.ndarray) -> Any:
        """Store the newest frames [E, ...] in `rows` [E]; Q [E, actions] of the states `state_rows` [E, stack]."""
        self.replay.frames[rows] = observation
        return self.engine.run(self.programs["act"], {"state": self._states(state_rows)})["q_values"]

    def feeds(self, batch: Transitions, updates: int) -> list[dict[str, np.ndarray]]:
        """`updates` feeds of the training Program out of one draw of transitions."""
        states = {"state": self._states(batch.state_rows), "next_state": self._states(batch.next_rows)}
        return _split({**states, **_numbers(batch)}, updates)

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
        feed = {"frame": observation, "row": rows.astype(np.int32), "state_rows": state_rows}
        return self.engine.run(self.programs["observe"], feed)["q_values"]

    def feeds(self, batch: Transitions, updates: int) -> list[dict[str, np.ndarray]]:
        rows = {"state_rows": batch.state_rows, "next_rows": batch.next_rows}
        return _split({**rows, **_numbers(batch)}, updates)

    def save(self) -> np.ndarray:
        return self.engine.state([MEMORY])[MEMORY]

    def restore(self, frames: np.ndarray, rows: np.ndarray, observation: np.ndarray) -> None:
        table = frames.copy()
        table[rows] = observation
        self.engine.load({MEMORY: table})


class Learner:
    """Everything that changes during a run, and one round of it.

    Args:
        engine: loaded with the parameters of both networks and the optimizer's state.
        programs: `act` (or `observe` for a memory on the device), `train` and `sync`; Programs or captured Graphs.
        agent: the network's description.
        recipe: filled (`recipe.fill`).
        environment: to learn in.
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
        environment: Environment,
        *,
        total_steps: int,
        seed: int,
        on_device: bool = False,
    ):
        self.engine, self.programs, self.agent, self.recipe = engine, programs, agent, recipe
        self.environment, self.total_steps = environment, total_steps
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
        )
        self.memory = (DeviceMemory if on_device else HostMemory)(engine, programs, agent, self.replay)
        self.updates_per_call = recipe.updates_per_call or max(recipe.num_envs // recipe.update_every, 1)
        exploring, drawing = np.random.SeedSequence(seed).spawn(2)
        self.exploring, self.drawing = np.random.default_rng(exploring), np.random.default_rng(drawing)
        self.step, self.updates, self.synced, self.credit = 0, 0, 0, 0.0
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.episodes = 0
        self.returns = np.zeros(recipe.num_envs)
        self.outputs: list[Mapping[str, Any]] = []
        """Outputs of the updates since they were last read; reading waits for the device."""
        self._unread: tuple[np.ndarray, Any] | None = None
        self._observation = environment.reset(seed)
        self._rows = self.replay.add_frames(np.ones(recipe.num_envs, bool))

    @property
    def epsilon(self) -> float:
        """Share of random actions now."""
        return epsilon_at(self.recipe, self.step)

    def round(self) -> None:
        """One step in every environment, and the updates that have become due."""
        q = self.memory.observe(self._observation, self._rows, self.replay.newest())
        self._update_priorities()
        due = self._due()
        batches = [self._draw() for _ in range(due)]
        self.environment.send(greedy_with_noise(np.asarray(q), self.epsilon, self.exploring))
        for batch in batches:
            self._train(batch)
        self._remember()
        self.step += self.recipe.num_envs

    def save(self, with_replay: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON-able data to continue from; the memory and the emulator's state only `with_replay`."""
        self._update_priorities()
        facts = {name: getattr(self, name) for name in ("step", "updates", "synced", "credit", "episodes")}
        facts |= {"recent": list(self.recent), "exploring": self.exploring.bit_generator.state}
        facts["drawing"] = self.drawing.bit_generator.state
        arrays: dict[str, np.ndarray] = {}
        if with_replay:
            arrays = {REPLAY_PREFIX + name: array for name, array in self.replay.save().items()}
            arrays[REPLAY_PREFIX + "frames"] = self.memory.save()
            arrays[REPLAY_PREFIX + "observation"] = self._observation
            facts["returns"] = self.returns.tolist()
            if hasattr(self.environment, "save"):
                saved = self.environment.save()
                arrays[REPLAY_PREFIX + "emulator"] = saved.pop("emulator")
                facts["environment"] = saved
        return arrays, facts

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Continue from `save`. Without the memory it fills anew, with the restored policy, before updates go on."""
        for name in ("step", "updates", "synced", "credit", "episodes"):
            setattr(self, name, facts[name])
        self.recent.extend(facts["recent"])
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
            raise CheckpointError(
                f"the saved replay memory cannot be used: {error}. Use the run's own flags"
            ) from error
        newest = self.replay.newest()[:, -1].astype(np.int64)
        self.memory.restore(kept["frames"], newest, kept["observation"])
        if "environment" in facts and hasattr(self.environment, "restore"):
            self.environment.restore({**facts["environment"], "emulator": kept["emulator"]})
            self._observation, self.returns = kept["observation"], np.array(facts["returns"])
            self._rows = newest
        else:
            # The environments begin new episodes: what they had shown last has no continuation.
            self._rows = self.replay.add_frames(np.ones(self.recipe.num_envs, bool))

    def _due(self) -> int:
        """Calls of the training Program that this round owes."""
        if len(self.replay) < self.recipe.warmup_steps or self.replay.sampleable() < 1:
            return 0
        self.credit += self.recipe.num_envs / self.recipe.update_every
        calls = int(self.credit // self.updates_per_call)
        self.credit -= calls * self.updates_per_call
        return calls

    def _draw(self) -> Transitions:
        start = self.recipe.priority_beta
        beta = start + (1.0 - start) * min(self.step / self.total_steps, 1.0)
        return self.replay.sample(self.recipe.batch_size * self.updates_per_call, self.drawing, beta)

    def _train(self, batch: Transitions) -> None:
        feeds = self.memory.feeds(batch, self.updates_per_call)
        fetch = ["loss", "q", "error"] if self.recipe.prioritized else ["loss", "q"]
        outputs = self.engine.run_many(self.programs["train"], feeds, step=self.updates, fetch=fetch)
        self.outputs.append({name: outputs[name] for name in ("loss", "q")})
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

    def _remember(self) -> None:
        step = self.environment.receive()
        reward = np.clip(step.reward, -1, 1) if self.recipe.clip_rewards else step.reward
        terminated = step.terminated | step.life_lost if self.recipe.life_loss_ends else step.terminated
        self.replay.add_outcome(step.action, reward, terminated, step.truncated, step.first)
        self.returns = np.where(step.first, 0, self.returns) + step.reward
        ended = step.terminated | step.truncated
        self.recent.extend(self.returns[ended].tolist())
        self.episodes += int(ended.sum())
        self._observation = step.observation
        self._rows = self.replay.add_frames(step.first)


def train(
    run: Run,
    learner: Learner,
    evaluate: Callable[[], Scores],
    *,
    flags: TrainFlags,
    state_names: list[str],
    policy_names: list[str],
    meta: Meta,
    target_score: float | None = None,
    max_minutes: float | None = None,
    save_replay: bool = False,
) -> Outcome:
    """Rounds until `learner.total_steps`, the target score, the time limit, or a signal.

    Args:
        run: records and output folder.
        learner: fresh or restored.
        evaluate: plays with the current policy.
        flags: intervals in environment steps; `save_every` and `eval_every` must be set.
        state_names: variables of a checkpoint.
        policy_names: parameters that are watched for NaN and infinity.
        meta: of the checkpoint being resumed, or a fresh one.
        target_score: stop at an evaluation that reaches it.
        max_minutes: stop after this time; the last evaluation comes on top.
        save_replay: keep the memory in checkpoints.

    On SIGTERM or Ctrl-C the round is finished, a checkpoint written, and the process exits with 143 or 130. Raises
    DivergenceError, without writing a checkpoint, when the loss or a parameter is not finite.
    """
    began = time.perf_counter()
    clock = Clock(learner)
    last_saved: Path | None = None
    reached = stale = False

    def save(best: bool = False) -> None:
        nonlocal last_saved
        check_finite(learner, policy_names, last_saved)
        arrays, meta.extra["learner"] = learner.save(save_replay)
        meta.step = learner.step
        state = {**learner.engine.state(state_names), **arrays}
        if run.writes:
            last_saved = checkpoint.save(run.output_dir, state, meta, keep=flags.keep_checkpoints, best=best)

    bar, task = progress_bar(meta.task, learner.total_steps, learner.step)
    with stop_on_signals() as stop, bar:
        while True:
            before = learner.step
            learner.round()
            now = learner.step
            bar.update(task, completed=now)
            late = max_minutes is not None and time.perf_counter() - began > 60 * max_minutes
            last = now >= learner.total_steps or late
            if _passed(before, now, flags.log_every) or last:
                bar.update(task, status=clock.log(run, policy_names, last_saved))
            if _passed(before, now, flags.eval_every) or last:
                clock.pause()
                check_finite(learner, policy_names, last_saved)
                scores = evaluate()
                improved = meta.best is None or scores.result()["score"] > meta.best
                meta.metrics = scores.result()
                meta.extra["stale_evaluations"] = 0 if improved else meta.extra.get("stale_evaluations", 0) + 1
                stale = bool(flags.early_stop) and meta.extra["stale_evaluations"] >= flags.early_stop
                if improved:
                    meta.best, meta.best_step = meta.metrics["score"], now
                run.record("eval", now, **meta.metrics)
                run.say(f"evaluation after step {now}: {scores}{' (best so far)' if improved else ''}")
                reached = target_score is not None and meta.metrics["score"] >= target_score
                save(best=improved)
                clock.resume()
            elif _passed(before, now, flags.save_every):
                clock.pause()
                save()
                clock.resume()
            if stop:
                save()
                run.say(f"stopped by a signal after step {now}; continue with --checkpoint {run.output_dir}")
                run.close()
                bar.stop()
                sys.exit(stop.exit_code)
            if last or reached or stale:
                break
    if reached:
        run.say(f"the target score of {target_score:g} is reached")
    elif stale:
        run.say(f"stopped early: the score has not improved in {flags.early_stop} evaluations")
    elif late and learner.step < learner.total_steps:
        run.say(f"stopped after {max_minutes:g} minutes")
    return Outcome(
        step=learner.step,
        updates=learner.updates,
        seconds=time.perf_counter() - began,
        metrics=dict(meta.metrics),
        best=meta.best,
        best_step=meta.best_step,
        steps_per_second=clock.total_steps / max(clock.total_seconds, 1e-9),
        updates_per_second=clock.total_updates / max(clock.total_seconds, 1e-9),
    )


def benchmark(run: Run, learner: Learner, seconds: float = 10.0) -> dict[str, float]:
    """Rates of the whole loop, of the environments alone and of the updates alone; recorded, and returned by name.

    The learner's state is worth nothing afterwards.
    """
    while learner.updates < 4 * learner.updates_per_call:
        learner.round()

    def rates(work: Callable[[], None]) -> tuple[float, float]:
        np.asarray(learner.outputs[-1]["loss"])
        began, step, updates, calls = time.perf_counter(), learner.step, learner.updates, 0
        while time.perf_counter() - began < seconds:
            work()
            calls += 1
            if len(learner.outputs) > RECENT:
                np.asarray(learner.outputs[-1]["loss"])
                del learner.outputs[:-1]
        np.asarray(learner.outputs[-1]["loss"])
        passed = time.perf_counter() - began
        steps = learner.step - step or calls * learner.recipe.num_envs
        return steps / passed, (learner.updates - updates) / passed

    def emulate() -> None:
        learner.environment.send(learner.exploring.integers(learner.agent.num_actions, size=learner.recipe.num_envs))
        learner.environment.receive()

    steps, updates = rates(learner.round)
    result = {"loop: steps": steps, "loop: updates": updates}
    result["environments alone: steps"], _ = rates(emulate)
    _, result["updates alone"] = rates(lambda: learner._train(learner._draw()))
    run.record(
        "benchmark", learner.step, **{name.replace(": ", "_").replace(" ", "_"): rate for name, rate in result.items()}
    )
    return result


class Clock:
    """Rates of the rounds alone: evaluations and checkpoints stop it."""

    def __init__(self, learner: Learner):
        self.learner = learner
        self.total_seconds, self.total_steps, self.total_updates = 0.0, 0, 0
        self._restart()

    def pause(self) -> None:
        """Something else than training begins."""
        self._paused = time.perf_counter()

    def resume(self) -> None:
        """It is over."""
        self._began += time.perf_counter() - self._paused

    def log(self, run: Run, policy_names: list[str], last_saved: Path | None) -> str:
        """Write a log line, which waits for the device; returns its short form."""
        learner = self.learner
        check_finite(learner, policy_names, last_saved)
        values = {
            name: float(np.mean([np.mean(np.asarray(item[name], np.float64)) for item in learner.outputs]))
            for name in ("loss", "q")
            if learner.outputs
        }
        learner.outputs.clear()
        seconds = max(time.perf_counter() - self._began, 1e-9)
        steps, updates = learner.step - self._step, learner.updates - self._updates
        self.total_seconds, self.total_steps = self.total_seconds + seconds, self.total_steps + steps
        self.total_updates += updates
        if learner.recent:
            values["episode_return"] = float(np.mean(learner.recent))
        frames = steps * (FRAME_SKIP if learner.agent.dtype == "uint8" else 1)
        values |= {
            "epsilon": learner.epsilon,
            "frames_per_second": frames / seconds,
            "updates_per_second": updates / seconds,
        }
        run.record("train", learner.step, **values, episodes=learner.episodes, updates=learner.updates)
        shown = " ".join(
            f"{name} {values[name]:.4g}" for name in ("episode_return", "loss", "q", "epsilon") if name in values
        )
        status = f"{shown} {values['frames_per_second']:.0f} frames/s {values['updates_per_second']:.0f} updates/s"
        left = (learner.total_steps - learner.step) / max(steps, 1) * seconds
        line = (
            f"step {learner.step}/{learner.total_steps} episodes {learner.episodes} {status} "
            f"eta {int(left // 60)}:{int(left % 60):02d}"
        )
        run.note(line)
        if not run.interactive:
            run.say(line, log=False)
        self._restart()
        return status

    def _restart(self) -> None:
        self._began = time.perf_counter()
        self._step, self._updates = self.learner.step, self.learner.updates


def check_finite(learner: Learner, policy_names: list[str], last_saved: Path | None) -> None:
    """Raise DivergenceError if a recent loss or a parameter is not a finite number."""
    losses = np.concatenate([np.ravel(np.asarray(item["loss"])) for item in learner.outputs] or [np.zeros(1)])
    broken = [] if np.isfinite(losses).all() else ["loss"]
    state = learner.engine.state(policy_names)
    broken += [name for name, array in state.items() if not np.isfinite(array).all()]
    if broken:
        names = ", ".join(broken[:4]) + (f" and {len(broken) - 4} more" if len(broken) > 4 else "")
        kept = f"The last good checkpoint is {last_saved}. " if last_saved else ""
        raise DivergenceError(
            f"training diverged before step {learner.step}: not a finite number: {names}. {kept}Lower --lr or clip the gradients"
        )


def _passed(before: int, now: int, interval: int) -> bool:
    """Whether a multiple of `interval` lies in (before, now]."""
    return now // interval > before // interval


def _numbers(batch: Transitions) -> dict[str, np.ndarray]:
    return {name: getattr(batch, name) for name in ("action", "reward", "discount", "weight")}


def _split(feed: dict[str, np.ndarray], updates: int) -> list[dict[str, np.ndarray]]:
    """[updates * B, ...] -> a list of `updates` feeds [B, ...], views of the same memory."""
    stacked = {name: array.reshape(updates, -1, *array.shape[1:]) for name, array in feed.items()}
    return [{name: array[index] for name, array in stacked.items()} for index in range(updates)]
