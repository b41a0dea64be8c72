"""Environments: the pixels of 2018, episodes and their ends, saved emulators, and what becomes of wrong names."""

import os
from collections.abc import Callable
from typing import Any

from DeepQNetwork.agent import Agent
from DeepQNetwork.environments import (
    PROTOCOLS,
    AtariGame,
    View,
    action_names,
    game_id,
    is_atari,
    make,
    make_game,
)
from DeepQNetwork.episodes import Player, States, play
from DeepQNetwork.gymnasium_tasks import GymnasiumVector
from fluid.errors import UserError

import cv2
import gymnasium
import numpy as np
import pytest
from ale_py import ALEInterface, LoggerMode, roms
from gymnasium import spaces


def emulator(game: str, seed: int) -> ALEInterface:
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path(game))
    return ale


def test_observation_of_2018_from_first_principles():
    """Four frames an action, maximum in RGB of the last two, float gray cut to whole numbers, the whole screen by INTER_LINEAR."""
    game = AtariGame("breakout", PROTOCOLS["2018"])
    game.reset(7)
    ale = emulator("breakout", 7)
    for _ in range(int(np.random.default_rng(7).integers(30))):
        ale.act(0)
    # FIRE, then the action of index 2, whatever the agent wants.
    for wanted, played in ((3, 1), (3, 2), (3, 3), (0, 0), (2, 2)):
        game.send(np.array([wanted]))
        step = game.receive()
        screens = []
        for _ in range(4):
            ale.act(ale.getMinimalActionSet()[played])
            screens.append(ale.getScreenRGB())
        largest = np.maximum(screens[-1], screens[-2]).astype(np.float32)
        gray = cv2.cvtColor(largest, cv2.COLOR_RGB2GRAY).astype(np.uint8)
        np.testing.assert_array_equal(step.observation[0], cv2.resize(gray, (84, 84)))
        assert step.action[0] == played
    area = cv2.resize(gray, (84, 84), interpolation=cv2.INTER_AREA)
    assert (area != step.observation[0]).mean() > 0.01, "the filter must matter, or this test could not fail"


@pytest.mark.parametrize("protocol", ["2018", "standard"])
def test_threads_and_single_game_show_the_same(protocol):
    """ale-py's vector against our own loop: after the same actions from the same start, the same pixels and rewards."""
    vector = make("Pong", 2, protocol=protocol, threads=1)
    vector.reset(0)
    single = AtariGame("pong", PROTOCOLS[protocol])
    # Start both without idle frames, whose number comes from different generators.
    still = PROTOCOLS[protocol].__class__(**{**vars(PROTOCOLS[protocol]), "noop_max": 1})
    vector.close()
    vector = type(vector)("pong", still, 2, 1)
    single = AtariGame("pong", still)
    np.testing.assert_array_equal(vector.reset(0)[0], single.reset(0)[0])
    random, rewards = np.random.default_rng(0), 0
    for _ in range(250):
        action = random.integers(6, size=1)
        vector.send(np.repeat(action, 2))
        single.send(action)
        one, other = vector.receive(), single.receive()
        np.testing.assert_array_equal(one.observation[0], other.observation[0])
        assert (one.action[0], one.reward[0]) == (other.action[0], other.reward[0])
        rewards += abs(int(one.reward[0]))
    assert rewards >= 2, "a stretch without points compares little"
    vector.close()


def test_emulators_have_the_processors_of_this_process(monkeypatch):
    """Not the machine's: threads that share the few it may use would stand in the way of the one that learns."""
    monkeypatch.setattr("DeepQNetwork.environments.PROCESSORS", 1)
    before = set(os.listdir("/proc/self/task"))
    vector = make("Pong", 2)
    assert len(set(os.listdir("/proc/self/task")) - before) == 1
    vector.close()


def test_any_seed_begins_a_game():
    """Also the largest that --seed takes, to which training adds another number for its evaluations."""
    for seed in (2**31 - 1, 2**32 - 1, 2**32 + 7918):
        environment = make("pong", 2)
        assert environment.reset(seed).shape == (2, 84, 84)
        environment.close()


def test_ends_of_games_and_lives():
    """The last frame of a game is seen, the next action is ignored, and lost lives are told from ended games."""
    vector = make("Breakout", 2, protocol="standard", threads=1)
    vector.reset(3)
    random = np.random.default_rng(3)
    over, games, lives = np.zeros(2, bool), 0, np.zeros(2, int)
    for _ in range(700):
        vector.send(random.integers(4, size=2))
        step = vector.receive()
        np.testing.assert_array_equal(step.first, over)
        assert not step.reward[step.first].any() and not (step.life_lost & step.terminated).any()
        lives = np.where(step.first, 0, lives) + step.life_lost
        assert (lives[step.terminated] == 4).all(), "five lives: four lost, and the last one ends the game"
        games += int(step.terminated.sum())
        over = step.terminated | step.truncated
    assert games >= 2
    vector.close()


@pytest.mark.parametrize("protocol, presses", [("standard", False), ("baselines", True)])
def test_fire_is_pressed_after_a_lost_life(protocol, presses):
    """By the protocol that says so, in ale-py's threads and in the single game; what was done is what the learner sees."""
    fire, never = 1, [0, 2, 3]
    for environment in (make("Breakout", 1, protocol=protocol, threads=1), AtariGame("breakout", PROTOCOLS[protocol])):
        environment.reset(1)
        random, lost, pressed, lives = np.random.default_rng(0), False, 0, 0
        for _ in range(120):
            environment.send(random.choice(never, size=1))
            step = environment.receive()
            assert (step.action[0] == fire) == (presses and lost)
            pressed, lost = pressed + int(lost), bool(step.life_lost[0])
            lives += int(lost)
        assert (lives > 1) == presses and pressed, "without FIRE there is no ball to lose the next life with"
        environment.close()


def test_time_limits_truncate():
    short = PROTOCOLS["standard"].__class__(**{**vars(PROTOCOLS["standard"]), "max_frames": 80, "noop_max": 1})
    game = AtariGame("pong", short)
    game.reset(0)
    ends = []
    for _ in range(42):
        game.send(np.array([0]))
        step = game.receive()
        ends.append((bool(step.terminated[0]), bool(step.truncated[0]), bool(step.first[0])))
    assert ends[19] == (False, True, False) and ends[20] == (False, False, True) and ends[40] == (False, True, False)
    control = GymnasiumVector("CartPole-v1", 1)
    observation = control.reset(0)
    steps = 0
    for steps in range(1, 502):  # noqa: B007 (the count is what is tested)
        # A balancing rule: push where the pole leans and turns.
        control.send(np.array([int(observation[0, 2] + 0.3 * observation[0, 3] + 0.05 * observation[0, 1] > 0)]))
        step = control.receive()
        observation = step.observation
        if step.truncated[0] or step.terminated[0]:
            break
    assert steps == 500 and step.truncated[0] and not step.terminated[0]


def test_a_saved_emulator_goes_on_to_the_bit():
    game = AtariGame("breakout", PROTOCOLS["2018"])
    game.reset(5)
    actions = np.random.default_rng(5).integers(4, size=400)

    def walk(environment: AtariGame, some: np.ndarray) -> list:
        trace = []
        for action in some:
            environment.send(np.array([action]))
            step = environment.receive()
            trace.append((step.observation.tobytes(), float(step.reward[0]), bool(step.first[0])))
        return trace

    walk(game, actions[:150])
    saved = game.save()
    expected = walk(game, actions[150:])
    assert any(first for _, _, first in expected), "the random number generator of the idle frames must matter"
    other = AtariGame("breakout", PROTOCOLS["2018"])
    other.reset(99)
    other.restore(saved)
    assert walk(other, actions[150:]) == expected


def test_names_of_games():
    for name in ("Pong", "pong", "ALE/Pong-v5", "PongNoFrameskip-v4", "rom_files/pong.bin"):
        assert game_id(name) == "pong"
    assert game_id("MsPacman") == "ms_pacman" and is_atari("SpaceInvaders") and not is_atari("CartPole-v1")
    assert game_id("UpNDown") == game_id("ALE/UpNDown-v5") == "up_n_down" and game_id("TicTacToe3D") == "tic_tac_toe_3d"
    assert len(roms.get_all_rom_ids()) >= 100
    assert action_names("breakout") == ["NOOP", "FIRE", "RIGHT", "LEFT"]
    with pytest.raises(UserError, match="Did you mean breakout"):
        make("Brakeout", 1)
    for name, meant in (("ALE/Pong-ram-v5", "ALE/Pong-v5"), ("PongRam", "pong"), ("Mine/Pong-v5", "ALE/Pong-v5")):
        with pytest.raises(UserError, match=f"called {name}: neither an Atari game nor .* mean {meant}"):
            make(name, 1)
    with pytest.raises(UserError, match="no_such_module cannot be imported: ModuleNotFoundError"):
        make("no_such_module:Task-v0", 1)
    with pytest.raises(UserError, match="discrete actions"):
        make("Pendulum-v1", 1)
    with pytest.raises(UserError, match="2018, standard, baselines, sticky"):
        make("Pong", 1, protocol="2019")


class Countdown:
    """Environment i ends each episode after i + 1 steps, with a return of i + 1."""

    num_envs, num_actions, observation_shape, dtype, description = 3, 2, (1,), np.dtype(np.float32), "countdown"

    def reset(self, seed):
        self.age, self.over = np.zeros(3, int), np.zeros(3, bool)
        return np.zeros((3, 1), np.float32)

    def send(self, actions):
        self.actions = actions

    def receive(self):
        from DeepQNetwork.environments import Step

        first = self.over
        self.age = np.where(first, 0, self.age + 1)
        self.over = self.age == np.arange(3) + 1
        none = np.zeros(3, bool)
        return Step(
            self.age[:, None].astype(np.float32), self.actions, np.where(first, 0.0, 1.0), self.over, none, none, first
        )


def test_exactly_the_asked_episodes_count():
    """Seven episodes over three environments: 3, 2 and 2, although the first one could have played all seven."""
    agent = Agent("x", "mlp", False, 2, (1,), False, "float32", 1)
    scores = play(Player(agent, lambda states: np.zeros((3, 2))), Countdown(), episodes=7, seed=0)
    assert sorted(scores.returns) == [1, 1, 1, 2, 2, 3, 3] and sorted(scores.lengths) == [1, 1, 1, 2, 2, 3, 3]
    result = scores.result()
    assert (result["score"], result["minimum"], result["maximum"]) == (pytest.approx(13 / 7), 1, 3)
    assert result["deviation"] == pytest.approx(np.std([1, 1, 1, 2, 2, 3, 3]))


def test_states_start_empty():
    states = States(Agent("x", "nature", False, 2, (1, 1)), 2)
    first = np.array([True, True])
    states.push(np.full((2, 1, 1), 1, np.uint8), first)
    state = states.push(np.array([[[2]], [[3]]], np.uint8), np.array([False, True]))
    assert state[:, :, 0, 0].tolist() == [[0, 0, 1, 2], [0, 0, 0, 3]]


class Task(gymnasium.Env):
    """Twenty steps; the reward is 1 for the second action, whatever its number."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, space: spaces.Space, start: int = 0, render_mode: str | None = None):
        self.observation_space, self.action_space = space, spaces.Discrete(2, start=start)
        self.start, self.render_mode = start, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.age = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(int(action))
        self.age += 1
        return self.observation_space.sample(), float(action == self.start + 1), self.age >= 20, False, {}

    def render(self):
        return np.full((24, 32, 3), self.age, np.uint8)


NUMBERS = spaces.Box(-1, 1, (3,), np.float32)
KINDS = {
    "Vector": (NUMBERS, (3,), False),
    "Matrix": (spaces.Box(-1, 1, (7, 5), np.float64), (35,), False),
    "Integers": (spaces.Box(0, 255, (6,), np.uint8), (6,), False),
    "OneOf": (spaces.Discrete(5, start=2), (5,), False),
    "Parts": (spaces.Dict(a=NUMBERS, b=spaces.Discrete(4)), (7,), False),
    "Gray": (spaces.Box(0, 255, (84, 84, 1), np.uint8), (84, 84), True),
    "Colour": (spaces.Box(0, 255, (64, 48, 3), np.uint8), (3, 64, 48), True),
    "Planes": (spaces.Box(0, 255, (4, 50, 40), np.uint8), (4, 50, 40), True),
}


def halved(env: gymnasium.Env) -> gymnasium.Env:
    """A wrapper as users write them."""
    return gymnasium.wrappers.TransformReward(env, lambda reward: reward / 2)


for kind, (space, *_) in KINDS.items():
    gymnasium.register(f"Zoo{kind}-v0", entry_point=Task, kwargs={"space": space, "start": 3})
gymnasium.register("ZooSequence-v0", entry_point=Task, kwargs={"space": spaces.Sequence(NUMBERS)})


@pytest.mark.parametrize("kind", KINDS)
def test_any_gymnasium_task(kind):
    """Shapes and kinds of frames, actions that do not start at 0, and an end of the episode."""
    _, shape, image = KINDS[kind]
    tasks = make(f"Zoo{kind}-v0", 2)
    assert (tasks.observation_shape, tasks.image, tasks.num_actions) == (shape, image, 2)
    observation = tasks.reset(0)
    assert observation.shape == (2, *shape) and observation.dtype == tasks.dtype == ("uint8" if image else "float32")
    for step in range(1, 22):
        tasks.send(np.array([0, 1]))
        outcome = tasks.receive()
        assert outcome.reward.tolist() == ([0, 0] if step == 21 else [0, 1])
        assert outcome.terminated.all() == (step == 20) and outcome.first.all() == (step == 21)
        assert outcome.observation.shape == observation.shape
    if kind == "OneOf":
        assert (observation.sum(1) == 1).all()


def test_only_tasks_whose_state_is_known_are_saved():
    """A task of somebody else's may keep in `state` what it likes, such as an index, and more beside it."""

    class Numbered(Task):
        state = 3

    gymnasium.register("ZooNumbered-v0", entry_point=Numbered, kwargs={"space": NUMBERS}, max_episode_steps=50)
    found = {name: make(name, 1).saveable for name in ("CartPole-v1", "Acrobot-v1", "ZooNumbered-v0")}
    assert found == {"CartPole-v1": True, "Acrobot-v1": True, "ZooNumbered-v0": False}


def test_a_task_is_shown_as_asked():
    tasks = make("ZooColour-v0", 1, view=View(frame_skip=7, resize=40, wrapper=f"{__name__}:halved"))
    assert tasks.observation_shape == (3, 40, 40) and not tasks.saveable
    tasks.reset(0)
    rewards, ends = [], []
    for _ in range(3):
        tasks.send(np.array([1]))
        step = tasks.receive()
        rewards.append(float(step.reward[0]))
        ends.append(bool(step.terminated[0]))
    assert rewards == [3.5, 3.5, 3.0] and ends == [False, False, True]
    for view, message in (
        (View(wrapper=f"{__name__}:nothing"), "give it as module:callable"),
        (View(resize=20), "no images"),
    ):
        with pytest.raises(UserError, match=message):
            make("ZooVector-v0", 1, view=view)
    with pytest.raises(UserError, match="cannot be made a vector"):
        make("ZooSequence-v0", 1)


class Wrong(Task):
    """A task whose `method` returns what `change` makes of what it should."""

    def __init__(
        self, space: spaces.Space, method: str, change: Callable[[tuple], Any], render_mode: str | None = None
    ):
        super().__init__(space, render_mode=render_mode)
        original = getattr(super(), method)
        setattr(self, method, lambda *args, **options: change(original(*args, **options)))


PARTS = spaces.Dict(a=NUMBERS, b=spaces.Tuple((NUMBERS, spaces.Discrete(4))))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("limit", [None, 50])
@pytest.mark.parametrize(
    ("space", "method", "change", "message"),
    [
        (NUMBERS, "reset", lambda given: given[0], r"reset returned ndarray; .* \(observation, info\)"),
        (NUMBERS, "step", lambda given: None, "step returned NoneType; .* truncated, info"),
        (NUMBERS, "step", lambda given: given[:4], "step returned a tuple of 4; .* truncated, info"),
        (NUMBERS, "reset", lambda given: (np.zeros(5), {}), r"reset .* shape \(5,\), where it declares Box"),
        (NUMBERS, "step", lambda given: (np.zeros((3, 1)), *given[1:]), r"step .* shape \(3, 1\), where"),
        (NUMBERS, "step", lambda given: (0.0, *given[1:]), r"step .* shape \(\), where"),
        (PARTS, "step", lambda given: ({"a": np.zeros(3)}, *given[1:]), "step .* where it declares Dict"),
        (PARTS, "step", lambda given: ({**given[0], "b": None}, *given[1:]), "step .* where it declares Dict"),
        (spaces.Discrete(3), "step", lambda given: (3, *given[1:]), "step .*, 3, where it declares Discrete"),
    ],
)
def test_what_a_task_returns_is_checked(space, method, change, message, limit):
    """Whether or not a wrapper of gymnasium's, of a time limit, takes the tuples apart before we see them."""
    gymnasium.registry.pop("ZooWrong-v0", None)
    options = {"space": space, "method": method, "change": change}
    gymnasium.register("ZooWrong-v0", entry_point=Wrong, kwargs=options, max_episode_steps=limit)
    tasks = make("ZooWrong-v0", 2)
    with pytest.raises(UserError, match=f"ZooWrong-v0: its {message}"):
        tasks.reset(0)
        tasks.send(np.array([0, 1]))
        tasks.receive()


def longer(env: gymnasium.Env) -> gymnasium.Env:
    """A wrapper that forgets to declare what it shows."""
    wrapper = gymnasium.ObservationWrapper(env)
    wrapper.observation = lambda observation: np.zeros(4)
    return wrapper


def test_what_a_wrapper_returns_is_checked():
    tasks = make("ZooVector-v0", 1, view=View(wrapper=f"{__name__}:longer"))
    with pytest.raises(UserError, match=r"in --wrapper .*:longer: its reset .* shape \(4,\), where it declares Box"):
        tasks.reset(0)


def test_screens_of_any_task():
    game = make_game("ZooVector-v0", view=View(frame_skip=2))
    assert game.screens_per_second == 5
    game.keep_screens = True
    game.reset(0)
    game.send(np.array([1]))
    game.receive()
    assert [(screen.shape, screen[0, 0, 0]) for screen in game.screens] == [((24, 32, 3), 2)]


def test_a_player_remembers_frames():
    """One frame at a time or several environments side by side: the states are those of the frames since the start."""
    agent = Agent("x", "mlp", False, 2, (1,), False, "float32", 3)
    seen = []

    def q_values(states: np.ndarray) -> np.ndarray:
        seen.append(states.tolist())
        return np.stack([states[:, -1], -states[:, -1]], 1)

    player = Player(agent, q_values)
    assert [player.act(np.array([value])) for value in (1.0, -2.0)] == [0, 1]
    player.begin()
    assert player.act(np.array([[5.0], [-6.0]])).tolist() == [0, 1]
    player.act(np.array([[7.0], [8.0]]), np.array([False, True]))
    assert seen == [[[0, 0, 1]], [[0, 1, -2]], [[0, 0, 5], [0, 0, -6]], [[0, 5, 7], [0, 0, 8]]]
