"""The Programs that come along with the recognisers, see `fluid.shipped`."""

import dataclasses

from DeepASR.network import build_stream
from DeepASR.opening import open_recogniser
from DeepASR.options import NetworkFlags
from DeepASR.recogniser import FOLDER
from fluid.shipped import Recipe, models


def recipes() -> list[Recipe]:
    """Those that listen, as infer.py does."""
    sizes = {name: open_recogniser(NetworkFlags(pretrained_model=name)).facts.sizes for name in models(FOLDER)}
    return [Recipe("stream", dataclasses.asdict(one), lambda one=one: build_stream(one)) for one in sizes.values()]
