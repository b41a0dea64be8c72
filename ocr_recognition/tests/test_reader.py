"""Lists, data bases, pictures of every kind; what is refused, left out and counted; batches."""

from collections import Counter
from pathlib import Path

from fluid import isolated
from fluid.buckets import Buckets
from fluid.data import evaluation_batches, training_batches
from fluid.errors import DataError
from ocr_recognition.alphabet import Alphabet, read_dictionary
from ocr_recognition.checking import check
from ocr_recognition.decoding import read_lexicon
from ocr_recognition.lmdb_words import read_lmdb
from ocr_recognition.options import SearchFlags
from ocr_recognition.preprocess import Preprocess
from ocr_recognition.reader import Labelling, WordSource, bucket_edges, open_words, read_list
from ocr_recognition.recognizer import Recognizer
from ocr_recognition.sources import fingerprint_of, fingerprint_of_names

import cv2
import numpy as np
import pytest
from PIL import Image

ASCII = Alphabet.ascii()
PREPROCESS = Preprocess(16, 256)


def picture(width: int, height: int = 20) -> np.ndarray:
    return np.random.default_rng((width, height)).integers(0, 256, (height, width, 3), np.uint8)


def source(path: Path, labelling: Labelling | None = None, batch_size: int = 2) -> WordSource:
    return WordSource(read_list(path), PREPROCESS, labelling or Labelling(ASCII), batch_size)


def write(folder: Path, lines: dict[str, str], widths: tuple[int, ...] = (60, 90, 150)) -> Path:
    for number, width in enumerate(widths):
        cv2.imwrite(str(folder / f"{number}.png"), picture(width))
    path = folder / "train.txt"
    path.write_text("".join(f"{name}\t{text}\n" for name, text in lines.items()), encoding="utf-8")
    return path


def test_a_dictionary_is_read_and_checked(tmp_path):
    path = tmp_path / "dict.txt"
    path.write_bytes("a\r\nß\r\n \r\ne\u0301\r\n".encode("utf-8-sig"))
    alphabet = read_dictionary(path)
    assert alphabet.characters == ("a", "ß", " ", "\u00e9")
    assert alphabet.decode(alphabet.encode("ß a")) == "ß a"
    assert Alphabet.from_json(alphabet.to_json()) == alphabet
    for content, message in (
        ("a\nb\na\n", r":3: 'a' \(U\+0061\) is in line 1 already"),
        ("a\n\nb\n", ":2: is blank"),
        ("a\nbc\n", ":2: holds 2 characters"),
        ("a\n\u200b\n", ":2: .*U.200B.* cannot be seen"),
        ("", "holds no character"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_dictionary(path)
    path.write_bytes(b"a\n\xff\n")
    with pytest.raises(DataError, match=":2: is not UTF-8"):
        read_dictionary(path)


def test_unknown_characters_are_errors_dropped_or_mapped_and_counted():
    met: Counter[str] = Counter()
    with pytest.raises(DataError, match="U.00E9"):
        ASCII.encode("café", "error", met)
    assert ASCII.decode(ASCII.encode("café–é", "drop", met)) == "caf"
    assert ASCII.decode(ASCII.encode("Café–’ﬁ", "map", met)) == "Cafe-'fi"
    assert ASCII.decode(ASCII.encode("Gruß… ½ Œuvre Å", "map")) == "Gruss... 1/2 OEuvre A"
    assert met["é"] == 4 and met["–"] == 2
    with pytest.raises(DataError, match="U.4E2D"):
        ASCII.encode("中", "map")
    assert Alphabet(tuple("abc")).encode("ABC", "map").tolist() == [0, 1, 2]


@pytest.mark.parametrize("alphabet", ["caf\u00e9", "cafe\u0301"])
def test_letters_with_marks_are_one_character_or_several_as_the_alphabet_has_them(tmp_path, alphabet):
    labelling = Labelling(Alphabet(tuple(alphabet)), "drop", None)
    words = source(write(tmp_path, {"0.png": "caf\u00e9", "1.png": "cafe\u0301", "2.png": "e\u0301?"}), labelling)
    assert words.texts == [alphabet, alphabet, alphabet[3:] + "?"] and dict(words.unknown) == {"?": 1}
    assert [labelling.alphabet.decode(words.label(index)) for index in range(3)] == [alphabet, alphabet, alphabet[3:]]
    (tmp_path / "words.txt").write_text("caf\u00e9\ncafe\u0301\n", encoding="utf-8")
    recognizer = Recognizer("crnn", labelling.alphabet)
    assert read_lexicon(tmp_path / "words.txt", recognizer) == (alphabet,)
    assert SearchFlags(allowed="e\u0301").search(recognizer).allowed == set(alphabet[3:])


def test_both_forms_of_lists(tmp_path):
    write(tmp_path, {})
    (tmp_path / "test.list").write_text("60 20 0.png 33,34\n\n150 20 2.png 1\n")
    words = source(tmp_path / "test.list")
    assert words.texts == ["AB", "!"] and words.words.shapes == [(20, 60), (20, 150)]
    images = tmp_path / "test_images"
    images.mkdir()
    for number in range(3):
        (tmp_path / f"{number}.png").rename(images / f"{number}.png")
    assert open_words(tmp_path, "test").content(0) == (images / "0.png").read_bytes()
    for line, message in (
        ("0.png a", ":1: a line must be"),
        ("60 20 0.png 3,x", ":1: a line must be"),
        ("0.png\t ", ":1: has no text after the tab"),
        ("60 20 0.png 95", r":1: .*class 95 is not in 0..94"),
        ("0.png\tno\xe9", ":1: .*U.00E9"),
    ):
        (tmp_path / "bad").write_text(line + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=message):
            source(tmp_path / "bad")
    with pytest.raises(DataError, match="neither train.list, train.txt"):
        open_words(images, "train")
    with pytest.raises(DataError, match="absent: is not there; give a list, or a folder with train.list, train.txt or"):
        open_words(tmp_path / "absent", "train")


def test_files_that_change_places_are_other_data_and_a_moved_folder_is_not(tmp_path):
    folders = [tmp_path / name for name in ("one", "moved", "swapped")]
    for folder, names in zip(folders, ("01", "01", "10"), strict=True):
        folder.mkdir()
        write(folder, {f"{name}.png": "word" for name in names})
    one, moved, swapped = (source(folder / "train.txt") for folder in folders)
    assert fingerprint_of(one) == fingerprint_of(swapped)
    assert fingerprint_of_names(one) == fingerprint_of_names(moved) != fingerprint_of_names(swapped)


def test_batches_hold_each_word_at_its_own_width(tmp_path):
    path = write(tmp_path, {"0.png": "ab", "1.png": "c d", "2.png": "E"})
    words = source(path)
    assert len(words.edges) <= 6
    seen = {}
    for batch in evaluation_batches(words, 2, plan=words.evaluation_plan(2)):
        feed = batch.feed
        for row in np.flatnonzero(batch.mask):
            width, length = feed["width"][row], feed["label_length"][row]
            seen[words.texts[feed["index"][row]]] = ASCII.decode(feed["label"][row, :length])
            assert (feed["pixel"][row, 0, :, :width] == words.picture(int(feed["index"][row]))).all()
            assert not feed["pixel"][row, 0, :, width:].any() and not feed["label"][row, length:].any()
        assert feed["pixel"].dtype == np.uint8 and feed["pixel"].shape[1:3] == (1, 16)
    assert seen == {text: text for text in ("ab", "c d", "E")}
    assert [blank["pixel"].shape[3] for blank in words.blanks()] == list(words.edges)
    trained = training_batches(words, 2, seed=3, num_epochs=1, plan=words.plan(3))
    assert len(list(trained)) == words.batches_per_epoch


def test_the_same_picture_in_every_format_and_mode(tmp_path):
    grey = np.repeat(cv2.resize(picture(8, 2)[:, :, 0], (80, 20))[:, :, None], 3, axis=2)
    image = Image.fromarray(grey)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "0.png")
    image.convert("L").save(tmp_path / "1.png")
    image.convert("RGBA").save(tmp_path / "2.png")
    image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(tmp_path / "3.png")
    cv2.imwrite(str(tmp_path / "4.png"), grey[:, :, 0].astype(np.uint16) * 257)
    image.rotate(90, expand=True).save(tmp_path / "5.png", exif=exif)
    image.rotate(90, expand=True).save(tmp_path / "6.tiff", exif=exif)
    names = [*(f"{number}.png" for number in range(6)), "6.tiff"]
    path = write(tmp_path, dict.fromkeys(names, "word"), widths=())
    words = source(path)
    expected = words.picture(0)
    for index in range(7):
        assert np.abs(words.picture(index).astype(int) - expected).max() <= 2, names[index]


def test_tall_pictures_are_turned_by_flag(tmp_path):
    flat = picture(60)
    turning = Preprocess(16, 256, rotate_tall=True)
    tall = np.rot90(flat, -1)
    assert (turning.picture(tall) == turning.picture(flat)).all()
    assert turning.width(tall.shape) == turning.width(flat.shape) == 48
    assert PREPROCESS.picture(tall).shape == (16, 5)
    assert PREPROCESS.picture(picture(2000)).shape == (16, 256)


def test_what_ctc_cannot_align_is_refused_or_left_out(tmp_path):
    # 60 x 20 pixels become 48 x 16, six frames.
    path = write(tmp_path, {"0.png": "abcdef", "1.png": "ab"})
    assert source(path).texts == ["abcdef", "ab"]
    path = write(tmp_path, {"1.png": "ab", "0.png": "abccef"})
    with pytest.raises(
        DataError, match="train.txt:2: .*it needs 7 frames for 6 characters, but resized to 48 pixels it has 6"
    ):
        source(path)
    words = source(path, Labelling(ASCII, skip_unalignable=True))
    assert words.texts == ["ab"] and len(words.left_out) == 1
    assert source(path, Labelling(ASCII, columns_a_frame=None)).texts == ["ab", "abccef"]
    assert source(path, Labelling(ASCII, columns_a_frame=4)).texts == ["ab", "abccef"]


def test_bad_pictures_are_named_replaced_in_training_and_end_an_evaluation(tmp_path):
    path = write(tmp_path, {"0.png": "ab", "1.png": "cd", "2.png": "ef", "3.png": "gh", "4.png": "ij"})
    (tmp_path / "3.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    words = source(path, batch_size=5)
    assert words.edges == (48, 80, 128), "what cannot be read makes no batches of its own"
    batch = next(training_batches(words, 5, seed=1, plan=words.plan(1)))
    assert len(batch.bad) >= 2 and any(
        "train.txt:5: " in message and "no such file" in message for message in batch.bad
    )
    with pytest.raises(DataError, match="train.txt:"):
        list(evaluation_batches(words, 5))
    lines, faults = check(words.words, PREPROCESS, Labelling(ASCII))
    assert faults == 2
    assert any("train.txt:4: " in line for line in lines) and any("train.txt:5: " in line for line in lines)
    assert "5 words, 2 faults" in lines
    (tmp_path / "wrong.list").write_text("60 22 0.png 33\n")
    with pytest.raises(DataError, match="is 60 x 20 pixels, not 60 x 22"):
        source(tmp_path / "wrong.list").picture(0)
    lines, _ = check(read_list(tmp_path / "wrong.list"), PREPROCESS, Labelling(ASCII))
    assert "wrong.list:1: " in lines[0] and "not as the list says" in lines[0]


def test_the_check_counts_unknown_characters_and_names_what_is_unalignable(tmp_path):
    path = write(tmp_path, {"0.png": "abccef", "1.png": "éé"})
    lines, faults = check(read_list(path), PREPROCESS, Labelling(ASCII, "drop"))
    assert any("train.txt:1: " in line and "needs 7 frames" in line for line in lines)
    assert any("'é' (U+00E9) 2 times" in line for line in lines)
    assert any("never come up" in line for line in lines)
    lines, fewer = check(read_list(path), PREPROCESS, Labelling(ASCII, "drop", skip_unalignable=True))
    assert any("train.txt:1: " in line and "needs 7 frames" in line for line in lines)
    assert fewer < faults and f"  left out, as they cannot be aligned: {faults - fewer}" in lines


def test_edges_add_as_few_columns_as_any_choice_of_them():
    rng = np.random.default_rng(5)
    widths = rng.integers(10, 200, 50)

    def padded(edges):
        return Buckets(widths, edges, 8, by="rows").edges[-1] and sum(min(e for e in edges if e >= w) for w in widths)

    possible = sorted({-(-int(width) // 16) * 16 for width in widths})
    best = min(padded((one, two, possible[-1])) for one in possible for two in possible if one < two < possible[-1])
    edges = bucket_edges(widths, 3)
    assert len(edges) == 3 and padded(edges) == best
    assert bucket_edges(np.array([20, 20])) == (32,)
    assert bucket_edges(np.array([20, 40, 300])) == (32, 48, 304)


def test_a_data_base_of_words(tmp_path):
    import lmdb

    pictures = [cv2.imencode(".jpg", picture(width))[1].tobytes() for width in (60, 90)]
    with lmdb.open(str(tmp_path / "train"), map_size=1 << 20) as base, base.begin(write=True) as entries:
        entries.put(b"num-samples", b"2")
        for number, (content, text) in enumerate(zip(pictures, ("ab", "cd")), 1):
            entries.put(b"image-%09d" % number, content)
            entries.put(b"label-%09d" % number, text.encode())
    words = WordSource(open_words(tmp_path, "train"), PREPROCESS, Labelling(ASCII), 2)
    assert words.texts == ["ab", "cd"] and "image-000000002" in words.where(1)
    (batch,) = training_batches(words, 2, seed=1, num_epochs=1, plan=words.plan(1), num_workers=1)
    assert sorted(batch.feed["width"].tolist()) == [48, 72]
    with lmdb.open(str(tmp_path / "test"), map_size=1 << 20) as base, base.begin(write=True) as entries:
        entries.put(b"num-samples", b"1")
    with pytest.raises(DataError, match="no text label-000000001"):
        open_words(tmp_path, "test")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data.mdb").write_bytes(b"no data base")
    with pytest.raises(DataError, match="cut off, or no LMDB"):
        open_words(tmp_path / "other", "train")


@pytest.fixture
def base(tmp_path) -> Path:
    """data.mdb of twenty words."""
    import lmdb

    content = cv2.imencode(".jpg", picture(60))[1].tobytes()
    with lmdb.open(str(tmp_path), map_size=1 << 22) as base, base.begin(write=True) as entries:
        entries.put(b"num-samples", b"20")
        for number in range(1, 21):
            entries.put(b"image-%09d" % number, content)
            entries.put(b"label-%09d" % number, b"word")
    return tmp_path / "data.mdb"


def test_a_data_base_that_is_cut_off_kills_nobody(base):
    whole = base.read_bytes()
    for size in (100, 5000, 8192, len(whole) // 2, len(whole) - 1):
        base.write_bytes(whole[:size])
        with pytest.raises(DataError, match="data.mdb is cut off"):
            read_lmdb(base.parent)


def test_a_page_that_names_one_outside_the_data_base_kills_nobody(base, monkeypatch):
    def crash(function, *arguments):
        raise isolated.Crashed(-7)

    monkeypatch.setattr(isolated, "call", crash)
    with pytest.raises(DataError, match="the data base is damaged: reading it ends with exit code -7"):
        read_lmdb(base.parent)


@pytest.mark.parametrize("key", [b"num-samples", b"label-000000003"])
def test_entries_that_are_no_text(base, key):
    import lmdb

    with lmdb.open(str(base.parent), map_size=1 << 22) as opened, opened.begin(write=True) as entries:
        entries.put(key, b"\xff\0")
    with pytest.raises(DataError, match="is not an LMDB of words|label-000000003 is not UTF-8"):
        read_lmdb(base.parent)
