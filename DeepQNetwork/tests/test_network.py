"""Networks and Programs: parameter counts, golden values of 2018, gradients, parity of the engines, updates by hand."""

from dataclasses import replace
from pathlib import Path

from DeepQNetwork.agent import MEMORY, Agent, AgentFlags, target_name, with_equal_networks
from DeepQNetwork.network import act_program, describe_weights, observe_program, sync_program, train_program
from DeepQNetwork.opening import open_agent
from fluid import engine as engines
from fluid.arrays import read_npz
from fluid.errors import UserError, WeightsError
from fluid.program import initialise
from fluid.schedule import Constant
from fluid.weights import write_weights

import numpy as np
import pytest

GOLDEN = Path(__file__).resolve().parents[2] / "fluid" / "tests" / "golden" / "dqn_breakout_2018.npz"
CARTPOLE = Agent("CartPole-v1", "mlp", False, 2, (4,), False, "float32", 1, frame_skip=1)
PONG = Agent("Pong", "nature", True, 6)


def fresh(agent: Agent, **options) -> tuple:
    options = {"double": True, "loss": "huber", "schedule": Constant(1e-3), "adam_epsilon": 1e-4, **options}
    program = train_program(agent, **options)
    return program, with_equal_networks(initialise(program, seed=3))


def batch(agent: Agent, size: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)

    def states() -> np.ndarray:
        if agent.dtype == "uint8":
            return random.integers(0, 256, (size, *agent.state_shape), np.uint8)
        return random.normal(size=(size, *agent.state_shape)).astype(np.float32)

    return {
        "state": states(),
        "next_state": states(),
        "action": random.integers(agent.num_actions, size=size).astype(np.int32),
        "reward": random.normal(size=size).astype(np.float32),
        "discount": np.where(random.random(size) < 0.3, 0, 0.97).astype(np.float32),
        "weight": random.random(size).astype(np.float32),
    }


def relative(have: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(have - want).max() / max(np.abs(want).max(), 1e-12))


@pytest.mark.parametrize("engine", ["paddle", "xla"])
def test_weights_of_2018_give_the_values_of_2018(engine):
    """Computed with Fluid 1.8.5 from the Breakout weights of the 2018 repository."""
    golden = read_npz(GOLDEN)
    opened = open_agent(AgentFlags(pretrained_model="breakout_2018"))
    agent, weights = opened.facts, opened.state
    assert (agent.network, agent.dueling, agent.num_actions, agent.protocol) == ("fluid2018", True, 4, "2018")
    chosen, _ = engines.create(engine, "cpu")
    chosen.load(weights)
    q = np.asarray(chosen.run(act_program(agent), {"state": golden["state"]})["q_values"])
    assert relative(q, golden["q"]) < 1e-5


@pytest.mark.parametrize(
    ("agent", "count"),
    [
        # conv 4*8*8*32+32, 32*4*4*64+64, 64*3*3*64+64; 3136*512+512; a head of 512*6+6.
        (Agent("Pong", "nature", False, 6), 8_224 + 32_832 + 36_928 + 1_606_144 + 3_078),
        (PONG, 8_224 + 32_832 + 36_928 + 1_606_144 + 3_078 + 513),
        # As counted in the files of 2018: 143,431 for Pong, 130,629 for Breakout.
        (Agent("Pong", "fluid2018", True, 6), 143_431),
        (Agent("Breakout", "fluid2018", True, 4), 130_629),
        (CARTPOLE, 4 * 128 + 128 + 128 * 128 + 128 + 128 * 2 + 2),
    ],
)
def test_parameter_counts(agent, count):
    assert act_program(agent).parameter_count == count


def test_every_parameter_learns_and_the_target_network_stays():
    program, state = fresh(PONG)
    engine, _ = engines.create("xla", "cpu")
    engine.load(state)
    engine.run(program, batch(PONG, 4))
    after = engine.state()
    for name in act_program(PONG).state_names:
        assert not np.array_equal(after[name], state[name]), f"{name} has no gradient"
        np.testing.assert_array_equal(after[target_name(name)], state[target_name(name)])
    shapes = {name: state[name].shape for name in act_program(PONG).state_names}
    engine.run(sync_program(shapes), {})
    synced = engine.state()
    for name in shapes:
        np.testing.assert_array_equal(synced[target_name(name)], after[name])
        np.testing.assert_array_equal(synced[name], after[name])


@pytest.mark.parametrize(
    ("agent", "size", "options"),
    [
        (CARTPOLE, 16, {"double": True, "loss": "huber", "grad_clip": 1.0}),
        (CARTPOLE, 16, {"double": False, "loss": "mse"}),
        (PONG, 2, {}),
        (replace(CARTPOLE, returns="places", atoms=7, v_min=-2.0, v_max=3.0), 16, {}),
        (replace(CARTPOLE, returns="quantiles", atoms=5), 16, {"double": False}),
        (Agent("Breakout", "fluid2018", True, 4), 1, {"double": False, "loss": "mse"}),
    ],
)
def test_engines_agree_on_one_update(agent, size, options):
    program, state = fresh(agent, **options)
    # Networks that differ, or the double estimator would be the plain one.
    state |= {name: array * 0.8 for name, array in state.items() if name.startswith("target_")}
    results = []
    for name in ("paddle", "xla"):
        engine, _ = engines.create(name, "cpu")
        engine.load(state)
        outputs = {key: np.asarray(value) for key, value in engine.run(program, batch(agent, size)).items()}
        results.append((outputs, engine.state()))
    (paddle_outputs, paddle_state), (xla_outputs, xla_state) = results
    for name in ("loss", "q", "error"):
        assert relative(xla_outputs[name], paddle_outputs[name]) < 1e-4, name
    for name, array in paddle_state.items():
        assert relative(xla_state[name], array) < 1e-4, name
    assert paddle_outputs["finite"].all() and xla_outputs["finite"].all()


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_loss_is_that_of_the_papers(double, loss):
    """Targets, selection of the next action and weighting, in numpy from the Q values of both networks."""
    program, state = fresh(CARTPOLE, double=double, loss=loss)
    random = np.random.default_rng(9)
    state |= {
        name: random.normal(size=array.shape).astype(np.float32) / 4
        for name, array in state.items()
        if name.startswith("target_") or name in act_program(CARTPOLE).state_names
    }
    feed = batch(CARTPOLE, 64)
    engine, _ = engines.create("paddle", "cpu")
    engine.load(state)
    act = act_program(CARTPOLE)

    def q(states: np.ndarray, prefix: str) -> np.ndarray:
        own = {name: state[name if prefix == "policy" else target_name(name)] for name in act.state_names}
        engine.load(own)
        return np.asarray(engine.run(act, {"state": states})["q_values"], np.float64)

    rows = np.arange(64)
    next_target = q(feed["next_state"], "target")
    chosen = q(feed["next_state"], "policy" if double else "target").argmax(1)
    error = q(feed["state"], "policy")[rows, feed["action"]] - (
        feed["reward"] + feed["discount"] * next_target[rows, chosen]
    )
    size = np.abs(error)
    losses = error**2 if loss == "mse" else np.where(size <= 1, 0.5 * error**2, size - 0.5)
    engine.load(state)
    outputs = engine.run(program, feed)
    assert float(outputs["loss"]) == pytest.approx(np.mean(feed["weight"] * losses), rel=1e-4)
    np.testing.assert_allclose(outputs["error"], size, rtol=1e-3, atol=1e-5)


PLACES = replace(CARTPOLE, returns="places", atoms=7, v_min=-2.0, v_max=3.0, dueling=True)
QUANTILES = replace(CARTPOLE, returns="quantiles", atoms=5)


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def heads(agent: Agent, state: dict[str, np.ndarray], prefix: str, x: np.ndarray) -> np.ndarray:
    """The network of CartPole in numpy: [N, actions, atoms]."""
    for name in ("hidden1", "hidden2"):
        x = np.maximum(x @ state[f"{prefix}_{name}"] + state[f"{prefix}_{name}_b"], 0)
    out = {name: x @ state[f"{prefix}_{name}"] + state[f"{prefix}_{name}_b"] for name in HEADS[agent.dueling]}
    shaped = {name: array.reshape(len(x), -1, agent.atoms) for name, array in out.items()}
    if not agent.dueling:
        return shaped["fc1"]
    advantage = shaped["advantage_fc"]
    return shaped["value_fc"] + advantage - advantage.mean(1, keepdims=True)


HEADS = {False: ("fc1",), True: ("value_fc", "advantage_fc")}


@pytest.mark.parametrize("engine", ["paddle", "xla"])
@pytest.mark.parametrize("agent", [PLACES, QUANTILES], ids=["places", "quantiles"])
def test_distributions_are_learnt_as_the_papers_say(agent, engine):
    """Loops over places and quantiles, as algorithm 1 of C51 and equation 10 of QR-DQN are written."""
    program, state = fresh(agent)
    random = np.random.default_rng(4)
    own = act_program(agent).state_names
    for name in (*own, *map(target_name, own)):
        state[name] = random.normal(size=state[name].shape).astype(np.float32) / 4
    feed, rows = batch(agent, 6), np.arange(6)
    exact = {name: array.astype(np.float64) for name, array in state.items()}
    support = np.linspace(agent.v_min, agent.v_max, agent.atoms)

    def mean(predicted: np.ndarray) -> np.ndarray:
        return softmax(predicted) @ support if agent is PLACES else predicted.mean(-1)

    chosen = mean(heads(agent, exact, "policy", feed["next_state"])).argmax(1)
    predicted = heads(agent, exact, "policy", feed["state"])[rows, feed["action"]]
    following = heads(agent, exact, "target", feed["next_state"])[rows, chosen]
    losses, errors = np.zeros(6), np.zeros(6)
    for row in rows:
        reward, discount = float(feed["reward"][row]), float(feed["discount"][row])
        if agent is PLACES:
            goal, apart = np.zeros(agent.atoms), support[1] - support[0]
            for place, probability in zip(support, softmax(following[row])):
                at = (np.clip(reward + discount * place, agent.v_min, agent.v_max) - agent.v_min) / apart
                low, high = int(np.floor(at + 1e-9)), int(np.ceil(at - 1e-9))
                goal[low] += probability * (1.0 if low == high else high - at)
                goal[high] += 0.0 if low == high else probability * (at - low)
            losses[row] = errors[row] = -(goal * np.log(softmax(predicted[row]))).sum()
        else:
            goals = reward + discount * following[row]
            for number, quantile in enumerate(predicted[row]):
                level, error = (number + 0.5) / agent.atoms, goals - quantile
                huber = np.where(np.abs(error) <= 1, 0.5 * error**2, np.abs(error) - 0.5)
                losses[row] += (np.abs(level - (error < 0)) * huber).mean()
            errors[row] = abs(goals.mean() - predicted[row].mean())
    chosen_engine, _ = engines.create(engine, "cpu")
    chosen_engine.load(state)
    q = chosen_engine.run(act_program(agent), {"state": feed["state"]})["q_values"]
    np.testing.assert_allclose(q, mean(heads(agent, exact, "policy", feed["state"])), rtol=1e-4, atol=1e-5)
    outputs = chosen_engine.run(program, feed)
    assert float(outputs["loss"]) == pytest.approx(np.mean(feed["weight"] * losses), rel=1e-4)
    np.testing.assert_allclose(outputs["error"], errors, rtol=1e-3, atol=1e-5)
    assert np.asarray(outputs["finite"]).all()


def test_memory_on_the_device_gives_what_fed_frames_give():
    """Storing, stacking and learning by row numbers against the same states fed; on both engines."""
    random = np.random.default_rng(1)
    frames = random.integers(0, 256, (30, 84, 84), np.uint8)
    frames[20:] = 0
    numbers = batch(PONG, 3)
    on_host, state = fresh(PONG)
    on_device = train_program(
        PONG, double=True, loss="huber", schedule=Constant(1e-3), adam_epsilon=1e-4, memory_rows=30
    )
    observe = observe_program(PONG, 30)
    rows, next_rows = (random.integers(25, size=(3, 4)).astype(np.int32) for _ in range(2))
    newest, places = random.integers(0, 256, (2, 84, 84), np.uint8), np.array([20, 21], np.int32)
    state_rows = np.array([[29, 29, 3, 20], [1, 2, 3, 21]], np.int32)
    full = frames.copy()
    full[places] = newest
    for name in ("paddle", "xla"):
        engine, _ = engines.create(name, "cpu")
        engine.load({**state, MEMORY: frames})
        q = engine.run(observe, {"frame": newest, "first_row": places[:1], "state_rows": state_rows})["q_values"]
        np.testing.assert_array_equal(engine.state([MEMORY])[MEMORY], full)
        expected = engine.run(act_program(PONG), {"state": full[state_rows]})["q_values"]
        assert relative(np.asarray(q), np.asarray(expected)) < 1e-6
        feed = {key: value for key, value in numbers.items() if "state" not in key}
        by_rows = engine.run(on_device, {**feed, "state_rows": rows, "next_rows": next_rows})
        engine.load(state)
        fed = engine.run(on_host, {**feed, "state": full[rows], "next_state": full[next_rows]})
        for key in ("loss", "error"):
            assert relative(np.asarray(by_rows[key]), np.asarray(fed[key])) < 1e-5, (name, key)


def test_a_game_is_played_by_the_agent_that_comes_along_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = (None, "PongNoFrameskip-v4", "ALE/Breakout-v5", "breakout.bin")
    found = [open_agent(AgentFlags(env=name)) for name in names]
    assert [opened.source for opened in found] == ["pong", "pong", "breakout", "breakout"]
    assert [opened.facts.returns for opened in found] == ["mean", "mean", "places", "places"]
    assert found[2].facts.env == "ALE/Breakout-v5" and found[2].facts.protocol == "baselines"


def test_agents_are_read_off_their_weights(tmp_path):
    for agent in (PONG, CARTPOLE, Agent("Breakout", "fluid2018", False, 4, protocol="2018")):
        weights = initialise(act_program(agent), seed=0)
        assert describe_weights(weights, agent.env, agent.protocol) == agent
        path = tmp_path / f"{agent.network}.safetensors"
        write_weights(path, weights)
        assert open_agent(AgentFlags(pretrained_model=str(path), env=agent.env, protocol=agent.protocol)).facts == agent
    with pytest.raises(UserError, match="--env"):
        open_agent(AgentFlags(pretrained_model=str(tmp_path / "nature.safetensors")))
    write_weights(tmp_path / "other.safetensors", {"conv2d_0.w_0": np.zeros((4, 4), np.float32)})
    with pytest.raises(WeightsError, match="not the weights of an agent"):
        open_agent(AgentFlags(pretrained_model=str(tmp_path / "other.safetensors"), env="Pong"))
    with pytest.raises(WeightsError, match="breakout_2018"):
        open_agent(AgentFlags(pretrained_model="breakout2018"))
