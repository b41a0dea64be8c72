"""Graphs of Kaldi: read, relabelled, written again; and files that a decoder would read past its arrays with.

golden/graph.fst was written by OpenFst (kaldifst 1.8.3, Apache-2.0), from the text

    0 1 1 1 0.5
    1 1 2 0
    1 2 3 2 1.5
    2 2 4 0
    2 3 0 0 0.25
    3 3 5 3
    1 0.125
    3 2.0
"""

import struct
from pathlib import Path

from DeepASR.decoding.graph import read_graph
from DeepASR.kaldi.transition_model import TransitionModel
from fluid.errors import DataError

import numpy as np
import pytest

GRAPH = (Path(__file__).parent / "golden" / "graph.fst").read_bytes()
HEADER = 65
STATES = 4


def model(ids: int) -> TransitionModel:
    pdf = np.arange(ids + 1, dtype=np.int32)[::-1].copy()
    return TransitionModel(pdf, pdf, pdf, pdf > 0, "final.mdl")


def damaged(tmp_path: Path, place: int, value: bytes) -> Path:
    path = tmp_path / "HCLG.fst"
    path.write_bytes(GRAPH[:place] + value + GRAPH[place + len(value) :])
    return path


def test_what_openfst_wrote_is_read_and_written_again(tmp_path: Path) -> None:
    graph = read_graph(damaged(tmp_path, 0, b""))
    assert graph.start == 0 and graph.states["arcs"].tolist() == [1, 2, 2, 1] and graph.largest_word == 3
    assert graph.arcs["input"].tolist() == [1, 2, 3, 4, 0, 5] and graph.arcs["output"].tolist() == [1, 0, 2, 0, 0, 3]
    assert graph.arcs["next"].tolist() == [1, 1, 2, 2, 3, 3]
    assert graph.arcs["weight"].tolist() == [0.5, 0, 1.5, 0, 0.25, 0]
    assert graph.states["final"].tolist() == [np.inf, 0.125, np.inf, 2.0]
    graph.write(tmp_path / "again.fst")
    again = (tmp_path / "again.fst").read_bytes()
    # All but the properties.
    assert again[:33] + again[41:] == GRAPH[:33] + GRAPH[41:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["HCLG.fst", "again.fst"]


def test_transition_ids_become_columns(tmp_path: Path) -> None:
    graph = read_graph(damaged(tmp_path, 0, b""))
    relabelled = graph.relabelled(model(5))
    # The pdf of transition id k is 5 - k, and its column the one after.
    assert relabelled.arcs["input"].tolist() == [5, 4, 3, 2, 0, 1]
    assert graph.arcs["input"].tolist() == [1, 2, 3, 4, 0, 5]
    relabelled.check(5)
    with pytest.raises(DataError, match="HCLG.fst: the graph has the input label 5, and the network 4 classes"):
        relabelled.check(4)
    with pytest.raises(DataError, match="the graph has the input label 5, and final.mdl the transition ids 1 to 4"):
        graph.relabelled(model(4))


def test_aligned_files(tmp_path: Path) -> None:
    """Flag 4: states and arcs begin at multiples of 16."""
    header = GRAPH[:29] + struct.pack("<i", 4) + GRAPH[33:HEADER]
    states, arcs = GRAPH[HEADER : HEADER + 20 * STATES], GRAPH[HEADER + 20 * STATES :]
    path = tmp_path / "aligned.fst"
    path.write_bytes(header + bytes(-HEADER % 16) + states + arcs)
    graph = read_graph(path)
    assert graph.states.tobytes() == states and graph.arcs.tobytes() == arcs


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, b"\0", "not a binary file of OpenFst"),
        (4, struct.pack("<i", 2**30), "not a binary file of OpenFst, or damaged"),
        (8, b"ngram", "a graph of type ngram with standard arcs"),
        (29, struct.pack("<i", 1), "symbol tables are embedded"),
        (41, struct.pack("<q", 4), "4 states and the first is number 4"),
        (49, struct.pack("<q", 2**60), "an array of .* is claimed"),
        (57, struct.pack("<q", -1), "an array of -1 elements is claimed"),
        (HEADER + 8, struct.pack("<I", 2**32 - 1), "a state has the arcs up to 4294967295 of 6"),
        (len(GRAPH) - 4, struct.pack("<i", 4), "leads to a state that is none of the 4"),
        (len(GRAPH) - 4, struct.pack("<i", -1), "leads to a state that is none of the 4"),
        (len(GRAPH) - 16, struct.pack("<i", -7), "a label below 0"),
        (len(GRAPH) - 8, struct.pack("<f", np.nan), "a weight is not a number"),
    ],
)
def test_graphs_that_cannot_be_used(tmp_path: Path, place: int, value: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"HCLG.fst: .*{message}"):
        read_graph(damaged(tmp_path, place, value))


def test_every_cut_is_an_error(tmp_path: Path) -> None:
    for length in range(len(GRAPH)):
        path = tmp_path / "HCLG.fst"
        path.write_bytes(GRAPH[:length])
        with pytest.raises(DataError, match="HCLG.fst: "):
            read_graph(path)
