"""Deep Q networks: learn a game from captured Programs on a GPU, and measure the loop against a PyTorch one.

python benchmarks/DeepQNetwork.py capture --target graphs       with Paddle: the Programs as plain data, a folder a recipe
python benchmarks/DeepQNetwork.py learn --graphs graphs --output learnt    without Paddle: train, evaluate, record a game
python benchmarks/DeepQNetwork.py compare --graphs graphs       without Paddle: end to end and updates alone, against PyTorch
python benchmarks/DeepQNetwork.py update                        updates of Nature's network on this CPU: engines and PyTorch

`learn` needs jax, ale-py, gymnasium, opencv, safetensors, rich, tyro, tensorboardX and matplotlib; `compare` and `update`
need torch as well.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import add_json, save, versions
from DeepQNetwork import environments
from DeepQNetwork.agent import TASK, Agent
from DeepQNetwork.episodes import Player, play
from DeepQNetwork.learner import Learner
from DeepQNetwork.recipe import Recipe, fill
from fluid import programs as programs_in_files
from fluid.checkpoint import find_best
from fluid.checkpoint import load as load_checkpoint
from fluid.engine import Engine
from fluid.engine.xla import create
from fluid.interface import Interface

import numpy as np
from safetensors.numpy import save_file

RECIPES = {
    "pong": Recipe(
        env="Pong",
        lr=1.5e-4,
        batch_size=64,
        mem_size=500_000,
        learning_starts=10_000,
        update_every=2,
        sync_every=1_000,
        epsilon_steps=100_000,
        num_envs=32,
    ),
    "breakout": Recipe(
        env="Breakout",
        protocol="baselines",
        alg="C51",
        n_step=1,
        lr=2.5e-4,
        adam_epsilon=3.125e-4,
        batch_size=32,
        mem_size=1_000_000,
        learning_starts=80_000,
        update_every=4,
        sync_every=2_500,
        epsilon_steps=920_000,
        num_envs=256,
        groups=2,
        lr_steps=10_000_000,
    ),
    # What CleanRL's dqn_atari.py does: plain DQN, batches of 32, an update every 4 steps.
    "plain": Recipe(
        env="Pong",
        alg="DQN",
        n_step=1,
        loss="mse",
        lr=1e-4,
        adam_epsilon=1e-8,
        batch_size=32,
        mem_size=200_000,
        learning_starts=5_000,
        update_every=4,
        sync_every=250,
        epsilon_steps=1_000_000,
        num_envs=64,
    ),
}
"""Filled from the preset `atari` where they say nothing."""
ENVIRONMENTS, UPDATES_A_CALL = (64, 16, 1), (16, 1)
"""What `compare` measures on both sides."""


def capture(arguments: argparse.Namespace) -> None:
    """Write the Programs of each recipe to a folder of its own."""
    from DeepQNetwork.train import Flags, main

    for name, recipe in RECIPES.items():
        folder = arguments.target / name
        main(Flags(**asdict(recipe), seed=arguments.seed, capture=folder))
        print(f"{folder}: {sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f} MB")


def restore(folder: Path) -> tuple[dict[str, Interface], dict[str, np.ndarray], Agent, Recipe]:
    """What `capture` wrote for one recipe; `train` has the memory on the device."""
    captured = programs_in_files.read(folder, task=TASK)
    recipe = Recipe(**{item.name: captured.settings[item.name] for item in fields(Recipe)})
    programs = {**captured.programs, "train": captured.programs["train_on_device"]}
    return programs, captured.initial_state(), Agent.from_facts(captured.facts["agent"]), recipe


def learn(arguments: argparse.Namespace) -> None:
    """Train a recipe from its captured Programs, then evaluate the best weights, export them and record a game."""
    from DeepQNetwork.train import Flags, main

    began = time.perf_counter()
    programs, _, agent, recipe = restore(arguments.graphs / arguments.recipe)
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    folder = arguments.work or output / "run"
    names = ("seed", "device", "precision", "log_every", "eval_every", "max_steps", "max_minutes", "target_score")
    outcome = main(
        Flags(
            programs=arguments.graphs / arguments.recipe,
            output_dir=folder,
            memory_device="device",
            test_episodes=arguments.test_episodes,
            keep_checkpoints=1,
            **{name: getattr(arguments, name) for name in names},
        )
    )
    trained = time.perf_counter() - began
    best, _ = load_checkpoint(find_best(folder), task=TASK)
    policy = {name: best[name] for name in programs["act"].state_names}
    save_file(policy, output / f"{arguments.recipe}.safetensors")
    for name in ("log.jsonl", "train.log", "curves.png"):
        shutil.copy(folder / name, output / name)
    engine = create(arguments.device, arguments.precision, arguments.seed)
    player = player_of(engine, programs["act"], policy, agent)
    testing = environments.make(recipe.env, arguments.test_episodes, protocol=recipe.protocol)
    # Other games than those that chose the weights.
    final = play(player, testing, episodes=arguments.final_episodes, seed=arguments.seed + 15_485_863)
    result = {
        "recipe": arguments.recipe,
        "protocol": str(environments.PROTOCOLS[recipe.protocol]),
        "final": {**final.result(), "epsilon": final.epsilon},
        "best_of_training": {"score": outcome.best, "step": outcome.best_step},
        "training_seconds": outcome.seconds,
        "seconds_with_compilation": trained,
        "steps": outcome.step,
        "updates": outcome.updates,
        "frames_per_second": outcome.steps_per_second * environments.FRAME_SKIP,
        "updates_per_second": outcome.updates_per_second,
        "seed": arguments.seed,
        "precision": arguments.precision,
        "device": engine.device,
    }
    save(output / "result.json", versions=installed(), **result)
    print(f"final: {final}\n{json.dumps(result, indent=1)}", flush=True)
    record_game(player, output / arguments.recipe, arguments.seed)


def player_of(engine: Engine, act: Interface, policy: dict[str, np.ndarray], agent: Agent) -> Player:
    """What plays by the weights `policy`."""
    engine.load(policy)

    def q_function(states: np.ndarray) -> np.ndarray:
        return np.asarray(engine.run(act, {"state": states})["q_values"])

    return Player(agent, q_function, epsilon=0.01)


def record_game(player: Player, path: Path, seed: int) -> None:
    """The first 40 seconds of a game, as PATH.gif and PATH.mp4."""
    from DeepQNetwork.video import recording
    from DeepQNetwork.watch import watch

    game = environments.make_game(player.agent.env, protocol=player.agent.protocol)
    for suffix in (".gif", ".mp4"):
        with recording(path.with_suffix(suffix), 15, game.screens_per_second) as recorder:
            watch(player, game, episodes=1, seed=seed, recorder=recorder, max_seconds=40)


def compare(arguments: argparse.Namespace) -> None:
    """Each side in a process of its own, one after the other; prints its rows as they come and then the ratios.

    Raises SystemExit at the end if a side failed.
    """
    results: list[dict[str, Any]] = []
    failed = []
    for side in arguments.sides:
        words = [sys.executable, __file__, "side", side, "--graphs", str(arguments.graphs)]
        words += ["--seconds", str(arguments.seconds), "--device", arguments.device, "--precision", arguments.precision]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                results.append(json.loads(line))
                print(line, end="", flush=True)
                save(arguments.json, device=arguments.device, versions=installed(), rows=results)
        if process.returncode:
            failed.append(f"{side} (exit status {process.returncode})")
    rates = {(row["name"], row["size"]): row["updates_per_second"] for row in results}
    for (name, size), rate in rates.items():
        ours = rates.get((name.replace("torch_graph", "zoo").replace("torch", "zoo"), size))
        if name.startswith("torch") and ours is not None:
            print(f"ours / {name}, {size}: {ours / rate:.2f}")
    if failed:
        raise SystemExit(f"error: not measured, see above: {', '.join(failed)}")


def side(arguments: argparse.Namespace) -> None:
    """All measurements of one side, for the processes that `compare` starts."""
    rows = zoo_rows(arguments) if arguments.name == "zoo" else torch_rows(arguments)
    for name, size, work, counters in rows:
        result = windows(arguments.seconds, work, counters)
        print(json.dumps({"name": name, "size": size, "batch_size": 32, **result}), flush=True)


Row = tuple[str, int, Callable[[], None], Callable[[], tuple[int, int]]]
"""Name, environments or updates a call, what is measured and its counters of steps and updates; warmed up."""
LEARNING_STARTS = 1_000


def zoo_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """Acting, emulators, replay and updates of the recipe `plain`; then its updates alone, `size` a call.

    These are of random frames in the memory on the device.
    """
    programs, state, agent, recipe = restore(arguments.graphs / "plain")
    engine = create(arguments.device, arguments.precision, 0)
    for count in ENVIRONMENTS:
        changes = {"num_envs": count, "groups": 2 if count > 4 else 1, "learning_starts": LEARNING_STARTS}
        own = replace(recipe, updates_per_call=None, **changes)
        own = replace(own, **fill(own))
        groups = [environments.make(own.env, count // own.groups, protocol=own.protocol) for _ in range(own.groups)]
        engine.load(state)
        learner = Learner(engine, programs, agent, own, groups, total_steps=10**7, seed=0, on_device=True)
        while learner.updates < 10 * learner.updates_per_call:
            learner.round()

        def rounds(learner: Learner = learner) -> None:
            learner.round()
            if len(learner.outputs) > 50:
                learner.outputs.take_means()

        yield "zoo", count, rounds, lambda learner=learner: (learner.step, learner.updates)
        for group in learner.groups:
            if group.running:
                group.environment.receive()
            group.environment.close()

    random, updates = np.random.default_rng(0), 0
    rows = recipe.mem_size // recipe.num_envs * recipe.num_envs + 1
    engine.load({**state, "replay_frames": random.integers(0, 256, (rows, *agent.observation_shape), np.uint8)})
    for count in UPDATES_A_CALL:
        shape = (count, recipe.batch_size)
        feed = {
            "state_rows": random.integers(rows, size=(*shape, 4)).astype(np.int32),
            "next_rows": random.integers(rows, size=(*shape, 4)).astype(np.int32),
            "action": random.integers(agent.num_actions, size=shape).astype(np.int32),
            "reward": random.normal(size=shape).astype(np.float32),
            "discount": np.full(shape, 0.99, np.float32),
            "weight": np.ones(shape, np.float32),
        }

        def calls(feed: dict[str, np.ndarray] = feed, count: int = count) -> None:
            nonlocal updates
            outputs = [engine.run_many(programs["train"], feed, step=updates, fetch=["loss"]) for _ in range(20)]
            np.asarray(outputs[-1]["loss"])
            updates += 20 * count

        calls()
        yield "zoo_update", count, calls, lambda: (0, updates)


def torch_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """The same in PyTorch, compiled: each call of updates in one CUDA graph (`torch_graph`), and launched one by one.

    The loop has the same environments, memory on the device and replay ratio, and updates while the emulators run, too.
    """
    from benchmarks.torch_dqn import TorchDqn

    device = torch_device(arguments)
    kinds = ("torch_graph", "torch") if device == "cuda" else ("torch",)
    vectors = [environments.make("Pong", count, protocol="standard") for count in ENVIRONMENTS]
    for name in kinds:
        for environment in vectors:
            learner = TorchDqn(environment.num_actions, device, graph=name == "torch_graph")
            yield torch_loop(name, environment, learner)
        for count in UPDATES_A_CALL:
            yield torch_update(name, count, TorchDqn(6, device, graph=name == "torch_graph"))


def torch_loop(name: str, environment: environments.Environment, learner: Any) -> Row:
    """Steps of all environments, a quarter as many updates of 32 meanwhile."""
    from benchmarks.torch_dqn import TorchMemory

    count, random = environment.num_envs, np.random.default_rng(0)
    memory = TorchMemory(20_000 // count, count, learner.device)
    stacked = np.zeros((count, 4, 84, 84), np.uint8)
    stacked[:, -1] = environment.reset(0)
    steps, a_call = 0, max(count // 4, 1)

    def round_() -> None:
        nonlocal steps
        chosen = np.where(
            random.random(count) < 0.5, random.integers(environment.num_actions, size=count), learner.act(stacked)
        )
        environment.send(chosen)
        while learner.updates + a_call <= (steps - LEARNING_STARTS) // 4:
            learner.update(memory.sample(a_call, 32))
        before = stacked.copy()
        step = environment.receive()
        memory.add(before, chosen, np.clip(step.reward, -1, 1), step.terminated.astype(np.float32))
        stacked[step.first] = 0
        stacked[:, :-1] = stacked[:, 1:]
        stacked[:, -1] = step.observation
        steps += count

    while learner.updates < 10 * a_call:
        round_()
    return name, count, round_, lambda: (steps, learner.updates)


def torch_update(name: str, count: int, learner: Any) -> Row:
    """Calls of `count` updates alone, their batches on the device already."""
    import torch

    random, shape, device = np.random.default_rng(0), (count, 32), learner.device
    images = [torch.as_tensor(random.integers(0, 256, (*shape, 4, 84, 84), np.uint8)).to(device) for _ in range(2)]
    action = torch.as_tensor(random.integers(6, size=shape)).to(device)
    reward = torch.as_tensor(random.normal(size=shape).astype(np.float32)).to(device)
    batches = (images[0], action, reward, images[1], torch.full(shape, 0.99, device=device))

    def calls() -> None:
        for _ in range(20):
            loss = learner.update(batches)
        loss.item()

    calls()
    return f"{name}_update", count, calls, lambda: (0, learner.updates)


def torch_device(arguments: argparse.Namespace) -> str:
    """`cuda` if there is one and it is asked for."""
    import torch

    return "cuda" if arguments.device in ("gpu", "auto") and torch.cuda.is_available() else "cpu"


def update(arguments: argparse.Namespace) -> None:
    """One update of Nature's network at batch 32 on this CPU: both engines here, PyTorch in its own interpreter."""
    rows = {}
    for name in ("xla", "paddle"):
        rows[name] = statistics.median(cpu_updates(name))
        print(f"{name}: {1e3 * rows[name]:.1f} ms", flush=True)
    if arguments.torch_python:
        words = [arguments.torch_python, str(Path(__file__).parent / "torch_dqn.py")]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        rows["torch"] = float(done.stdout.strip().splitlines()[-1])
        print(
            f"torch: {1e3 * rows['torch']:.1f} ms; ours / PyTorch {rows['torch'] / min(rows['xla'], rows['paddle']):.2f}"
        )
    save(arguments.json, device="cpu", versions=installed(), seconds_an_update=rows, batch_size=32)


def cpu_updates(name: str) -> Iterator[float]:
    """Seconds of an update, 10 times over four in a call as training makes them, after a warm-up."""
    from DeepQNetwork.train import build_programs, initial_state
    from fluid import engine as engines

    agent = Agent("Pong", "nature", False, 6)
    recipe = replace(RECIPES["plain"], **fill(RECIPES["plain"]))
    programs = build_programs(recipe, agent, on_device=False)
    engine, _ = engines.create(name, "cpu")
    engine.load(initial_state(programs["train"], seed=0))
    random = np.random.default_rng(0)
    feed = {name: random.integers(0, 256, (32, 4, 84, 84), np.uint8) for name in ("state", "next_state")}
    feed["action"] = random.integers(6, size=32).astype(np.int32)
    feed |= {"reward": random.normal(size=32).astype(np.float32), "weight": np.ones(32, np.float32)}
    feed["discount"] = np.full(32, 0.99, np.float32)
    for index in range(12):
        began = time.perf_counter()
        np.asarray(engine.run_many(programs["train"], [feed] * 4, step=4 * index, fetch=["loss"])["loss"])
        if index >= 2:
            yield (time.perf_counter() - began) / 4


def windows(seconds: float, work: Callable[[], None], counters: Callable[[], tuple[int, int]]) -> dict[str, float]:
    """Rates of `work`: the median of five windows of seconds / 5, and their spread."""
    rates = []
    for _ in range(5):
        began, before = time.perf_counter(), counters()
        while time.perf_counter() - began < seconds / 5:
            work()
        passed, after = time.perf_counter() - began, counters()
        rates.append([(new - old) / passed for new, old in zip(after, before)])
    steps, updates = zip(*rates)
    return {
        "frames_per_second": statistics.median(steps) * environments.FRAME_SKIP,
        "updates_per_second": statistics.median(updates),
        "updates_per_second_lowest": min(updates),
        "updates_per_second_highest": max(updates),
    }


def installed() -> dict[str, str]:
    """Versions for the results."""
    return versions("jax", "torch", "paddlepaddle", "ale-py", "numpy")


def main() -> None:
    """Read the command line and run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    on_capture = commands.add_parser("capture")
    on_capture.add_argument("--target", type=Path, required=True)
    on_learn = commands.add_parser("learn")
    on_learn.add_argument("--recipe", choices=["pong", "breakout"], default="pong")
    on_learn.add_argument("--output", type=Path, required=True, help="results: weights, curve data, game")
    on_learn.add_argument("--work", type=Path, help="folder of the run; by default OUTPUT/run")
    on_learn.add_argument("--max_minutes", type=float, default=6.0)
    on_learn.add_argument("--max_steps", type=int, default=3_000_000)
    on_learn.add_argument("--target_score", type=float)
    on_learn.add_argument("--eval_every", type=int, default=100_000)
    on_learn.add_argument("--log_every", type=int, default=20_000)
    on_learn.add_argument("--test_episodes", type=int, default=10)
    on_learn.add_argument("--final_episodes", type=int, default=30)
    on_compare = commands.add_parser("compare")
    add_json(on_compare)
    on_compare.add_argument("--sides", nargs="+", choices=["zoo", "torch"], default=["zoo", "torch"])
    on_side = commands.add_parser("side")
    on_side.add_argument("name", choices=["zoo", "torch"])
    for command in (on_learn, on_compare, on_side):
        command.add_argument("--graphs", type=Path, required=True, help="folder written by capture")
        command.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
        command.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="tf32")
    for command in (on_compare, on_side):
        command.add_argument("--seconds", type=float, default=20.0)
    for command in (on_capture, on_learn):
        command.add_argument("--seed", type=int, default=0)
    on_update = commands.add_parser("update")
    on_update.add_argument("--torch_python", help="interpreter of an environment with torch")
    add_json(on_update)
    arguments = parser.parse_args()
    globals()[arguments.command](arguments)


if __name__ == "__main__":
    main()
