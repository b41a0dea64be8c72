"""The Q networks and their Programs: act, observe, train, sync, check."""

from collections.abc import Callable

from DeepQNetwork.agent import MEMORY, POLICY, TARGET, Agent, target_name
from fluid.interface import Input
from fluid.program import Program, Value, build, name_layer
from fluid.schedule import Schedule

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

Trunk = Callable[["Layers", Value], Value]


class Layers:
    """Creates the layers of one network under a prefix, once each, so that several inputs share their parameters."""

    def __init__(self, prefix: str, trainable: bool = True):
        self.prefix, self.trainable = prefix, trainable
        self._made: dict[str, nn.Layer] = {}

    def conv(self, name: str, x: Value, filters: int, size: int, stride: int = 1, padding: int = 0) -> Value:
        """relu(conv2d): x [N, C, H, W] -> [N, filters, H', W']; parameters `PREFIX_NAME` and `PREFIX_NAME_b`."""
        if name not in self._made:
            weight, bias = self._attributes(name)
            self._made[name] = nn.Conv2D(x.shape[1], filters, size, stride, padding, weight_attr=weight, bias_attr=bias)
        return name_layer(f"{self.prefix}_{name}", F.relu(self._made[name](x)))

    def fc(self, name: str, x: Value, size: int) -> Value:
        """Fully connected: x [N, D] -> [N, size]; parameters as in `conv`."""
        if name not in self._made:
            weight, bias = self._attributes(name)
            self._made[name] = nn.Linear(x.shape[1], size, weight_attr=weight, bias_attr=bias)
        return self._made[name](x)

    def _attributes(self, name: str) -> tuple[paddle.ParamAttr, paddle.ParamAttr]:
        full = f"{self.prefix}_{name}"
        return (
            paddle.ParamAttr(name=full, trainable=self.trainable),
            paddle.ParamAttr(name=f"{full}_b", trainable=self.trainable),
        )


def fluid2018(layers: Layers, x: Value) -> Value:
    """Trunk of the 2018 repository: [N, 4, 84, 84] in 0..1 -> [N, 6400]."""
    x = F.max_pool2d(layers.conv("conv1", x, 32, 5, padding=2), 2, 2)
    x = F.max_pool2d(layers.conv("conv2", x, 32, 5, padding=2), 2, 2)
    x = F.max_pool2d(layers.conv("conv3", x, 64, 4, padding=1), 2, 2)
    x = layers.conv("conv4", x, 64, 3, padding=1)
    return paddle.flatten(x, 1)


def nature(layers: Layers, x: Value) -> Value:
    """Trunk of Mnih et al. (Nature 518, 2015): [N, 4, 84, 84] in 0..1 -> [N, 512]."""
    x = layers.conv("conv1", x, 32, 8, stride=4)
    x = layers.conv("conv2", x, 64, 4, stride=2)
    x = layers.conv("conv3", x, 64, 3)
    return F.relu(layers.fc("hidden", paddle.flatten(x, 1), 512))


def mlp(layers: Layers, x: Value) -> Value:
    """Trunk for states that are a vector of numbers: [N, D] -> [N, 128]."""
    x = F.relu(layers.fc("hidden1", x, 128))
    return F.relu(layers.fc("hidden2", x, 128))


NETWORKS: dict[str, Trunk] = {"nature": nature, "fluid2018": fluid2018, "mlp": mlp}


def returns(agent: Agent, layers: Layers, state: Value) -> Value:
    """What is predicted of the returns of states [N, ...] as they come from the environment, [N, actions, atoms].

    By `agent.returns`: their mean (one atom), logits of the places (Bellemare et al., arXiv:1707.06887), or the quantiles
    (Dabney et al., arXiv:1710.10044).
    """
    x = paddle.cast(state, "float32")
    if agent.image:
        x = x / 255.0
    x = NETWORKS[agent.network](layers, x)
    if not agent.dueling:
        return layers.fc("fc1", x, agent.num_actions * agent.atoms).reshape([-1, agent.num_actions, agent.atoms])
    value = layers.fc("value_fc", x, agent.atoms).reshape([-1, 1, agent.atoms])
    advantage = layers.fc("advantage_fc", x, agent.num_actions * agent.atoms)
    advantage = advantage.reshape([-1, agent.num_actions, agent.atoms])
    return value + (advantage - paddle.mean(advantage, axis=1, keepdim=True))


def mean(agent: Agent, predicted: Value) -> Value:
    """Q: the mean [N, ...] of what `returns` predicts, [N, ..., atoms]."""
    if agent.returns == "places":
        return paddle.sum(F.softmax(predicted, axis=-1) * _constant(places(agent)), axis=-1)
    return paddle.mean(predicted, axis=-1)


def places(agent: Agent) -> np.ndarray:
    """The returns [atoms] that C51 gives probabilities to."""
    return np.linspace(agent.v_min, agent.v_max, agent.atoms, dtype=np.float32)


def q_values(agent: Agent, layers: Layers, state: Value) -> Value:
    """Q [N, actions] of states [N, ...] as they come from the environment: images 0..255, or numbers."""
    return mean(agent, returns(agent, layers, state))


def act_program(agent: Agent, *, dtype: str | None = None, name: str = "act") -> Program:
    """Input `state` [N, ...], output `q_values` [N, actions]. `dtype`: of the input, by default the environment's."""

    def network(state: Value, training: bool) -> dict[str, Value]:
        return {"q_values": q_values(agent, Layers(POLICY), state)}

    return build(network, [Input("state", (None, *agent.state_shape), dtype or agent.dtype)], name=name)


def inference_program(agent: Agent) -> Program:
    """What is exported and what `--feed` runs: `state` float32, images in 0..255."""
    return act_program(agent, dtype="float32", name="infer")


def observe_program(agent: Agent, memory_rows: int) -> Program:
    """Acting with the replay memory on the device: store the newest frames, then evaluate the states they complete.

    Inputs: `frame` [E, ...], `first_row` [1] int32 (where they go, one after the other), `state_rows` [E, stack] int32.
    Output `q_values`.
    """

    def network(frame: Value, first_row: Value, state_rows: Value, training: bool) -> dict[str, Value]:
        memory = _memory(agent, memory_rows)
        # One slice, which is written in place.
        here = (slice(first_row, first_row + paddle.shape(frame)[:1].astype("int32")),)
        filled = paddle.static.setitem(memory, here, frame)
        paddle.assign(filled, memory)
        return {"q_values": q_values(agent, Layers(POLICY), _states(agent, filled, state_rows))}

    inputs = [
        Input("frame", (None, *agent.observation_shape), agent.dtype),
        Input("first_row", (1,), "int32", batch=None),
        Input("state_rows", (None, agent.stack), "int32"),
    ]
    return build(network, inputs, name="observe")


def train_program(
    agent: Agent,
    *,
    double: bool,
    loss: str,
    schedule: Schedule,
    adam_epsilon: float,
    grad_clip: float | None = None,
    memory_rows: int | None = None,
) -> Program:
    """One update of the policy network.

    Inputs: `state` and `next_state` [B, ...], or with `memory_rows` `state_rows` and `next_rows` [B, stack] int32 into
    the memory on the device; `action` [B] int32; `reward` [B], the discounted sum over the steps of the transition;
    `discount` [B], gamma^steps or 0 at the end of an episode; `weight` [B]. Outputs: `loss`, `q` (mean of the values of
    the actions taken), `error` [B], what prioritised replay draws by.

    Args:
        double: the policy network chooses the action that the target network evaluates (arXiv:1509.06461).
        loss: `huber`, or `mse` as in 2018; without meaning where the distribution of returns is learnt.
        schedule: learning rate of Adam, by update.
    """

    def network(
        action: Value, reward: Value, discount: Value, weight: Value, training: bool, **states: Value
    ) -> dict[str, Value]:
        if memory_rows is None:
            state, next_state = states["state"], states["next_state"]
        else:
            memory = _memory(agent, memory_rows)
            state, next_state = (_states(agent, memory, states[name]) for name in ("state_rows", "next_rows"))
        policy, target = Layers(POLICY), Layers(TARGET, trainable=False)
        predicted = _of_action(returns(agent, policy, state), action, agent.num_actions)
        following = returns(agent, target, next_state)
        q_next = q_values(agent, policy, next_state) if double else mean(agent, following)
        following = _of_action(following, paddle.argmax(q_next, axis=1), agent.num_actions)
        losses, error = LOSSES[agent.returns](agent, predicted, following, reward, discount, loss)
        return {"loss": paddle.mean(weight * losses), "q": paddle.mean(mean(agent, predicted)), "error": error}

    state = Input("state", (None, *agent.state_shape), agent.dtype)
    rows = Input("state_rows", (None, agent.stack), "int32")
    inputs = [state, Input("next_state", state.shape, agent.dtype)]
    if memory_rows is not None:
        inputs = [rows, Input("next_rows", rows.shape, "int32")]
    inputs += [Input("action", (None,), "int32"), *(Input(name, (None,)) for name in ("reward", "discount", "weight"))]
    clip = paddle.nn.ClipGradByGlobalNorm(grad_clip) if grad_clip else None
    return build(
        network,
        inputs,
        name="train",
        training=True,
        optimizer=lambda: paddle.optimizer.Adam(schedule(0), epsilon=adam_epsilon, grad_clip=clip),
        schedule=schedule,
        batch_axes={"error": 0},
    )


def mean_loss(
    agent: Agent, predicted: Value, following: Value, reward: Value, discount: Value, loss: str
) -> tuple[Value, Value]:
    """DQN: `predicted` and `following` [B, 1] are means; loss [B] and absolute temporal-difference error [B]."""
    q, goal = predicted[:, 0], reward + discount * following[:, 0]
    goal.stop_gradient = True
    losses = F.smooth_l1_loss(q, goal, reduction="none") if loss == "huber" else paddle.square(q - goal)
    return losses, paddle.abs(q - goal)


def places_loss(
    agent: Agent, predicted: Value, following: Value, reward: Value, discount: Value, loss: str
) -> tuple[Value, Value]:
    """C51 (arXiv:1707.06887, algorithm 1): logits [B, atoms]; cross-entropy [B] with the target's projection, and again.

    The projection shares the probability of a shifted place out among the two places around it, by distance.
    """
    support = _constant(places(agent))
    shifted = reward[:, None] + discount[:, None] * support
    shifted = paddle.clip(shifted, agent.v_min, agent.v_max)
    distance = paddle.abs(shifted[:, :, None] - support) * ((agent.atoms - 1) / (agent.v_max - agent.v_min))
    shares = paddle.clip(1.0 - distance, 0.0, 1.0)
    goal = paddle.sum(F.softmax(following, axis=-1)[:, :, None] * shares, axis=1)
    goal.stop_gradient = True
    losses = -paddle.sum(goal * F.log_softmax(predicted, axis=-1), axis=-1)
    return losses, losses


def quantiles_loss(
    agent: Agent, predicted: Value, following: Value, reward: Value, discount: Value, loss: str
) -> tuple[Value, Value]:
    """QR-DQN (arXiv:1710.10044, equation 10, kappa 1): quantiles [B, atoms]; loss [B] and absolute error of the mean [B]."""
    goal = reward[:, None] + discount[:, None] * following
    goal.stop_gradient = True
    level = _constant((np.arange(agent.atoms, dtype=np.float32) + 0.5) / agent.atoms)
    error = goal[:, None, :] - predicted[:, :, None]
    size = paddle.abs(error)
    huber = paddle.where(size <= 1.0, 0.5 * error * error, size - 0.5)
    below = paddle.cast(error < 0.0, "float32")
    below.stop_gradient = True
    losses = paddle.sum(paddle.mean(paddle.abs(level[:, None] - below) * huber, axis=2), axis=1)
    return losses, paddle.abs(paddle.mean(goal, axis=1) - paddle.mean(predicted, axis=1))


LOSSES = {"mean": mean_loss, "places": places_loss, "quantiles": quantiles_loss}
"""By Agent.returns."""


def sync_program(policy_shapes: dict[str, tuple[int, ...]]) -> Program:
    """Copies the parameters of the policy network, by name and shape, to the target network; no input, no output."""

    def network(training: bool) -> dict[str, Value]:
        for name, shape in policy_shapes.items():
            paddle.assign(_variable(name, shape, "float32"), _variable(target_name(name), shape, "float32"))
        return {}

    return build(network, [], name="sync")


def describe_weights(weights: dict[str, np.ndarray], env: str, protocol: str) -> Agent:
    """The agent that a set of arrays belongs to, read off their names and shapes. Raises ValueError for none of ours."""
    heads = [name for name in (f"{POLICY}_fc1", f"{POLICY}_advantage_fc") if name in weights]
    if len(heads) != 1:
        raise ValueError(f"neither {POLICY}_fc1 nor {POLICY}_advantage_fc is among the variables")
    first = weights.get(f"{POLICY}_conv1")
    network = "mlp" if first is None else {8: "nature", 5: "fluid2018"}.get(first.shape[-1])
    if network is None:
        raise ValueError(f"{POLICY}_conv1 is {list(first.shape)}; the networks here start with 8x8 or 5x5 filters")
    size = (
        {}
        if network != "mlp"
        else {
            "observation_shape": (weights[f"{POLICY}_hidden1"].shape[0],),
            "image": False,
            "dtype": "float32",
            "stack": 1,
            "frame_skip": 1,
        }
    )
    dueling = heads[0].endswith("advantage_fc")
    return Agent(env, network, dueling, weights[heads[0]].shape[1], protocol=protocol, **size)


def _of_action(predicted: Value, action: Value, num_actions: int) -> Value:
    """[N, actions, atoms] of one action [N] each. A sum, because the gradient of a gather crashes in oneDNN's kernels."""
    return paddle.sum(predicted * F.one_hot(action, num_actions)[:, :, None], axis=1)


def _constant(array: np.ndarray) -> Value:
    return paddle.assign(array)


def _memory(agent: Agent, rows: int) -> Value:
    return _variable(MEMORY, (rows, *agent.observation_shape), agent.dtype)


def _variable(name: str, shape: tuple[int, ...], dtype: str) -> Value:
    zero = nn.initializer.Constant(0.0)
    return paddle.create_parameter(
        list(shape), dtype, attr=paddle.ParamAttr(name=name, trainable=False, initializer=zero)
    )


def _states(agent: Agent, memory: Value, rows: Value) -> Value:
    """Gather states [N, ...] from the memory by rows [N, stack]."""
    return paddle.gather(memory, paddle.reshape(rows, [-1])).reshape([-1, *agent.state_shape])
