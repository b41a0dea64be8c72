"""The training loop around a learner: what is logged, evaluated and saved; profiles and rates of it. Free of Paddle."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from DeepQNetwork.episodes import Scores
from DeepQNetwork.learner import RECENT, Learner
from fluid import keeper, profiling
from fluid.checkpoint import Meta
from fluid.keeper import Evaluation, Keeper, Report, diverged
from fluid.run import Run
from fluid.session import Session

import numpy as np

TENSORBOARD = {
    "train/episode_return": "rollout/ep_rew_mean",
    "train/episode_length": "rollout/ep_len_mean",
    "train/epsilon": "rollout/exploration_rate",
    "train/steps_per_second": "time/fps",
    "train/episodes": "time/episodes",
    "train/updates": "train/n_updates",
    "eval/score": "eval/mean_reward",
    "eval/length": "eval/mean_ep_length",
}
"""What TensorBoard calls the values of the log: as Stable-Baselines3, so that runs of both lie in one diagram."""


@dataclass
class Outcome(keeper.Outcome):
    """How a run ended."""

    updates: int = 0
    steps_per_second: float = 0.0
    """Agent steps, over the time of training alone, like the updates."""
    updates_per_second: float = 0.0


def train(
    session: Session,
    learner: Learner,
    evaluate: Callable[[], Scores],
    *,
    beside: Sequence[Evaluation] = (),
    target_score: float | None = None,
    save_replay: bool = False,
) -> Outcome:
    """Rounds until `learner.total_steps` or an earlier end; see `Keeper.train` for those and for what is raised.

    Args:
        session: open; the intervals of its flags are in environment steps.
        learner: fresh or restored.
        evaluate: plays with the current policy.
        beside: what else is measured.
        target_score: stop at an evaluation that reaches it.
        save_replay: keep the memory in checkpoints.
    """
    session.run.scalar_names = TENSORBOARD
    evaluation = Evaluation(
        "eval", lambda: evaluate().result(), decides="score", higher_is_better=True, target=target_score
    )
    keep = Keeper(
        session.run,
        learner.engine,
        session.meta,
        session.flags,
        resumed=session.resumed,
        evaluations=[evaluation, *beside],
        total_steps=learner.total_steps,
        every=learner.total_steps,
    )
    rounds = Rounds(learner, session.update.state_names, save_replay)
    outcome = keep.train(rounds)
    seconds = max(outcome.parts["training"], 1e-9)
    return Outcome(
        **vars(outcome),
        updates=learner.updates,
        steps_per_second=(learner.step - rounds.first_step) / seconds,
        updates_per_second=(learner.updates - rounds.first_update) / seconds,
    )


class Rounds:
    """Rounds of a learner: what a keeper trains.

    Args:
        learner: fresh or restored.
        state_names: variables of a checkpoint.
        save_replay: keep the memory in checkpoints.
    """

    def __init__(self, learner: Learner, state_names: list[str], save_replay: bool):
        self.learner, self.state_names, self.save_replay = learner, state_names, save_replay
        self.first_step, self.first_update = learner.step, learner.updates
        self._step, self._updates = learner.step, learner.updates

    @property
    def step(self) -> int:
        """Agent steps so far."""
        return self.learner.step

    def advance(self) -> bool:
        """See `Trainee`."""
        self.learner.round()
        return True

    def check(self) -> None:
        """See `Trainee`."""
        if broken := self.learner.outputs.take_broken():
            update, names = broken
            raise diverged(self.learner.step, [f"{name} (update {update})" for name in names])

    def report(self, seconds: float) -> Report:
        """See `Trainee`."""
        learner = self.learner
        steps, updates = learner.step - self._step, learner.updates - self._updates
        self._step, self._updates = learner.step, learner.updates
        values = learner.outputs.take_means()
        if learner.recent:
            values["episode_return"] = float(np.mean(learner.recent))
        if learner.recent_lengths:
            values["episode_length"] = float(np.mean(learner.recent_lengths))
        frames = steps * learner.agent.frame_skip
        values |= {
            "epsilon": learner.epsilon,
            "steps_per_second": steps / seconds,
            "frames_per_second": frames / seconds,
            "updates_per_second": updates / seconds,
        }
        shown = " ".join(
            f"{name} {values[name]:.4g}" for name in ("episode_return", "loss", "q", "epsilon") if name in values
        )
        return Report(
            {**values, "episodes": learner.episodes, "updates": learner.updates},
            f"episodes {learner.episodes}",
            f"{shown} {values['frames_per_second']:.0f} frames/s {values['updates_per_second']:.0f} updates/s",
        )

    def save(self, meta: Meta) -> dict[str, np.ndarray]:
        """See `Trainee`."""
        arrays, meta.extra["learner"] = self.learner.save(self.save_replay)
        return {**self.learner.engine.state(self.state_names), **arrays}


def profile(run: Run, learner: Learner, calls: int = 10) -> str:
    """What takes the time of an update, as `fluid.profiling.profile` tells it; the learner is worth nothing afterwards."""
    while learner.updates < 4 * learner.updates_per_call:
        learner.round()

    def timed() -> int:
        for _ in range(calls):
            learner.update()
        learner.outputs.take_means()
        return calls

    return profiling.profile(learner.engine, timed, run.output_dir / "profile")


def benchmark(run: Run, learner: Learner, seconds: float = 10.0) -> dict[str, float]:
    """Rates of the whole loop, of the environments alone and of the updates alone; recorded, and returned by name.

    The learner's state is worth nothing afterwards.
    """
    while learner.updates < 4 * learner.updates_per_call:
        learner.round()

    def rates(work: Callable[[], None]) -> tuple[float, float]:
        learner.outputs.take_means()
        began, step, updates, calls = time.perf_counter(), learner.step, learner.updates, 0
        while time.perf_counter() - began < seconds:
            work()
            calls += 1
            if len(learner.outputs) > RECENT:
                learner.outputs.take_means()
        learner.outputs.take_means()
        passed = time.perf_counter() - began
        steps = learner.step - step or calls * learner.recipe.num_envs
        return steps / passed, (learner.updates - updates) / passed

    def emulate() -> None:
        for group in learner.groups:
            group.environment.send(
                learner.exploring.integers(learner.agent.num_actions, size=group.environment.num_envs)
            )
        for group in learner.groups:
            group.environment.receive()

    steps, updates = rates(learner.round)
    for group in learner.groups:
        if group.running:
            group.environment.receive()
    result = {"loop: steps": steps, "loop: updates": updates}
    result["environments alone: steps"], _ = rates(emulate)
    _, result["updates alone"] = rates(learner.update)
    run.record(
        "benchmark", learner.step, **{name.replace(": ", "_").replace(" ", "_"): rate for name, rate in result.items()}
    )
    return result
