"""Opening a recogniser by flags. Needs Paddle only to fit weights that do not say what they read."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

from fluid import weights
from fluid.errors import UserError
from fluid.weights import Bare, Opened, Report, load_into
from ocr_recognition.alphabet import Alphabet, read_dictionary
from ocr_recognition.options import NetworkFlags, ReadingFlags
from ocr_recognition.recognizer import FOLDER, SIGNS, Recognizer, model_of

import numpy as np

if TYPE_CHECKING:
    from ocr_recognition.decoding import Search

HEAD = ("fc_2.w_0", "fc_2.w_1", "fc_2.b_0", "deep_out.*", "embedding_0.w_0", "fc_8.*")
"""Variables whose size is the number of characters."""
ENGLISH, SIMPLE = "english", "simple"
"""What comes along: what infer.py reads with, and what train.py makes by default."""
OFFSETS = {
    "crnn": ("deep_out.b_0", 1),
    "crnn_small": ("deep_out.b_0", 1),
    "crnn_ctc": ("fc_2.b_0", 1),
    "attention": ("fc_8.b_0", SIGNS),
}
"""Network -> the variable that tells how many characters it knows, and how many classes are none."""


def feed_of(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the inference Program is fed, of what the evaluation Program is."""
    pixel, width = feed["pixel"].astype(np.float32) - np.float32(127.5), feed["width"]
    inside = np.arange(pixel.shape[3]) < width.reshape(-1, 1, 1, 1)
    return {"pixel": np.where(inside, pixel, np.float32(0)), "width": width}


def open_recognizer(
    flags: NetworkFlags, say: Callable[[str], None] | None = None, *, default: str = ENGLISH
) -> Opened[Recognizer]:
    """The recogniser that the flags name, ready to be used, else the run in ./output, else `default`.

    Raises UserError for what cannot be used.
    """
    read, fit = Recognizer.from_facts, partial(fit_recognizer, flags=flags)
    opened = weights.open(
        FOLDER, flags, default=default, key="recognizer", from_facts=read, fit=fit, free=("calibration",), say=say
    )
    refuse_other(opened, flags)
    return opened


def refuse_other(opened: Opened[Recognizer], flags: NetworkFlags) -> None:
    """Raise UserError for flags of another network than that of the weights."""
    if flags.model not in (None, opened.facts.model):
        raise UserError(f"--model {flags.model}: {opened.source} is a {opened.facts.model}; leave the flag out")
    if flags.dict is not None and read_dictionary(flags.dict) != opened.facts.alphabet:
        raise UserError(f"--dict {flags.dict}: {opened.source} reads other characters; leave the flag out")


def search_of(opened: Opened[Recognizer], flags: ReadingFlags) -> "Search":
    """What the flags look for in what the opened network says.

    An attention network searches inside its Program; of one that is written already the beam is known. Raises UserError for
    what such a search cannot do any more, and as `SearchFlags.search`.
    """
    if opened.facts.is_ctc:
        return flags.search(opened.facts)
    settled = opened.settle(flags, "beam_size")
    if opened.exported is not None or opened.captured is not None:
        if flags.allowed is not None:
            raise UserError("--allowed needs a checkpoint or weights: this search was written without it")
        if flags.language_model is not None and settled.beam_size == 1:
            raise UserError("--language_model chooses among hypotheses, and this search was written with --beam_size 1")
    return settled.search(opened.facts)


def fit_recognizer(bare: Bare, flags: NetworkFlags) -> tuple[Recognizer, dict[str, np.ndarray], Report]:
    """Weights that do not say what they read: the flags do, or the list of released ones, or the arrays.

    Raises UserError if the characters of --dict are not as many as the weights know, WeightsError if they do not fit.
    """
    from fluid.program import initialise
    from ocr_recognition.network import inference_program

    entry = bare.entry
    model = flags.model or (model_of(entry.model) if entry else None)
    if model is None:
        raise UserError(f"--pretrained_model {bare.spec} does not say which network it is for; give --model too")
    alphabet = read_dictionary(flags.dict) if flags.dict is not None else Alphabet.ascii()
    recognizer = Recognizer(model, alphabet)
    initial = initialise(inference_program(recognizer), seed=0)
    arrays = bare.read(list(initial))
    known = characters_of(arrays, recognizer)
    if known is not None and known != len(alphabet):
        raise UserError(
            f"{bare.spec} knows {known} characters, and {flags.dict or 'the 95 of ASCII'} has {len(alphabet)}: give the "
            "dictionary that it was trained with as --dict"
        )
    state, report = load_into(initial, arrays, allow_partial=flags.allow_partial)
    return recognizer, state, report


def characters_of(arrays: Mapping[str, np.ndarray], recognizer: Recognizer) -> int | None:
    """How many characters a network's weights know; None if they are not those of such a network."""
    name, beside = OFFSETS[recognizer.model]
    return None if name not in arrays else int(arrays[name].shape[-1]) - beside


def load_all_but_head(
    state: dict[str, np.ndarray], opened: Opened[Recognizer], recognizer: Recognizer, *, allow_partial: bool
) -> tuple[dict[str, np.ndarray], Report]:
    """`state` with opened weights, whose head for other characters is left out, and what became of each array."""
    other = opened.facts.alphabet != recognizer.alphabet
    names = [name for name in opened.state if any(fnmatchcase(name, pattern) for pattern in HEAD)]
    return load_into(state, opened.state, exclude=names if other else (), allow_partial=allow_partial)
