"""The PyTorch side of DeepQNetwork.py; alone, it prints the median seconds of one eager update of 32 on this CPU.

Eager there, because PyTorch's compiler needs a C++ toolchain on a CPU. Needs torch and numpy only.
"""

import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import nn


class TorchDqn:
    """A PyTorch DQN in the manner of CleanRL's dqn_atari.py: Nature's network, Adam, the loss compiled.

    Args:
        num_actions: outputs of the network.
        device: of PyTorch.
        compiled: compile the loss and its gradient.
        graph: launch the updates of a call as one CUDA graph.
    """

    def __init__(self, num_actions: int, device: str, compiled: bool = True, graph: bool = False):
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True

        def network() -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
                nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, num_actions),
            ).to(device)  # fmt: skip

        self.device = device
        self.policy, self.target = network(), network()
        self.target.load_state_dict(self.policy.state_dict())
        on_gpu = device == "cuda"
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=1e-4, fused=on_gpu, capturable=on_gpu)
        self.loss = torch.compile(self._loss) if compiled else self._loss
        self.updates = 0
        self._graphed = graph
        self._graph: Any = None
        self._places: tuple[Any, ...] = ()
        self._result: Any = None

    def _loss(self, state: Any, action: Any, reward: Any, following: Any, discount: Any) -> Any:
        with torch.no_grad():
            goal = reward + discount * self.target(following / 255.0).max(1).values
        q = self.policy(state / 255.0).gather(1, action[:, None])[:, 0]
        return torch.nn.functional.mse_loss(q, goal)

    def act(self, states: np.ndarray) -> np.ndarray:
        """Best actions [E] of states [E, 4, 84, 84]."""
        with torch.no_grad():
            return self.policy(torch.as_tensor(states).to(self.device) / 255.0).argmax(1).cpu().numpy()

    def update(self, batches: tuple[Any, ...]) -> Any:
        """Updates on (state, action, reward, next state, discount), [K, B, ...] on the device; the loss of the last."""
        loss = self._replay(batches) if self._graphed else self._updates(batches)
        before, self.updates = self.updates, self.updates + len(batches[0])
        if self.updates // 250 > before // 250:
            self.target.load_state_dict(self.policy.state_dict())
        return loss

    def _updates(self, batches: tuple[Any, ...]) -> Any:
        for batch in zip(*batches, strict=True):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(*batch)
            loss.backward()
            self.optimizer.step()
        return loss

    def _replay(self, batches: tuple[Any, ...]) -> Any:
        if self._graph is None:
            self._places = tuple(array.clone() for array in batches)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._updates(self._places)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._result = self._updates(self._places)
        for place, array in zip(self._places, batches, strict=True):
            place.copy_(array)
        self._graph.replay()
        return self._result


class TorchMemory:
    """Whole states of `count` environments on the device, a ring of `length` steps."""

    def __init__(self, length: int, count: int, device: str):
        self.length, self.count, self.device = length, count, device
        self.states = torch.zeros((length, count, 4, 84, 84), dtype=torch.uint8, device=device)
        self.actions = torch.zeros((length, count), dtype=torch.int64, device=device)
        self.rewards = torch.zeros((length, count), device=device)
        self.ends = torch.zeros((length, count), device=device)
        self.time = 0

    def add(self, state: np.ndarray, action: np.ndarray, reward: np.ndarray, ended: np.ndarray) -> None:
        """One step of every environment."""
        place = self.time % self.length
        self.states[place].copy_(torch.as_tensor(state))
        self.actions[place].copy_(torch.as_tensor(action))
        self.rewards[place].copy_(torch.as_tensor(reward))
        self.ends[place].copy_(torch.as_tensor(ended))
        self.time += 1

    def sample(self, updates: int, size: int) -> tuple[Any, ...]:
        """(state, action, reward, next state, discount), [updates, size, ...]."""
        shape = updates, size
        rows = torch.randint(min(self.time, self.length) - 1, shape, device=self.device)
        columns = torch.randint(self.count, shape, device=self.device)
        discount = 0.99 * (1 - self.ends[rows, columns])
        states, following = self.states[rows, columns], self.states[rows + 1, columns]
        return states, self.actions[rows, columns], self.rewards[rows, columns], following, discount


def main() -> None:
    """Time 20 updates after a warm-up."""
    learner = TorchDqn(6, "cpu", compiled=False)
    random = np.random.default_rng(0)
    images = [torch.as_tensor(random.integers(0, 256, (32, 4, 84, 84), np.uint8)) for _ in range(2)]
    batch = (
        images[0],
        torch.as_tensor(random.integers(6, size=32)),
        torch.randn(32),
        images[1],
        torch.full((32,), 0.99),
    )
    batches = tuple(array[None] for array in batch)
    seconds = []
    for _ in range(23):
        began = time.perf_counter()
        learner.update(batches)
        seconds.append(time.perf_counter() - began)
    print(statistics.median(seconds[3:]))


if __name__ == "__main__":
    main()
