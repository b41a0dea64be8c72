"""Environments: Atari games in ale-py's own threads, one game whose emulator can be saved, and any gymnasium task
(gymnasium_tasks.py).

All of them step in two halves, so that a learner can compute while the emulators run:

    observation = environment.reset(seed)          # [E, ...]
    environment.send(actions)                      # returns at once
    step = environment.receive()                   # what became of the actions

After the last step of an episode the next one begins by itself: the action sent then is ignored, and the observation
that comes back is the first of a new episode (`Step.first`). The last observation of an episode is therefore always seen,
which is what a value after a time limit has to be bootstrapped from.
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from fluid import PROCESSORS
from fluid.errors import UserError

import cv2
import numpy as np

_SPELLING = re.compile(r"(?:ALE/)?(\w+?)(?:NoFrameskip|Deterministic)?(?:-v\d+)?|(?:.*/)?(\w+)\.bin")
SCREEN = (84, 84)
FRAME_SKIP = 4


@dataclass(frozen=True)
class Preprocessing:
    """How an Atari game is shown to an agent, and what counts as an episode. A score means nothing without it."""

    name: str
    resize: int
    """OpenCV's interpolation from the whole screen to 84 x 84."""
    palette: bool
    """Gray levels from the emulator's palette; otherwise the maximum is taken in RGB and turned to gray afterwards."""
    fire: bool
    """FIRE is pressed for one frame before the idle ones, in games that have it."""
    start_actions: tuple[str, ...]
    """Played for 4 frames each after them, in games with FIRE: names of actions or indices."""
    sticky: float
    """Probability that the emulator repeats the previous action (Machado et al., arXiv:1709.06009)."""
    max_frames: int
    """Emulator frames after which an episode is cut."""
    noop_max: int = 30
    """The episode starts after a random number of idle frames below this."""
    fire_after_life: bool = False
    """FIRE is pressed for an action after a lost life, in games that have it."""

    def __str__(self) -> str:
        return (
            f"protocol {self.name}: whole screen to 84x84 by {'INTER_LINEAR' if self.resize == cv2.INTER_LINEAR else 'INTER_AREA'}, "
            f"gray from {'the palette' if self.palette else 'RGB'}, maximum of 2 frames, frame skip {FRAME_SKIP}, minimal "
            f"actions, sticky {self.sticky:g}, {'FIRE and ' if self.fire else ''}fewer than {self.noop_max} idle frames"
            f"{', then ' + ' and '.join(self.start_actions) if self.start_actions else ''}, "
            f"{'FIRE after a lost life, ' if self.fire_after_life else ''}"
            f"at most {self.max_frames} frames, whole games"
        )


PROTOCOLS = {
    "2018": Preprocessing("2018", cv2.INTER_LINEAR, False, False, ("FIRE", "2"), 0.0, 60_000),
    "standard": Preprocessing("standard", cv2.INTER_AREA, True, True, (), 0.0, 108_000),
    # As the wrappers of OpenAI Baselines, under which CleanRL, Stable-Baselines3 and Tianshou learn and measure.
    "baselines": Preprocessing("baselines", cv2.INTER_AREA, True, True, (), 0.0, 108_000, fire_after_life=True),
    "sticky": Preprocessing("sticky", cv2.INTER_AREA, True, False, (), 0.25, 108_000, noop_max=1),
}


class Step(NamedTuple):
    """What became of one action in each of E environments."""

    observation: np.ndarray
    """[E, ...]"""
    action: np.ndarray
    """[E] int32: what was really done; a protocol presses FIRE by itself at the start of a game."""
    reward: np.ndarray
    """[E] float32, as the game gives it."""
    terminated: np.ndarray
    """[E] bool: the task ended here, nothing comes after."""
    truncated: np.ndarray
    """[E] bool: cut by a time limit; the state still has a value."""
    life_lost: np.ndarray
    """[E] bool: the game goes on, with one life less."""
    first: np.ndarray
    """[E] bool: `observation` begins an episode and the action was ignored."""


@dataclass(frozen=True)
class View:
    """How a gymnasium task is shown to an agent. Atari games have protocols instead."""

    frame_skip: int = 1
    """Times that an action is repeated; rewards are summed."""
    resize: int | None = None
    """Side of the square that images are resized to."""
    wrapper: str | None = None
    """`module:callable` that is given each copy and returns what is used instead."""


PLAIN = View()


class Environment(Protocol):
    """What the training loop and the evaluation use. Raises UserError in its constructor for what does not exist."""

    num_envs: int
    num_actions: int
    observation_shape: tuple[int, ...]
    """Of one frame: an image [H, W] or [C, H, W], or numbers [D]."""
    image: bool
    """Whether frames are images, uint8."""
    dtype: np.dtype
    description: str
    saveable: bool
    """Whether it has `save` and `restore`, which bring it back to the bit."""

    def reset(self, seed: int) -> np.ndarray: ...

    def send(self, actions: np.ndarray) -> None: ...

    def receive(self) -> Step: ...

    def close(self) -> None: ...


class Game(Environment, Protocol):
    """An environment, one copy, whose screen can be seen."""

    keep_screens: bool
    """Whether `screens` is filled."""
    screens: list[np.ndarray]
    """[H, W, 3] uint8 each: what the last step showed."""
    screens_per_step: int
    screens_per_second: float
    """Of a game played at its own speed."""


def is_atari(name: str) -> bool:
    """Whether `name` is one of the games that come with ale-py, in any of their spellings."""
    from ale_py import roms

    return game_id(name) in roms.get_all_rom_ids()


def game_id(name: str) -> str:
    """`Pong`, `ALE/Pong-v5`, `PongNoFrameskip-v4`, `UpNDown`, `rom_files/pong.bin` -> ale-py's `pong`, `up_n_down`.

    What is no game stays as it is, `Pong-ram-v5` too: an agent here sees the screen, not the console's memory.
    """
    from ale_py import roms

    if (spelling := _SPELLING.fullmatch(name)) is None:
        return name
    games = {game.replace("_", ""): game for game in roms.get_all_rom_ids()}
    return games.get((spelling[1] or spelling[2]).replace("_", "").lower(), name)


def make(
    name: str,
    num_envs: int,
    *,
    protocol: str = "standard",
    view: View = PLAIN,
    threads: int = 0,
    saveable: bool = False,
) -> "Environment":
    """The environment of an Atari game (ale-py's 108) or of a gymnasium task with discrete actions.

    Args:
        name: a game in any spelling `game_id` knows, or a gymnasium id such as CartPole-v1 or my_module:MyTask-v0.
        num_envs: how many run side by side.
        protocol: a key of PROTOCOLS; only Atari games have one.
        view: how other tasks are shown.
        threads: threads for the emulators; 0: one a processor that this process may use.
        saveable: one game whose emulator state can be saved, for runs that resume to the same bits.

    Raises UserError for a name that is neither, with the nearest one.
    """
    if not is_atari(name):
        from DeepQNetwork.gymnasium_tasks import GymnasiumVector

        return GymnasiumVector(name, num_envs, view)
    if saveable:
        return AtariGame(game_id(name), _protocol(protocol))
    return AtariVector(game_id(name), _protocol(protocol), num_envs, threads)


def make_game(name: str, *, protocol: str = "standard", view: View = PLAIN) -> "Game":
    """One copy with a screen. Raises UserError as `make`, and for a task that has none."""
    if not is_atari(name):
        from DeepQNetwork.gymnasium_tasks import GymnasiumVector

        return GymnasiumVector(name, 1, view, screen=True)
    return AtariGame(game_id(name), _protocol(protocol))


def shows_images(name: str, view: View = PLAIN) -> bool:
    """Whether the frames of an environment are images. Raises UserError as `make`."""
    if is_atari(name):
        return True
    environment = make(name, 1, view=view)
    environment.close()
    return environment.image


def action_names(game: str) -> list[str]:
    """The game's minimal set of actions, in the order of their indices."""
    return [str(action).rsplit(".", 1)[-1] for action in _emulator(game, 0.0, 0).getMinimalActionSet()]


def to_observation(rgb: np.ndarray, protocol: Preprocessing) -> np.ndarray:
    """A screen [H, W, 3] (or [H, W] of gray levels) uint8 -> [84, 84] uint8."""
    gray = rgb
    if rgb.ndim == 3:
        # 2018 converted in float32 and cut the fraction off; rounding would change half of the gray levels.
        gray = cv2.cvtColor(rgb.astype(np.float32), cv2.COLOR_RGB2GRAY).astype(np.uint8)
    return cv2.resize(gray, SCREEN[::-1], interpolation=protocol.resize)


class AtariVector:
    """E games in ale-py's threads. Their emulators cannot be saved: a resumed run starts new episodes."""

    observation_shape = SCREEN
    image = True
    dtype = np.dtype(np.uint8)
    saveable = False

    def __init__(self, game: str, protocol: Preprocessing, num_envs: int, threads: int = 0):
        import ale_py

        names = action_names(game)
        own = protocol.resize == cv2.INTER_AREA and protocol.palette
        height, width = SCREEN if own else _emulator(game, 0.0, 0).getScreenGrayscale().shape
        # With `own` settings ale-py does all the work; otherwise it hands out whole screens.
        self._resized = own
        self._presses = _start_actions(protocol, names)
        self._fire = _fire_after_life(protocol, names)
        self._vector = ale_py.AtariVectorEnv(
            game,
            num_envs,
            # Left to itself, ale-py starts one for each processor of the machine.
            num_threads=threads or PROCESSORS,
            max_num_frames_per_episode=protocol.max_frames,
            repeat_action_probability=protocol.sticky,
            img_height=height,
            img_width=width,
            grayscale=protocol.palette,
            stack_num=1,
            frameskip=FRAME_SKIP,
            noop_max=protocol.noop_max,
            reward_clipping=False,
            use_fire_reset=protocol.fire,
        )
        self.protocol, self.num_envs, self.num_actions = protocol, num_envs, len(names)
        self.description = f"{game} x {num_envs}, {protocol}"

    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode in every environment; observations [E, 84, 84] uint8."""
        # ale-py seeds the emulators with consecutive numbers of 31 bits.
        screens, info = self._vector.reset(seed=seed % (2**31 - self.num_envs))
        self._lives = info["lives"].copy()
        self._over = np.zeros(self.num_envs, bool)
        self._lost = np.zeros(self.num_envs, bool)
        self._age = np.zeros(self.num_envs, np.int64)
        return self._observations(screens)

    def send(self, actions: np.ndarray) -> None:
        """Start the next step: actions [E], each below `num_actions`."""
        self._actions = np.array(actions, np.int32)
        for age, press in enumerate(self._presses):
            self._actions[self._age == age] = press
        if self._fire is not None:
            self._actions[self._lost] = self._fire
        self._vector.send(self._actions)

    def receive(self) -> Step:
        """Wait for that step."""
        screens, rewards, terminated, truncated, info = self._vector.recv()
        first = self._over
        self._lost = lost = (info["lives"] < self._lives) & ~first & ~terminated
        self._lives = info["lives"].copy()
        self._over = terminated | truncated
        self._age = np.where(first, 0, self._age + 1)
        observation = self._observations(screens)
        return Step(observation, self._actions, rewards.astype(np.float32), terminated, truncated, lost, first)

    def close(self) -> None:
        """Stop the threads."""
        self._vector.close()

    def _observations(self, screens: np.ndarray) -> np.ndarray:
        if self._resized:
            # A copy: the engine may still be reading these frames when ale-py writes the next ones.
            return screens[:, 0].copy()
        return np.stack([to_observation(screen[0], self.protocol) for screen in screens])


class AtariGame:
    """One game, run in the calling thread. Its state can be saved and restored to the bit, and its screen shown."""

    num_envs = 1
    saveable = True
    observation_shape = SCREEN
    image = True
    dtype = np.dtype(np.uint8)
    screens_per_step = FRAME_SKIP
    screens_per_second = 60.0

    def __init__(self, game: str, protocol: Preprocessing):
        self.game, self.protocol = game, protocol
        self.action_names = action_names(game)
        self.num_actions = len(self.action_names)
        self.description = f"{game}, {protocol}"
        self._presses = _start_actions(protocol, self.action_names)
        self._fire = _fire_after_life(protocol, self.action_names)
        self.screens: list[np.ndarray] = []
        """The 4 screens [H, W, 3] uint8 of the last step, filled while `keep_screens`."""
        self.keep_screens = False

    def reset(self, seed: int) -> np.ndarray:
        """Load the game and begin an episode; the observation [1, 84, 84] uint8."""
        self._random = np.random.default_rng(seed)
        self._ale = _emulator(self.game, self.protocol.sticky, seed % 2**31)
        self._action_set = self._ale.getMinimalActionSet()
        return self._begin()

    def send(self, actions: np.ndarray) -> None:
        """Remember the action [1]; the emulator runs in `receive`."""
        press = self._age < len(self._presses)
        self._action = self._presses[self._age] if press else int(actions[0])
        if self._lost and self._fire is not None:
            self._action = self._fire

    def receive(self) -> Step:
        """Play the action for 4 frames."""
        first = self._over
        reward, lives = 0.0, self._ale.lives()
        if first:
            observation = self._begin()
        else:
            reward = self._play()
            observation = to_observation(np.maximum(*self._last_two), self.protocol)[None]
            self._age += 1
        terminated = self._ale.game_over(with_truncation=False)
        truncated = self._age * FRAME_SKIP >= self.protocol.max_frames and not terminated
        self._over = terminated or truncated
        self._lost = lost = not first and not terminated and self._ale.lives() < lives
        flags = (np.array([value]) for value in (terminated, truncated, lost, first))
        return Step(observation, np.array([self._action], np.int32), np.array([reward], np.float32), *flags)

    def save(self) -> dict[str, Any]:
        """The emulator and everything else that decides what happens next, as arrays and JSON-able data."""
        return {
            "emulator": np.frombuffer(self._ale.cloneSystemState().__getstate__(), np.uint8).copy(),
            "random": self._random.bit_generator.state,
            "age": self._age,
            "over": self._over,
            "lost": self._lost,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from `save`; follows a `reset`."""
        import ale_py

        state = ale_py.ALEState.__new__(ale_py.ALEState)
        state.__setstate__(saved["emulator"].tobytes())
        self._ale.restoreSystemState(state)
        self._random.bit_generator.state = saved["random"]
        self._age, self._over, self._lost = saved["age"], saved["over"], saved.get("lost", False)

    def close(self) -> None:
        """Nothing to stop."""

    def _begin(self) -> np.ndarray:
        self._ale.reset_game()
        idle = int(self._random.integers(self.protocol.noop_max))
        if self.protocol.fire and "FIRE" in self.action_names:
            self._ale.act(self._action_set[self.action_names.index("FIRE")])
            idle -= 1
        for _ in range(idle):
            self._ale.act(self._action_set[0])
        self._age, self._over, self._lost, self._action = 0, False, False, 0
        if self.keep_screens:
            self.screens = [self._ale.getScreenRGB()]
        return to_observation(self._screen(), self.protocol)[None]

    def _play(self) -> float:
        reward, self._last_two, self.screens = 0.0, [], []
        for frame in range(FRAME_SKIP):
            reward += self._ale.act(self._action_set[self._action])
            if frame >= FRAME_SKIP - 2 or self._ale.game_over():
                self._last_two.append(self._screen())
            if self.keep_screens:
                self.screens.append(self._ale.getScreenRGB())
            if self._ale.game_over():
                break
        self._last_two = [self._last_two[0], self._last_two[-1]]
        return reward

    def _screen(self) -> np.ndarray:
        return self._ale.getScreenGrayscale() if self.protocol.palette else self._ale.getScreenRGB()


def _protocol(name: str) -> Preprocessing:
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol {name}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def _emulator(game: str, sticky: float, seed: int) -> Any:
    from ale_py import ALEInterface, LoggerMode, roms

    ALEInterface.setLoggerMode(LoggerMode.Error)
    emulator = ALEInterface()
    emulator.setInt("random_seed", seed)
    emulator.setFloat("repeat_action_probability", sticky)
    emulator.loadROM(roms.get_rom_path(game))
    return emulator


def _start_actions(protocol: Preprocessing, names: list[str]) -> list[int]:
    """Indices of the protocol's start actions; a number stands for itself, and only games with FIRE need them."""
    if "FIRE" not in names:
        return []
    return [int(name) if name.isdigit() else names.index(name) for name in protocol.start_actions]


def _fire_after_life(protocol: Preprocessing, names: list[str]) -> int | None:
    """The index of what the protocol presses after a lost life; None where it presses nothing."""
    return names.index("FIRE") if protocol.fire_after_life and "FIRE" in names else None
