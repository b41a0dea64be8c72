"""The search that flags describe: a graph of Kaldi's, or one made here of a lexicon and a language model or grammar."""

from pathlib import Path

from DeepASR.decoding import language_model
from DeepASR.decoding.decoder import Decoder, SearchOptions
from DeepASR.decoding.grammar import parse_grammar
from DeepASR.decoding.graph import Graph, read_graph
from DeepASR.decoding.graph_building import from_grammar, from_language_model
from DeepASR.decoding.lexicon import Lexicon, read_lexicon
from DeepASR.decoding.pronouncing import by_command, completed
from DeepASR.decoding.rescoring import Rescoring
from DeepASR.kaldi.tables import read_text
from DeepASR.kaldi.transition_model import read_transition_model
from DeepASR.options import SearchFlags
from DeepASR.recogniser import Recogniser
from fluid.errors import DataError, UserError
from fluid.text import read_lines

NEEDS = {"vocabulary": "graphs", "trans_model": "graphs", "unknown_words": "grammar"}
"""Flags that mean nothing without another."""
INSTEAD = {"graphs": ("grammar", "lexicon", "g2p"), "grammar": ("language_model",)}
"""Flags that stand for others."""
MOST_WORDS = 2**24
"""Of a graph."""


def open_decoder(recogniser: Recogniser, flags: SearchFlags) -> Decoder:
    """The search that the flags describe. Raises UserError where words or graph are missing or do not fit, and as `refuse_idle`."""
    refuse_idle(flags)
    options: SearchOptions = {
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
        small = _model(recogniser, flags)
        large = language_model.from_arpa(_text(flags.larger_model), str(flags.larger_model))
        decoder = Rescoring(graph, words, recogniser.log_prior, small=small, large=large, **options)
    decoder.lexicon = lexicon
    return decoder


def refuse_idle(flags: SearchFlags) -> None:
    """Raise UserError for flags that mean nothing without, or beside, another."""
    for name, other in NEEDS.items():
        if getattr(flags, name) and not getattr(flags, other):
            raise UserError(f"--{name} goes with --{other}, which is missing")
    for name, others in INSTEAD.items():
        for other in others:
            if getattr(flags, name) is not None and getattr(flags, other) is not None:
                raise UserError(f"--{name} and --{other} each say what may be heard: leave one out")
    if flags.graphs is not None and flags.language_model is not None and flags.larger_model is None:
        raise UserError("--graphs has its language model in it: leave --language_model out")


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
