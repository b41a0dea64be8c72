"""Reading pairs: messages with file and line, buckets, batches as a function of (seed, epoch), vocabularies."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fluid.data import evaluation_batches, training_batches
from fluid.errors import DataError, UserError
from fluid.workers import empty_arrays
from neural_machine_translation import translation_memory
from neural_machine_translation.reader import (
    PairSource,
    TextPairs,
    blank,
    cut_in_turn,
    digit_pairs,
    input_lines,
    open_pairs,
    random_cuts,
    read_parallel,
    read_tsv,
    sorted_together,
    used_buckets,
)
from neural_machine_translation.vocabulary import (
    SPECIAL_WORDS,
    SentencePiece,
    WordList,
    from_facts,
    read_vocabulary,
    train_sentencepiece,
)

import numpy as np
import pytest

LETTERS = WordList((*SPECIAL_WORDS, *"abcdefgh"))


def text_pairs(lengths: list[int]) -> TextPairs:
    lines = [" ".join("abcdefgh"[number % 8] for number in range(length)) for length in lengths]
    return TextPairs(lines, list(lines), ["made.tsv"], [(0, number + 1) for number in range(len(lines))])


def source_of(lengths: list[int], **options) -> PairSource:
    defaults = {"max_length": 64, "batch_size": 64}
    return PairSource(text_pairs(lengths), LETTERS, LETTERS, **{**defaults, **options})


def load(source: PairSource, indices: np.ndarray) -> dict[str, np.ndarray]:
    return source.load_all(indices, indices, empty_arrays)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\nno tab here\n", r"pairs\.tsv:2: 1 field, where"),
        (b"a\tb\tc\n", r"pairs\.tsv:1: 3 fields, where"),
        (b"a\tb\n\xff\tb\n", r"pairs\.tsv:2: is not UTF-8 text \(byte 0xff\)"),
    ],
)
def test_broken_lines_are_named(tmp_path, content, message):
    (tmp_path / "pairs.tsv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_tsv(tmp_path / "pairs.tsv")


def test_a_memory_of_nothing_is_one_message(tmp_path):
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(DataError, match=r"empty\.tsv: no sentence pair"):
        translation_memory.main(translation_memory.Flags(test_file_pattern=str(tmp_path / "empty.tsv")))


def test_misaligned_files_are_named(tmp_path):
    (tmp_path / "train.en").write_text("one\ntwo\nthree\n")
    (tmp_path / "train.de").write_text("eins\nzwei\n")
    with pytest.raises(DataError, match=r"train\.en:3: has no counterpart, .*train\.de ends after 2 lines"):
        open_pairs("train", data_dir=tmp_path, pattern=None, languages=("en", "de"))
    with pytest.raises(DataError, match=r"neither dev\.tsv nor dev\.en and dev\.de"):
        open_pairs("dev", data_dir=tmp_path, pattern=None, languages=("en", "de"))
    (tmp_path / "train.de").write_text("eins\r\nzwei\r\ndrei")
    assert read_parallel(tmp_path / "train.en", tmp_path / "train.de").targets == ["eins", "zwei", "drei"]


def test_empty_and_long_sentences_are_left_out_or_refused():
    pairs = text_pairs([3, 0, 70, 5])
    source = PairSource(pairs, LETTERS, LETTERS, max_length=64, batch_size=64)
    assert len(source) == 2 and source.where(1) == "made.tsv:4"
    assert source.left_out == ["made.tsv:2: an empty sentence", "made.tsv:3: 72 words, more than --max_length 64"]
    with pytest.raises(DataError, match=r"made\.tsv:2: an empty sentence"):
        PairSource(pairs, LETTERS, LETTERS, max_length=64, batch_size=64, strict=True)
    with pytest.raises(DataError, match="no usable sentence pair"):
        source_of([0, 90])


def test_feeds_are_the_sentences_with_special_words():
    source = source_of([3, 2], batch_size=2, use_token_batch=False)
    feed = load(source, np.arange(2))
    assert feed["src_word"].tolist() == [[0, 3, 4, 5, 1, 1, 1, 1], [0, 3, 4, 1, 1, 1, 1, 1]]
    assert feed["trg_word"].tolist() == [[0, 3, 4, 5, 1, 1, 1, 1], [0, 3, 4, 1, 1, 1, 1, 1]]
    assert feed["lbl_word"].tolist() == [[3, 4, 5, 1, 1, 1, 1, 1], [3, 4, 1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize("sort_type", ["pool", "global", "none"])
@pytest.mark.parametrize("use_token_batch", [True, False])
def test_an_epoch_holds_every_pair_in_few_shapes(sort_type, use_token_batch):
    rng = np.random.default_rng(2)
    lengths = rng.integers(1, 60, 777).tolist()
    source = source_of(lengths, batch_size=512 if use_token_batch else 16, use_token_batch=use_token_batch)
    plan = source.buckets.training_plan(seed=3, pool_size=sorted_together(sort_type, 100, len(source)))
    shapes = set()
    counts = {len(plan(epoch)) for epoch in range(3)}
    assert len(counts) == 1, "epochs have the same number of batches"
    seen = np.zeros(777, int)
    for batch in plan(0):
        seen[batch] += 1
        feed = load(source, batch)
        shapes.add(feed["src_word"].shape)
        assert feed["src_word"].shape == feed["lbl_word"].shape
        assert feed["src_word"].shape[1] >= source.buckets.lengths[batch].max()
        if use_token_batch:
            assert feed["src_word"].size <= 512
    assert seen.min() == 1, "every pair is in the epoch"
    # Only the very last batch is filled up with pairs drawn twice.
    assert (seen - 1).sum() < max(len(batch) for batch in plan(0))
    assert len(shapes) <= len(source.buckets.edges) == len(used_buckets(64))
    assert shapes <= {blank["src_word"].shape for blank in source.buckets.blanks(blank)}
    assert all(np.array_equal(a, b) for a, b in zip(plan(1), plan(1), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(plan(0), plan(1), strict=True))


def test_text_is_cut_at_random_the_same_way_each_time():
    vocabulary = train_sentencepiece(["the cat sat", "the hat sat", "that cat", "that hat"] * 4, 40)
    texts = ["the cat  sat", "that hat", "unheard-of \u2603", ""]
    whole = vocabulary.encode_at_random(texts, 0.0, seed=1)
    assert [words.tolist() for words in whole] == [words.tolist() for words in vocabulary.encode_all(texts)]
    pairs = TextPairs(["the cat sat", "that hat"] * 8, ["that cat", "the hat sat"] * 8, ["f"], [(0, 1)] * 16)
    sides = {"source": vocabulary, "target": vocabulary}
    cuts = random_cuts(pairs, **sides, dropout=0.5, number=3)
    source = PairSource(pairs, **sides, max_length=64, batch_size=16, use_token_batch=False, cuts=cuts)
    plan = cut_in_turn(source.buckets.training_plan(seed=1), source.cuts)
    feeds = []
    for epoch in range(4):
        ((indices, cut),) = plan(epoch)
        feeds.append(source.load_all(indices, indices, empty_arrays, cut))
        texts = [vocabulary.decode(words[words > 2]) for words in feeds[-1]["lbl_word"]]
        assert texts == [pairs.targets[index] for index in indices]
    longest = [(feed["lbl_word"] > 2).sum() for feed in feeds]
    assert len(set(longest[:3])) > 1, "each epoch in another cut"
    assert longest[3] == longest[0]
    assert digest(words for cut in cuts for pair in cut for words in pair) == "288d5a68293f5bf8", "in every process"
    with pytest.raises(UserError, match="list of words"):
        random_cuts(pairs, LETTERS, LETTERS, dropout=0.1, number=1)
    room = int(PairSource(pairs, **sides, max_length=64, batch_size=64).buckets.lengths.max())
    assert len(PairSource(pairs, **sides, max_length=room, batch_size=64, cuts=cuts)) == 16, "usual where too long"


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Changes with any number or shape of the arrays."""
    result = hashlib.sha256()
    for array in arrays:
        result.update(repr(array.shape).encode() + np.ascontiguousarray(array, "<i8").tobytes())
    return result.hexdigest()[:16]


@pytest.mark.parametrize(
    ("use_token_batch", "devices", "recorded"),
    [
        (True, 1, ["d16c94814b8a3115", "69aebd22b5728d56", "15d41a6602107444", "51ae14d63988183d"]),
        (True, 3, ["6a7704b9f16f3721", "fc25ad95b6b3f65e", "6e6fee9f8ff065d0", "51fcc59d93f559b2"]),
        (False, 1, ["e58f569c96bf78b5", "0c9cf882ba760e7f", "be75830ad99ff982", "92ddfec778634443"]),
        (False, 3, ["b7231069936edc02", "f165fd98472d9ca9", "22edeb4ced2aa543", "a5e3dddfa35f74fb"]),
    ],
)
def test_plans_are_those_that_earlier_runs_were_trained_by(use_token_batch, devices, recorded):
    lengths = np.random.default_rng(5).integers(1, 60, 777).tolist()
    source = source_of(lengths, batch_size=512 if use_token_batch else 16, use_token_batch=use_token_batch)
    source.buckets = replace(source.buckets, multiple=devices)
    options = [
        {},
        {"pool_size": sorted_together("global", 100, len(source)), "shuffle_batches": False},
        {"pool_size": sorted_together("none", 100, len(source))},
        {"pool_size": sorted_together("pool", 100, len(source)), "shuffle": False},
    ]
    plans = [source.buckets.training_plan(seed=3, **chosen) for chosen in options]
    assert [digest([*plan(0), *plan(1)]) for plan in plans] == recorded
    assert digest(source.buckets.evaluation_plan(31)(0)) == "ba848f974548969b"


@pytest.mark.parametrize("devices, recorded", [(1, "9e2438aa4d3b9f05"), (3, "bb707a003de0591c")])
def test_feeds_are_those_that_earlier_runs_were_trained_by(devices, recorded):
    source = source_of(np.random.default_rng(5).integers(1, 60, 777).tolist(), batch_size=512)
    source.buckets = replace(source.buckets, multiple=devices)
    with training_batches(source, 512, seed=3, num_epochs=2, plan=source.buckets.training_plan(seed=3)) as batches:
        assert digest(array for batch in batches for array in batch.feed.values()) == recorded


def test_batches_resume_with_any_number_of_workers():
    source = source_of(np.random.default_rng(1).integers(1, 60, 300).tolist(), batch_size=256)
    plan = source.buckets.training_plan(seed=9)
    with training_batches(source, 256, seed=9, plan=plan) as batches:
        expected = [next(batches).feed for _ in range(len(plan(0)) + 5)]
    start = len(plan(0)) - 2
    with training_batches(source, 256, seed=9, plan=plan, start=start, num_workers=2) as batches:
        for feed in expected[start:]:
            got = next(batches).feed
            assert all(np.array_equal(got[name], feed[name]) for name in feed)


def test_evaluation_counts_every_pair_once():
    lengths = np.random.default_rng(1).integers(1, 60, 101).tolist()
    source = source_of(lengths, batch_size=16, use_token_batch=False)
    words = 0
    with evaluation_batches(source, 16, plan=source.buckets.evaluation_plan(16)) as batches:
        for batch in batches:
            assert batch.feed["src_word"].shape[0] == 16
            labels = batch.feed["lbl_word"][: batch.size]
            words += int((labels != 1).sum()) + len(labels)
    assert words == sum(lengths) + 101 == source.target_words


def test_reader_processes_need_neither_paddle_nor_jax():
    code = "import sys, neural_machine_translation.reader; print('paddle' in sys.modules or 'jax' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_sentencepiece_round_trip():
    pairs = open_pairs("train", data_dir=None, pattern=None, languages=("en", "de"))
    vocabulary = train_sentencepiece([*pairs.sources, *pairs.targets], 1000)
    again = train_sentencepiece([*pairs.sources, *pairs.targets], 1000)
    assert again.model == vocabulary.model
    assert vocabulary.size == 1000
    for text in (*pairs.targets[:200], "Ein seltenes Zeichen: \u4e16\u754c \U0001f600"):
        indices = vocabulary.encode(text)
        assert vocabulary.decode(indices) == " ".join(text.split()).replace("…", "...")
        assert indices.min() > 2 and indices.dtype == np.int32
    restored = from_facts(vocabulary.to_facts())
    assert (
        isinstance(restored, SentencePiece)
        and restored.encode("Where?").tolist() == vocabulary.encode("Where?").tolist()
    )
    for size in (1, 5):
        with pytest.raises(DataError, match=f"of {size} words .* give a --vocab_size well above the number"):
            train_sentencepiece(["a b c d"], size)


def test_word_lists_of_2018(tmp_path):
    path = tmp_path / "vocab.bpe.32000"
    path.write_text("<s>\n<e>\n<unk>\nHau@@\ns\nist\n,\n", encoding="utf-8")
    vocabulary = read_vocabulary(path, language="de")
    assert vocabulary.encode("Hau@@ s ist schön").tolist() == [3, 4, 5, 2]
    assert vocabulary.decode([3, 4, 6, 5]) == vocabulary.plain("Hau@@ s , ist") == "Haus, ist"
    assert from_facts(vocabulary.to_facts()) == vocabulary
    with pytest.raises(DataError, match=r"vocab.bpe.32000:1: a vocabulary starts with the lines <s> </s> <unk>"):
        read_vocabulary(path, ("<s>", "</s>", "<unk>"))
    path.write_text("<s>\n<e>\n<unk>\nHaus\nHaus\n")
    with pytest.raises(DataError, match=r"bpe.32000:5: the word 'Haus' occurs twice"):
        read_vocabulary(path)
    path.write_bytes(b"\xef\xbb\xbf<s>\r\n<e>\r\n<unk>\r\nHaus\r\n")
    assert read_vocabulary(path).words == (*SPECIAL_WORDS, "Haus")
    path.write_bytes(b"<s>\n<e>\n<unk>\nsch\xf6n\n")
    with pytest.raises(DataError, match="bpe.32000:4: is not UTF-8"):
        read_vocabulary(path)
    with pytest.raises(DataError, match="absent: cannot be read"):
        read_vocabulary(tmp_path / "absent")


def test_sentencepiece_models_that_are_none_are_refused(tmp_path):
    """A pipe would be waited for; of nothing sentencepiece makes a model without words."""
    path = tmp_path / "a.model"
    for content, reason in ((b"", "it is empty"), (b"<s>\n<e>\n<unk>\n", "INTERNAL"), (b"\x12\x00", "")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"a.model: cannot be read as a vocabulary .*{reason}"):
            read_vocabulary(path)
    os.mkfifo(tmp_path / "pipe.model")
    with pytest.raises(DataError, match="pipe.model: cannot be read as a vocabulary .*a pipe"):
        read_vocabulary(tmp_path / "pipe.model")
    path.write_bytes(train_sentencepiece(["a b c"] * 9, 8).model)
    with pytest.raises(DataError, match="first pieces are not <s> </s> <unk>"):
        read_vocabulary(path, ("<s>", "</s>", "<unk>"))


def test_a_folder_named_like_a_pattern_is_itself(tmp_path):
    for name in ("a[1]", "a1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.tsv").write_text(f"{name}\tx\n")
    options = {"data_dir": tmp_path / "a[1]", "pattern": None, "languages": ("en", "de")}
    assert open_pairs("train", **options).sources == ["a[1]"]
    assert read_tsv(tmp_path / "a[0-9]" / "train.tsv").sources == ["a1"]


def test_input_words(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "list").write_text(f"{tmp_path / 'a.txt'}\n")
    expected = [(f"{tmp_path / 'a.txt'}:{line}", text) for line, text in ((1, "one"), (2, ""), (3, "two"))]
    for word in (str(tmp_path / "a.txt"), str(tmp_path), str(tmp_path / "*.txt"), f"@{tmp_path / 'list'}"):
        assert list(input_lines([word])) == expected
    (tmp_path / "b.tsv").write_text("one\teins\n")
    assert list(input_lines([str(tmp_path)])) == expected
    assert list(input_lines([str(tmp_path)], (".tsv", ".txt"))) == [
        *expected,
        (f"{tmp_path / 'b.tsv'}:1", "one\teins"),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no text file in this folder \(\.tsv, \.txt\)"):
        list(input_lines([str(tmp_path / "empty")], (".tsv", ".txt")))
    for sentence in ("How are you?", "Hello", "Hello!", "e-mail"):
        assert list(input_lines([sentence])) == [("command line", sentence)]
    with pytest.raises(DataError, match=r"nothing\.txt: no such file"):
        list(input_lines(["nothing.txt"]))
    with pytest.raises(DataError, match="command line:1: is not UTF-8 text .byte 0xff"):
        list(input_lines([os.fsdecode(b"Hello \xff")]))


def test_lists_of_input_files(tmp_path):
    """Blank lines are no sentences, and a list that names itself is not read for ever."""
    text, names = tmp_path / "a.txt", tmp_path / "names"
    text.write_text("one\n")
    names.write_bytes(f"\ufeff\n{text}\r\n\n".encode())
    assert list(input_lines([f"@{names}"])) == [(f"{text}:1", "one")]
    for content, message in (
        (f"@{names}", "names:1: @.*no other list"),
        ("", "names no text file"),
        ("b.txt", "names:1: b"),
    ):
        names.write_text(content)
        with pytest.raises(DataError, match=message):
            list(input_lines([f"@{names}"]))


def test_hidden_files_are_no_text_and_what_is_missing_is_told_first(tmp_path):
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "._a.txt").write_bytes(b"\x00\x05\x16\x07\xff")
    assert [text for _, text in input_lines([str(tmp_path)])] == ["one"]
    with pytest.raises(DataError, match="b.txt: no such file, folder or pattern"):
        next(input_lines([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]))


def test_digit_pairs_are_a_function_of_the_seed():
    assert digit_pairs(5, 1).sources == digit_pairs(5, 1).targets
    assert digit_pairs(5, 1).sources != digit_pairs(5, 2).sources


@pytest.mark.parametrize("devices", [2, 3, 8])
@pytest.mark.parametrize("batch_size", [64, 1000])
def test_every_batch_can_be_shared_by_the_devices(devices, batch_size):
    source = source_of([*range(1, 60), *range(1, 60)], batch_size=batch_size)
    source.buckets = replace(source.buckets, multiple=devices)
    batches = source.buckets.training_plan(seed=1)(0)
    assert all(len(batch) % devices == 0 for batch in batches)
    assert set(np.concatenate(batches).tolist()) == set(range(len(source)))
    for bucket in source.buckets.edges:
        rows = source.buckets.rows(bucket)
        assert rows == devices or rows * bucket <= batch_size
    for batch in batches:
        feed = load(source, batch)
        assert (
            feed["src_word"].shape[0] == len(batch) and feed["src_word"].shape[1] >= source.buckets.lengths[batch].max()
        )
