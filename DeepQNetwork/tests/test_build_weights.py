"""How the agents that come along are made small: rounding by what the layers see."""

import importlib.util
from pathlib import Path
from types import ModuleType

from DeepQNetwork.agent import Agent, AgentFlags
from DeepQNetwork.network import act_program
from DeepQNetwork.opening import open_agent
from fluid import engine as engines
from fluid.errors import WeightsError
from fluid.program import initialise
from fluid.weights import compact

import numpy as np
import pytest

CARTPOLE = Agent("CartPole-v1", "mlp", False, 2, (4,), False, "float32", 1, frame_skip=1)


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "data" / "build_weights.py"
    spec = importlib.util.spec_from_file_location("build_weights", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("levels", [1, 3, 31])
def test_errors_are_made_up_for_where_inputs_go_together(builder, levels):
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(2000, 8))
    inputs = np.maximum(hidden @ rng.normal(size=(8, 200)) + 0.1 * rng.normal(size=(2000, 200)), 0)
    inputs[:, 7] = 0
    weight = rng.normal(size=(200, 30)).astype(np.float32)
    moment = inputs.T @ inputs / len(inputs)
    integers, scale = builder.rounded(weight, moment, levels)
    assert integers.dtype == np.int8 and np.abs(integers).max() == levels and scale.shape == (1, 30)
    assert not integers[7].any()
    wanted = inputs @ weight

    def loss(integers: np.ndarray) -> float:
        return float(np.square(inputs @ (integers * scale) - wanted).mean())

    nearest = np.clip(np.rint(weight / scale), -levels, levels)
    assert loss(integers) < 0.3 * loss(nearest)


def test_an_agent_is_stored_small_and_plays_on(builder, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "EVERY", 1)
    state = initialise(act_program(CARTPOLE), seed=1)
    description = compact.Description("DeepQNetwork", {"agent": CARTPOLE.to_facts()}, {"step": 7}, "fp32")
    compact.write(tmp_path / "whole.safetensors", state, description)
    builder.write(tmp_path / "whole.safetensors", tmp_path / "small.safetensors")
    opened = open_agent(AgentFlags(pretrained_model=str(tmp_path / "small.safetensors")))
    assert opened.facts == CARTPOLE
    assert compact.describe(tmp_path / "small.safetensors").origin == {"step": 7}
    states = np.random.default_rng(0).normal(scale=0.1, size=(50, 4)).astype(np.float32)

    def q_values(weights: dict[str, np.ndarray]) -> np.ndarray:
        engine, _ = engines.create("xla", "cpu")
        engine.load(weights)
        return np.asarray(engine.run(act_program(CARTPOLE), {"state": states})["q_values"])

    whole, small = q_values(state), q_values(opened.state)
    assert 0 < np.abs(whole - small).max() < 0.1 * np.abs(whole).max()
    with pytest.raises(WeightsError, match="exists already"):
        builder.write(tmp_path / "whole.safetensors", tmp_path / "small.safetensors")


def test_moments_are_those_of_the_inputs(builder, monkeypatch):
    monkeypatch.setattr(builder, "GAMES", 2)
    monkeypatch.setattr(builder, "EVERY", 1)
    seen = []
    monkeypatch.setattr(builder, "play", lambda player, environment, **_: seen.append(player.q_values(STATES)))
    state = initialise(act_program(CARTPOLE), seed=1)
    found = builder.moments(CARTPOLE, state)
    assert set(found) == {"policy_hidden1", "policy_hidden2", "policy_fc1"}
    assert np.allclose(found["policy_hidden1"], STATES.T @ STATES / len(STATES), rtol=1e-5)
    inputs = np.maximum(STATES @ state["policy_hidden1"] + state["policy_hidden1_b"], 0)
    assert np.allclose(found["policy_hidden2"], inputs.T @ inputs / len(STATES), rtol=1e-4, atol=1e-7)
    assert seen[0].shape == (len(STATES), 2)


STATES = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4) ** 3
