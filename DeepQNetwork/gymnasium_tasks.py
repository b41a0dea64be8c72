"""Any gymnasium task with discrete actions as an environment of this folder: vectors, images, and what gymnasium can flatten.

make("CartPole-v1", 8)                          a task that gymnasium knows
make("my_module:MyTask-v0", 8)                  one that importing my_module registers
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from DeepQNetwork.environments import PLAIN, Step, View
from fluid.config import nearest
from fluid.errors import UserError

import cv2
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation

SCREENS_PER_SECOND = 30
"""Of tasks that do not say it themselves (`metadata["render_fps"]`)."""
CHANNELS = (1, 3, 4)
"""Axes of these lengths are channels; of two such the last."""


class GymnasiumVector:
    """E copies of a gymnasium task.

    Images, that is Box spaces of uint8 with two or three axes, become frames [H, W] or [C, H, W]; everything else that
    gymnasium can flatten becomes numbers [D] float32, a Discrete observation one of n. Actions are 0 to n - 1, whatever the
    task's first one is. Tasks of gymnasium whose whole state is the array `state`, such as CartPole, can be saved and restored
    to the bit (`saveable`); of a task of somebody else's nobody knows what its state is.

    Args:
        name: its id, as for `gymnasium.make`.
        num_envs: E.
        view: how it is shown.
        screen: of one copy whose screen can be seen, see `environments.Game`.

    Raises UserError for what does not exist, cannot be made, or has other than discrete actions.
    """

    screens_per_step = 1

    def __init__(self, name: str, num_envs: int, view: View = PLAIN, *, screen: bool = False):
        self._vector = _make(name, num_envs, view, "rgb_array" if screen else None)
        space, actions = self._vector.single_observation_space, self._vector.single_action_space
        if not isinstance(actions, spaces.Discrete):
            raise UserError(f"{name}: DQN needs discrete actions; it has {actions}")
        self._start = int(actions.start)
        self.num_envs, self.num_actions = num_envs, int(actions.n)
        self.image = _is_image(space)
        self.dtype = np.dtype(np.uint8 if self.image else np.float32)
        self.observation_shape = tuple(space.shape or ())
        self.description = f"{name} x {num_envs}"
        self.saveable = view.wrapper is None and all(map(_is_saveable, self._vector.envs))
        self.keep_screens, self.screens = False, []
        rate = self._vector.envs[0].unwrapped.metadata.get("render_fps") or SCREENS_PER_SECOND
        self.screens_per_second = rate / view.frame_skip
        if screen:
            self._try_screen(name)

    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode in every copy; observations [E, ...]."""
        observation, _ = self._vector.reset(seed=seed)
        self._over = np.zeros(self.num_envs, bool)
        self._look()
        return observation.astype(self.dtype)

    def send(self, actions: np.ndarray) -> None:
        """Remember the actions [E]; they are played in `receive`."""
        self._actions = np.array(actions, np.int32)

    def receive(self) -> Step:
        """Play them."""
        observation, reward, terminated, truncated, _ = self._vector.step(self._actions + self._start)
        first, self._over = self._over, terminated | truncated
        self._look()
        none = np.zeros(self.num_envs, bool)
        observation, reward = observation.astype(self.dtype), reward.astype(np.float32)
        return Step(observation, self._actions, reward, terminated, truncated, none, first)

    def save(self) -> dict[str, Any]:
        """The state of every copy, and everything else that decides what happens next, as arrays and JSON-able data."""
        copies = []
        for env in self._vector.envs:
            inner = env.unwrapped
            copies.append(
                {
                    "random": inner.np_random.bit_generator.state,
                    "beyond": getattr(inner, "steps_beyond_terminated", None),
                    "steps": env.get_wrapper_attr("_elapsed_steps"),
                }
            )
        states = np.array([env.unwrapped.state for env in self._vector.envs], np.float64)
        return {"emulator": states, "copies": copies, "over": self._over.tolist()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from `save`; follows a `reset`."""
        for env, state, copy in zip(self._vector.envs, saved["emulator"], saved["copies"], strict=True):
            inner = env.unwrapped
            inner.state = state.copy()
            inner.np_random.bit_generator.state = copy["random"]
            if copy["beyond"] is not None or hasattr(inner, "steps_beyond_terminated"):
                inner.steps_beyond_terminated = copy["beyond"]
            env.set_wrapper_attr("_elapsed_steps", copy["steps"])
        self._over = np.array(saved["over"])
        self._vector._autoreset_envs = self._over.copy()

    def close(self) -> None:
        """Close the copies."""
        self._vector.close()

    def _try_screen(self, name: str) -> None:
        # Pictures are made, no window is opened, and pygame need not greet.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        self.keep_screens = True
        try:
            self.reset(0)
        except Exception as error:
            raise UserError(f"the screen of {name} cannot be drawn: {type(error).__name__}: {error}") from error
        self.keep_screens = False

    def _look(self) -> None:
        if self.keep_screens:
            self.screens = [np.asarray(self._vector.envs[0].render(), np.uint8)]


class Checked(gymnasium.Wrapper):
    """Raises UserError where a task returns no tuple as gymnasium wants it, or another observation than it declares."""

    def __init__(self, env: gymnasium.Env, name: str):
        super().__init__(env)
        self.name = name

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.Env`."""
        return self._checked("reset", self.env.reset(seed=seed, options=options), "observation, info")

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env`."""
        return self._checked("step", self.env.step(action), "observation, reward, terminated, truncated, info")

    def _checked(self, method: str, returned: Any, wanted: str) -> Any:
        if not isinstance(returned, tuple) or len(returned) != len(wanted.split(", ")):
            kind = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else type(returned).__name__
            raise UserError(f"{self.name}: its {method} returned {kind}; gymnasium wants the tuple ({wanted})")
        if not _fits(space := self.env.observation_space, returned[0]):
            found = f"shape {np.shape(returned[0])}" if isinstance(space, spaces.Box) else repr(returned[0])
            raise UserError(f"{self.name}: its {method} returned an observation, {found}, where it declares {space}")
        return returned


class Repeat(gymnasium.Wrapper):
    """Repeats each action `times` times, or until the episode ends, and sums the rewards."""

    def __init__(self, env: gymnasium.Env, times: int):
        super().__init__(env)
        self.times = times

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env`."""
        total = 0.0
        for _ in range(self.times):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


class Frames(gymnasium.ObservationWrapper):
    """Images [H, W], [H, W, C] or [C, H, W] as frames [H, W] or [C, H, W], one channel as none, resized if that is wanted."""

    def __init__(self, env: gymnasium.Env, side: int | None):
        super().__init__(env)
        self.side = side
        shape = env.observation_space.shape
        self._channels_first = len(shape) == 3 and shape[0] in CHANNELS and shape[2] not in CHANNELS
        shape = self.observation(np.zeros(env.observation_space.shape, np.uint8)).shape
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """See `gymnasium.ObservationWrapper`."""
        image = observation.transpose(1, 2, 0) if self._channels_first else observation
        if self.side is not None:
            image = cv2.resize(image, (self.side, self.side), interpolation=cv2.INTER_AREA)
        if image.ndim == 2:
            return image
        return image[:, :, 0] if image.shape[2] == 1 else image.transpose(2, 0, 1)


def _make(name: str, num_envs: int, view: View, render_mode: str | None) -> gymnasium.vector.SyncVectorEnv:
    if ":" in name:
        _import(name.split(":", 1)[0], f"--env {name}")
    try:
        if render_mode is not None and render_mode not in _render_modes(name):
            raise UserError(
                f"{name} has no screen (no render mode {render_mode}); eval.py plays it and prints the score"
            )
        return gymnasium.make_vec(
            name,
            num_envs=num_envs,
            vectorization_mode="sync",
            wrappers=(_dresser(name, view),),
            render_mode=render_mode,
        )
    except UserError:
        raise
    except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound, gymnasium.error.VersionNotFound) as error:
        raise UserError(
            f"no environment called {name}: neither an Atari game nor a gymnasium id.{_nearest_environment(name)}"
        ) from error
    except Exception as error:
        raise UserError(f"the environment {name} cannot be made: {type(error).__name__}: {error}") from error


def _dresser(name: str, view: View) -> Callable[[gymnasium.Env], gymnasium.Env]:
    """What puts the wrappers of `view` on a copy."""
    wrapper = None if view.wrapper is None else _wrapper(view.wrapper)

    def dress(env: gymnasium.Env) -> gymnasium.Env:
        env = _checked_within(env, name)
        if wrapper is not None:
            env = Checked(wrapper(env), f"{name} in --wrapper {view.wrapper}")
        if view.frame_skip > 1:
            env = Repeat(env, view.frame_skip)
        space = env.observation_space
        if _is_image(space):
            return Frames(env, view.resize)
        if view.resize is not None:
            raise UserError(f"--resize {view.resize}: the observations of {name} are no images but {space}")
        if isinstance(space, spaces.Box) and len(space.shape) == 1:
            return env
        if not space.is_np_flattenable:
            raise UserError(f"{name}: observations of the kind {space} cannot be made a vector of numbers")
        return FlattenObservation(env)

    return dress


def _checked_within(env: gymnasium.Env, name: str) -> gymnasium.Env:
    """`env` with the task itself checked: gymnasium's wrappers around it take its tuples apart, too."""
    if env is env.unwrapped:
        return Checked(env, name)
    innermost: Any = env
    while innermost.env is not env.unwrapped:
        innermost = innermost.env
    innermost.env = Checked(env.unwrapped, name)
    return env


def _fits(space: spaces.Space, observation: Any) -> bool:
    """Whether an observation can be one of `space`. Of a Box only the shape counts: many tasks leave their bounds."""
    if isinstance(space, spaces.Box):
        return np.shape(observation) == space.shape
    if isinstance(space, spaces.Dict):
        return isinstance(observation, Mapping) and all(
            key in observation and _fits(part, observation[key]) for key, part in space.items()
        )
    if isinstance(space, spaces.Tuple):
        fits = isinstance(observation, tuple) and len(observation) == len(space)
        return fits and all(map(_fits, space, observation))
    return space.contains(observation)


def _is_saveable(env: gymnasium.Env) -> bool:
    own = type(env.unwrapped).__module__.startswith("gymnasium.envs.")
    return own and hasattr(env.unwrapped, "state") and env.has_wrapper_attr("_elapsed_steps")


def _is_image(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def _wrapper(spec: str) -> Callable[[gymnasium.Env], gymnasium.Env]:
    module, _, attribute = spec.partition(":")
    found = getattr(_import(module, f"--wrapper {spec}"), attribute, None) if attribute else None
    if not callable(found):
        raise UserError(f"--wrapper {spec}: give it as module:callable, which takes an environment and returns one")
    return found


def _import(module: str, what: str) -> Any:
    """A user's module, from where Python looks or from the current folder."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise UserError(f"{what}: the module {module} cannot be imported: {type(error).__name__}: {error}") from error


def _render_modes(name: str) -> list[str]:
    env = gymnasium.make(name)
    env.close()
    return list(env.metadata.get("render_modes", []))


def _nearest_environment(name: str) -> str:
    from ale_py import roms

    return nearest(name, [*roms.get_all_rom_ids(), *gymnasium.registry])
