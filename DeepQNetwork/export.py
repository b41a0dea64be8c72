"""Export an agent for deployment: a Paddle inference model, and ONNX on request.

python export.py --target exported                                    the agent that comes with this folder
python export.py --pretrained_model output --target exported --onnx   the best checkpoint of a run

Input `state` [N, 4, 84, 84] float32, gray levels 0..255, oldest frame first; output `q_values` [N, actions].
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepQNetwork.eval import ALIASES, best_of
from DeepQNetwork.network import inference_program
from DeepQNetwork.pretrained import fit, load_agent
from fluid import config as configuration
from fluid.export import export, export_onnx
from fluid.program import initialise
from fluid.run import console, script


@dataclass
class Flags:
    """Export an agent."""

    target: Path
    """Folder to write; an earlier export there is replaced."""
    pretrained_model: str | None = None
    """Name of an agent of this folder, checkpoint or run (its best checkpoint), or weights of any format."""
    env: str | None = None
    """Game or gymnasium id; bare weights need it."""
    protocol: str | None = None
    """2018, standard or sticky; by default the one the agent was trained under."""
    onnx: bool = False
    """Write model.onnx beside it (extra `onnx`)."""


def main(flags: Flags) -> Path:
    """Export; returns the folder."""
    agent, weights = load_agent(best_of(flags.pretrained_model), flags.env, flags.protocol)
    program = inference_program(agent)
    state = fit(program, weights, initialise(program, seed=0))
    folder = export(program, state, flags.target, facts={"agent": agent.to_facts()})
    console.print(
        f"{folder}: inference model of {agent.network} for {agent.env} (signature.json says how to feed it)",
        markup=False,
    )
    if flags.onnx:
        console.print(f"{export_onnx(folder)}", markup=False)
    return folder


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES)))
