"""Deep Q networks: learn a game from captured Programs on a GPU, and measure the loop against a PyTorch one.

python benchmarks/DeepQNetwork.py capture --target graphs       with Paddle: the Programs as plain data, a folder a recipe
python benchmarks/DeepQNetwork.py learn --graphs graphs --output learnt    without Paddle: train, evaluate, record a game
python benchmarks/DeepQNetwork.py compare --graphs graphs       without Paddle: end to end against PyTorch, same replay ratio
python benchmarks/DeepQNetwork.py update                        updates of Nature's network on this CPU: engines and PyTorch

`learn` needs jax, ale-py, gymnasium, opencv, safetensors, rich, tyro, tensorboardX and matplotlib; `compare` and `update`
need torch as well.
"""

import argparse
import json
import platform
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

from DeepQNetwork import environments
from DeepQNetwork.agent import TASK, Agent
from DeepQNetwork.episodes import Player, play
from DeepQNetwork.loop import Learner
from DeepQNetwork.recipe import Recipe, fill
from fluid import programs as programs_in_files
from fluid.checkpoint import find_best
from fluid.checkpoint import load as load_checkpoint
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
    from DeepQNetwork.pictures import write_video
    from DeepQNetwork.train import Flags, main
    from DeepQNetwork.watch import Recorder, watch

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
    engine.load(policy)
    testing = environments.make(recipe.env, arguments.test_episodes, protocol=recipe.protocol)

    def q_function(states: np.ndarray) -> np.ndarray:
        return np.asarray(engine.run(programs["act"], {"state": states})["q_values"])

    # Other games than those that chose the weights.
    player = Player(agent, q_function, epsilon=0.01)
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
        **machine(engine.device),
    }
    write_json(output / "result.json", result)
    print(f"final: {final}\n{json.dumps(result, indent=1)}", flush=True)
    game = environments.make_game(agent.env, protocol=agent.protocol)
    recorder = Recorder(15, game.screens_per_second)
    watch(player, game, episodes=1, seed=arguments.seed, recorder=recorder, max_seconds=40)
    write_video(output / f"{arguments.recipe}.gif", recorder.frames, 15)
    write_video(output / f"{arguments.recipe}.mp4", recorder.frames, 15)


def compare(arguments: argparse.Namespace) -> None:
    """Each contestant in a process of its own, in turn; prints the table and the ratios."""
    loops = [(name, size) for size in (64, 16, 1) for name in ("zoo", "torch", "torch_graph")]
    updates = [(f"{name}_update", size) for size in (16, 1) for name in ("zoo", "torch", "torch_graph")]
    results = []
    for name, size in [*loops, *updates]:
        words = [sys.executable, __file__, "one", name, str(size), "--graphs", str(arguments.graphs)]
        words += ["--seconds", str(arguments.seconds), "--device", arguments.device, "--precision", arguments.precision]
        done = subprocess.run(words, capture_output=True, text=True)
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            print(f"{name} {size} failed:\n{done.stderr[-3000:]}", flush=True)
            continue
        results.append(json.loads(lines[-1]))
        print(json.dumps(results[-1]), flush=True)
        if arguments.json:
            write_json(arguments.json, {"rows": results, **machine(arguments.device)})
    rates = {(row["name"], row["size"]): row["updates_per_second"] for row in results}
    for (name, size), rate in rates.items():
        ours = rates.get((name.replace("torch_graph", "zoo").replace("torch", "zoo"), size))
        if name.startswith("torch") and ours is not None:
            print(f"ours / {name}, {size}: {ours / rate:.2f}")


def one(arguments: argparse.Namespace) -> None:
    """A single measurement, for the processes that `compare` starts."""
    measure = {"zoo": zoo_loop, "zoo_update": zoo_update, "torch": torch_loop, "torch_update": torch_update}
    result = measure[arguments.name.replace("_graph", "")](arguments)
    print(json.dumps({"name": arguments.name, "size": arguments.size, **result}))


def zoo_loop(arguments: argparse.Namespace) -> dict[str, float]:
    """Acting, emulators, replay and updates of the recipe `plain`."""
    programs, state, agent, recipe = restore(arguments.graphs / "plain")
    recipe = replace(recipe, num_envs=arguments.size, updates_per_call=None, groups=2 if arguments.size > 4 else 1)
    recipe = replace(recipe, **fill(recipe))
    engine = create(arguments.device, arguments.precision, 0)
    engine.load(state)
    size = recipe.num_envs // recipe.groups
    groups = [environments.make(recipe.env, size, protocol=recipe.protocol) for _ in range(recipe.groups)]
    learner = Learner(engine, programs, agent, recipe, groups, total_steps=10**7, seed=0, on_device=True)
    while learner.updates < 10 * learner.updates_per_call:
        learner.round()

    def rounds() -> None:
        learner.round()
        if len(learner.outputs) > 50:
            learner.outputs.take_means()

    rates = windows(arguments.seconds, rounds, lambda: (learner.step, learner.updates))
    return {**rates, "batch_size": recipe.batch_size, "update_every": recipe.update_every}


def zoo_update(arguments: argparse.Namespace) -> dict[str, float]:
    """The training Program of `plain` alone, `size` updates a call, on random frames in the memory on the device."""
    programs, state, agent, recipe = restore(arguments.graphs / "plain")
    engine = create(arguments.device, arguments.precision, 0)
    random = np.random.default_rng(0)
    rows = recipe.mem_size // recipe.num_envs * recipe.num_envs + 1
    engine.load({**state, "replay_frames": random.integers(0, 256, (rows, 84, 84), np.uint8)})
    batch, count = recipe.batch_size, 0

    def feed() -> dict[str, np.ndarray]:
        return {
            "state_rows": random.integers(rows, size=(batch, 4)).astype(np.int32),
            "next_rows": random.integers(rows, size=(batch, 4)).astype(np.int32),
            "action": random.integers(agent.num_actions, size=batch).astype(np.int32),
            "reward": random.normal(size=batch).astype(np.float32),
            "discount": np.full(batch, 0.99, np.float32),
            "weight": np.ones(batch, np.float32),
        }

    feeds = [feed() for _ in range(arguments.size)]
    stacked = {name: np.stack([one[name] for one in feeds]) for name in feeds[0]}

    def call() -> None:
        nonlocal count
        outputs = [engine.run_many(programs["train"], stacked, step=count, fetch=["loss"]) for _ in range(20)]
        np.asarray(outputs[-1]["loss"])
        count += 20 * arguments.size

    call()
    return windows(min(arguments.seconds, 10), call, lambda: (0, count))


def torch_loop(arguments: argparse.Namespace) -> dict[str, float]:
    """The same environments and replay ratio: steps of `size` environments, then size / 4 updates of 32 on memory there."""
    from torch_dqn import TorchDqn, TorchMemory

    count, device = arguments.size, torch_device(arguments)
    environment = environments.make("Pong", count, protocol="standard")
    learner = TorchDqn(environment.num_actions, device, graph="graph" in arguments.name)
    memory = TorchMemory(20_000 // count, count, device)
    random = np.random.default_rng(0)
    stacked = np.zeros((count, 4, 84, 84), np.uint8)
    stacked[:, -1] = environment.reset(0)
    steps, a_call = 0, max(count // 4, 1)

    def round_() -> None:
        nonlocal steps
        chosen = np.where(
            random.random(count) < 0.5, random.integers(environment.num_actions, size=count), learner.act(stacked)
        )
        environment.send(chosen)
        before = stacked.copy()
        step = environment.receive()
        memory.add(before, chosen, np.clip(step.reward, -1, 1), step.terminated.astype(np.float32))
        stacked[step.first] = 0
        stacked[:, :-1] = stacked[:, 1:]
        stacked[:, -1] = step.observation
        steps += count
        while learner.updates + a_call <= (steps - 5_000) // 4:
            learner.update(memory.sample(a_call, 32))

    while learner.updates < 10 * a_call:
        round_()
    return windows(arguments.seconds, round_, lambda: (steps, learner.updates))


def torch_update(arguments: argparse.Namespace) -> dict[str, float]:
    """Calls of `size` compiled updates alone, their batches on the device already."""
    import torch
    from torch_dqn import TorchDqn

    device = torch_device(arguments)
    learner = TorchDqn(6, device, graph="graph" in arguments.name)
    random, shape = np.random.default_rng(0), (arguments.size, 32)
    images = [torch.as_tensor(random.integers(0, 256, (*shape, 4, 84, 84), np.uint8)).to(device) for _ in range(2)]
    action = torch.as_tensor(random.integers(6, size=shape)).to(device)
    reward = torch.as_tensor(random.normal(size=shape).astype(np.float32)).to(device)
    batches = (images[0], action, reward, images[1], torch.full(shape, 0.99, device=device))

    def calls() -> None:
        for _ in range(20):
            loss = learner.update(batches)
        loss.item()

    calls()
    return windows(min(arguments.seconds, 10), calls, lambda: (0, learner.updates))


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
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        rows["torch"] = float(done.stdout.strip().splitlines()[-1])
        print(
            f"torch: {1e3 * rows['torch']:.1f} ms; ours / PyTorch {rows['torch'] / min(rows['xla'], rows['paddle']):.2f}"
        )
    if arguments.json:
        write_json(arguments.json, {"seconds_an_update": rows, "batch_size": 32, **machine("cpu")})


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


def machine(device: str) -> dict[str, Any]:
    """Hardware and versions for the results."""
    import importlib.metadata as metadata

    packages = ("jax", "torch", "paddlepaddle", "ale-py", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"device": device, "platform": platform.platform(), "versions": versions, "date": time.strftime("%Y-%m-%d")}


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


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
    on_compare.add_argument("--json", type=Path)
    on_one = commands.add_parser("one")
    on_one.add_argument("name", help="zoo, torch or torch_graph, for updates alone with _update")
    on_one.add_argument("size", type=int, help="environments, or updates a call")
    for command in (on_learn, on_compare, on_one):
        command.add_argument("--graphs", type=Path, required=True, help="folder written by capture")
        command.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
        command.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="tf32")
    for command in (on_compare, on_one):
        command.add_argument("--seconds", type=float, default=20.0)
    for command in (on_capture, on_learn):
        command.add_argument("--seed", type=int, default=0)
    on_update = commands.add_parser("update")
    on_update.add_argument("--torch_python", help="interpreter of an environment with torch")
    on_update.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    globals()[arguments.command](arguments)


if __name__ == "__main__":
    main()
