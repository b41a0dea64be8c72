"""What is learned and how: the algorithm's flags, and the presets that fill those left open."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from DeepQNetwork.environments import FRAME_SKIP, View, is_atari, shows_images
from fluid.config import Count, Natural, NotNegative, Number, Positive, Range, Share, Was
from fluid.errors import UserError
from fluid.schedule import Constant, Polynomial, Schedule


@dataclass
class Recipe:
    """The algorithm. A field that is None takes its value from the preset."""

    env: str = "CartPole-v1"
    """Atari game (any of the 108 of ale-py: Pong, Breakout, ...) or a gymnasium task such as CartPole-v1."""
    preset: Literal["auto", "atari", "control", "rainbow", "2018"] = "auto"
    """Values for the flags not given: atari for games, control for other tasks, rainbow for all improvements together
    (arXiv:1710.02298, without noisy nets), 2018 for the settings of 2018."""
    protocol: Literal["2018", "standard", "baselines", "sticky"] | None = None
    """How an Atari game is shown to the agent; printed beside every score."""
    network: Literal["nature", "fluid2018", "mlp"] | None = None
    """nature: Mnih et al. 2015; fluid2018: the net of 2018, whose weights it loads; mlp: for vectors of numbers."""
    stack: Count | None = None
    """Frames in a state; by default 4 images, or 1 vector of numbers."""
    frame_skip: Count | None = None
    """gymnasium tasks: times that an action is repeated, by default 1. Atari games have always 4."""
    resize: Count | None = None
    """gymnasium tasks: side of the square that images are resized to."""
    wrapper: str | None = None
    """gymnasium tasks: module:callable that is given each copy of the task and returns what is used instead."""
    alg: Literal["DQN", "DoubleDQN", "DuelingDQN", "C51", "QRDQN"] | None = None
    """The algorithm: those of 2018, or one that learns the distribution of returns (C51: arXiv:1707.06887, QRDQN:
    arXiv:1710.10044). --double, --dueling, --n_step and --prioritized combine with each."""
    atoms: Annotated[int, Range(2)] | None = None
    """C51: places on the line of returns; QRDQN: quantiles. By default 51 and 200, for control tasks 101 and 32."""
    v_min: Number | None = None
    """C51: the lowest return."""
    v_max: Number | None = None
    """C51: the highest return."""
    double: bool | None = None
    """The policy network chooses the next action, the target network evaluates it (arXiv:1509.06461)."""
    dueling: bool | None = None
    """Heads for value and advantage (arXiv:1511.06581)."""
    n_step: Count | None = None
    """Steps a target looks ahead before it bootstraps; 1 as in 2018."""
    prioritized: bool | None = None
    """Draw transitions in proportion to their error (arXiv:1511.05952)."""
    priority_alpha: NotNegative | None = None
    """prioritized: exponent of the error."""
    priority_beta: Share = 0.4
    """prioritized: exponent of the importance weights at the start; it grows to 1 by the end."""
    gamma: Share = 0.99
    """Discount a step."""
    lr: NotNegative | None = None
    """Learning rate: of Adam."""
    lr_steps: Count | None = None
    """Environment steps over which the learning rate falls to 0, in a line; by default it stays as it is."""
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
    """Updates in one call of the device, at most sync_every; by default as many as one step of the environments (of a group of them) is worth."""
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
    groups: Count = 1
    """Atari: groups in which the environments take turns; the emulators of one run while actions of another are chosen."""
    life_loss_ends: bool | None = None
    """Atari: losing a life ends the episode for the learner (the game goes on)."""
    clip_rewards: bool | None = None
    """Clip rewards to -1..1 for the learner; scores are never clipped."""


COMMON = {"prioritized": False, "priority_alpha": 0.6, "v_min": -10.0, "v_max": 10.0}
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
    "rainbow": {
        "protocol": "standard",
        "network": "nature",
        "alg": "C51",
        "double": True,
        "dueling": True,
        "n_step": 3,
        "prioritized": True,
        "priority_alpha": 0.5,
        "lr": 6.25e-5,
        "adam_epsilon": 1.5e-4,
        "loss": "huber",
        "batch_size": 32,
        "mem_size": 1_000_000,
        "learning_starts": 20_000,
        "update_every": 4,
        "sync_every": 2_000,
        "epsilon_end": 0.01,
        "epsilon_steps": 250_000,
        "num_envs": 16,
        "life_loss_ends": True,
        "clip_rewards": True,
    },
    "control": {
        "protocol": "standard",
        "v_min": -100.0,
        "v_max": 100.0,
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
    values = COMMON | _shown(recipe, atari) | PRESETS[preset]
    if recipe.alg is not None:
        values |= {"double": recipe.alg == "DoubleDQN", "dueling": recipe.alg == "DuelingDQN"}
    alg = recipe.alg or values.get("alg")
    values["atoms"] = (101 if preset == "control" else 51) if alg == "C51" else 32 if preset == "control" else 200
    chosen = {name: value for name, value in values.items() if getattr(recipe, name) is None}
    filled = {**vars(recipe), **chosen}
    if recipe.groups > 1 and (not atari or filled["num_envs"] % recipe.groups):
        raise UserError(
            f"--groups {recipe.groups}: the {filled['num_envs']} environments cannot take turns in so many equal groups"
            if atari
            else f"--groups is for Atari games, whose emulators have threads of their own; {recipe.env} is none"
        )
    if filled["v_min"] >= filled["v_max"]:
        raise UserError(f"--v_min {filled['v_min']:g} must be below --v_max {filled['v_max']:g}")
    learning_rate(replace(recipe, **chosen))
    return {**chosen, "updates_per_call": _updates_per_call(recipe, filled)}


def view_of(recipe: Recipe) -> View:
    """How the recipe shows a gymnasium task."""
    return View(recipe.frame_skip or 1, recipe.resize, recipe.wrapper)


def returns_of(recipe: Recipe) -> dict[str, Any]:
    """What the network says of returns, as fields of an Agent."""
    if recipe.alg == "C51":
        return {"returns": "places", "atoms": recipe.atoms, "v_min": recipe.v_min, "v_max": recipe.v_max}
    return {"returns": "quantiles", "atoms": recipe.atoms} if recipe.alg == "QRDQN" else {}


def _shown(recipe: Recipe, atari: bool) -> dict[str, Any]:
    """Network, frames a state and frame skip by what the environment shows. Raises UserError for flags that misfit."""
    if atari:
        if recipe.frame_skip not in (None, FRAME_SKIP) or recipe.resize is not None or recipe.wrapper is not None:
            raise UserError(
                f"--frame_skip, --resize and --wrapper are for gymnasium tasks; {recipe.env} is shown as --protocol says, "
                f"with {FRAME_SKIP} frames an action"
            )
        image = True
    else:
        image = shows_images(recipe.env, view_of(recipe))
    if recipe.network is not None and (recipe.network == "mlp") == image:
        raise UserError(
            f"--network {recipe.network} does not fit {recipe.env}: mlp is for vectors of numbers, the others for images"
        )
    network = "nature" if image else "mlp"
    return {"stack": 4 if image else 1, "frame_skip": FRAME_SKIP if atari else 1, "network": network}


def _updates_per_call(recipe: Recipe, filled: dict[str, Any]) -> int:
    """Updates a call, never more than lie between two copies to the target network. Raises UserError if more were asked."""
    most = filled["sync_every"]
    if recipe.updates_per_call is not None and recipe.updates_per_call > most:
        raise UserError(
            f"--updates_per_call {recipe.updates_per_call}: the target network changes between two calls, every {most} updates; "
            f"give at most {most}, or a larger --sync_every"
        )
    wanted = filled["updates_per_call"] or max(filled["num_envs"] // recipe.groups // filled["update_every"], 1)
    return min(wanted, most)


def learning_rate(recipe: Recipe) -> Schedule:
    """Of a filled recipe, by update. Raises UserError if it had fallen to 0 before the first one."""
    if recipe.lr_steps is None:
        return Constant(recipe.lr)
    updates = (recipe.lr_steps - recipe.learning_starts) // recipe.update_every
    if updates < 1:
        raise UserError(
            f"--lr_steps {recipe.lr_steps}: the learning rate would be 0 before updates start, which is after "
            f"--learning_starts {recipe.learning_starts} steps; give more"
        )
    return Polynomial(recipe.lr, updates)


def epsilon_at(recipe: Recipe, step: int) -> float:
    """Share of random actions at an environment step: 1 while the memory warms up, then a line, then constant."""
    progress = min(max(step - recipe.learning_starts, 0) / max(recipe.epsilon_steps, 1), 1.0)
    return recipe.epsilon_start + (recipe.epsilon_end - recipe.epsilon_start) * progress
