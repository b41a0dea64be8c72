"""Opened weights as a recogniser that listens: which weights, which words, and posteriors of features."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from DeepASR import language_model
from DeepASR.decoder import Decoder
from DeepASR.decoding_graph import Graph, read_graph
from DeepASR.grammar import parse_grammar
from DeepASR.graph_building import from_grammar, from_language_model
from DeepASR.kaldi_io import read_text
from DeepASR.lexicon import Lexicon, read_lexicon
from DeepASR.options import NetworkFlags, SearchFlags
from DeepASR.pronouncing import by_command, completed
from DeepASR.recogniser import FOLDER, REACH, SURROUNDINGS, Normalisation, Recogniser, RunningMean, rounded
from DeepASR.rescoring import Rescoring
from DeepASR.sizes import Sizes, silence, sizes_of
from DeepASR.transforms import CONTEXT, DELAY, DELTAS, read_statistics, speaker_means, undo_delay
from DeepASR.transition_model import read_transition_model
from fluid import weights
from fluid.config import EngineFlags
from fluid.engine import Engine
from fluid.errors import DataError, UserError
from fluid.files import read_plain
from fluid.interface import Interface
from fluid.runner import Runner
from fluid.text import read_lines
from fluid.weights import Bare, Opened, Report, load_into

import numpy as np

SOME_NAMES = ("conv2d_0.w_0", "fc_0.w_0", "fc_0.b_0", "lstmp_0.w_0", "lstmp_0.w_1", "lstmp_0.b_0")
"""Variables of every network, by which the folder of the others is found in an archive."""
CHUNK = 64
"""Frames that the network is shown at a time: one shape for utterances of every length."""
MOST_WORDS = 2**24
"""Of a graph."""
Named = tuple[str, np.ndarray]
"""What is called so, and its features or posteriors."""
MEASURED, USED = "commands", "digits"
"""What comes along: the model that training without flags makes, and the one to use where none is named."""


def open_recogniser(flags: NetworkFlags, default: str = MEASURED) -> Opened[Recogniser]:
    """The weights that the flags name, or else the best there are; raises UserError for what cannot be used."""
    fit = functools.partial(_fitted, allow_partial=flags.allow_partial)
    opened = weights.open(FOLDER, flags, default=default, key="recogniser", from_facts=Recogniser.from_facts, fit=fit)
    return dataclasses.replace(opened, facts=_completed(opened.facts, flags))


def _fitted(bare: Bare, *, allow_partial: bool) -> tuple[Recogniser, dict[str, np.ndarray], Report]:
    """Weights that do not say what they are of."""
    from DeepASR import network
    from fluid.program import initialise

    arrays = bare.read(SOME_NAMES)
    sizes = sizes_of(arrays)
    columns = DELTAS * sizes.frame_dim
    plain = Normalisation((0.0,) * columns, (1.0,) * columns)
    recogniser = Recogniser(sizes, plain, (0.0,) * sizes.class_num)
    state, report = load_into(initialise(network.build_inference(sizes), seed=0), arrays, allow_partial=allow_partial)
    return recogniser, state, report


def _completed(recogniser: Recogniser, flags: NetworkFlags) -> Recogniser:
    """With the statistics and priors that flags name."""
    if flags.mean_var is not None:
        known = read_statistics(flags.mean_var)
        recogniser = dataclasses.replace(
            recogniser, normalisation=Normalisation(rounded(known.mean), rounded(known.variance))
        )
    if flags.log_prior is not None:
        prior = read_log_prior(flags.log_prior)
        if len(prior) != recogniser.sizes.class_num:
            raise DataError(
                f"{flags.log_prior}: {len(prior)} numbers where the network has {recogniser.sizes.class_num} classes"
            )
        recogniser = dataclasses.replace(recogniser, log_prior=prior)
    return recogniser


def read_log_prior(path: Path) -> tuple[float, ...]:
    """A text vector of Kaldi's, `[ -5.1 -7.3 ... ]`, as 2018 had it. Raises DataError."""
    try:
        text = read_plain(path).decode("ascii")
        match = re.fullmatch(r"\s*\[([^\[\]]*)\]\s*", text)
        if match is None:
            raise ValueError("numbers in brackets are expected")
        values = tuple(map(float, match[1].split()))
        if not values or not np.isfinite(values).all():
            raise ValueError("not all numbers are finite")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as logarithms of priors ({error})") from None
    return values


def open_decoder(recogniser: Recogniser, flags: SearchFlags) -> Decoder:
    """The search that the flags describe. Raises UserError where words or graph are missing or do not fit."""
    options = {
        "acoustic_scale": flags.acoustic_scale or recogniser.acoustic_scale,
        "beam": flags.beam_size,
        "max_active": flags.max_active,
        "min_active": flags.min_active,
    }
    if flags.graphs is not None:
        if flags.vocabulary is None:
            raise UserError("--graphs goes with --vocabulary, the words.txt of the graph")
        if flags.larger_model is not None and flags.language_model is None:
            raise UserError(
                "--larger_model with --graphs needs --language_model, the ARPA file that the graph was made of"
            )
        graph, words = kaldi_graph(flags.graphs, flags.vocabulary, flags.trans_model)
        lexicon = None
    else:
        lexicon = _lexicon(recogniser, flags)
        graph, words = _own_graph(recogniser, flags, lexicon)
    if flags.larger_model is None:
        decoder = Decoder(graph, words, recogniser.log_prior, **options)
    else:
        models = {
            "small": _model(recogniser, flags),
            "large": language_model.from_arpa(_text(flags.larger_model), str(flags.larger_model)),
        }
        decoder = Rescoring(graph, words, recogniser.log_prior, **models, **options)
    decoder.lexicon = lexicon
    return decoder


def _lexicon(recogniser: Recogniser, flags: SearchFlags) -> Lexicon:
    """With the words of --lexicon, and those that --g2p pronounces."""
    lexicon = recogniser.lexicon
    if lexicon is None:
        raise UserError(
            "these weights come without words: give --graphs HCLG.fst, --vocabulary words.txt and --trans_model"
        )
    if flags.lexicon is not None:
        lexicon = lexicon.with_words(read_lexicon(flags.lexicon).words)
    if flags.g2p is None:
        return lexicon
    if flags.grammar is not None:
        arcs, _ = parse_grammar(_text(flags.grammar), str(flags.grammar))
        needed = [word for _, _, word, _ in arcs if word is not None]
    else:
        needed = list(language_model.vocabulary(_model(recogniser, flags)))
    return completed(lexicon, needed, by_command(flags.g2p))


def _own_graph(recogniser: Recogniser, flags: SearchFlags, lexicon: Lexicon) -> tuple[Graph, list[str]]:
    if flags.grammar is None:
        return from_language_model(lexicon, _model(recogniser, flags))
    if flags.larger_model is not None:
        raise UserError("--larger_model goes with a language model, and --grammar is none")
    return from_grammar(lexicon, _text(flags.grammar), anything=flags.unknown_words, where=str(flags.grammar))


def _model(recogniser: Recogniser, flags: SearchFlags) -> language_model.Model:
    text = recogniser.language_model if flags.language_model is None else _text(flags.language_model)
    if text is None:
        raise UserError("these weights come without a language model: give --language_model or --grammar")
    return language_model.from_arpa(text, str(flags.language_model or "language model"))


def kaldi_graph(path: Path, vocabulary: Path, trans_model: Path | None) -> tuple[Graph, list[str]]:
    """HCLG.fst with pdfs for labels, by final.mdl if it has transition ids, and its words by number. Raises DataError."""
    graph = read_graph(path)
    if trans_model is not None:
        graph = graph.relabelled(read_transition_model(trans_model))
    try:
        numbers = {word: int(number) for word, number in read_text(vocabulary).items()}
        if wrong := [number for number in numbers.values() if not 0 <= number < MOST_WORDS]:
            raise ValueError(f"{wrong[0]} is not in 0..{MOST_WORDS - 1}")
    except ValueError as error:
        raise DataError(f"{vocabulary}: lines 'WORD NUMBER' are expected ({error})") from None
    words = [""] * (max(numbers.values(), default=0) + 1)
    for word, number in numbers.items():
        words[number] = word
    return graph, words


def _text(path: Path) -> str:
    return "\n".join(read_lines(path))


def build_inference(sizes: Sizes) -> Interface:
    """The Program of --feed, built with Paddle."""
    from DeepASR import network

    return network.build_inference(sizes)


def build_stream(sizes: Sizes) -> Interface:
    """The Program that listens piece by piece, built with Paddle."""
    from DeepASR import network

    return network.build_stream(sizes)


class Network:
    """Posteriors of features, utterance by utterance, by the weights or the exported model that the flags name.

    Args:
        opened: from `open_recogniser`.
        flags: of the engine.
        rows: utterances that are computed side by side.
        runs: pieces to come, None: very many.
    """

    def __init__(self, opened: Opened[Recogniser], flags: EngineFlags, *, rows: int, runs: int | None) -> None:
        self.recogniser = opened.facts
        self._runner, sizes = Runner(opened, flags, runs=runs), self.recogniser.sizes
        # An exported model does not say what of its outputs goes into the next call.
        exported = opened.exported is not None
        self.program = build_stream(sizes) if exported else self._listening(sizes)
        self.how = self._runner.how
        self.engine: Engine = self._runner.engine
        self._rows = self.engine.shared_rows(rows)
        if opened.exported is not None and set(opened.exported.inputs) != set(self.program.inputs):
            raise UserError(f"{opened.source} takes whole utterances; export with --what stream to recognise with it")

    def _listening(self, sizes: Sizes) -> Interface:
        return self._runner.program("stream", lambda: build_stream(sizes), made_of=dataclasses.asdict(sizes))

    def open(self) -> PosteriorStream:
        """For one utterance that is not over yet."""
        return PosteriorStream(self)

    def posteriors(self, features: Iterable[Named], speakers: Mapping[str, str] | None = None) -> Iterator[Named]:
        """(name, posterior [T, classes]) of each (name, features [T, frame_dim]), in their order.

        `speakers` by name tell a network that takes off the mean of a speaker whose utterances belong together; all features
        are read first then. Raises DataError for features of another width.
        """
        means: dict[str, np.ndarray] = {}
        if self.recogniser.normalisation.by_speaker and speakers:
            features = dict(features)
            means = speaker_means(features, speakers)
            features = features.items()
        waiting: list[Named] = []
        for item in features:
            waiting.append(item)
            if len(waiting) == self._rows:
                yield from self._batch(waiting, means)
                waiting = []
        if waiting:
            yield from self._batch(waiting, means)

    def _batch(self, items: Sequence[Named], means: Mapping[str, np.ndarray]) -> Iterator[Named]:
        dim, normalisation = self.recogniser.sizes.frame_dim, self.recogniser.normalisation
        for name, array in items:
            if array.ndim != 2 or array.shape[1] != dim:
                raise DataError(f"{name}: features {list(array.shape)} where the network takes [frames, {dim}]")
            if not np.isfinite(array).all():
                raise DataError(f"{name}: a feature is not a number")
        centred = [normalisation.centred(array, means.get(name)) for name, array in items]
        frames = np.array([len(array) + DELAY for array in centred])
        first = self.program.inputs["feature"]
        feeds = []
        for start in range(0, int(frames.max()), CHUNK):
            lengths = np.clip(frames - start, 0, CHUNK)
            feature = np.zeros((self._rows, CHUNK, *[size or 0 for size in first.shape[2:]]), np.float32)
            for row, (array, length) in enumerate(zip(centred, lengths)):
                if length:
                    feature[row, :length] = normalisation.piece(array, start, start + length, last=True)
            feeds.append({"feature": feature, "length": np.pad(lengths, (0, self._rows - len(items))).astype(np.int64)})
        outputs = self.engine.stream(self.program, feeds, silence(self.program, self._rows))
        posterior = np.concatenate([np.asarray(output["posterior"]) for output in outputs], axis=1)
        for row, (name, _) in enumerate(items):
            yield name, undo_delay(posterior[row, : frames[row]])


PIECE = 16
"""Frames that a stream shows the network at a time."""


class PosteriorStream:
    """Answers of the network to one utterance whose features come in pieces; of these it keeps what it will need again."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._mean = RunningMean(network.recogniser.normalisation)
        self._centred = np.zeros((0, network.recogniser.sizes.frame_dim), np.float32)
        self._shown = 0
        """How many of these the network was shown."""
        self._early = DELAY
        """Answers to come that are answers to nothing."""
        self._carried: Mapping[str, np.ndarray] = silence(network.program, 1)

    def accept(self, features: np.ndarray, *, last: bool = False) -> np.ndarray:
        """Answers [n, classes] to the frames whose surroundings are known after these features [T, frame_dim].

        `last`: nothing more comes, so all that have no answer yet get theirs.
        """
        self._centred = np.concatenate([self._centred, self._mean.taken_off(features)])
        known, start = len(self._centred), self._shown
        stop = known + DELAY if last else known - REACH - CONTEXT
        if not known or stop <= start:
            return np.zeros((0, self._network.recogniser.sizes.class_num), np.float32)
        x = self._network.recogniser.normalisation.piece(self._centred, start, stop, last=last)
        passed = max(stop - SURROUNDINGS, 0)
        self._centred, self._shown = self._centred[passed:], stop - passed
        answers = np.concatenate([*self._run(x)])
        early = min(self._early, len(answers))
        self._early -= early
        return answers[early:]

    def _run(self, x: np.ndarray) -> Iterator[np.ndarray]:
        """Answers to the frames [T, 3, 11, frame_dim] that come next, some at a time."""
        program = self._network.program
        for first in range(0, len(x), PIECE):
            piece = x[first : first + PIECE]
            # One shape, whatever comes in.
            feature = np.zeros((1, PIECE, *x.shape[1:]), np.float32)
            feature[0, : len(piece)] = piece
            feed = {"feature": feature, "length": np.array([len(piece)])}
            (outputs,) = self._network.engine.stream(program, [feed], self._carried)
            self._carried = {taken_by: outputs[name] for name, taken_by in program.carry.items()}
            yield np.asarray(outputs["posterior"])[0, : len(piece)]
