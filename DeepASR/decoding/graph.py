"""Decoding graphs of Kaldi (HCLG.fst): read, checked against a network, and relabelled for its outputs.

    graph = read_graph("HCLG.fst").relabelled(read_transition_model("final.mdl"))
    graph.check(class_num)
    graph.write("graph_of_pdfs.fst")

Kaldi's graphs take transition ids. Relabelled once to pdf + 1, they take the columns of a posterior matrix (0 stands for no
input), and no matrix need be widened to all transition ids for each utterance. A decoder reads past its matrix without a
word where a label is too large, so the labels are checked here.

Format: OpenFst's type `const` with standard arcs, which Kaldi's mkgraph.sh writes (src/include/fst/const-fst.h of OpenFst).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace

from DeepASR.kaldi.tables import Stream, opened
from DeepASR.kaldi.transition_model import TransitionModel
from fluid import files
from fluid.errors import DataError

import numpy as np

_MAGIC = 2125659606
_FIXED = struct.Struct("<iiQqqq")
"""Version, flags, properties, first state, states, arcs."""
_SYMBOLS, _ALIGNED, _ALIGNMENT = 3, 4, 16
_ALIGNED_VERSION, _VERSION = 1, 2
STATE = np.dtype([("final", "<f4"), ("first", "<u4"), ("arcs", "<u4"), ("inputs", "<u4"), ("outputs", "<u4")])
ARC = np.dtype([("input", "<i4"), ("output", "<i4"), ("weight", "<f4"), ("next", "<i4")])


@dataclass(frozen=True, eq=False)
class Graph:
    """A weighted transducer from labels of frames to words."""

    states: np.ndarray
    """[states]: `final` weight (infinite: not final), `first` arc and number of `arcs`, of those without input and output."""
    arcs: np.ndarray
    """[arcs]: `input`, `output` (0: none), `weight`, `next` state."""
    start: int
    where: str
    """The file, for messages."""

    @property
    def largest_word(self) -> int:
        """Largest output label, which words.txt must have."""
        return int(self.arcs["output"].max(initial=0))

    def check(self, class_num: int) -> None:
        """Raise DataError if the labels are not columns 1 to `class_num`."""
        largest = int(self.arcs["input"].max(initial=0))
        if largest > class_num:
            raise DataError(
                f"{self.where}: the graph has the input label {largest}, and the network {class_num} classes: they belong to "
                "different models, or the graph has transition ids still and must be relabelled with its final.mdl"
            )

    def relabelled(self, model: TransitionModel) -> Graph:
        """The graph with the input labels pdf + 1. Raises DataError if a label is no transition id of the model."""
        arcs = self.arcs.copy()
        labels = arcs["input"]
        emitting = labels > 0
        if (largest := labels.max(initial=0)) >= len(model.pdf):
            raise DataError(
                f"{self.where}: the graph has the input label {largest}, and {model.where} the transition ids 1 to "
                f"{len(model.pdf) - 1}: they belong to different models"
            )
        labels[emitting] = model.pdfs(labels[emitting]) + 1
        return replace(self, arcs=arcs)

    def write(self, path: str | os.PathLike) -> None:
        """Write a file of type `const`, completely or not at all. Raises DataError."""
        header = struct.pack("<i", _MAGIC) + b"".join(
            struct.pack("<i", len(name)) + name for name in (b"const", b"standard")
        )
        # The only property that is known whatever the labels: 1, that all states are there.
        numbers = _FIXED.pack(_VERSION, 0, 1, self.start, len(self.states), len(self.arcs))
        with files.whole(path, DataError) as unfinished, open(unfinished, "wb") as file:
            for part in (header, numbers, self.states.tobytes(), self.arcs.tobytes()):
                file.write(part)


def read_graph(path: str | os.PathLike) -> Graph:
    """Read a graph of type `const`. Raises DataError for others, and for one that points outside itself."""
    with opened(path) as stream:
        if stream.some(4) != struct.pack("<i", _MAGIC):
            raise stream.error("not a binary file of OpenFst")
        kind, arc_type = _name(stream), _name(stream)
        if (kind, arc_type) != ("const", "standard"):
            raise stream.error(
                f"a graph of type {kind} with {arc_type} arcs; one of type const with standard arcs is needed: "
                "fstconvert --fst_type=const IN OUT"
            )
        version, flags, _, start, states, arcs = _FIXED.unpack(stream.take(_FIXED.size))
        if flags & _SYMBOLS:
            raise stream.error(
                "symbol tables are embedded; take them out: fstsymbols --clear_isymbols --clear_osymbols"
            )
        # Behind a header of this size lie the states and the arcs, from multiples of 16 if they are aligned.
        position = 4 + 8 + len(kind) + len(arc_type) + _FIXED.size
        aligned = flags & _ALIGNED or version == _ALIGNED_VERSION
        for_states = stream.take(-position % _ALIGNMENT if aligned else 0)
        table = stream.array(STATE, states)
        position += len(for_states) + table.nbytes
        stream.take(-position % _ALIGNMENT if aligned else 0)
        graph = Graph(table, stream.array(ARC, arcs), start, str(path))
        _check(stream, graph)
        return graph


def _name(stream: Stream) -> str:
    (length,) = struct.unpack("<i", stream.take(4))
    if not 0 < length <= 64:
        raise stream.error("not a binary file of OpenFst, or damaged")
    return stream.take(length).decode("ascii", "replace")


def _check(stream: Stream, graph: Graph) -> None:
    states, arcs = graph.states, graph.arcs
    if not 0 <= graph.start < len(states):
        raise stream.error(f"{len(states)} states and the first is number {graph.start}: an empty graph, or damaged")
    ends = states["first"].astype(np.int64) + states["arcs"]
    if ends.max() > len(arcs):
        raise stream.error(f"a state has the arcs up to {ends.max()} of {len(arcs)}: the file is damaged")
    if len(arcs) and not (arcs["next"].min() >= 0 and arcs["next"].max() < len(states)):
        raise stream.error(f"an arc leads to a state that is none of the {len(states)}: the file is damaged")
    if len(arcs) and min(arcs["input"].min(), arcs["output"].min()) < 0:
        raise stream.error("an arc has a label below 0: the file is damaged")
    if np.isnan(arcs["weight"]).any() or np.isnan(states["final"]).any():
        raise stream.error("a weight is not a number: the file is damaged")
