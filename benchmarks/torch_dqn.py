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
    """A PyTorch DQN in the manner of CleanRL's dqn_atari.py: Nature's network, compiled update, replay in host memory."""

    def __init__(self, num_actions: int, device: str, compiled: bool = True):
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
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=1e-4)
        self.loss = torch.compile(self._loss) if compiled else self._loss
        self.updates = 0

    def _loss(self, state: Any, action: Any, reward: Any, following: Any, discount: Any) -> Any:
        with torch.no_grad():
            goal = reward + discount * self.target(following / 255.0).max(1).values
        q = self.policy(state / 255.0).gather(1, action[:, None])[:, 0]
        return torch.nn.functional.mse_loss(q, goal)

    def act(self, states: np.ndarray) -> np.ndarray:
        """Best actions [E] of states [E, 4, 84, 84]."""
        with torch.no_grad():
            return self.policy(torch.as_tensor(states).to(self.device) / 255.0).argmax(1).cpu().numpy()

    def update(self, batch: tuple[np.ndarray, ...]) -> Any:
        """One update on (state, action, reward, next state, discount)."""
        loss = self.loss(*(torch.as_tensor(array).to(self.device) for array in batch))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        if self.updates % 250 == 0:
            self.target.load_state_dict(self.policy.state_dict())
        return loss


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
    seconds = []
    for _ in range(23):
        began = time.perf_counter()
        learner.update(batch)
        seconds.append(time.perf_counter() - began)
    print(statistics.median(seconds[3:]))


if __name__ == "__main__":
    main()
