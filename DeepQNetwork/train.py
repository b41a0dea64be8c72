"""Train a deep Q network (Mnih et al., Nature 518, 2015).

python train.py                              CartPole-v1, a minute on a CPU
python train.py --env Pong                   Atari with Nature's network, double, dueling, 3-step returns
python train.py --env Pong --preset 2018     the network and settings of 2018
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepQNetwork import environments, pictures
from DeepQNetwork.agent import TASK, Agent, AgentFlags, with_equal_networks
from DeepQNetwork.environments import Environment, is_atari
from DeepQNetwork.episodes import Player, play
from DeepQNetwork.learner import REPLAY_PREFIX, Learner
from DeepQNetwork.loop import Outcome, benchmark, profile, train
from DeepQNetwork.opening import open_agent
from DeepQNetwork.recipe import Recipe, fill, learning_rate, returns_of, view_of
from DeepQNetwork.video import recording
from DeepQNetwork.watch import watch
from fluid import config as configuration
from fluid.config import Count, Number, Seed, Share, TrainFlags, Workers, changed
from fluid.engine import Engine
from fluid.errors import UserError
from fluid.interface import Interface
from fluid.keeper import Evaluation
from fluid.pictures import draw_curves
from fluid.run import OUTPUT, Run, console, events, script, show_summary
from fluid.session import Session, settle
from fluid.signals import leave_if_stopped
from fluid.text import number_of
from fluid.weights import Report, load_into

import numpy as np


@dataclass
class Flags(Recipe, TrainFlags):
    """Train a deep Q network. Steps are agent steps: one action in one environment, 4 emulator frames in Atari."""

    max_steps: Count | None = None
    """Length of the run in steps; by default 10,000,000 for Atari, 50,000 otherwise."""
    target_score: Number | None = None
    """Stop when an evaluation reaches this mean; by default 490 for CartPole-v1, none otherwise."""
    pretrained_model: str | None = None
    """Weights: those to start from, a name such as breakout_2018, a checkpoint, or weights of any format."""
    seeds: tuple[Seed, ...] = ()
    """Train with each of these seeds, one after the other, in OUTPUT/seed_N, and draw all of them together."""
    benchmark: bool = False
    """Measure instead of training: the loop, the environments alone and the updates alone."""
    save_replay: bool = False
    """Keep the replay memory and, of one Atari game or of CartPole and its kin, the environment in checkpoints: such a run
    resumes to the same bits."""
    log_every: Count | None = None
    """Steps between log lines; by default 1/50 of max_steps, at most 10,000."""
    save_every: Count | None = None
    """Steps between checkpoints; by default only evaluations save one."""
    eval_every: Count | None = None
    """Steps between evaluations; by default 100,000 for Atari as in 2018, 2,500 otherwise."""
    test_episodes: Count | None = None
    """Whole episodes to play; by default 10 for Atari, 20 otherwise."""
    test_epsilon: Share = 0.01
    """Share of random actions where nothing is learned."""
    capture_every: Count | None = None
    """Steps between recordings of one episode, at most 60 seconds of it, in OUTPUT/videos; by default none."""
    num_workers: Workers = 0
    """Workers: threads of the Atari emulators; 0: one a processor."""


ALIASES = {
    "rom": "env",
    "model_dirname": "output_dir",
    "test_every_steps": "eval_every",
    "learning_rate": "lr",
}

EVALUATION_SEED = 7919
"""Added to --seed for the games of evaluations."""
VIDEO_SECONDS, VIDEO_FRAMES_PER_SECOND = 60, 30
"""Of what --capture_every records."""
AGENT_FLAGS = (
    *("env", "network", "dueling", "protocol", "preset", "alg", "stack", "frame_skip", "resize", "wrapper"),
    *("atoms", "v_min", "v_max"),
)
"""Flags that make another agent of a run."""
FREE = ("test_episodes", "test_epsilon", "target_score", "save_replay", "capture_every")
"""Flags that Programs from files were not built with."""


def main(flags: Flags) -> Outcome | list[Outcome]:
    """Train as `flags` say; returns how the run ended, or each of several."""
    return train_seeds(flags) if flags.seeds else train_one(flags)


def train_seeds(flags: Flags) -> list[Outcome]:
    """A run for each seed; one that --checkpoint, a folder of such runs, holds goes on. Ends with a table and a band."""
    if flags.benchmark or flags.profile or flags.capture:
        raise UserError("--seeds trains; give --seed for --benchmark, --profile and --capture")
    if len(set(flags.seeds)) < len(flags.seeds):
        raise UserError(f"--seeds {' '.join(map(str, flags.seeds))}: each seed has a folder of its own; name it once")
    folder = flags.checkpoint or flags.output_dir or OUTPUT
    outcomes, scores = [], {}
    for seed in flags.seeds:
        own = folder / f"seed_{seed}"
        resumed = own if flags.checkpoint is not None and own.exists() else None
        one = {"seeds": (), "seed": seed, "output_dir": own, "checkpoint": resumed}
        outcomes.append(train_one(changed(flags, one)))
        scores[seed] = {row["step"]: row["score"] for row in events(own, "eval")}
    rows = {
        f"seed {seed}": f"best {max(own.values()):.1f}, last {[*own.values()][-1]:.1f}" for seed, own in scores.items()
    }
    bests = np.array([max(own.values()) for own in scores.values()])
    rows["best, all seeds"] = f"median {np.median(bests):.1f} ({bests.min():.1f} to {bests.max():.1f})"
    show_summary(f"{flags.env}, evaluations of {number_of(len(scores), 'seed')}", rows)
    console.print(f"curves: {pictures.draw_band(folder / 'seeds.png', scores, title=flags.env)}")
    return outcomes


def train_one(flags: Flags) -> Outcome:
    """One run."""
    settled = settle(flags, TASK, free=FREE)
    settled.flags = flags = complete(settled.flags)
    settled.refuse_changes(*AGENT_FLAGS)
    with environments_of(flags) as (groups, testing):
        agent = describe(flags, testing)
        engine = settled.start_engine(None, one_machine=True)
        on_device = flags.memory_device == "device" or (flags.memory_device == "auto" and engine.on_gpu)
        programs = settled.programs(lambda: build_programs(flags, agent, on_device, flags.capture is not None))
        with settled.open(
            initial=lambda: initial_state(programs["train"], flags.seed),
            facts={"agent": agent.to_facts()},
            load=(lambda state: start_from(flags, state, programs["act"])) if flags.pretrained_model else None,
            beside=REPLAY_PREFIX,
        ) as session:
            if session.capture():
                return Outcome(step=0, nothing_left=True)
            learner = open_learner(session, flags, agent, groups, on_device)
            announce(session.run, flags, agent, learner, session.update)
            if flags.profile:
                session.run.say(profile(session.run, learner))
                return Outcome(step=0, nothing_left=True)
            if flags.benchmark:
                for name, value in benchmark(session.run, learner).items():
                    session.run.say(f"{name:>24} {value:,.0f} a second")
                return Outcome(step=0, nothing_left=True)
            player = player_of(flags, engine, programs["act"], agent)
            outcome = train(
                session,
                learner,
                lambda: play(player, testing, episodes=flags.test_episodes, seed=flags.seed + EVALUATION_SEED),
                beside=recordings(flags, session.run, learner, player),
                target_score=flags.target_score,
                save_replay=flags.save_replay,
            )
            if not outcome.nothing_left:
                finish(session.run, outcome, agent)
    return outcome


def complete(flags: Flags) -> Flags:
    """The flags with every open one filled; raises UserError for what does not fit together."""
    atari = is_atari(flags.env)
    flags = changed(flags, fill(flags))
    cartpole = flags.env.startswith("CartPole")
    steps = flags.max_steps or (10_000_000 if atari else 50_000)
    eval_every = flags.eval_every or min(100_000 if atari else 2_500, steps)
    needed = max(flags.learning_starts, flags.num_envs * (flags.stack + flags.n_step + 1))
    if flags.mem_size // flags.num_envs * flags.num_envs < needed:
        raise UserError(
            f"--mem_size {flags.mem_size} is too small for --learning_starts {flags.learning_starts} with {flags.num_envs} "
            f"environments: it never holds the {needed} frames that learning starts with"
        )
    own = {
        "max_steps": steps,
        "log_every": flags.log_every or max(min(steps // 50, 10_000), 1),
        "eval_every": eval_every,
        "save_every": flags.save_every or steps + 1,
        "test_episodes": flags.test_episodes or (10 if atari else 20),
        "target_score": 490.0 if flags.target_score is None and cartpole else flags.target_score,
    }
    return changed(flags, own)


@contextmanager
def environments_of(flags: Flags) -> Iterator[tuple[list[Environment], Environment]]:
    """Those to learn in, by groups, and those to be measured in."""
    exact = flags.num_envs == 1 and is_atari(flags.env)
    options = {"protocol": flags.protocol, "view": view_of(flags), "threads": flags.num_workers}
    with ExitStack() as stack:

        def opened(count: int, saveable: bool = False) -> Environment:
            environment = environments.make(flags.env, count, saveable=saveable, **options)
            return stack.enter_context(closing(environment))

        groups = [opened(flags.num_envs // flags.groups, exact) for _ in range(flags.groups)]
        yield groups, opened(min(flags.test_episodes, 16))


def describe(flags: Flags, environment: environments.Environment) -> Agent:
    """The agent that the flags describe."""
    return Agent(
        env=flags.env,
        network=flags.network,
        dueling=flags.dueling,
        num_actions=environment.num_actions,
        observation_shape=environment.observation_shape,
        image=environment.image,
        dtype=str(environment.dtype),
        stack=flags.stack,
        protocol=flags.protocol,
        frame_skip=flags.frame_skip,
        resize=flags.resize,
        wrapper=flags.wrapper,
        **returns_of(flags),
    )


def build_programs(flags: Recipe, agent: Agent, on_device: bool, for_files: bool = False) -> dict[str, Interface]:
    """The Programs by role, built with Paddle; with `on_device` also `observe` and `train_on_device`, which have the memory.

    Files have these too, and that of infer.py. `train` has all other variables: what is initialised and saved.
    """
    from DeepQNetwork.network import act_program, inference_program, observe_program, sync_program, train_program

    rows = flags.mem_size // flags.num_envs * flags.num_envs + 1
    options = {name: getattr(flags, name) for name in ("double", "loss", "adam_epsilon", "grad_clip")}
    options["schedule"] = learning_rate(flags)
    act, train = act_program(agent), train_program(agent, **options)
    shapes = {value.name: tuple(value.shape) for value in act.main.global_block().all_parameters()}
    programs = {"act": act, "train": train, "sync": sync_program(shapes)}
    if for_files:
        programs["infer"] = inference_program(agent)
    if on_device or for_files:
        programs["observe"] = observe_program(agent, rows)
        programs["train_on_device"] = train_program(agent, **options, memory_rows=rows)
    return programs


def initial_state(program: Interface, seed: int) -> dict[str, np.ndarray]:
    """Fresh variables of the training Program; both networks start equal."""
    from fluid.program import initialise

    return with_equal_networks(initialise(program, seed=seed))


def start_from(flags: Flags, state: dict[str, np.ndarray], act: Interface) -> tuple[dict[str, np.ndarray], Report]:
    """`state` with the policy network of --pretrained_model in both networks; raises WeightsError if it is another."""
    weights = open_agent(AgentFlags(pretrained_model=flags.pretrained_model, env=flags.env)).state
    own = {name: state[name] for name in act.state_names}
    loaded, report = load_into(own, {name: array for name, array in weights.items() if name in own})
    return with_equal_networks({**state, **loaded}), report


def open_learner(
    session: Session, flags: Flags, agent: Agent, groups: Sequence[Environment], on_device: bool
) -> Learner:
    """The learner, as it was where the run stopped if it is continued. Both networks start equal, also those from files."""
    programs = session.programs
    if session.resumed is None:
        session.engine.run(programs["sync"], {})
    learner = Learner(
        session.engine,
        {**programs, "train": programs["train_on_device"]} if on_device else programs,
        agent,
        flags,
        groups,
        total_steps=flags.max_steps,
        seed=flags.seed,
        on_device=on_device,
    )
    if session.resumed is not None:
        learner.restore(session.beside, session.meta.extra["learner"])
    return learner


def announce(run: Run, flags: Flags, agent: Agent, learner: Learner, update: Interface) -> None:
    """Say what is about to happen."""
    kind = " ".join(word for word, used in (("double", flags.double), ("dueling", flags.dueling)) if used)
    run.say(f"environment {learner.environment.description}")
    if flags.save_replay and not learner.environment.saveable:
        run.say(
            "these environments cannot be saved: a run that goes on begins new episodes, and is not the same to the bit"
        )
    run.say(
        f"{agent.network}: {update.parameter_count:,} parameters, {agent.num_actions} actions; {kind or 'plain'} DQN, "
        f"{flags.n_step}-step returns, {'prioritized' if flags.prioritized else 'uniform'} replay, "
        f"1 update of {flags.batch_size} every {flags.update_every} steps, {learner.updates_per_call} a call"
    )
    if flags.learning_starts >= flags.max_steps:
        run.say(f"no update will be made: the run ends before --learning_starts {flags.learning_starts}")
    where = "on the device" if learner.memory.on_device else "in host memory"
    run.say(f"replay memory: {learner.replay.rows:,} frames, {learner.replay.nbytes / 1e9:.3f} GB when full, {where}")


def player_of(flags: Flags, engine: Engine, act: Interface, agent: Agent) -> Player:
    """The current policy, to be measured and recorded."""

    def q_values(states: np.ndarray) -> np.ndarray:
        leave_if_stopped(engine)
        return engine.run(act, {"state": states})["q_values"]

    return Player(agent, q_values, epsilon=flags.test_epsilon)


def recordings(flags: Flags, run: Run, learner: Learner, player: Player) -> list[Evaluation]:
    """What --capture_every asks for: an evaluation that leaves a video. Raises UserError for a task without a screen."""
    if flags.capture_every is None:
        return []
    agent = player.agent
    game = environments.make_game(agent.env, protocol=agent.protocol, view=agent.view)

    def record() -> dict[str, float]:
        options = {"episodes": 1, "seed": flags.seed + learner.step, "max_seconds": VIDEO_SECONDS}
        path = run.output_dir / "videos" / f"step_{learner.step:08d}.mp4" if run.records else None
        with recording(path, VIDEO_FRAMES_PER_SECOND, game.screens_per_second) as recorder:
            (episode,) = watch(player, game, recorder=recorder, say=False, **options)
        return {"score": episode["score"], "length": episode["steps"]}

    return [Evaluation("video", record, every=flags.capture_every)]


def finish(run: Run, outcome: Outcome, agent: Agent) -> None:
    """Draw the learning curve and print the summary."""
    logged = (events(run.output_dir, kind) for kind in ("train", "eval"))
    curve = draw_curves(run.output_dir / "curves.png", pictures.CURVES, *logged, title=agent.env, steps="agent steps")
    show_summary(
        f"{agent.env}, {agent.network}, evaluation at the end",
        {
            **{name: f"{outcome.metrics[name]:.1f}" for name in ("score", "deviation", "minimum", "maximum")},
            "best score": f"{outcome.best:.1f} (step {outcome.best_step})",
            "steps": str(outcome.step),
            "updates": str(outcome.updates),
            "time": f"{outcome.seconds:.0f} s",
            "steps/s in training": f"{outcome.steps_per_second:.0f}",
            "updates/s in training": f"{outcome.updates_per_second:.0f}",
        },
    )
    run.say_left([curve])


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES)))
