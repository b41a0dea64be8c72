"""Made words: every effect comes up, no character is rare, bits follow from the seed, sources hand them over."""

import copy
import string
from collections import Counter

from fluid.data import evaluation_batches, training_batches
from fluid.errors import DataError, UserError
from ocr_recognition import sources
from ocr_recognition.alignment import frames_needed, frames_of_width
from ocr_recognition.alphabet import Alphabet
from ocr_recognition.fonts import HELD_OUT, open_fonts
from ocr_recognition.generated import GeneratedSource, Recipe, make_set, write_words
from ocr_recognition.generator import ASPECTS, EFFECTS, HEIGHTS, LOWEST_CONTRAST, width_at
from ocr_recognition.reader import Labelling
from ocr_recognition.recognizer import Recognizer
from ocr_recognition.train import Flags
from ocr_recognition.word_set import SetSource, gather, read_set
from ocr_recognition.words import KINDS, Texts

import numpy as np
import pytest

KINDS_OF_FONTS = [
    "sans",
    "condensed",
    "slab",
    "serif",
    "rounded",
    "display",
    "script",
    "uncial",
    "stencil",
    "typewriter",
    "outlined",
]
ASCII = Alphabet.ascii()


@pytest.fixture(scope="module")
def thousand():
    maker = Recipe(part="all").maker()
    return [maker.make(np.random.default_rng((7, number))) for number in range(1000)]


def test_eighty_families_of_many_styles_come_along():
    fonts = open_fonts()
    assert len({font.family for font in fonts}) >= 80
    assert {font.kind for font in fonts} >= {*KINDS_OF_FONTS, "dot matrix"}
    assert any("italic" in font.path.name for font in fonts)
    licences = (fonts[0].path.parent / "LICENSES.txt").read_text()
    assert "SIL OPEN FONT LICENSE" in licences
    assert all(f"{font.family}: " in licences for font in fonts if font.kind != "segments")
    train, test = open_fonts(part="train"), open_fonts(part="test")
    assert {font.family for font in test} == HELD_OUT and len(train) + len(test) == len(fonts)
    assert not {font.family for font in train} & HELD_OUT


def test_a_font_draws_what_can_be_told_from_its_pictures():
    fonts = {font.family: font for font in open_fonts()}
    capitals, fraktur, segments = fonts["bebas-neue"], fonts["unifrakturmaguntia"], fonts["seven-segments"]
    assert capitals.draws("STOP 7") and not capitals.draws("Stop")
    assert fraktur.draws("Post") and not fraktur.draws("POST")
    assert segments.draws("12:30") and not segments.draws("12h")
    assert not fonts["orbitron"].draws("^") and fonts["arimo"].draws(string.printable[:94])
    assert fonts["arimo"].draws("Größe") and not any(font.draws("Жук") or font.has("日") for font in fonts.values())
    shapes = {segments.glyph(digit, 48).mask.tobytes() for digit in string.digits}
    assert len(shapes) == 10


def test_each_effect_comes_up_in_a_thousand_words(thousand):
    counts = Counter(effect for made in thousand for effect in made.effects)
    for effect in EFFECTS:
        assert counts[effect] >= 8, (effect, counts[effect])
    assert 400 < counts["light"] < 600
    heights = [made.picture.shape[0] for made in thousand]
    assert min(heights) >= HEIGHTS[0] and max(heights) <= HEIGHTS[1] and min(heights) < 22 and max(heights) > 100
    aspects = [made.picture.shape[1] / made.picture.shape[0] for made in thousand]
    assert min(aspects) >= ASPECTS[0] and max(aspects) <= ASPECTS[1] and min(aspects) < 0.8 and max(aspects) > 9


def test_ink_stands_out_and_labels_can_be_aligned(thousand):
    for made in thousand:
        low, high = np.percentile(made.picture, [1, 99])
        assert high - low >= LOWEST_CONTRAST * 0.6, made.text
        label = ASCII.encode(made.text)
        assert frames_needed(label) <= frames_of_width(width_at(made.picture.shape, 48), 8)


def test_no_character_is_rare_and_every_kind_of_text_comes_up():
    texts = Texts()
    rng = np.random.default_rng(3)
    drawn = [texts.draw(rng) for _ in range(10_000)]
    counts = Counter("".join(drawn))
    rarest = min(string.ascii_letters + string.digits, key=lambda one: counts[one])
    assert counts[rarest] >= 150, (rarest, counts[rarest])
    rarest = min(string.punctuation, key=lambda one: counts[one])
    assert counts[rarest] >= 50, (rarest, counts[rarest])
    assert any(text.isdigit() for text in drawn) and any(text.isupper() for text in drawn)
    assert any("$" in text for text in drawn) and any(text.istitle() and " " in text for text in drawn)
    for kind in KINDS:
        only = Texts(kinds={kind: 1.0})
        assert len({only.draw(rng) for _ in range(20)}) > 5, kind
    assert {word.lower() for word in texts.words}.isdisjoint(Texts(part="test").words)
    digits = Texts(tuple(string.digits), kinds={"digits": 1.0, "word": 1.0})
    assert all(digits.draw(rng).isdigit() for _ in range(20))
    with pytest.raises(DataError, match="no text of 1 to 25 characters"):
        Texts(tuple("äöü"), kinds={"digits": 1.0}).draw(rng)


def test_a_word_follows_from_its_random_numbers_whatever_came_before(thousand):
    maker = Recipe(part="all").maker()
    # Fonts that have rendered nothing yet.
    maker.fonts = copy.deepcopy(maker.fonts)
    for number in (500, 3, 999):
        again = maker.make(np.random.default_rng((7, number)))
        assert again.text == thousand[number].text and (again.picture == thousand[number].picture).all()


def test_words_on_the_fly_are_the_same_with_and_without_workers():
    source = GeneratedSource(Recipe(), 8, words=24)
    assert len(source.edges) <= 6 and source.batches_per_epoch == 3

    def read(workers):
        with training_batches(source, 8, seed=5, num_epochs=2, num_workers=workers, plan=source.plan(5)) as batches:
            return [{name: array.copy() for name, array in batch.feed.items()} for batch in batches]

    alone, shared = read(0), read(2)
    assert len(alone) == 6
    for one, other in zip(alone, shared):
        assert all((one[name] == other[name]).all() for name in one)
    assert not (alone[0]["label"] == alone[3]["label"]).all()
    for feed in alone:
        widths, edge = feed["width"], feed["pixel"].shape[3]
        assert edge in source.edges and (widths <= edge).all()
        assert (widths > ([0, *source.edges][source.edges.index(edge)])).all()
        assert feed["pixel"].shape[1:3] == (1, 48)
    shapes = {blank["pixel"].shape for blank in source.blanks()}
    assert {feed["pixel"].shape for feed in alone} <= shapes


def test_simple_words_and_words_of_the_users(tmp_path):
    texts = make_set(Recipe(style="simple", height=32), 40, seed=1)
    shown = [texts.text(index) for index in range(40)]
    assert all(3 <= len(text) <= 6 and (text.isdigit() or text.islower()) for text in shown)
    own = make_set(Recipe(given=("Straße", "Fluß"), alphabet=Alphabet(tuple("Straeßlu F"))), 10, seed=1)
    assert {own.text(index) for index in range(10)} == {"Straße", "Fluß"}
    rng, listed = np.random.default_rng(1), Recipe(style="simple", given=("ab", "elephants")).texts
    assert {listed.draw(rng) for _ in range(30)} == {"ab", "elephants"}
    with pytest.raises(DataError, match="none of the fonts has 'Ж'"):
        Recipe(given=("word", "Жук"), alphabet=Alphabet(tuple("wordЖук"))).maker()
    with pytest.raises(DataError, match=r"each of the words to make has .*, such as 'é' \(U\+00E9\): give a --dict"):
        Recipe(given=("café", "né")).maker()
    kept = [
        sources.recipe(Flags(fonts_dir=tmp_path), Recognizer("crnn", ASCII), part).texts.words
        for part in ("train", "test")
    ]
    assert kept[0] and kept[1] and not set(kept[0]) & set(kept[1]), "words that are measured on are not trained on"
    with pytest.raises(DataError, match="holds no font"):
        Recipe(fonts_dir=tmp_path).maker()


def test_a_written_set_is_read_as_it_was_made(tmp_path):
    folder, recipe = tmp_path / "words", Recipe(columns_a_frame=8)
    assert write_words(folder, recipe, 20, seed=4, num_workers=0) == 20
    words = read_set(folder)
    assert write_words(tmp_path / "again", recipe, 20, seed=4, num_workers=2) == 20
    assert (tmp_path / "again" / "pixels.bin").read_bytes() == (folder / "pixels.bin").read_bytes()
    source = SetSource(words, 4, height=48, labelling=Labelling(ASCII))
    seen = {}
    with evaluation_batches(source, 4, plan=source.evaluation_plan(4), num_workers=1) as batches:
        for batch in batches:
            for row in np.flatnonzero(batch.mask):
                index, width = int(batch.feed["index"][row]), batch.feed["width"][row]
                seen[index] = ASCII.decode(batch.feed["label"][row, : batch.feed["label_length"][row]])
                assert (batch.feed["pixel"][row, 0, :, :width] == words.picture(index)).all()
    assert [seen[index] for index in range(20)] == source.texts
    assert len(source.edges) > 2 == len(SetSource(words, 4, height=48, labelling=Labelling(ASCII), buckets=2).edges)
    used = Alphabet(tuple(sorted(set("".join(source.texts)), reverse=True)))
    other = SetSource(words, 4, height=48, labelling=Labelling(used))
    (batch,) = evaluation_batches(other, 20)
    assert used.decode(batch.feed["label"][7, : batch.feed["label_length"][7]]) == source.texts[7]
    with pytest.raises(UserError, match="exists already"):
        write_words(folder, recipe, 20, seed=4, num_workers=0)
    with pytest.raises(
        DataError, match="words: the words are written 48 pixels high.* with --height 32, or train one of --height 48"
    ):
        SetSource(words, 4, height=32, labelling=Labelling(ASCII))
    with pytest.raises(DataError, match="not in the alphabet"):
        SetSource(words, 4, height=48, labelling=Labelling(Alphabet(tuple(string.digits))))
    with open(folder / "pixels.bin", "ab") as file:
        file.write(b"?")
    with pytest.raises(DataError, match="bytes where"):
        read_set(folder)
    (folder / "index.npz").unlink()
    with pytest.raises(DataError, match="index.npz: not a readable"):
        read_set(folder)


def test_words_of_a_set_that_cannot_be_used_are_told():
    letters = Alphabet(tuple("ab"))
    made = [(np.zeros((48, 16), np.uint8), [0, 0, 0]), (np.zeros((48, 160), np.uint8), [0, 1, 0])]
    words = gather(((picture, np.array(label, np.int32)) for picture, label in made), 48, letters)
    source = SetSource(words, 1, height=48, labelling=Labelling(letters, skip_unalignable=True))
    (note,) = sources.notes_on(source, Recognizer("crnn_ctc", letters))
    assert len(source) == 1 and note.startswith(
        "left out, since they cannot be aligned: 1 word; the first: word 0, 'aaa'"
    )
    everything = SetSource(words, 1, height=48, labelling=Labelling(letters, columns_a_frame=None))
    (note,) = sources.notes_on(everything, Recognizer("attention", letters, longest=2))
    assert note == "2 words have more characters than are read, 2; see --longest"
    assert sources.notes_on(everything, Recognizer("attention", letters, longest=3)) == []
    with pytest.raises(DataError, match="two words: 'ab' holds 'b' .* of the network; write them anew"):
        SetSource(words, 1, height=48, labelling=Labelling(Alphabet(("a",))), origin="two words")
