"""The name of eval.py in 2018; takes the same flags."""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepQNetwork.eval import ALIASES, RETIRED, Flags, main
from DeepQNetwork.train import command_line
from fluid import config as configuration
from fluid.run import script

if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, command_line(), aliases=ALIASES, retired=RETIRED)))
