"""The training loop: it learns, resumes to the bit, stops on signals, and refuses what cannot be."""

import itertools
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

from DeepQNetwork import environments, gymnasium_tasks, infer, loop, train
from DeepQNetwork import eval as evaluation
from DeepQNetwork.agent import Agent
from DeepQNetwork.environments import Step
from DeepQNetwork.human import SCORES, human_normalised
from DeepQNetwork.learner import Learner
from DeepQNetwork.player import load
from DeepQNetwork.recipe import Recipe, epsilon_at, fill, learning_rate
from DeepQNetwork.train import ALIASES, Flags, complete, main
from fluid import checkpoint, signals
from fluid import config as configuration
from fluid.errors import CheckpointError, DivergenceError, UserError
from fluid.run import events

import cv2
import gymnasium
import numpy as np
import pytest
from PIL import Image, ImageSequence

QUICK = {"max_steps": 96, "eval_every": 96, "log_every": 32, "test_episodes": 1, "target_score": 1000.0}


def cartpole(output_dir: Path | None, **options) -> Flags:
    return Flags(**{"output_dir": output_dir, "learning_starts": 32, "updates_per_call": 4, **QUICK, **options})


def test_cartpole_is_learnt(tmp_path):
    """Mean return of 20 evaluation episodes of at least 400 (500 is the most possible, 22 what random actions get).

    The weights are chosen by such an evaluation, so others, played with another seed, have to come out well too.
    """
    seed = int(np.random.SeedSequence().entropy % 10**6)
    print(f"seed {seed}")
    outcome = main(Flags(output_dir=tmp_path / "run", seed=seed))
    assert outcome.best >= 400
    fresh = evaluation.main(evaluation.Flags(pretrained_model=str(tmp_path / "run"), test_episodes=20, seed=seed + 1))
    assert fresh.result()["score"] >= 350
    player, task = load(tmp_path / "run"), gymnasium.make("CartPole-v1")
    observation, over, steps = task.reset(seed=seed)[0], False, 0
    while not over:
        observation, _, terminated, truncated, _ = task.step(player.act(observation))
        over, steps = terminated or truncated, steps + 1
    assert steps >= 200
    (record,) = infer.main(
        infer.Flags(pretrained_model=str(tmp_path / "run"), video=tmp_path / "cart.gif", max_seconds=1.0)
    )
    assert record["steps"] == 50 and not record["finished"]
    with Image.open(tmp_path / "cart.gif") as gif:
        # Frames that are equal became one that is shown for longer.
        shown = sum(frame.info["duration"] for frame in ImageSequence.Iterator(gif))
        assert gif.size == (600, 400) and shown == 1000 and gif.n_frames > 1
    logged = events(tmp_path / "run", "train")[-1]
    assert {"loss", "q", "epsilon", "episode_return", "frames_per_second", "updates_per_second"} <= logged.keys()
    assert (tmp_path / "run" / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize("alg", ["C51", "QRDQN"])
def test_distributions_learn_cartpole(tmp_path, alg):
    """22 is what random actions get; with seed 1 the weights after 5,000 steps got 403 and 421."""
    seed = int(np.random.SeedSequence().entropy % 10**6)
    print(f"seed {seed}")
    flags = {"alg": alg, "double": True, "atoms": 51 if alg == "C51" else 16, "max_steps": 6_000, "target_score": 150.0}
    assert main(Flags(output_dir=tmp_path / "run", seed=seed, **flags)).best >= 150


def test_resume_is_exact_with_one_game(tmp_path):
    """96 steps in one go and 48 + 48: the same bits in networks, optimizer, memory, priorities, emulator and counters."""
    flags = Flags(
        env="Breakout",
        output_dir=tmp_path / "whole",
        seed=11,
        num_envs=1,
        batch_size=2,
        mem_size=60,
        learning_starts=20,
        update_every=4,
        updates_per_call=2,
        sync_every=4,
        epsilon_steps=60,
        prioritized=True,
        save_replay=True,
        save_every=48,
        **QUICK,
    )
    main(flags)
    half = tmp_path / "whole" / "checkpoints" / "step_00000048"
    main(replace(flags, output_dir=tmp_path / "resumed", checkpoint=half))
    whole, whole_meta = checkpoint.load(tmp_path / "whole")
    resumed, resumed_meta = checkpoint.load(tmp_path / "resumed")
    started, _ = checkpoint.load(half)
    assert whole.keys() == resumed.keys()
    changed = [name for name in whole if not np.array_equal(whole[name], started[name])]
    assert {"policy_conv1", "target_conv1", "replay/frames", "replay/leaves", "replay/emulator"} <= set(changed)
    for name, array in whole.items():
        np.testing.assert_array_equal(array, resumed[name], err_msg=name)
    assert whole_meta.extra["learner"] == resumed_meta.extra["learner"]
    assert whole_meta.metrics == resumed_meta.metrics
    with pytest.raises(CheckpointError, match="memory"):
        main(replace(flags, output_dir=tmp_path / "other", checkpoint=half, mem_size=80))


def test_resume_without_memory_fills_it_first(tmp_path):
    main(cartpole(tmp_path / "run"))
    outcome = main(cartpole(tmp_path / "run", checkpoint=tmp_path / "run", max_steps=192))
    assert outcome.step == 192 and [row["step"] for row in events(tmp_path / "run", "eval")] == [96, 192]
    _, meta = checkpoint.load(tmp_path / "run")
    # A round of 8 steps is worth 4 updates. Each run first collects the 9 frames an 8-step transition needs, which leaves
    # rounds 9 to 12; had the memory been there, the second run would have made 48 updates.
    assert meta.extra["learner"]["updates"] == 2 * 4 * 4
    with pytest.raises(CheckpointError, match="another network: --dueling is False there, not True"):
        main(cartpole(tmp_path / "wide", checkpoint=tmp_path / "run", dueling=True))


def test_resume_is_exact_with_any_number_of_carts(tmp_path):
    flags = cartpole(tmp_path / "whole", save_replay=True, num_envs=3, mem_size=600, seed=5, max_steps=960)
    main(replace(flags, save_every=480, keep_checkpoints=99))
    half = tmp_path / "whole" / "checkpoints" / "step_00000480"
    main(replace(flags, output_dir=tmp_path / "resumed", checkpoint=half))
    whole, resumed, started = (checkpoint.load(path)[0] for path in (tmp_path / "whole", tmp_path / "resumed", half))
    assert [name for name in whole if whole[name].tobytes() != resumed[name].tobytes()] == []
    assert not np.array_equal(whole["replay/emulator"], started["replay/emulator"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 3}, "filled with 6 environments, not 3"),
        ({"n_step": 4}, "filled with 8 steps a transition, not 4"),
        ({"env": "Acrobot-v1"}, "another network: --env is CartPole-v1 there"),
    ],
)
def test_a_memory_of_another_kind_is_refused(tmp_path, options, message):
    main(cartpole(tmp_path / "run", save_replay=True, num_envs=6, mem_size=600))
    with pytest.raises(CheckpointError, match=message):
        main(cartpole(None, checkpoint=tmp_path / "run", max_steps=192, **options))


def test_environments_that_cannot_be_saved_say_so_at_the_start(tmp_path, capsys):
    sizes = {"num_envs": 2, "mem_size": 60, "learning_starts": 20, "batch_size": 2}
    main(Flags(env="Breakout", output_dir=tmp_path / "run", save_replay=True, **{**QUICK, **sizes, "max_steps": 2}))
    assert "these environments cannot be saved" in capsys.readouterr().out


def test_nan_of_an_environment_is_called_that(tmp_path, monkeypatch):
    original = gymnasium_tasks.GymnasiumVector.receive

    def broken(self):
        step = original(self)
        step.reward[1] = np.nan
        return step

    monkeypatch.setattr(gymnasium_tasks.GymnasiumVector, "receive", broken)
    with pytest.raises(DivergenceError, match="came from the environment CartPole-v1 x 8: the reward of its copy 1"):
        main(cartpole(tmp_path / "run"))


def test_an_environment_that_fails_leaves_a_checkpoint(tmp_path, monkeypatch):
    original, calls = gymnasium_tasks.GymnasiumVector.receive, itertools.count()

    def broken(self):
        if self.num_envs == 8 and next(calls) == 6:
            raise ZeroDivisionError("the pole is gone")
        return original(self)

    monkeypatch.setattr(gymnasium_tasks.GymnasiumVector, "receive", broken)
    with pytest.raises(UserError, match="ZeroDivisionError: the pole is gone"):
        main(cartpole(tmp_path / "run"))
    assert checkpoint.load(tmp_path / "run")[1].step == 48
    assert main(cartpole(None, checkpoint=tmp_path / "run")).step == 96


def test_signal_saves_and_exits(tmp_path, monkeypatch):
    rounds = 0
    original = loop.Learner.round

    def counted(learner: loop.Learner) -> None:
        nonlocal rounds
        rounds += 1
        original(learner)
        if rounds == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            while not signals._request:
                time.sleep(0.01)

    monkeypatch.setattr(loop.Learner, "round", counted)
    with pytest.raises(SystemExit) as stopped:
        main(cartpole(tmp_path / "run"))
    assert stopped.value.code == 143 and rounds == 5
    _, meta = checkpoint.load(tmp_path / "run")
    assert meta.step == 40


def test_divergence_stops_without_a_checkpoint(tmp_path):
    with pytest.raises(DivergenceError, match="not a finite number: .*Lower --lr"):
        main(cartpole(tmp_path / "run", lr=1e30, loss="mse", seed=1))
    assert not checkpoint.is_checkpoint(tmp_path / "run")


def test_evaluation_of_training_is_that_of_the_script(tmp_path):
    """Same weights, same seed: the same episodes, through the checkpoint and on the other engine."""
    outcome = main(cartpole(tmp_path / "run", test_episodes=20, seed=4))
    for engine in ("xla", "paddle"):
        flags = evaluation.Flags(
            pretrained_model=str(tmp_path / "run"), test_episodes=20, seed=4 + 7919, num_envs=16, engine=engine
        )
        assert evaluation.main(flags).result() == outcome.metrics


def test_early_stop_and_benchmark(tmp_path, monkeypatch):
    # A learning rate of 0 cannot improve on the first evaluation.
    outcome = main(cartpole(tmp_path / "run", lr=0.0, max_steps=960, early_stop=2, test_epsilon=0.0))
    assert outcome.step == outcome.best_step == 96 * 3
    monkeypatch.setattr(loop.benchmark, "__defaults__", (0.2,))
    rates = {}
    monkeypatch.setattr(train, "benchmark", lambda *arguments: rates.update(loop.benchmark(*arguments)) or rates)
    main(cartpole(tmp_path / "measured", benchmark=True))
    assert rates["environments alone: steps"] > rates["loop: steps"] > 0
    assert rates["loop: updates"] == pytest.approx(rates["loop: steps"] / 2, rel=0.3)
    assert not (tmp_path / "measured").exists()
    with pytest.raises(UserError, match="one machine"):
        main(cartpole(tmp_path / "hosts", coordinator="localhost:1"))


def test_start_from_weights(tmp_path):
    main(cartpole(tmp_path / "run"))
    flags = cartpole(tmp_path / "next", pretrained_model=str(tmp_path / "run"), learning_starts=1000)
    main(flags)
    before, after = (checkpoint.load(tmp_path / name)[0] for name in ("run", "next"))
    np.testing.assert_array_equal(before["policy_hidden1"], after["policy_hidden1"])
    np.testing.assert_array_equal(before["policy_hidden1"], after["target_hidden1"])


def test_flags_of_2018():
    words = "--alg DuelingDQN --use_cuda False --gamma 0.9 --mem_size 1000 --batch_size 8 --rom pong.bin"
    words += " --model_dirname saved --test_every_steps 7"
    flags = configuration.parse(Flags, words.split(), aliases=ALIASES)
    assert (flags.device, flags.env, flags.output_dir, flags.eval_every) == ("cpu", "pong.bin", Path("saved"), 7)
    filled = complete(replace(flags, learning_starts=100))
    assert (filled.dueling, filled.double, filled.network, filled.num_envs) == (True, False, "nature", 16)
    old = complete(Flags(env="Pong", preset="2018"))
    assert (old.network, old.lr, old.batch_size, old.sync_every, old.loss) == ("fluid2018", 5e-4, 64, 2500, "mse")
    assert complete(Flags(env="Pong", alg="DoubleDQN", dueling=True)).double
    with pytest.raises(SystemExit) as stopped:
        configuration.parse(Flags, ["--alg", "Rainbow"], aliases=ALIASES)
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "CartPole-v1", "network": "nature"}, "mlp is for vectors"),
        ({"env": "Pong", "network": "mlp"}, "mlp is for vectors"),
        ({"env": "CartPole-v1", "preset": "2018"}, "for Atari games"),
        ({"env": "Pong", "mem_size": 10_000}, "too small"),
        # 8 environments share 110 frames: 13 each, 104 in all.
        ({"mem_size": 110, "learning_starts": 110}, "never holds the 110 frames"),
        ({"sync_every": 4, "updates_per_call": 16}, "give at most 4"),
        ({"env": "Pongg"}, "Did you mean pong"),
        ({"groups": 2}, "--groups is for Atari games"),
        ({"env": "Pong", "num_envs": 9, "groups": 2}, "9 environments cannot take turns"),
        ({"learning_starts": 1_000, "lr_steps": 1_001}, "would be 0 before updates start"),
    ],
)
def test_flags_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        main(Flags(output_dir=tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_the_target_network_is_copied_as_often_as_asked():
    assert complete(Flags(sync_every=4)).updates_per_call == 4
    assert complete(Flags()).updates_per_call == 16
    assert complete(Flags(env="Pong", num_envs=64)).updates_per_call == 16


def test_the_learning_rate_falls_to_nothing_over_the_steps_asked():
    recipe = complete(Flags(lr=0.5, lr_steps=9_000, learning_starts=1_000, update_every=4))
    assert [learning_rate(recipe)(update) for update in (0, 500, 2_000, 3_000)] == [0.5, 0.375, 0.0, 0.0]
    agent = Agent("CartPole-v1", "mlp", False, 2, (4,), False, "float32", 1, frame_skip=1)
    assert train.build_programs(recipe, agent, False)["train"].schedule == learning_rate(recipe)
    assert learning_rate(complete(Flags(lr=0.5)))(10**9) == 0.5


class Counting:
    """Environments that show how often each of them has stepped, and take notes of what is asked of them."""

    num_actions, observation_shape, image, dtype = 2, (1,), False, np.dtype(np.float32)
    saveable, description = False, "a counter"

    def __init__(self, name: str, num_envs: int, notes: list[str]):
        self.name, self.num_envs, self.notes, self.steps = name, num_envs, notes, 0

    def reset(self, seed: int) -> np.ndarray:
        self.seed = seed
        return np.full((self.num_envs, 1), self.steps, np.float32)

    def send(self, actions: np.ndarray) -> None:
        self.notes.append(f"send {self.name}")
        self.actions, self.steps = actions, self.steps + 1

    def receive(self) -> Step:
        self.notes.append(f"receive {self.name}")
        nothing = np.zeros(self.num_envs, bool)
        shown = np.full((self.num_envs, 1), self.steps, np.float32)
        return Step(shown, self.actions, shown[:, 0], nothing, nothing, nothing, nothing)

    def close(self) -> None:
        """Nothing to stop."""


def test_groups_of_environments_take_turns():
    """One runs while the actions of the other are chosen, each is seeded as it would be among all, nothing is mixed up."""
    notes: list[str] = []
    groups = [Counting(name, 2, notes) for name in "ab"]
    engine = mock.Mock(**{"run.return_value": {"q_values": np.zeros((2, 2), np.float32)}})
    options = {"n_step": 1, "learning_starts": 1000, "epsilon_steps": 0, "clip_rewards": False}
    recipe = Recipe(env="Breakout", num_envs=4, groups=2, mem_size=80, **options)
    recipe = replace(recipe, **fill(recipe))
    agent = Agent("CartPole-v1", "mlp", False, 2, observation_shape=(1,), image=False, dtype="float32", stack=1)
    programs = {"act": mock.Mock(), "train": mock.Mock()}
    learner = Learner(engine, programs, agent, recipe, groups, total_steps=100, seed=5)
    for _ in range(12):
        learner.round()
    assert notes[:5] == ["send a", "send b", "receive a", "send a", "receive b"] and learner.step == 24
    assert [group.seed for group in groups] == [5, 7]
    batch = learner.replay.sample(200, np.random.default_rng(0))
    states, following = (learner.replay.frames[rows[:, -1], 0] for rows in (batch.state_rows, batch.next_rows))
    np.testing.assert_array_equal(following, states + 1)
    np.testing.assert_array_equal(batch.reward, following)
    assert {0, 1, 2, 3} == set(batch.rows % 4) and learner.returns.shape == (4,)


def test_a_run_too_short_to_learn_says_so(tmp_path, capsys):
    main(cartpole(tmp_path / "run", learning_starts=200))
    assert "no update will be made" in capsys.readouterr().out


def test_both_networks_start_equal_from_files_too(tmp_path):
    """Files without the initial values draw each variable by its name: the target network another than the policy network."""
    main(cartpole(None, learning_starts=200, capture=tmp_path / "programs", capture_state="seed"))
    main(Flags(programs=tmp_path / "programs", seed=3, output_dir=tmp_path / "run", **QUICK))
    state, _ = checkpoint.load(checkpoint.find_newest(tmp_path / "run"))
    targets = [name for name in state if name.startswith("target_")]
    assert targets
    for name in targets:
        np.testing.assert_array_equal(state[name], state["policy_" + name.removeprefix("target_")])


def test_epsilon_falls_in_a_line_after_the_warm_up():
    recipe = Recipe(learning_starts=100, epsilon_steps=1000, epsilon_end=0.1)
    values = [epsilon_at(recipe, step) for step in (0, 100, 600, 1100, 9999)]
    assert values == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])


def test_several_seeds_in_one_command(tmp_path, capsys):
    folder = tmp_path / "runs"
    outcomes = main(cartpole(folder, seeds=(3, 5), eval_every=48))
    assert [outcome.step for outcome in outcomes] == [96, 96]
    assert (folder / "seeds.png").stat().st_size > 10_000
    for seed, outcome in zip((3, 5), outcomes):
        assert [row["step"] for row in events(folder / f"seed_{seed}", "eval")] == [48, 96]
        assert checkpoint.load(folder / f"seed_{seed}")[1].metrics == outcome.metrics
    assert "best, all seeds" in capsys.readouterr().out
    again = main(cartpole(None, seeds=(3, 5), checkpoint=folder, max_steps=192))
    assert [outcome.step for outcome in again] == [192, 192]
    with pytest.raises(UserError, match="--seeds trains"):
        main(cartpole(None, seeds=(3, 5), benchmark=True))
    with pytest.raises(UserError, match="--seeds 3 5 3: each seed has a folder of its own"):
        main(cartpole(None, seeds=(3, 5, 3)))


def test_episodes_are_recorded_while_training(tmp_path):
    """A video of one episode at each multiple of --capture_every and at the end, as long as the episode."""
    main(cartpole(tmp_path / "run", capture_every=40))
    rows = events(tmp_path / "run", "video")
    assert [row["step"] for row in rows] == [40, 80, 96]
    for row in rows:
        video = cv2.VideoCapture(str(tmp_path / "run" / "videos" / f"step_{row['step']:08d}.mp4"))
        # CartPole shows 50 screens a second, a video 30.
        assert abs(int(video.get(cv2.CAP_PROP_FRAME_COUNT)) - row["length"] * 30 / 50) <= 2
    with pytest.raises(UserError, match="no screen"):
        main(cartpole(tmp_path / "blind", env=f"{__name__}:Blind-v0", capture_every=40))


class Blind(gymnasium.Env):
    """Without a screen."""

    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32), gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, True, {}


gymnasium.register("Blind-v0", entry_point=Blind)


def test_tensorboard_has_the_names_of_stable_baselines(tmp_path):
    main(cartpole(tmp_path / "run"))
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    content = file.read_bytes()
    for name in ("rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "train/loss", "eval/mean_reward"):
        assert name.encode() in content, name
    assert b"_hparams_/session_start_info" in content and b"adam_epsilon" in content


def test_scores_relative_to_people():
    assert human_normalised("ALE/Pong-v5", 14.6) == 1 and human_normalised("breakout", 1.7) == 0
    assert human_normalised("CartPole-v1", 500) is None
    assert all(map(environments.is_atari, SCORES)) and len(SCORES) == 57
