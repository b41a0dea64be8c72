"""Flags of the scripts that play with an agent, and spellings of 2018."""

from dataclasses import dataclass
from typing import Annotated

from DeepQNetwork.agent import AgentFlags
from fluid.config import EngineFlags, ExportedFlags, Share, Was

ALIASES = {"rom": "env", "model_path": "pretrained_model", "target": "export_dir"}
RETIRED = {
    "viz": "infer.py shows the game: --show window or --show terminal",
    "alg": "the weights say which network they belong to",
}


@dataclass
class PlayerFlags(AgentFlags, ExportedFlags, EngineFlags):
    """Which agent plays what."""

    test_epsilon: Annotated[Share, Was("epsilon")] = 0.01
    """Share of random actions where nothing is learned."""
