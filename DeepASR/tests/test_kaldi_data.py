"""What Kaldi and 2018 left, from files to words: prepared, trained on, decoded."""

import gzip
from pathlib import Path
from typing import Any

from DeepASR import eval as evaluation
from DeepASR import infer, infer_by_ckpt, post_latgen_faster_mapped, prepare_lst, train
from DeepASR.corpus import open_corpus
from DeepASR.decoding.decoder import Decoder
from DeepASR.decoding.graph_building import from_grammar
from DeepASR.decoding.lexicon import Lexicon
from DeepASR.decoding.processes import decode_all
from DeepASR.kaldi.tables import ArchiveWriter, read_archive, read_script
from DeepASR.prepare_kaldi import Flags, main, read_alignments
from fluid.errors import DataError, UserError

import numpy as np
import pytest

LEXICON = Lexicon({"one": (("w", "n"),), "two": (("t", "w"),)})
CLASSES = LEXICON.class_num
"""Transition ids of the made-up model: two of each class, the arc onward and the self-loop."""


def model_text() -> str:
    """A final.mdl in which phone k + 1 has one state, of pdf k."""
    phones = " ".join(str(phone + 1) for phone in range(CLASSES))
    states = "<State> 0 <PdfClass> 0 <Transition> 1 0.5 <Transition> 0 0.5 </State> <State> 1 </State>"
    triples = " ".join(f"{phone + 1} 0 {phone}" for phone in range(CLASSES))
    return (
        f"<TransitionModel> <Topology> <TopologyEntry> <ForPhones> {phones} </ForPhones> {states} </TopologyEntry> "
        f"</Topology> <Triples> {CLASSES} {triples} </Triples> <LogProbs> [ {'0 ' * (2 * CLASSES + 1)}] </LogProbs> "
        "</TransitionModel>\n"
    )


def spoken(words: list[str], rng: np.random.Generator) -> np.ndarray:
    """Class of each frame."""
    phones = ["SIL", *(phone for word in words for phone in LEXICON.words[word][0]), "SIL"]
    states = [3 * LEXICON.number[phone] + state for phone in phones for state in range(3)]
    return np.repeat(states, rng.integers(2, 5, len(states)))


@pytest.fixture
def kaldi(tmp_path: Path) -> Path:
    """Folders of data, alignments, a model and a graph, of made-up speech in which classes look different."""
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(CLASSES, 8)) * 3
    for part, count in (("train", 40), ("dev", 6), ("test", 6)):
        (tmp_path / part).mkdir()
        (tmp_path / f"{part}_ali").mkdir()
        text = ""
        with (
            ArchiveWriter(tmp_path / part / "feats.ark", tmp_path / part / "feats.scp", kind="CM2") as features,
            ArchiveWriter(tmp_path / "plain") as alignments,
        ):
            for number in range(count):
                words = [("one", "two")[word] for word in rng.integers(0, 2, 3)]
                labels = spoken(words, rng)
                features.write(f"{part}{number}", looks[labels] + rng.normal(size=(len(labels), 8)) * 0.5)
                alignments.write(f"{part}{number}", 2 * labels + 1)
                text += f"{part}{number} {' '.join(words)}\n"
        (tmp_path / f"{part}_ali" / "ali.1.gz").write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
        (tmp_path / part / "text").write_text(text)
    (tmp_path / "final.mdl").write_text(model_text())
    graph, words = from_grammar(LEXICON, "(one | two)+")
    emitting = graph.arcs["input"] > 0
    graph.arcs["input"][emitting] = 2 * graph.arcs["input"][emitting] - 1
    (tmp_path / "graph").mkdir()
    graph.write(tmp_path / "graph" / "HCLG.fst")
    (tmp_path / "graph" / "words.txt").write_text("".join(f"{word} {number}\n" for number, word in enumerate(words)))
    return tmp_path


def flags(kaldi: Path, **more: Any) -> Flags:
    options: dict[str, Any] = {part: kaldi / part for part in ("train", "dev", "test", "train_ali", "dev_ali")}
    options |= {"trans_model": kaldi / "final.mdl", "graph_dir": kaldi / "graph", "output_dir": kaldi / "data"}
    return Flags(**options | more)


def test_kaldi_s_files_train_a_recogniser_that_kaldi_s_graph_decodes(
    kaldi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kaldi)
    main(flags(kaldi, error_rate_type="wer"))
    corpus = open_corpus(kaldi / "data")
    assert (corpus.class_num, corpus.frame_dim) == (CLASSES, 8) and corpus.graph is not None
    small: dict[str, Any] = {
        "hidden_dim": 24,
        "proj_dim": 16,
        "stacked_num": 1,
        "filters": 4,
        "engine": "xla",
        "lengths": (96,),
    }
    train.main(train.Flags(data_dir=kaldi / "data", output_dir=kaldi / "run", num_epochs=25, lr=0.02, **small))
    common: dict[str, Any] = {"checkpoint": kaldi / "run", "engine": "xla", "device": "cpu"}
    result = evaluation.main(evaluation.Flags(data_dir=kaldi / "data", **common))
    assert result["wer"] < 10
    with pytest.raises(UserError, match="--trans_model goes with --graphs, which is missing"):
        # The folder's own graph has pdfs already.
        evaluation.main(evaluation.Flags(data_dir=kaldi / "data", trans_model=kaldi / "final.mdl", **common))
    graph = {"graphs": kaldi / "graph" / "HCLG.fst", "vocabulary": kaldi / "graph" / "words.txt"}
    heard = infer_by_ckpt.main(
        infer_by_ckpt.Flags(
            infer_feature_lst=kaldi / "test" / "feats.scp",
            trans_model=kaldi / "final.mdl",
            decode_to_path=kaldi / "heard.txt",
            post_matrix_path=kaldi / "posteriors.ark",
            num_decoders=2,
            **graph,
            **common,
        )
    )
    texts = corpus.part("test").texts
    assert sum(heard[name] == text for name, text in texts.items()) >= 5
    assert (kaldi / "heard.txt").read_text() == "".join(f"{name} {text}\n" for name, text in heard.items())
    for name, posterior in read_archive(kaldi / "posteriors.ark"):
        assert posterior.shape == (corpus.part("test").lengths[name], CLASSES)
        np.testing.assert_allclose(np.exp(posterior).sum(axis=1), 1, rtol=1e-4)
    with ArchiveWriter(kaldi / "odd.ark", kaldi / "odd.scp") as archive:
        archive.write("nan", np.full((30, 8), np.nan, np.float32))
        archive.write("narrow", np.zeros((30, 7), np.float32))
    listed = [(kaldi / name).read_text() for name in ("odd.scp", "test/feats.scp")]
    (kaldi / "all.scp").write_text("".join(["gone nowhere.ark:5\n", *listed]))
    options = {"features": kaldi / "all.scp", "trans_model": kaldi / "final.mdl", **graph, **common}
    with pytest.raises(
        DataError, match=r"3 of 9 (.*\n)*.*nowhere.ark: cannot.*\n.*nan: .* not a number\n.*narrow: features \[30, 7\]"
    ):
        infer.main(infer.Flags(output_dir=kaldi / "transcripts", **options))
    assert len((kaldi / "transcripts" / "transcripts.txt").read_text().splitlines()) == 6
    with pytest.raises(DataError, match="the graph has the input label .* must be relabelled"):
        infer_by_ckpt.main(
            infer_by_ckpt.Flags(
                infer_feature_lst=kaldi / "test" / "feats.scp", decode_to_path=kaldi / "x", **graph, **common
            )
        )


def test_the_decoder_of_2018(kaldi: Path) -> None:
    """By its name and methods, of posteriors and of their logarithms, in memory and in files."""
    (kaldi / "prior").write_text(f"[ {' '.join(['-2'] * CLASSES)} ]\n")
    files = [kaldi / "final.mdl", kaldi / "graph" / "words.txt", kaldi / "graph" / "HCLG.fst", kaldi / "prior"]
    decoder = post_latgen_faster_mapped.Decoder(*files, 11, 0.5)
    rng = np.random.default_rng(4)
    said = [["one", "two", "two"], ["two"], ["one", "one"]]
    posteriors = [np.eye(CLASSES)[spoken(words, rng)] * 0.9 + 0.1 / CLASSES for words in said]
    texts = [" ".join(words) for words in said]
    assert [decoder.decode(posterior) for posterior in posteriors] == texts
    assert decoder.decode_batch([np.log(posterior) for posterior in posteriors], 2) == texts
    with ArchiveWriter(kaldi / "p.ark", kaldi / "p.scp") as archive:
        for number, posterior in enumerate(posteriors):
            archive.write(f"u{number}", np.log(posterior).astype(np.float32))
    lines = [f"u{number} {text}" for number, text in enumerate(texts)]
    for specifier in (kaldi / "p.ark", f"ark:{kaldi / 'p.ark'}", f"scp:{kaldi / 'p.scp'}", kaldi / "p.scp"):
        assert decoder.decode_from_file(specifier, 1) == lines
    with pytest.raises(DataError, match="neither probabilities that sum to 1 nor"):
        decoder.decode(posteriors[0] * 2)
    (kaldi / "graph" / "words.txt").write_text("one 1\ntwo second\n")
    with pytest.raises(DataError, match="words.txt: lines 'WORD NUMBER' are expected"):
        post_latgen_faster_mapped.Decoder(*files)
    for number in (-1, 10**12):
        (kaldi / "graph" / "words.txt").write_text(f"one {number}\n")
        with pytest.raises(DataError, match=f"{number} is not in 0.."):
            post_latgen_faster_mapped.Decoder(*files)


def rewritten(kaldi: Path, change: Any) -> None:
    """The training data with `change(name, features, ids)` in place of each utterance."""
    features = {name: entry.read() for name, entry in read_script(kaldi / "train" / "feats.scp").items()}
    ids = dict(read_archive(kaldi / "train_ali" / "ali.1.gz"))
    with (
        ArchiveWriter(kaldi / "train" / "feats.ark", kaldi / "train" / "feats.scp") as archive,
        ArchiveWriter(kaldi / "train_ali" / "ali.1.gz") as alignments,
    ):
        for name in features:
            array, path = change(name, features[name], ids[name])
            archive.write(name, array)
            if path is not None:
                alignments.write(name, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda array, ids: (array[:-3], ids),
            r"train7: \d+ frames and \d+ labels: features and alignment of different data",
        ),
        (
            lambda array, ids: (array, ids[::3]),
            r"train7: .*an alignment of one frame in 3 or so, as chain models have",
        ),
        (lambda array, ids: (array * np.nan, ids), "train7: a feature is not a number"),
        (lambda array, ids: (array[:, :7], ids), "train7: its features have 7 columns, those before 8"),
        (lambda array, ids: (array[0], ids), r"train7: its features are \[8\] numbers, no matrix"),
        (lambda array, ids: (array, None), "train7: it has no alignment"),
        (lambda array, ids: (array[:1], ids[:0]), "train7: 1 frame and 0 labels"),
        (
            lambda array, ids: (array, ids + 100),
            r"train_ali: train7: .*final.mdl: the model has the transition ids 1 to 24",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_utterance(kaldi: Path, change: Any, message: str) -> None:
    rewritten(kaldi, lambda name, array, ids: change(array, ids) if name == "train7" else (array, ids))
    with pytest.raises(DataError, match=message):
        main(flags(kaldi))
    assert not (kaldi / "data").exists()


def test_texts_without_features_are_told(kaldi: Path, capsys: pytest.CaptureFixture) -> None:
    with open(kaldi / "test" / "text", "a") as file:
        file.write("lost one two\n")
    with pytest.raises(DataError, match="test: cannot use 1 utterance:\n  lost: it has no features"):
        main(flags(kaldi))
    main(flags(kaldi, leave_out=True))
    assert "  lost: it has no features" in capsys.readouterr().out
    assert len(open_corpus(kaldi / "data").part("test")) == 6


@pytest.mark.parametrize("numbers", [np.ones((5, 2), np.float32), np.ones(5, np.float32), np.array([0, -1])])
def test_what_is_no_alignment(tmp_path: Path, numbers: np.ndarray) -> None:
    with ArchiveWriter(tmp_path / "ali") as archive:
        archive.write("a", numbers)
    with pytest.raises(DataError, match="ali: a: holds no alignment"):
        list(read_alignments(tmp_path / "ali"))


def test_a_frame_more_or_less_is_cut_off_and_said(kaldi: Path, capsys: pytest.CaptureFixture) -> None:
    rewritten(
        kaldi,
        lambda name, array, ids: {"train3": (array[:-1], ids), "train4": (array, ids[:-1])}.get(name, (array, ids)),
    )
    main(flags(kaldi))
    said = capsys.readouterr().out
    assert "2 utterances cut to the shorter" in said and "  train3: " in said and "  train4: " in said
    part = open_corpus(kaldi / "data").part("train")
    assert all(len(part[name]) == part.lengths[name] == len(part.alignments[name]) for name in part)


def test_features_named_by_ranges_are_cut_within_them(kaldi: Path) -> None:
    """Of rows and columns, of speakers some of whom are not known."""
    scp, alignments = kaldi / "train" / "feats.scp", kaldi / "train_ali" / "ali.1.gz"
    whole = {name: entry.read() for name, entry in read_script(scp).items()}
    scp.write_text(
        "".join(f"{line}[2:{len(whole[line.split()[0]]) - 1},1:6]\n" for line in scp.read_text().splitlines())
    )
    ids = {name: array[2:-1] for name, array in read_archive(alignments)}
    with ArchiveWriter(alignments) as archive:
        for name, array in ids.items():
            archive.write(name, array)
    (kaldi / "train" / "utt2spk").write_text("train0 anna\n")
    for part in ("dev", "test"):
        scp = kaldi / part / "feats.scp"
        scp.write_text("".join(f"{line}[:,1:6]\n" for line in scp.read_text().splitlines()))
    main(flags(kaldi))
    part = open_corpus(kaldi / "data").part("train")
    assert part.speakers == {"train0": "anna"}
    for name, features in whole.items():
        np.testing.assert_array_equal(part[name], features[2:-1, 1:7])


def test_words_that_the_graph_lacks_are_listed(kaldi: Path, capsys: pytest.CaptureFixture) -> None:
    text = (kaldi / "test" / "text").read_text().replace("one", "eins", 1)
    (kaldi / "test" / "text").write_text(text)
    main(flags(kaldi))
    assert "lacks 1 word of the texts, which will be errors: eins" in capsys.readouterr().out


def test_lists_of_2018_beside_a_prepared_folder_are_refused() -> None:
    lists: dict[str, Any] = dict.fromkeys(train.LISTS, Path("a.lst"))
    with pytest.raises(UserError, match="--data_dir and --train_feature_lst name two data sets"):
        train.open_data(train.Flags(data_dir=Path("prepared"), **lists))


def test_lists_of_2018_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = {f"utt{number}": rng.normal(size=(20 + number, 8)).astype("<f4") for number in range(3)}
    labels = {name: rng.integers(0, 9, len(array)).astype("<i4") for name, array in features.items()}
    for kind, arrays in (("feature", features), ("label", labels)):
        lines, position = [f"total {len(arrays)} 0"], 0
        for name, array in arrays.items():
            width = f" {array.shape[1]}" if array.ndim == 2 else ""
            lines.append(f"{name} 0 {position} {array.nbytes} {len(array)}{width}")
            position += array.nbytes
        (tmp_path / f"{kind}.bin").write_bytes(b"".join(array.tobytes() for array in arrays.values()))
        (tmp_path / f"{kind}.desc").write_text("\n".join(lines) + "\n")
        (tmp_path / f"{kind}.lst").write_text(f"{kind}.bin\n{kind}.desc\n")
    lists = (tmp_path / "feature.lst", tmp_path / "label.lst")
    options: dict[str, Any] = dict(
        zip(("train_feature_lst", "train_label_lst", "val_feature_lst", "val_label_lst"), lists * 2)
    )
    prepare_lst.main(prepare_lst.Flags(**options, class_num=9, output_dir=tmp_path / "data"))
    part = open_corpus(tmp_path / "data").part("train")
    for name, array in features.items():
        np.testing.assert_array_equal(part[name], array)
        np.testing.assert_array_equal(part.alignments[name], labels[name])
    with pytest.raises(DataError, match=r"label.lst: utt\d: the label 8 where there are 8 classes"):
        prepare_lst.main(prepare_lst.Flags(**options, class_num=8, output_dir=tmp_path / "other"))
    (tmp_path / "label.bin").write_bytes(np.full(63, -2, "<i4").tobytes())
    with pytest.raises(DataError, match=r"label.lst: utt0: the label -2 where there are 8 classes"):
        prepare_lst.main(prepare_lst.Flags(**options, class_num=8, output_dir=tmp_path / "other"))
    lines = (tmp_path / "feature.desc").read_text().splitlines()
    (tmp_path / "feature.desc").write_text("\n".join([*lines, lines[1]]))
    with pytest.raises(DataError, match=r"feature.desc: utt0: is in .*feature.desc before"):
        prepare_lst.main(prepare_lst.Flags(**options, class_num=9, output_dir=tmp_path / "other"))
    (tmp_path / "feature.desc").write_text("total\nutt0 1 2\n")
    with pytest.raises(DataError, match=r"feature.desc:2: 'NAME ... START BYTES FRAMES DIM' is expected"):
        prepare_lst.main(prepare_lst.Flags(**options, class_num=9, output_dir=tmp_path / "other"))


def test_processes_decode_in_order_and_tell_of_errors() -> None:
    graph, words = from_grammar(LEXICON, "(one | two)+")
    decoder = Decoder(graph, words, np.zeros(CLASSES), acoustic_scale=1.0)
    rng = np.random.default_rng(0)
    texts = [[("one", "two")[word] for word in rng.integers(0, 2, 3)] for _ in range(12)]
    posteriors = [(" ".join(text), np.eye(CLASSES, dtype=np.float32)[spoken(text, rng)]) for text in texts]
    assert [(name, item.text) for name, item in decode_all(decoder, posteriors, 2)] == [
        (name, name) for name, _ in posteriors
    ]
    posteriors[5][1][3] = np.nan
    with pytest.raises(DataError, match="the posterior of frame 3 is not a number"):
        list(decode_all(decoder, posteriors, 2))
