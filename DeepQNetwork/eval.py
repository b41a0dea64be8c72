"""Play whole episodes with a trained agent and print the mean score, beside the protocol it was measured under.

python eval.py                                                         the best of ./output, or the agent that comes along
python eval.py --checkpoint output --test_episodes 30                  the best checkpoint of a run
python eval.py --pretrained_model saved_model/pong --env Pong          weights of 2018 or in any other format
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepQNetwork import environments
from DeepQNetwork.episodes import Scores, play
from DeepQNetwork.flags import ALIASES, RETIRED, PlayerFlags
from DeepQNetwork.human import human_normalised
from DeepQNetwork.player import check_actions, load_player
from fluid import config as configuration
from fluid.config import Count, ResultFlags, Was
from fluid.records import say_measured, write_result
from fluid.run import console, script


@dataclass
class Flags(PlayerFlags, ResultFlags):
    """Evaluate an agent."""

    test_episodes: Annotated[Count, Was("episodes")] = 10
    """Whole episodes to play."""
    num_envs: Count | None = None
    """Environments side by side; by default one an episode, at most 16. Changes the speed, and which random numbers go where."""


def main(flags: Flags) -> Scores:
    """Play and print; returns the scores."""
    began = time.perf_counter()
    player = load_player(flags)
    agent = player.agent
    count = min(flags.num_envs or 16, flags.test_episodes)
    environment = environments.make(agent.env, count, protocol=agent.protocol, view=agent.view)
    check_actions(agent, environment)
    console.print(environment.description)
    console.print(f"{agent.network}{', dueling' if agent.dueling else ''}; {player.how}; seed {flags.seed}")

    def say(score: float, done: int) -> None:
        console.print(f"episode {done}/{flags.test_episodes}: {score:g}")

    scores = play(player, environment, episodes=flags.test_episodes, seed=flags.seed, on_episode=say)
    environment.close()
    console.print(f"score: {scores}")
    result = scores.result()
    if (relative := human_normalised(agent.env, result["score"])) is not None:
        result["human_normalised"] = relative
        console.print(f"human-normalised: {relative:.2f} (0: random play, 1: a professional tester, arXiv:1511.06581)")
    seconds = say_measured(flags.test_episodes, "episode", began)
    if flags.output_dir is not None:
        of = {"weights": player.weights, "data": environment.description}
        write_result(flags.output_dir, result, **of, samples=flags.test_episodes, seconds=seconds)
    return scores


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
