"""Export an agent for deployment: a Paddle inference model, and ONNX on request.

python export.py --target exported                                    the agent that comes with this folder
python export.py --checkpoint output --target exported --onnx   the best checkpoint of a run

Input `state` [N, 4, 84, 84] float32, gray levels 0..255, oldest frame first; output `q_values` [N, actions].
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepQNetwork.agent import AgentFlags
from DeepQNetwork.eval import ALIASES
from DeepQNetwork.network import inference_program
from DeepQNetwork.pretrained import load_agent
from fluid import config as configuration
from fluid.export import ONNX, export
from fluid.run import console, script


@dataclass
class Flags(AgentFlags):
    """Export an agent."""

    target: Path = Path("exported")
    """Folder to write; an earlier export there is replaced."""
    onnx: bool = False
    """Write model.onnx beside it (extra `onnx`)."""


def main(flags: Flags) -> Path:
    """Export; returns the folder."""
    opened = load_agent(flags)
    agent = opened.facts
    program = inference_program(agent)
    folder = export(program, opened.state, flags.target, facts={"agent": agent.to_facts()}, onnx=flags.onnx)
    console.print(
        f"{folder}: inference model of {agent.network} for {agent.env} (signature.json says how to feed it)",
        markup=False,
    )
    if flags.onnx:
        console.print(f"{folder / ONNX}", markup=False)
    return folder


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES)))
