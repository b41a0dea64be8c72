"""Make words.txt and names.txt of Debian's packages wamerican, wamerican-small and wbritish-small.

    python build_words.py /usr/share/dict

Words are those of two letters or more in the small lists; names are what the full list has in capitals only.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main(folder: str) -> None:
    """Write the two files beside this script."""
    small = words(Path(folder, "american-english-small")) | words(Path(folder, "british-english-small"))
    names = {word for word in words(Path(folder, "american-english")) if word[0].isupper()}
    write("words.txt", {word for word in small if word.islower()})
    write("names.txt", {name for name in names if name.lower() not in small})


def words(path: Path) -> set[str]:
    """The words of a list that letters of ASCII spell."""
    return {
        word for word in path.read_text(encoding="utf-8").split() if word.isascii() and word.isalpha() and len(word) > 1
    }


def write(name: str, found: set[str]) -> None:
    """Write a list in alphabetical order."""
    (FOLDER / name).write_text("".join(f"{word}\n" for word in sorted(found)), encoding="utf-8")
    print(f"{name}: {len(found)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
