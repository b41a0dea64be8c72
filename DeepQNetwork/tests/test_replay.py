"""The replay memory against a plain list of episodes, and its priorities against their definition."""

from dataclasses import replace

from DeepQNetwork.recipe import PRESETS, Recipe, fill
from DeepQNetwork.replay import Priorities, Replay

import numpy as np
import pytest

GAMMA = 0.9


class Story:
    """Random episodes in `num_envs` environments, stored in a Replay and in plain lists side by side.

    A frame is one number, different for every frame. An episode is a list of (frame, action, reward, ended, cut).
    """

    def __init__(
        self,
        seed: int,
        num_envs: int,
        capacity: int,
        stack: int,
        n_step: int,
        alpha: float | None = None,
        groups: int = 1,
    ):
        self.random = np.random.default_rng(seed)
        options = {"stack": stack, "n_step": n_step, "gamma": GAMMA, "alpha": alpha, "groups": groups}
        self.replay = Replay(capacity, num_envs, (1,), np.float32, **options)
        self.num_envs, self.stack, self.n_step = num_envs, stack, n_step
        self.groups = np.arange(num_envs).reshape(groups, -1)
        self.episodes: list[list[list]] = [[[]] for _ in range(num_envs)]
        self.next_frame = 1.0
        self.over = np.zeros(num_envs, bool)
        for group in range(groups):
            self._store(group, np.ones(num_envs, bool))

    def _store(self, group: int, first: np.ndarray) -> None:
        here = self.groups[group]
        frames = self.next_frame + np.arange(len(here))
        self.next_frame += len(here)
        rows = self.replay.add_frames(first[here], group)
        self.replay.frames[rows] = frames[:, None]
        for environment, frame in zip(here, frames, strict=True):
            if first[environment] and self.episodes[environment][-1]:
                self.episodes[environment].append([])
            self.episodes[environment][-1].append([frame, None, None, False, False])

    def step(self) -> None:
        """One step in every environment, group by group; ends and cuts come at random."""
        for group in range(len(self.groups)):
            self.step_group(group)

    def step_group(self, group: int) -> None:
        """One step in the environments of a group."""
        count, mine = self.num_envs, np.isin(np.arange(self.num_envs), self.groups[group])
        action, reward = self.random.integers(5, size=count), self.random.normal(size=count).astype(np.float32)
        ended = (self.random.random(count) < 0.15) & ~self.over
        cut = (self.random.random(count) < 0.1) & ~self.over & ~ended
        first = self.over
        for environment in np.flatnonzero(~first & mine):
            self.episodes[environment][-1][-1][1:] = (
                action[environment],
                reward[environment],
                ended[environment],
                cut[environment],
            )
        here = self.groups[group]
        self.replay.add_outcome(action[here], reward[here], ended[here], cut[here], first[here], group)
        self.over = np.where(mine, ended | cut, first)
        self._store(group, first)

    def expected(self) -> dict[float, tuple]:
        """Newest frame of a state -> (state, action, n-step reward, next state, discount), for every complete step."""
        found = {}
        for episodes in self.episodes:
            for episode in episodes:
                frames = [entry[0] for entry in episode]
                padded = [0.0] * (self.stack - 1) + frames
                for start, entry in enumerate(episode):
                    reward, steps, ended = 0.0, 0, False
                    while steps < self.n_step and start + steps < len(episode) - 1:
                        _, _, gain, ended, cut = episode[start + steps]
                        reward += GAMMA**steps * gain
                        steps += 1
                        if ended or cut:
                            break
                    if steps:
                        state, following = (padded[at : at + self.stack] for at in (start, start + steps))
                        found[entry[0]] = (state, entry[1], reward, following, 0.0 if ended else GAMMA**steps)
        return found


@pytest.mark.parametrize("alpha", [None, 0.6])
@pytest.mark.parametrize(
    ("num_envs", "capacity", "stack", "n_step", "groups"),
    [(1, 40, 4, 1, 1), (3, 90, 4, 3, 1), (2, 30, 1, 5, 1), (4, 120, 4, 2, 2), (2, 30, 1, 1, 2), (1, 400, 300, 1, 1)],
)
def test_every_sample_is_a_true_transition(num_envs, capacity, stack, n_step, groups, alpha):
    """Before and after the rings have wrapped around: states, n-step rewards, discounts; and every live step can come."""
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"seed {seed}")
    story = Story(seed, num_envs, capacity, stack, n_step, alpha, groups)
    for count in range(1, 150):
        story.step()
        if groups == 2 and count == 60:
            story.step_group(0)  # Memories are drawn from while one group is ahead, too.
        if count not in (12, 25, 60, 149):
            continue
        expected, frames = story.expected(), story.replay.frames
        batch = story.replay.sample(4000, story.random)
        seen = set()
        for index in range(4000):
            state = frames[batch.state_rows[index], 0].tolist()
            seen.add(state[-1])
            known_state, action, reward, following, discount = expected[state[-1]]
            assert state == known_state
            assert batch.action[index] == action
            assert batch.reward[index] == pytest.approx(reward, abs=1e-5)
            assert batch.discount[index] == pytest.approx(discount, abs=1e-6)
            if discount:
                assert frames[batch.next_rows[index], 0].tolist() == following
        oldest, newest = story.replay._window()
        live = [
            episode_frame
            for episodes in story.episodes
            for age, episode_frame in enumerate(frame for episode in episodes for frame in episode)
            if oldest <= age <= newest and episode_frame[1] is not None
        ]
        complete = {entry[0] for entry in live}
        # Priorities know of each group how far it is; a uniform draw is from the steps that all of them have.
        assert seen == complete if alpha is None or groups == 1 else seen >= complete


def test_memory_of_a_million_screens_is_below_seven_and_a_half_gigabytes():
    """Each frame is stored once; the figure is what the run prints at its start."""
    replay = Replay(1_000_000, 16, (84, 84), np.uint8, stack=4, n_step=3, on_device=True, alpha=0.6)
    assert 7.05e9 < replay.nbytes < 7.5e9
    small = Replay(1_000, 4, (84, 84), np.uint8, stack=4)
    measured = sum(array.nbytes for array in vars(small).values() if isinstance(array, np.ndarray) and array.ndim)
    assert small.nbytes == pytest.approx(measured, rel=1e-3)


def test_too_small_a_memory_is_refused():
    with pytest.raises(ValueError, match="too few"):
        Replay(40, 8, (84, 84), np.uint8, stack=4, n_step=3)


def test_saved_memory_draws_the_same_samples():
    one = Story(5, 2, 60, 4, 3, alpha=0.6)
    for _ in range(45):
        one.step()
    one.replay.update_priorities(one.replay.sample(20, np.random.default_rng(0)).rows, np.arange(20.0))
    other = Replay(60, 2, (1,), np.float32, stack=4, n_step=3, gamma=GAMMA, alpha=0.6)
    other.restore(one.replay.save())
    first, second = (replay.sample(50, np.random.default_rng(1), 0.5) for replay in (one.replay, other))
    for name, array in vars(first).items():
        np.testing.assert_array_equal(array, getattr(second, name), err_msg=name)
    with pytest.raises(ValueError, match="does not fit"):
        Replay(80, 2, (1,), np.float32, stack=4, alpha=0.6).restore(one.replay.save())
    earlier = {name: array for name, array in one.replay.save().items() if name != "order"}
    with pytest.raises(ValueError, match="another order"):
        other.restore(earlier)


def test_the_newest_frames_are_one_piece_of_memory():
    """So that a device stores them in place."""
    story = Story(2, 3, 30, 2, 1)
    for _ in range(25):
        rows = story.replay.newest()[:, -1]
        np.testing.assert_array_equal(rows, rows[0] + np.arange(3))
        story.step()


def test_priorities_are_drawn_in_proportion():
    """P(i) = p_i^alpha / sum, weights (N P(i))^-beta relative to the largest (equations 1 and 3.4 of the paper)."""
    alpha, beta, rows = 0.7, 0.5, 11
    priorities = Priorities(rows, alpha)
    errors = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 8.0])
    priorities.set(np.arange(6) + 3, errors)
    wanted = (errors + Priorities.EPSILON) ** alpha
    drawn, weight = priorities.sample(60_000, np.random.default_rng(2), beta)
    share = np.bincount(drawn, minlength=rows) / len(drawn)
    np.testing.assert_allclose(share[3:9], wanted / wanted.sum(), atol=1e-3)
    assert share[:3].sum() == 0 and share[9:].sum() == 0
    expected = wanted[drawn - 3] ** -beta
    np.testing.assert_allclose(weight, expected / expected.max(), rtol=1e-5)
    priorities.clear(np.array([8]))
    assert 8 not in priorities.sample(2_000, np.random.default_rng(3), beta)[0]
    # The tree of sums agrees with its leaves however many writes came before.
    for _ in range(200):
        chosen = np.random.default_rng(4).integers(rows, size=5)
        priorities.set(chosen, np.random.default_rng(5).random(5))
    assert priorities._sums[1] == pytest.approx(priorities.leaves().sum(), rel=1e-12)


def test_a_preset_for_other_tasks_fits_games_too():
    """By the network that sees images."""
    assert fill(Recipe(env="Pong", preset="control"))["network"] == "nature"
    assert fill(Recipe(env="Pong", preset="2018"))["network"] == "fluid2018"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_minibatch_spans_the_memory(preset):
    """Several updates a call, with the sizes of each preset: each minibatch is drawn from all of the memory, and its largest
    importance weight is 1."""
    env = "CartPole-v1" if preset == "control" else "Pong"
    recipe = Recipe(env=env, preset=preset, prioritized=True, updates_per_call=8)
    recipe = replace(recipe, **fill(recipe))
    size, calls = recipe.batch_size, recipe.updates_per_call
    replay = Replay(400 * recipe.num_envs, recipe.num_envs, (1,), np.float32, stack=1, n_step=1, alpha=0.6)
    none = np.zeros(recipe.num_envs, bool)
    for step in range(300):
        replay.add_frames(none if step else ~none)
        replay.add_outcome(none, none, none, none, none)
    held = np.flatnonzero(replay.priorities.leaves())
    replay.update_priorities(held, 1.0 + held % 7)
    batch = replay.sample(size * calls, np.random.default_rng(0), 0.5, minibatches=calls)
    for rows, weight in zip(batch.rows.reshape(calls, size), batch.weight.reshape(calls, size)):
        assert weight.max() == 1 and weight.min() < 1
        # One row comes from each of `size` equal shares of the total, in the order of the rows.
        assert np.ptp(rows) > 0.8 * np.ptp(held)
