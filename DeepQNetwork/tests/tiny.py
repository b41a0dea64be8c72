"""What tests/test_tasks.py needs to know about this task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from DeepQNetwork.agent import Agent
from DeepQNetwork.environments import AtariGame
from DeepQNetwork.network import train_program
from fluid.program import Program
from fluid.schedule import Constant

import numpy as np

STEPS = (48, 96)
METRIC = "length"
MEMORY = ("--num_envs", 1, "--batch_size", 2, "--mem_size", 60, "--learning_starts", 20, "--save_replay", True)
PACE = ("--update_every", 4, "--updates_per_call", 2, "--sync_every", 4, "--epsilon_steps", 60)
# A game that is over soon, whoever plays.
TRAIN = ("--env", "RoadRunner", *MEMORY, *PACE, "--test_episodes", 1)
EVAL = ("--episodes", 1, "--num_envs", 1, "--seed", 7919)
STORAGE = ("--episodes", 1)
OTHER_NETWORK = ("--network", "fluid2018")
OTHER_DATA = None
BENCHMARK = "DeepQNetwork.loop.benchmark"
BESIDE = "replay"
COPIED = "target_"
OUTSIDE = AtariGame, "receive"
WITHOUT_PADDLE = [["--max_seconds", 1]]
NO_GRADIENT: dict[str, str] = {}
EXCEPTIONS: dict[str, str] = {
    "reader.py": "the data come from an environment",
}


def data(folder: Path) -> tuple[object, ...]:
    """None: the data come from an environment."""
    return ()


def figure(result: Any) -> float:
    """METRIC, of what eval.py returns."""
    return result.result()["length"]


def feed(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Four frames of two games."""
    return {"state": rng.integers(0, 256, (2, 4, 84, 84)).astype(np.float32)}


def training(make: Callable[[], Any]) -> Program:
    """The training Program of an agent for a task whose state is six numbers."""
    agent = Agent("CartPole-v1", "mlp", True, 3, observation_shape=(6,), image=False, dtype="float32", stack=1)
    with mock.patch("paddle.optimizer.Adam", lambda *_, **__: make()):
        return train_program(agent, double=True, loss="huber", schedule=Constant(1e-3), adam_epsilon=1e-8)


def batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Eight transitions."""
    states = {name: rng.standard_normal((8, 6)).astype(np.float32) for name in ("state", "next_state")}
    numbers = {name: rng.uniform(0.5, 1.0, 8).astype(np.float32) for name in ("reward", "discount", "weight")}
    return {**states, **numbers, "action": rng.integers(0, 3, 8).astype(np.int32)}
