"""Makes pong.safetensors or breakout.safetensors, an agent that comes along, of trained weights, in .6 to .8 MB.

    python DeepQNetwork/data/build_weights.py output DeepQNetwork/data/breakout.safetensors
    python DeepQNetwork/data/build_weights.py output DeepQNetwork/data/pong.safetensors --levels 3 --storage int6

The agent plays some games, and what its fully connected layers then see decides how they are rounded: after each input's
weights those of the inputs to come are moved so that they make up for the error (GPTQ, Frantar et al., arXiv:2210.17323).
The hidden layer, nine tenths of all numbers, is left few levels by that, eleven or seven; convolutions are rounded to
the nearest as ever.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from DeepQNetwork import environments
from DeepQNetwork.agent import POLICY, TASK, Agent, AgentFlags
from DeepQNetwork.episodes import Player, play
from DeepQNetwork.network import Layers, q_values
from DeepQNetwork.opening import open_agent
from fluid import engine as engines
from fluid.errors import WeightsError
from fluid.interface import Input
from fluid.program import Program, Value, build
from fluid.run import script
from fluid.weights import compact

import numpy as np

GAMES, EPSILON, SEED = 16, 0.02, 20_000
"""Whole games that are played, their share of random actions, and a seed that no evaluation has."""
EVERY = 4
"""Of so many steps the states of one are looked at: neighbours are much alike."""
HIDDEN = f"{POLICY}_hidden"
SHRINKING = np.linspace(0.2, 1, 17)
"""Largest numbers that are tried, as shares of an output's own; what is beyond is cut."""
DAMPING = 0.01
"""Added to the second moments of the inputs, as a share of their mean."""
BLOCK = 128
"""Inputs after which the weights of all that are to come are moved, for speed."""


class ListeningLayers(Layers):
    """Layers that remember what their fully connected ones are given."""

    def __init__(self, prefix: str):
        super().__init__(prefix)
        self.inputs: dict[str, Value] = {}

    def fc(self, name: str, x: Value, size: int) -> Value:
        """See `Layers`."""
        self.inputs[f"{self.prefix}_{name}"] = x
        return super().fc(name, x, size)


def listening_program(agent: Agent) -> Program:
    """`state` -> `q_values`, and by its name the input [N, D] of each fully connected layer."""

    def network(state: Value, training: bool) -> dict[str, Value]:
        layers = ListeningLayers(POLICY)
        return {"q_values": q_values(agent, layers, state), **layers.inputs}

    return build(network, [Input("state", (None, *agent.state_shape), agent.dtype)], name="listening")


def moments(agent: Agent, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Second moments [D, D] of the inputs of each fully connected layer, by its name, while the agent plays."""
    program = listening_program(agent)
    engine, _ = engines.create("auto", "cpu", "fp32", 0, runs=None)
    engine.load(state)
    sums: dict[str, np.ndarray] = {}
    waiting: dict[str, list[np.ndarray]] = {}
    calls = states = 0

    def listen(observed: np.ndarray) -> np.ndarray:
        nonlocal calls, states
        outputs = {name: np.asarray(value) for name, value in engine.run(program, {"state": observed}).items()}
        q, calls = outputs.pop("q_values"), calls + 1
        if calls % EVERY == 0:
            states += len(observed)
            for name, x in outputs.items():
                waiting.setdefault(name, []).append(x)
                if len(waiting[name]) == BLOCK:
                    add(name)
        return q

    def add(name: str) -> None:
        x = np.concatenate(waiting.pop(name))
        sums[name] = sums.get(name, 0) + (x.T @ x).astype(np.float64)

    environment = environments.make(agent.env, GAMES, protocol=agent.protocol, view=agent.view)
    print(f"played: {play(Player(agent, listen, epsilon=EPSILON), environment, episodes=GAMES, seed=SEED)}")
    environment.close()
    for name in list(waiting):
        add(name)
    return {name: total / states for name, total in sums.items()}


def rounded(weight: np.ndarray, moment: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers [inputs, outputs] int8 in -levels..levels and scales [1, outputs] float32 for `weight` [inputs, outputs].

    `moment` [inputs, inputs]: second moments of the inputs. Weights of inputs that are always 0 become 0.
    """
    power = np.diag(moment)
    damping = DAMPING * power.mean()
    live = np.argsort(-power, kind="stable")[: np.count_nonzero(power)]
    left, power = weight[live].astype(np.float64), power[live]
    scale = _scales(left, power + damping, levels)
    inverse = np.linalg.inv(moment[np.ix_(live, live)] + damping * np.eye(len(live)))
    # Row i: how an error in the weights of input i is made up for by those of later inputs.
    factor = np.linalg.cholesky(inverse).T
    integers = np.zeros(weight.shape, np.int8)
    for begin in range(0, len(live), BLOCK):
        end = min(begin + BLOCK, len(live))
        errors = np.empty((end - begin, weight.shape[1]))
        for i in range(begin, end):
            row = np.clip(np.rint(left[i] / scale), -levels, levels)
            integers[live[i]] = row
            errors[i - begin] = (left[i] - row * scale) / factor[i, i]
            left[i + 1 : end] -= factor[i, i + 1 : end, None] * errors[i - begin]
        left[end:] -= factor[begin:end, end:].T @ errors
    return integers, scale[None].astype(np.float32)


def _scales(weight: np.ndarray, power: np.ndarray, levels: int) -> np.ndarray:
    """Of each output [outputs] the one that loses least when nothing is made up for; `power` [inputs] of the inputs."""
    largest = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny)
    candidates = SHRINKING[:, None] * largest / levels
    losses = [
        power @ np.square(weight - np.clip(np.rint(weight / scale), -levels, levels) * scale) for scale in candidates
    ]
    return np.take_along_axis(candidates, np.argmin(losses, axis=0)[None], axis=0)[0]


def write(source: Path, target: Path, levels: int = 5, storage: compact.Storage = "int8") -> None:
    """Store the agent of `source`, a run, checkpoint or compact file. Raises UserError and WeightsError.

    `levels`: the largest integer of the hidden layer; that of the others is the storage's.
    """
    if target.exists():
        raise WeightsError(f"{target}: exists already. Choose another name, or remove it first.")
    opened = open_agent(AgentFlags(pretrained_model=str(source)))
    agent = opened.facts
    state = {name: opened.state[name] for name in listening_program(agent).state_names}
    packed = compact.pack(state, storage)
    for name, moment in moments(agent, state).items():
        integers, scale = rounded(state[name], moment, levels if name == HIDDEN else compact.LEVELS[storage])
        packed[name], packed[name + compact.SCALE_SUFFIX] = integers, scale
    origin = compact.describe_source(source, storage).origin
    compact.store(target, packed, compact.Description(TASK, {"agent": agent.to_facts()}, origin, storage))
    numbers = sum(array.size for array in state.values())
    print(f"{target}: {numbers:,} numbers, {target.stat().st_size:,} bytes")


def main() -> None:
    """Round the weights and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="run, checkpoint, or file of weights that says what they are")
    parser.add_argument("target", type=Path, help="NAME.safetensors")
    parser.add_argument("--levels", type=int, default=5, help="largest integer of the hidden layer, by default 5")
    parser.add_argument(
        "--storage", choices=list(compact.LEVELS), default="int8", help="of the others, by default int8"
    )
    flags = parser.parse_args()
    write(flags.source, flags.target, flags.levels, flags.storage)


if __name__ == "__main__":
    script(main)
