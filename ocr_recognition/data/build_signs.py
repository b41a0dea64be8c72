"""Cut the words of signs/ out of the photographs in Debian's package opencv-doc.

    apt-get download opencv-doc && dpkg -x opencv-doc_*.deb unpacked && python build_signs.py unpacked

They are the examples of OpenCV's module `text`. Nothing is trained on them: they tell how well photographs of words are read.
"""

import sys
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parent / "signs"
EXAMPLES = "usr/share/doc/opencv-doc/examples/text"
Box = tuple[int, int, int, int]
# Left, top, right and bottom in pixels; None is the whole picture.
WORDS: dict[str, list[tuple[str, Box | None]]] = {
    "scenetext01": [
        ("NOTICE", (279, 39, 427, 76)),
        ("DOUBLE", (279, 86, 422, 121)),
        ("PARKING", (276, 128, 423, 164)),
        ("PROHIBITED", (275, 171, 424, 207)),
        ("AT", (284, 215, 310, 251)),
        ("ALL", (311, 215, 343, 251)),
        ("TIMES", (347, 214, 406, 251)),
    ],
    "scenetext02": [
        ("Sports", (430, 612, 609, 692)),
        ("Centre", (613, 624, 782, 698)),
        ("Wivenhoe", (426, 682, 677, 761)),
        ("Park", (682, 716, 796, 775)),
        ("Conference", (426, 754, 725, 835)),
        ("Centre", (731, 782, 896, 845)),
        ("Car", (428, 829, 529, 895)),
        ("Parks", (535, 842, 683, 903)),
    ],
    "scenetext03": [
        ("the", (131, 574, 186, 612)),
        ("copy", (202, 536, 368, 630)),
        ("centre", (401, 528, 619, 605)),
    ],
    "scenetext04": [("GM", (421, 417, 478, 461)), ("125", (485, 417, 555, 459))],
    "scenetext05": [
        ("NO", (89, 174, 128, 212)),
        ("PARKING", (127, 178, 225, 221)),
        ("NO", (471, 316, 530, 380)),
        ("PARKING", (530, 320, 690, 392)),
    ],
    "scenetext06": [
        ("priory", (239, 285, 317, 319)),
        ("galleries", (322, 284, 453, 319)),
        ("at", (461, 299, 485, 319)),
        ("the", (487, 293, 528, 319)),
        ("ship", (532, 296, 591, 327)),
        ("priory", (294, 155, 330, 176)),
    ],
    "scenetext_segmented_word01": [("HOTEL", (121, 213, 523, 302))],
    "scenetext_segmented_word02": [("Stationery", (50, 223, 433, 300)), ("Box", (443, 222, 594, 287))],
    "scenetext_segmented_word03": [
        ("Customer", (135, 69, 492, 138)),
        ("Freephone", (120, 153, 506, 233)),
        ("Private", (104, 240, 347, 311)),
        ("Hire", (369, 240, 523, 311)),
        ("Service", (168, 328, 446, 401)),
    ],
    "scenetext_segmented_word04": [("FOSTER'S", (76, 281, 584, 373))],
    "scenetext_segmented_word05": [
        ("SANYO", (173, 34, 496, 138)),
        ("PRO", (177, 325, 340, 383)),
        ("xtraX", (342, 334, 479, 384)),
        ("MULTIMEDIA", (181, 382, 336, 407)),
        ("PROJECTOR", (335, 382, 477, 407)),
    ],
    "scenetext_word01": [("CHINA", None)],
    "scenetext_word02": [("HERE", None)],
    "scenetext_word03": [("riser", None)],
    "scenetext_word04": [("Produkt", None)],
}


def main(unpacked: str) -> None:
    """Write the words and their list beside this script."""
    FOLDER.mkdir(exist_ok=True)
    lines = []
    for name, words in WORDS.items():
        photograph = Image.open(Path(unpacked, EXAMPLES, f"{name}.jpg")).convert("RGB")
        for number, (text, box) in enumerate(words):
            path = FOLDER / f"{name}_{number}.jpg"
            photograph.crop(box).save(path, quality=90)
            lines.append(f"{path.name}\t{text}\n")
    (FOLDER / "test.txt").write_text("".join(lines), encoding="utf-8")
    print(len(lines), "words")


if __name__ == "__main__":
    main(*sys.argv[1:])
