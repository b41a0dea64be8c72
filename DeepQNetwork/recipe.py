"""What is learned and how: the algorithm's flags, and the presets that fill those left open."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from DeepQNetwork.environments import is_atari
from fluid.config import Count, Natural, NotNegative, Positive, Share, Was
from fluid.errors import UserError


@dataclass
class Recipe:
    """The algorithm. A field that is None takes its value from the preset."""

    env: str = "CartPole-v1"
    """Atari game (any of the 108 of ale-py: Pong, Breakout, ...) or a gymnasium task such as CartPole-v1."""
    preset: Literal["auto", "atari", "control", "2018"] = "auto"
    """Values for the flags not given: atari for games, control for other tasks, 2018 for the settings of 2018."""
    protocol: Literal["2018", "standard", "sticky"] | None = None
    """How an Atari game is shown to the agent; printed beside every score."""
    network: Literal["nature", "fluid2018", "mlp"] | None = None
    """nature: Mnih et al. 2015; fluid2018: the net of 2018, whose weights it loads; mlp: for vectors of numbers."""
    alg: Literal["DQN", "DoubleDQN", "DuelingDQN"] | None = None
    """The algorithm by its name of 2018; --double and --dueling combine them."""
    double: bool | None = None
    """The policy network chooses the next action, the target network evaluates it (arXiv:1509.06461)."""
    dueling: bool | None = None
    """Heads for value and advantage (arXiv:1511.06581)."""
    n_step: Count | None = None
    """Steps a target looks ahead before it bootstraps; 1 as in 2018."""
    prioritized: bool = False
    """Draw transitions in proportion to their error (arXiv:1511.05952)."""
    priority_alpha: NotNegative = 0.6
    """prioritized: exponent of the error."""
    priority_beta: Share = 0.4
    """prioritized: exponent of the importance weights at the start; it grows to 1 by the end."""
    gamma: Share = 0.99
    """Discount a step."""
    lr: NotNegative | None = None
    """Learning rate: of Adam."""
    adam_epsilon: Positive | None = None
    """Adam: added to the denominator."""
    loss: Literal["huber", "mse"] | None = None
    """Of the temporal-difference error."""
    grad_clip: Positive | None = None
    """Clip the global norm of the gradients to this."""
    batch_size: Count | None = None
    """Transitions an update."""
    mem_size: Count | None = None
    """Frames in the replay memory, each stored once; 1,000,000 take 7.1 GB."""
    memory_device: Literal["auto", "host", "device"] = "auto"
    """Where the frames are kept; auto: with the network, if that is a GPU with room for them."""
    learning_starts: Annotated[Natural | None, Was("warmup_steps")] = None
    """Steps with random actions before the first update."""
    update_every: Count | None = None
    """Environment steps an update."""
    updates_per_call: Count | None = None
    """Updates in one call of the device; by default as many as one step of all environments is worth."""
    sync_every: Count | None = None
    """Updates between copies of the policy network to the target network."""
    epsilon_start: Share = 1.0
    """Share of random actions at the start."""
    epsilon_end: Share | None = None
    """Share of random actions after epsilon_steps."""
    epsilon_steps: Natural | None = None
    """Environment steps over which it falls, in a line."""
    num_envs: Count | None = None
    """Environments side by side; 1 is the mode that resumes to the same bits."""
    life_loss_ends: bool | None = None
    """Atari: losing a life ends the episode for the learner (the game goes on)."""
    clip_rewards: bool | None = None
    """Clip rewards to -1..1 for the learner; scores are never clipped."""


PRESETS: dict[str, dict[str, Any]] = {
    "atari": {
        "protocol": "standard",
        "network": "nature",
        "double": True,
        "dueling": True,
        "n_step": 3,
        "lr": 1e-4,
        "adam_epsilon": 1.5e-4,
        "loss": "huber",
        "batch_size": 32,
        "mem_size": 1_000_000,
        "learning_starts": 50_000,
        "update_every": 4,
        "sync_every": 2_000,
        "epsilon_end": 0.01,
        "epsilon_steps": 1_000_000,
        "num_envs": 16,
        "life_loss_ends": True,
        "clip_rewards": True,
    },
    "control": {
        "protocol": "standard",
        "network": "mlp",
        "double": True,
        "dueling": False,
        "n_step": 8,
        "lr": 1e-3,
        "adam_epsilon": 1e-8,
        "loss": "mse",
        "grad_clip": 10.0,
        "batch_size": 64,
        "mem_size": 10_000,
        "learning_starts": 1_000,
        "update_every": 2,
        "updates_per_call": 16,
        "sync_every": 50,
        "epsilon_end": 0.04,
        "epsilon_steps": 8_000,
        "num_envs": 8,
        "life_loss_ends": False,
        "clip_rewards": False,
    },
    "2018": {
        "protocol": "2018",
        "network": "fluid2018",
        "double": False,
        "dueling": False,
        "n_step": 1,
        "lr": 5e-4,
        "adam_epsilon": 1e-3,
        "loss": "mse",
        "batch_size": 64,
        "mem_size": 1_000_000,
        "learning_starts": 50_000,
        "update_every": 4,
        "sync_every": 2_500,
        "epsilon_end": 0.1,
        "epsilon_steps": 1_000_000,
        "num_envs": 1,
        "life_loss_ends": True,
        "clip_rewards": True,
    },
}


def fill(recipe: Recipe) -> dict[str, Any]:
    """The fields of a Recipe that are None, with the values its preset has for them. Raises UserError for misfits."""
    atari = is_atari(recipe.env)
    preset = recipe.preset if recipe.preset != "auto" else "atari" if atari else "control"
    if preset != "control" and not atari:
        raise UserError(f"--preset {preset} is for Atari games; {recipe.env} is none")
    values = dict(PRESETS[preset])
    if recipe.alg is not None:
        values |= {"double": recipe.alg == "DoubleDQN", "dueling": recipe.alg == "DuelingDQN"}
    chosen = {name: value for name, value in values.items() if getattr(recipe, name) is None}
    network = chosen.get("network", recipe.network)
    if (network == "mlp") == atari:
        raise UserError(
            f"--network {network} does not fit {recipe.env}: mlp is for vectors of numbers, the others for games"
        )
    return chosen


def epsilon_at(recipe: Recipe, step: int) -> float:
    """Share of random actions at an environment step: 1 while the memory warms up, then a line, then constant."""
    progress = min(max(step - recipe.learning_starts, 0) / max(recipe.epsilon_steps, 1), 1.0)
    return recipe.epsilon_start + (recipe.epsilon_end - recipe.epsilon_start) * progress
