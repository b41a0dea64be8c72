"""Collect English-German sentence pairs from Debian packages, without an account or a download page.

    python prepare_debian.py --output_dir corpora
    python train.py --data_dir corpora --model small --vocab_size 8000 --batch_size 8192 --warmup_steps 4000

The packages (1.9 GB, listed below) are fetched with `apt-get download` into --packages_dir, which needs no root rights
but a Debian or Ubuntu system; what is there already is used again. Result:

    OUTPUT_DIR/train.tsv dev.tsv test.tsv    source, tab, target
               sources.tsv                   pairs, package and licence by origin

Test and dev pairs are those embedded in this repository and, with --held_out, pairs drawn from every origin. No sentence
of the training part resembles one of theirs: Dice overlap of the words above 0.8 puts a pair out.
"""

import gettext
import glob
import io
import random
import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid.config import parse
from fluid.errors import DataError, UserError
from fluid.run import script
from neural_machine_translation.reader import EMBEDDED, read_tsv

Pair = tuple[str, str]
Files = dict[str, bytes]
"""Path inside a package -> content."""


@dataclass
class Config:
    """Collect English-German sentence pairs from Debian packages."""

    output_dir: Path = Path("corpora")
    """New folder to write."""
    packages_dir: Path = Path("corpora_packages")
    """Where the packages are, or are fetched to."""
    descriptions_dir: Path | None = None
    """Folder with apt's Translation-en and Translation-de lists; by default they are fetched into packages_dir."""
    held_out: int = 200
    """Pairs of each large origin that are kept for dev, and as many for test."""
    leave_out: tuple[str, ...] = ()
    """Origins to do without, for their licences, say: names in the first column of sources.tsv."""
    seed: int = 0
    """Of the choice of held-out pairs."""


@dataclass(frozen=True)
class Origin:
    """Where pairs come from."""

    name: str
    packages: tuple[str, ...]
    wanted: str
    """Regular expression for the paths of the files to read."""
    extract: Callable[[Files], Iterable[Pair]]
    licence: str


def words_of(text: str) -> list[str]:
    """The words of a sentence in lower case, without digits and punctuation."""
    return re.findall(r"[^\W\d_]+", text.lower())


def clean(text: str) -> str:
    """One line, without markup, keyboard marks and soft hyphens."""
    text = re.sub(r"<[^<>]{1,200}>", "", text.replace("\u00ad", "").replace("\u00a0", " "))
    text = re.sub(r"(?<=\w)[_&~](?=\w)|(?<![\w&])[_&~](?=\w)", "", text)
    return " ".join(text.split())


def usable(source: str, target: str) -> bool:
    """Whether a pair looks like a sentence and its translation, and not like code, a name or another language."""
    if not source or not target or source == target or len(source) > 600 or len(target) > 700:
        return False
    if re.search(r"[%$\\{}|=<>@#^*]|https?:|www\.|--|__|\(\)|::", source + target):
        return False
    letters = sum(map(str.isalpha, source))
    if letters < 0.6 * len(source.replace(" ", "")) or any(
        ord(letter) > 0x24F and letter.isalpha() for letter in source + target
    ):
        return False
    return 0.4 < (len(source) + 8) / (len(target) + 8) < 2.2


def sentences(source: str, target: str) -> Iterator[Pair]:
    """Two paragraphs as pairs of sentences where both have as many; else as one pair."""
    cut = re.compile(r'(?<=[.!?])\s+(?=[A-ZÄÖÜ"„])')
    parts = cut.split(source), cut.split(target)
    if len(parts[0]) == len(parts[1]):
        yield from zip(*parts, strict=True)
    else:
        yield source, target


def from_catalogues(files: Files) -> Iterator[Pair]:
    """gettext catalogues: the key is the English text."""
    for content in files.values():
        try:
            catalogue = gettext.GNUTranslations(io.BytesIO(content))._catalog
        except (OSError, UnicodeDecodeError, ValueError):
            continue
        for key, value in catalogue.items():
            key = key[0] if isinstance(key, tuple) else key
            key = key.split("\x04")[-1]
            # Editor's hints such as wesnoth's "female^Who goes there?" are no text.
            key = key.split("^", 1)[-1]
            for source, target in zip(re.split(r"\n\s*\n", key), re.split(r"\n\s*\n", value)):
                yield from sentences(clean(source), clean(target))


def from_dictionary(files: Files) -> Iterator[Pair]:
    """The dictionary of Ding: `German; German | example :: English | example` with remarks in brackets."""
    short = {
        "etw": "etwas", "jdn": "jemanden", "jdm": "jemandem", "jds": "jemandes", "jd": "jemand", "sth": "something",
        "sb": "somebody",
    }  # fmt: skip

    def plain(text: str) -> str:
        text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|<[^>]*>|\([^)]*\)", " ", text)
        # Of alternatives such as "gone/went" the first.
        text = re.sub(r"([^\s/]+)(?:/[^\s/.,;:!?]+)+", r"\1", text)
        text = re.sub(r"\b(etw|jdn|jdm|jds|jd|sth|sb)\.", lambda found: short[found[1]], text)
        text = " ".join(text.replace("’", "'").replace("…", "").split())
        return re.sub(r"\s+([,.!?;:])", r"\1", text).strip(" ,;")

    for content in files.values():
        for line in content.decode("utf-8").splitlines():
            if line.startswith("#") or line.count(" :: ") != 1:
                continue
            german, english = (side.split("|") for side in line.split(" :: "))
            if len(german) != len(english):
                continue
            for left, right in zip(english, german):
                first = plain(right.split(";")[0])
                for alternative in right.split(";")[:1] and left.split(";"):
                    yield plain(alternative), first


def from_dialogues(files: Files) -> Iterator[Pair]:
    """Fish Fillets: `dialogId("name", "font", "English")` and `dialogStr("German")` in one file per language."""
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for path, content in files.items():
        language = "de" if path.endswith("_de.lua") else "en"
        text = content.decode("utf-8", "replace")
        for name, english, german in re.findall(
            r'dialogId\("([^"]*)",\s*"[^"]*",\s*"([^"]*)"\)\s*(?:dialogStr\("([^"]*)"\))?', text
        ):
            folder = path.rsplit("/", 1)[0]
            texts[f"{folder}/{name}"][language] = german if language == "de" else english
            if language == "de":
                texts[f"{folder}/{name}"].setdefault("en", english)
    for pair in texts.values():
        if "en" in pair and "de" in pair:
            yield from sentences(clean(pair["en"]), clean(pair["de"]))


def from_string_tables(files: Files) -> Iterator[Pair]:
    """FreeOrion: a name on one line, its text on the next or between triple quotes."""
    tables: dict[str, dict[str, str]] = {}
    for path, content in files.items():
        text = content.decode("utf-8", "replace")
        found = re.findall(r"^([A-Z0-9_]+)\n(?:'''(.*?)'''|([^\n]+))", text, re.M | re.S)
        tables[Path(path).stem] = {name: long or one for name, long, one in found}
    for name, english in tables.get("en", {}).items():
        german = tables.get("de", {}).get(name)
        if german and "[[" not in english:
            for source, target in zip(english.split("\n"), german.split("\n")):
                yield from sentences(clean(source), clean(target))


def from_pages(files: Files) -> Iterator[Pair]:
    """Mallard pages of GNOME's help: the same elements in the same order in both languages."""

    def blocks(content: bytes) -> list[tuple[str, str]]:
        root = ElementTree.fromstring(content)
        found = []
        for element in root.iter():
            tag = element.tag.rsplit("}", 1)[-1]
            if tag in ("p", "title", "desc") and not any(child.tag.rsplit("}", 1)[-1] == "p" for child in element):
                found.append((tag, clean("".join(element.itertext()))))
        return found

    for path in files:
        german = path.replace("/help/C/", "/help/de/")
        if german == path or german not in files:
            continue
        try:
            pages = blocks(files[path]), blocks(files[german])
        except ElementTree.ParseError:
            continue
        yield from aligned(*pages)


class Blocks(HTMLParser):
    """The block elements of a web page as (tag, id, text)."""

    TAGS = frozenset(
        [
            "p",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "li",
            "td",
            "th",
            "dt",
            "dd",
            "div",
            "ul",
            "ol",
            "table",
            "tr",
            "pre",
            "blockquote",
        ]
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, str, str]] = []
        self._tag, self._id, self._text, self._hidden = "", "", [], 0

    def flush(self) -> None:
        """End the open block."""
        text = clean("".join(self._text))
        if text and self._tag in ("p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "td", "dt", "dd"):
            self.found.append((self._tag, self._id, text))
        self._text = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style", "pre"):
            self._hidden += 1
        if tag in self.TAGS:
            self.flush()
            self._tag, self._id = tag, dict(attrs).get("id") or ""
        elif tag == "br":
            self._text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "pre"):
            self._hidden = max(0, self._hidden - 1)
        if tag in self.TAGS:
            self.flush()
            self._tag = ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._text.append(data)


def html_blocks(content: bytes) -> list[tuple[str, str, str]]:
    """Blocks of a page, in order."""
    parser = Blocks()
    parser.feed(content.decode("utf-8", "replace"))
    parser.flush()
    return parser.found


def from_help(files: Files) -> Iterator[Pair]:
    """LibreOffice help: paragraphs have the same id in both languages."""
    for path in files:
        german = path.replace("/en-US/", "/de/")
        if german == path or german not in files:
            continue
        texts = {name: text for _, name, text in html_blocks(files[german]) if name}
        for _, name, text in html_blocks(files[path]):
            if name in texts:
                yield from sentences(text, texts[name])


def from_books(files: Files) -> Iterator[Pair]:
    """Manuals as web pages: blocks in order, where both languages have the same ones."""
    for path in files:
        german = re.sub(r"/en-US/", "/de-DE/", path)
        german = german if german != path else re.sub(r"\.en\.html", ".de.html", path)
        if german == path or german not in files:
            continue
        left, right = ([(tag, text) for tag, _, text in html_blocks(files[name])] for name in (path, german))
        yield from aligned(left, right)


def aligned(left: list[tuple[str, str]], right: list[tuple[str, str]]) -> Iterator[Pair]:
    """Sentence pairs of two pages, if their elements are the same."""
    if [tag for tag, _ in left] == [tag for tag, _ in right]:
        for (_, source), (_, target) in zip(left, right):
            yield from sentences(source, target)


INFORMAL_SHARE = 0.15
CATALOGUE = r"/de/LC_MESSAGES/.*\.mo$"
GAMES = (
    "wesnoth-1.16-data", "wesnoth-1.16-httt", "freeciv-data", "widelands-data", "unknown-horizons", "freedroidrpg-data",
    "warzone2100-data", "lincity-ng-data", "aisleriot", "kpat", "kmines", "gnome-mines", "quadrapassel", "gnome-chess", "xboard",
    "colobot-common", "tuxpaint-data",
)  # fmt: skip
PROGRAMS = (
    "aptitude-common", "audacity-data", "bluefish-data", "cheese-common", "claws-mail-i18n", "darktable", "deja-dup",
    "digikam-data", "evolution-common", "gimp-data", "gnome-control-center-data", "gnome-software-common", "gnucash-common",
    "gramps", "homebank-data", "hugin-data", "inkscape", "iso-codes", "kdenlive-data", "kmail", "kontact", "krita-l10n",
    "kstars-data", "marble-data", "nautilus-data", "plasma-desktop-data", "plasma-workspace-data", "rhythmbox-data",
    "shotwell-common", "solfege", "stellarium-data", "synaptic", "totem-common", "vlc-l10n",
)  # fmt: skip
DESCRIPTIONS = "package descriptions"
ORIGINS = (
    Origin("dictionary", ("trans-de-en",), r"/usr/share/trans/de-en$", from_dictionary, "GPL-2.0-or-later"),
    Origin("dialogues", ("fillets-ng-data",), r"/dialogs(_en|_de)?\.lua$", from_dialogues, "GPL-2.0-or-later"),
    Origin("games", GAMES, CATALOGUE, from_catalogues, "GPL-2.0-or-later, some GPL-3.0-or-later"),
    Origin(
        "string tables",
        ("freeorion-data",),
        r"/stringtables/(en|de)\.txt$",
        from_string_tables,
        "GPL-2.0-only, CC-BY-SA-3.0",
    ),
    Origin("programs", PROGRAMS, CATALOGUE, from_catalogues, "GPL-2.0-or-later, LGPL-2.1-or-later, GPL-3.0-or-later"),
    Origin("desktop help", ("gnome-user-docs",), r"/help/(C|de)/.*\.page$", from_pages, "CC-BY-SA-3.0"),
    Origin(
        "manuals",
        ("debian-handbook", "developers-reference", "developers-reference-de", "debian-faq", "debian-faq-de"),
        r"/((en-US|de-DE)/[^/]*\.html|[^/]*\.(en|de)\.html)$",
        from_books,
        "GPL-2.0-or-later, CC-BY-SA-3.0",
    ),
    Origin(
        "office help",
        ("libreoffice-help-en-us", "libreoffice-help-de"),
        r"/help/(en-US|de)/text/.*\.html$",
        from_help,
        "MPL-2.0",
    ),
)


def fetch(packages: Iterable[str], folder: Path) -> None:
    """Download the packages that `folder` lacks. Raises UserError if apt-get fails."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in packages if not glob.glob(str(folder / f"{name}_*.deb"))]
    if missing:
        print(f"fetching {len(missing)} packages into {folder}")
        try:
            subprocess.run(["apt-get", "download", "-q", *missing], cwd=folder, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(
                f"apt-get download failed ({error}). On another system put the packages into {folder}: {' '.join(missing)}"
            ) from None


def read_package(name: str, folder: Path, wanted: str) -> Files:
    """The files of a package whose path matches. Raises DataError if there is no such package."""
    found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
        raise DataError(f"{folder}: no package {name}")
    process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(found[-1])], stdout=subprocess.PIPE)
    files: Files = {}
    with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
        for member in archive:
            if member.isfile() and re.search(wanted, member.name.removeprefix(".")):
                files[member.name.removeprefix(".")] = archive.extractfile(member).read()
    if process.wait():
        raise DataError(f"{found[-1]}: dpkg-deb cannot read it; remove it and run this again")
    return files


def descriptions(folder: Path | None, packages_dir: Path) -> Iterator[Pair]:
    """Package descriptions and their translations by the Debian Description Translation Project."""
    if folder is None:
        folder = packages_dir / "lists"
        (folder / "partial").mkdir(parents=True, exist_ok=True)
        if not glob.glob(str(folder / "*Translation-de*")):
            options = ["Acquire::Languages=en,de", f"Dir::State::lists={folder.resolve()}"]
            command = ["apt-get", "update", "-q", *(word for option in options for word in ("-o", option))]
            if subprocess.run(command).returncode:
                raise UserError(f"apt-get update into {folder} failed; give --descriptions_dir")
    texts: dict[str, dict[str, str]] = {}
    for language in ("en", "de"):
        texts[language] = {}
        for name in glob.glob(str(folder / f"*i18n_Translation-{language}*")):
            raw = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", name], capture_output=True, check=True).stdout
            for stanza in raw.decode("utf-8", "replace").split("\n\n"):
                digest = re.search(r"^Description-md5: (\S+)", stanza, re.M)
                text = re.search(rf"^Description-{language}: (.*(?:\n .*)*)", stanza, re.M)
                if digest and text:
                    texts[language][digest[1]] = text[1]

    def paragraphs(text: str) -> list[str | None]:
        lines = text.split("\n")
        found: list[str | None] = [lines[0].strip()]
        for block in re.split(r"\n \.\n", "\n".join(lines[1:])):
            # Indented lines are lists and tables.
            is_list = any(line.startswith("  ") for line in block.split("\n"))
            found.append(None if is_list else " ".join(block.split()))
        return found

    for digest, english in texts["en"].items():
        if digest in texts["de"]:
            left, right = paragraphs(english), paragraphs(texts["de"][digest])
            if len(left) == len(right):
                for source, target in zip(left, right):
                    if source and target:
                        yield from sentences(source, target)


class Resemblance:
    """Finds whether a sentence resembles one of a set: Dice overlap of their words above 0.8."""

    LIMIT = 0.8

    def __init__(self, texts: Iterable[str]):
        self.bags = [Counter(words_of(text)) for text in texts]
        self.holders: dict[str, list[int]] = defaultdict(list)
        for number, bag in enumerate(self.bags):
            for word in bag:
                self.holders[word].append(number)

    def __call__(self, text: str) -> bool:
        """Whether `text` resembles one of the set."""
        bag = Counter(words_of(text))
        size = sum(bag.values())
        if not size:
            return False
        # To overlap by more than 0.8, a sentence of the set must hold one of the rarest of these words.
        by_rarity = sorted(bag, key=lambda word: len(self.holders.get(word, ())))
        needed = by_rarity[: max(1, len(by_rarity) // 3 + 1)]
        for number in {number for word in needed for number in self.holders.get(word, ())}:
            other = self.bags[number]
            if 2 * sum((bag & other).values()) > self.LIMIT * (size + sum(other.values())):
                return True
        return False


def informal_copies(pairs: list[Pair], share: float, rng: random.Random) -> list[Pair]:
    """For a share of the short sentences a copy as people type in haste: source in lower case, no full stop on either side."""
    short = [pair for pair in pairs if pair[0][-1] in ".?!" and 3 <= len(pair[0].split()) <= 12]
    chosen = rng.sample(short, round(share * len(short)))
    return [(source.lower().rstrip(".?! "), target.rstrip(".?! ")) for source, target in chosen]


def collect(config: Config) -> dict[str, list[Pair]]:
    """Usable pairs of each origin, each source once (its first translation counts)."""
    wanted = [origin for origin in ORIGINS if origin.name not in config.leave_out]
    fetch([name for origin in wanted for name in origin.packages], config.packages_dir)
    seen: set[str] = set()
    result: dict[str, list[Pair]] = {}

    def add(name: str, pairs: Iterable[Pair]) -> None:
        kept = []
        for source, target in pairs:
            if source.lower() not in seen and usable(source, target):
                seen.add(source.lower())
                kept.append((source, target))
        result[name] = kept
        print(f"{name}: {len(kept)} pairs, {sum(len(source.split()) for source, _ in kept)} English words")

    for origin in wanted:
        files: Files = {}
        for package in origin.packages:
            read = read_package(package, config.packages_dir, origin.wanted)
            files |= {f"{package}:{path}" if origin.wanted == CATALOGUE else path: data for path, data in read.items()}
        add(origin.name, origin.extract(files))
    if DESCRIPTIONS not in config.leave_out:
        add(DESCRIPTIONS, descriptions(config.descriptions_dir, config.packages_dir))
    return result


def main(config: Config) -> None:
    """Write the corpora."""
    if config.output_dir.exists():
        raise UserError(f"{config.output_dir}: exists already; remove it, or give another --output_dir")
    known = [*(origin.name for origin in ORIGINS), DESCRIPTIONS]
    if unknown := [name for name in config.leave_out if name not in known]:
        raise UserError(f"--leave_out {unknown[0]!r}: no such origin; there are {', '.join(known)}")
    collected = collect(config)
    parts: dict[str, list[Pair]] = {"train": [], "dev": [], "test": []}
    for part in ("dev", "test"):
        embedded = read_tsv(EMBEDDED / f"{part}.tsv")
        parts[part] = list(zip(embedded.sources, embedded.targets, strict=True))
    everyday = read_tsv(EMBEDDED / "everyday.tsv")
    rng = random.Random(config.seed)
    for pairs in collected.values():
        long = [pair for pair in pairs if 4 <= len(words_of(pair[0])) <= 40]
        if len(long) >= 20 * config.held_out:
            chosen = rng.sample(long, 2 * config.held_out)
            parts["dev"] += chosen[: config.held_out]
            parts["test"] += chosen[config.held_out :]
    resembles = Resemblance([source for part in ("dev", "test") for source, _ in parts[part]] + everyday.sources)
    rows = [("origin", "pairs", "put out", "packages", "licence")]
    licences = {origin.name: (", ".join(origin.packages), origin.licence) for origin in ORIGINS}
    licences[DESCRIPTIONS] = ("Translation-de of the archive", "that of each package")
    for name, pairs in collected.items():
        kept = [pair for pair in pairs if not resembles(pair[0])]
        parts["train"] += kept
        rows.append((name, str(len(kept)), str(len(pairs) - len(kept)), *licences[name]))
    copies = informal_copies(parts["train"], INFORMAL_SHARE, rng)
    parts["train"] += [pair for pair in copies if not resembles(pair[0])]
    rows.append(("informal copies", str(len(copies)), "0", "of the above", "as above"))
    rng.shuffle(parts["train"])
    config.output_dir.mkdir(parents=True)
    for part, pairs in parts.items():
        text = "".join(f"{source}\t{target}\n" for source, target in pairs)
        (config.output_dir / f"{part}.tsv").write_text(text, encoding="utf-8")
    (config.output_dir / "sources.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{config.output_dir}: " + ", ".join(f"{len(pairs)} {part}" for part, pairs in parts.items()))


if __name__ == "__main__":
    script(lambda: main(parse(Config)))
