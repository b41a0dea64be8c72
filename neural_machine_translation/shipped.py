"""The Programs that come along with the translator, see `fluid.shipped`."""

import dataclasses
from typing import Any

from fluid.shipped import Recipe
from neural_machine_translation.opening import open_translator
from neural_machine_translation.options import ModelFlags, SearchFlags
from neural_machine_translation.translator import SHIPPED, Transformer


def made_of_search(config: Transformer, flags: SearchFlags) -> dict[str, Any]:
    """What a search Program is built from."""
    return {
        "network": dataclasses.asdict(config),
        "search": {item.name: getattr(flags, item.name) for item in dataclasses.fields(SearchFlags)},
    }


def recipes() -> list[Recipe]:
    """That of infer.py without flags."""
    from neural_machine_translation.network import search_program

    flags = ModelFlags(pretrained_model=SHIPPED)
    config = open_translator(flags).facts.config
    return [Recipe("search", made_of_search(config, flags), lambda: search_program(config, flags.search()))]
