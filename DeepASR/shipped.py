"""The Programs that come along with the recognisers, see `fluid.shipped`."""

import dataclasses
from functools import partial

from DeepASR.network import build_inference, build_stream
from DeepASR.opening import open_recogniser
from DeepASR.options import NetworkFlags
from DeepASR.recogniser import FOLDER
from fluid.shipped import Recipe, models


def recipes() -> list[Recipe]:
    """Those that listen, and those for raw arrays."""
    found = []
    for name in models(FOLDER):
        sizes = open_recogniser(NetworkFlags(pretrained_model=name)).facts.sizes
        for role, build in (("stream", build_stream), ("infer", build_inference)):
            found.append(Recipe(role, dataclasses.asdict(sizes), partial(build, sizes)))
    return found
