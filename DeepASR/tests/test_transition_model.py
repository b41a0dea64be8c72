"""Kaldi's transition model in binary and text, of both kinds; and files that are none."""

import struct
from pathlib import Path

from DeepASR.kaldi.transition_model import TransitionModel, read_transition_model
from fluid.errors import DataError

import numpy as np
import pytest

# Phone 1 has one emitting state, phones 2 and 4 have two: (arcs of each state), and the last state has none.
ENTRIES = {(1,): [[0, 1], []], (2, 4): [[0, 1], [1, 2, 0], []]}
# (phone, state, pdf, pdf of the self-loop); the arcs of the first are transition ids 1 and 2.
TUPLES = [(1, 0, 0, 5), (2, 0, 1, 6), (2, 1, 2, 7), (4, 0, 1, 6), (4, 1, 3, 8)]
PHONES = [1, 1, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4]
LOOPS = [1, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0]
FORWARD = [0, 0, 1, 1, 2, 2, 2, 1, 1, 3, 3, 3]
OF_LOOPS = [5, 0, 6, 1, 7, 2, 2, 6, 1, 8, 3, 3]


def sized(*numbers: int) -> bytes:
    return b"".join(struct.pack("<bi", 4, number) for number in numbers)


def vector(numbers: list[int]) -> bytes:
    return sized(len(numbers)) + np.array(numbers, "<i4").tobytes()


def binary(chain: bool) -> bytes:
    entries = [
        sized(len(states))
        + b"".join(
            sized(*[0] * (1 + chain), len(arcs)) + b"".join(sized(end) + struct.pack("<bf", 4, 0.5) for end in arcs)
            for arcs in states
        )
        for states in ENTRIES.values()
    ]
    topology = vector([1, 2, 4]) + vector([-1, 0, 1, -1, 1]) + (sized(-1) if chain else b"") + sized(len(entries))
    kind = b"Tuples" if chain else b"Triples"
    return b"".join(
        [
            b"\0B<TransitionModel> <Topology> ",
            topology,
            *entries,
            b"</Topology> <" + kind + b"> ",
            sized(len(TUPLES)),
            *(sized(*row[: 3 + chain]) for row in TUPLES),
            b"</" + kind + b"> <LogProbs> FV ",
            sized(1 + len(PHONES)),
            np.zeros(1 + len(PHONES), "<f4").tobytes(),
            b"</LogProbs> </TransitionModel> <DIMENSION> ",
        ]
    )


def text(chain: bool) -> bytes:
    lines = ["<TransitionModel>", "<Topology>"]
    for phones, states in ENTRIES.items():
        lines += ["<TopologyEntry>", "<ForPhones>", " ".join(map(str, phones)), "</ForPhones>"]
        for number, arcs in enumerate(states):
            field = f"<ForwardPdfClass> {number} <SelfLoopPdfClass> {number}" if chain else f"<PdfClass> {number}"
            targets = " ".join(f"<Transition> {end} 0.5" for end in arcs)
            lines.append(f"<State> {number} {field if arcs else ''} {targets} </State>")
        lines.append("</TopologyEntry>")
    kind = "Tuples" if chain else "Triples"
    lines += ["</Topology>", f"<{kind}> {len(TUPLES)}"]
    lines += [" ".join(map(str, row[: 3 + chain])) for row in TUPLES]
    lines += [
        f"</{kind}>",
        "<LogProbs>",
        f" [ {'0 ' * (1 + len(PHONES))}]",
        "</LogProbs>",
        "</TransitionModel>",
        "<D> 3",
    ]
    return "\n".join(lines).encode()


def read(path: Path, data: bytes) -> TransitionModel:
    path.write_bytes(data)
    return read_transition_model(path)


@pytest.mark.parametrize("write", [binary, text])
@pytest.mark.parametrize("chain", [False, True])
def test_transition_ids(tmp_path: Path, write, chain: bool) -> None:
    model = read(tmp_path / "final.mdl", write(chain))
    assert model.pdf[1:].tolist() == (OF_LOOPS if chain else FORWARD)
    assert model.phone[1:].tolist() == PHONES and model.self_loop[1:].tolist() == LOOPS
    assert model.state[1:].tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1]
    assert model.num_pdfs == (9 if chain else 4)
    assert model.pdfs(np.array([1, 1, 2, 12])).tolist() == ([5, 5, 0, 3] if chain else [0, 0, 0, 3])
    for wrong in ([0, 1], [1, 13], [-1]):
        with pytest.raises(
            DataError, match=r"final.mdl: the model has the transition ids 1 to 12, and the .* has -?\d+"
        ):
            model.pdfs(np.array(wrong))


@pytest.mark.parametrize("write", [binary, text])
@pytest.mark.parametrize("chain", [False, True])
def test_every_cut_is_an_error_that_names_the_file(tmp_path: Path, write, chain: bool) -> None:
    data = write(chain)
    whole = data.index(b"]" if write is text else b"</LogProbs>")
    for length in range(whole):
        with pytest.raises(DataError, match="final.mdl: "):
            read(tmp_path / "final.mdl", data[:length])


def test_any_damage_is_a_model_or_one_error(tmp_path: Path) -> None:
    rng = np.random.default_rng()
    for data in (binary(True), text(False)):
        for _ in range(300):
            damaged = bytearray(data)
            damaged[rng.integers(len(data))] = rng.integers(256)
            try:
                read(tmp_path / "final.mdl", bytes(damaged))
            except DataError as error:
                assert "final.mdl: " in str(error)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"\n2 0 1\n", b"\n3 0 1\n", "phone 3 has no state 0 in the topology"),
        (b"\n2 0 1\n", b"\n2 0 -1\n", "a pdf has the number -1"),
        (b" [ 0 ", b" [ ", "12 transition ids and 12 probabilities do not fit"),
        (b"<TransitionModel>\n", b"<Nnet3>\n", "<TransitionModel> is expected and '<Nnet3>' found: not a final.mdl"),
        (b"<Triples> 5", b"<Triples> -5", "a list of -5 elements is claimed"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, before: bytes, after: bytes, message: str) -> None:
    assert before in text(False)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "final.mdl", text(False).replace(before, after))
