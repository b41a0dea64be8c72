"""Collect English-German sentence pairs from Debian packages, without an account or a download page.

    python prepare_debian.py --output_dir corpora
    python train.py --data_dir corpora --model small --vocab_size 8000 --batch_size 8192 --warmup_steps 4000

The packages (1.9 GB, listed below) are fetched with `apt-get download` into --packages_dir, which needs no root rights
but a Debian or Ubuntu system; what is there already is used again. Result:

    OUTPUT_DIR/train.tsv dev.tsv test.tsv    source, tab, target
               sources.tsv                   pairs, package and licence by origin

Test and dev pairs are those embedded in this repository and those that data/held_out.tsv names, always the same. No sentence
of the training part resembles one of theirs: Dice overlap of the words above 0.8 puts a pair out.
"""

import gettext
import glob
import hashlib
import io
import random
import re
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid.config import Count, Natural, Seed, parse
from fluid.errors import DataError, UserError
from fluid.records import refuse_existing
from fluid.run import script
from neural_machine_translation.made_sentences import make
from neural_machine_translation.reader import EMBEDDED, read_tsv

Pair = tuple[str, str]
Files = dict[str, bytes]
"""Path inside a package -> content."""


@dataclass
class Flags:
    """Collect English-German sentence pairs from Debian packages."""

    output_dir: Path = Path("corpora")
    """Folder to write, which must not be there yet."""
    packages_dir: Path = Path("corpora_packages")
    """Where the packages are, or are fetched to."""
    descriptions_dir: Path | None = None
    """Folder with apt's Translation-en and Translation-de lists; by default they are fetched into packages_dir."""
    sentence_copies: Count = 1
    """How often pairs of sentences (five words or more, or a full stop) stand in train.tsv; words, names and made sentences once."""
    made_sentences: Natural = 60_000
    """Everyday sentences from a grammar of a few hundred words that come on top."""
    leave_out: tuple[str, ...] = ()
    """Origins to do without: names in the first column of sources.tsv."""
    seed: Seed = 0
    """Of the order of the pairs, and of the made sentences."""


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
                sources, targets = ([plain(text) for text in side.split(";")] for side in (left, right))
                yield from ((source, targets[0]) for source in sources)
                yield from ((sources[0], target) for target in targets[1:])


class Company:
    """How often what a dictionary lists stands together in pairs of longer texts, by the first letters of its words."""

    def __init__(self, pairs: Iterable[Pair]):
        self._places: tuple[dict[str, set[int]], dict[str, set[int]]] = (defaultdict(set), defaultdict(set))
        for number, pair in enumerate(pairs):
            if len(pair[0].split()) > 1:
                for side, text in zip(self._places, pair, strict=True):
                    for stem in self._stems(text):
                        side[stem].add(number)

    @staticmethod
    def _stems(text: str) -> set[str]:
        return {word[:6] for word in words_of(text)} - {"to", "someth", "somebo", "etwas", "jemand"}

    def __call__(self, source: str, target: str) -> float:
        """Larger for better company; divided by how often the target stands anywhere, else frequent words would be good for all."""
        found = [
            set.intersection(*(side.get(stem, set()) for stem in self._stems(text))) if self._stems(text) else set()
            for side, text in zip(self._places, (source, target), strict=True)
        ]
        return len(found[0] & found[1]) / (len(found[1]) + 10) ** 0.5


def best_company(pairs: Iterable[Pair], company: Callable[[str, str], float], most: int) -> Iterator[Pair]:
    """Of each source the `most` targets that are in the best company; a dictionary lists every one."""
    found: dict[str, list[str]] = defaultdict(list)
    for source, target in pairs:
        if target not in found[source]:
            found[source].append(target)
    for source, targets in found.items():
        if len(targets) > 1:
            targets.sort(key=lambda target: -company(source, target))
        yield from ((source, target) for target in targets[:most])


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
    pages: dict[str, dict[str, bytes]] = defaultdict(dict)
    for path, content in files.items():
        language = "de" if re.search(r"/de-DE/|/de/|\.de\.html", path) else "en"
        pages[re.sub(r"(?<=[/.])(en-US|de-DE|en|de)[/.]|-de(?=/)", "", path)][language] = content
    for page in pages.values():
        if len(page) == 2:
            yield from aligned(*([(tag, text) for tag, _, text in html_blocks(page[name])] for name in ("en", "de")))


def aligned(left: list[tuple[str, str]], right: list[tuple[str, str]]) -> Iterator[Pair]:
    """Sentence pairs of two pages, if their elements are the same."""
    if [tag for tag, _ in left] == [tag for tag, _ in right]:
        for (_, source), (_, target) in zip(left, right):
            yield from sentences(source, target)


INFORMAL_SHARE = 0.15
HELD_OUT = EMBEDDED / "held_out.tsv"
TRANSLATIONS = 2
"""Of a word of the dictionary, at most."""
CATALOGUE = r"/de/LC_MESSAGES/.*\.mo$"
GAMES = (
    "wesnoth-1.16-data", "wesnoth-1.16-httt", "freeciv-data", "widelands-data", "unknown-horizons",
    "freedroidrpg-data", "warzone2100-data", "lincity-ng-data", "aisleriot", "kpat", "kmines", "gnome-mines",
    "quadrapassel", "gnome-chess", "xboard", "colobot-common", "tuxpaint-data", "wesnoth-1.16-did", "wesnoth-1.16-dm",
    "wesnoth-1.16-dw", "wesnoth-1.16-ei", "wesnoth-1.16-l", "wesnoth-1.16-low", "wesnoth-1.16-nr", "wesnoth-1.16-sof",
    "wesnoth-1.16-sota", "wesnoth-1.16-sotbe", "wesnoth-1.16-thot", "wesnoth-1.16-trow", "wesnoth-1.16-tsg",
    "wesnoth-1.16-ttb", "wesnoth-1.16-utbs", "five-or-more", "four-in-a-row", "gbrainy", "gnome-klotski",
    "gnome-mahjongg", "gnome-nibbles", "gnome-robots", "gnome-sudoku", "gnome-taquin", "gnome-tetravex", "gnubg-data",
    "hitori", "iagno", "kajongg", "ksudoku", "lightsoff", "palapeli-data", "swell-foop", "tali", "khangman", "kbruch",
    "kturtle", "step",
    "kgoldrunner", "ksirk", "lordsawar-data", "minetest-data", "pioneers-console-data",
)  # fmt: skip
PROGRAMS = (
    "aptitude-common", "audacity-data", "bluefish-data", "cheese-common", "claws-mail-i18n", "darktable", "deja-dup",
    "digikam-data", "evolution-common", "gimp-data", "gnome-control-center-data", "gnome-software-common",
    "gnucash-common", "gramps", "homebank-data", "hugin-data", "inkscape", "iso-codes", "kdenlive-data", "kmail",
    "kontact", "krita-l10n", "kstars-data", "marble-data", "nautilus-data", "plasma-desktop-data",
    "plasma-workspace-data", "rhythmbox-data", "shotwell-common", "solfege", "stellarium-data", "synaptic",
    "totem-common", "vlc-l10n", "akregator", "ardour-data", "ark", "atril-common", "baobab", "bash",
    "binutils-common", "bluedevil", "brasero-common", "caja-common", "calligra-data", "cantor", "cinnamon-l10n",
    "coreutils", "deluge-common", "denemo-data", "dia-common", "dolphin", "easytag", "engrampa-common", "eog",
    "epiphany-browser-data", "evince-common", "exfalso", "file-roller", "filezilla-common", "findutils",
    "gcc-12-locales", "gedit-common", "geeqie-common", "gnome-boxes", "gnome-calendar", "gnome-clocks",
    "gnome-contacts", "gnome-disk-utility", "gnome-maps", "gnome-shell-common", "gnome-subtitles",
    "gnome-system-monitor", "gnome-terminal-data", "gnome-tweaks", "gnome-weather", "gnote", "gnumeric-common",
    "gnupg-l10n", "gpodder", "grub-common", "gthumb-data", "gtkpod-data", "gwenview", "hexchat-common", "k3b-i18n",
    "kalgebra-common", "kate5-data", "kdevelop-l10n", "kig", "kio", "kleopatra", "kmymoney-common", "konqueror",
    "konsole", "konversation-data", "korganizer", "ktorrent-data", "kwin-data", "libglib2.0-data", "libgtk-3-common",
    "libparted-i18n", "liferea-data", "lokalize", "mate-applets-common", "mate-control-center-common",
    "mate-panel-common", "mate-utils-common", "meld", "mousepad", "mutt", "network-manager-gnome", "network-manager",
    "okular", "parole", "picard", "pidgin-data", "pitivi", "planner-data", "plasma-discover-common", "plasma-nm",
    "pluma-common", "powerdevil-data", "remmina-common", "ristretto", "seahorse", "simple-scan", "skrooge-common",
    "subtitleeditor", "system-config-printer-common", "systemsettings", "tar", "thunar-data", "viking", "vinagre",
    "wget", "xfburn", "xfce4-panel", "xfce4-power-manager-data", "xfce4-settings", "xfdesktop4-data", "xiphos-data",
    "xournalpp", "zim", "amule-common", "anjuta-common", "apt", "aria2", "dpkg", "firewalld", "flowblade", "gawk",
    "geany-common", "gettext", "gftp-common", "glabels-data", "gnome-builder", "grisbi-common", "kalzium-data",
    "kbibtex-data", "kdepim-addons", "kdepim-runtime", "kdeplasma-addons-data", "kexi-data", "kgeography-data", "kget",
    "kgpg", "kolourpaint", "krusader", "ksystemlog", "libc-l10n", "libgphoto2-l10n", "libgtk-4-common",
    "libgtk2.0-common", "libkf5calendarsupport-data", "libkf5incidenceeditor-data", "libsane-common", "libvirt-l10n",
    "login", "lyx-common", "make-guile", "mc-data", "mercurial-common", "mypaint-data", "nano", "osmo", "parley-data",
    "partitionmanager", "postgresql-15", "postgresql-client-15", "procps", "subversion", "sylpheed-i18n", "timeshift",
    "util-linux-locales", "weechat-core", "xine-ui", "xsane-common",
)  # fmt: skip
MANUALS = (
    "debian-handbook", "developers-reference", "developers-reference-de", "debian-faq", "debian-faq-de", "debian-reference-en",
    "debian-reference-de", "maint-guide", "maint-guide-de", "apt-doc", "debmake-doc", "installation-guide-amd64",
)  # fmt: skip
DICTIONARY, DESCRIPTIONS, MADE = "dictionary", "package descriptions", "made sentences"
ORIGINS = (
    Origin(DICTIONARY, ("trans-de-en",), r"/usr/share/trans/de-en$", from_dictionary, "GPL-2.0-or-later"),
    Origin("dialogues", ("fillets-ng-data",), r"/dialogs(_en|_de)?\.lua$", from_dialogues, "GPL-2.0-or-later"),
    Origin("games", GAMES, CATALOGUE, from_catalogues, "GPL-2.0-or-later, some GPL-3.0-or-later"),
    Origin(
        "programs",
        PROGRAMS,
        CATALOGUE,
        from_catalogues,
        "GPL-2.0-or-later, LGPL-2.0-or-later, GPL-3.0-or-later, some Apache-2.0, BSD, MIT, PostgreSQL",
    ),
    Origin(
        "manuals",
        MANUALS,
        r"/((en-US|de-DE)/[^/]*\.html|(en|de)/[^/]*\.html|[^/]*\.(en|de)\.html|guide\.(en|de)\.html/[^/]*\.html)$",
        from_books,
        "GPL-2.0-or-later, some MIT",
    ),
    Origin(
        "office help",
        ("libreoffice-help-en-us", "libreoffice-help-de"),
        r"/help/(en-US|de)/text/.*\.html$",
        from_help,
        "MPL-2.0",
    ),
    Origin("office programs", ("libreoffice-l10n-de",), CATALOGUE, from_catalogues, "MPL-2.0"),
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
    """Finds whether a sentence resembles one of a set: Dice overlap of their words above `limit`."""

    def __init__(self, texts: Iterable[str], limit: float = 0.8):
        self.limit = limit
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
        # The overlap is above the limit only if so many words are shared; so one of the rarest others is.
        shared = self.limit / (2 - self.limit) * size
        by_rarity = sorted(bag, key=lambda word: len(self.holders.get(word, ())))
        needed = by_rarity[: int(size - shared) + 1]
        for number in {number for word in needed for number in self.holders.get(word, ())}:
            other = self.bags[number]
            if 2 * sum((bag & other).values()) > self.limit * (size + sum(other.values())):
                return True
        return False


class Everyday:
    """Whether a pair resembles one of the everyday sentences, or says the same in other words.

    These are short, so that half of a paraphrase's words are another's: either side may share no more than 0.6 of its words
    with one of theirs, or five in a row.
    """

    RUN = 5

    def __init__(self, pairs: Iterable[Pair]):
        self.sides = [Resemblance(texts, limit=0.6) for texts in zip(*pairs, strict=True)]
        self.runs = {run for pair in pairs for text in pair for run in self._runs(text)}

    def __call__(self, pair: Pair) -> bool:
        alike = any(resembles(text) for resembles, text in zip(self.sides, pair, strict=True))
        return alike or any(run in self.runs for text in pair for run in self._runs(text))

    def _runs(self, text: str) -> Iterator[tuple[str, ...]]:
        return zip(*(words_of(text)[start:] for start in range(self.RUN)))


def is_sentence(pair: Pair) -> bool:
    """Whether the English is more than a word or a name."""
    return pair[0][-1] in ".?!" or len(pair[0].split()) >= 5


def weighted(pairs: list[Pair], once: Collection[Pair], sentence_copies: int, rng: random.Random) -> list[Pair]:
    """The pairs in any order, those of sentences so many times unless they are among `once`."""
    result = pairs + [pair for pair in pairs if is_sentence(pair) and pair not in once] * (sentence_copies - 1)
    rng.shuffle(result)
    return result


def informal_copies(pairs: list[Pair], share: float, rng: random.Random) -> list[Pair]:
    """For a share of the short sentences a copy as people type in haste: source in lower case, no full stop on either side."""
    short = [pair for pair in pairs if pair[0][-1] in ".?!" and 3 <= len(pair[0].split()) <= 12]
    chosen = rng.sample(short, round(share * len(short)))
    return [(source.lower().rstrip(".?! "), target.rstrip(".?! ")) for source, target in chosen]


def collect(flags: Flags) -> dict[str, list[Pair]]:
    """Usable pairs of each origin, each source once (its first translation counts), in the dictionary `TRANSLATIONS` times;
    and those that are held out."""
    named = named_parts()
    wanted = [origin for origin in ORIGINS if origin.name not in flags.leave_out]
    fetch([name for origin in wanted for name in origin.packages], flags.packages_dir)
    seen: set[str] = set()
    result: dict[str, list[Pair]] = {}

    def add(name: str, pairs: Iterable[Pair]) -> None:
        result[name] = []
        for source, target in pairs:
            if usable(source, target) and (source.lower() not in seen or digest_of((source, target)) in named):
                seen.add(source.lower())
                result[name].append((source, target))

    for origin in wanted:
        files: Files = {}
        for package in origin.packages:
            read = read_package(package, flags.packages_dir, origin.wanted)
            files |= {f"{package}:{path}" if origin.wanted == CATALOGUE else path: data for path, data in read.items()}
        if origin.name == DICTIONARY:
            listed = [pair for pair in origin.extract(files) if usable(*pair)]
        else:
            add(origin.name, origin.extract(files))
    if DESCRIPTIONS not in flags.leave_out:
        add(DESCRIPTIONS, descriptions(flags.descriptions_dir, flags.packages_dir))
    if DICTIONARY not in flags.leave_out:
        company = Company(pair for pairs in [*result.values(), listed] for pair in pairs)
        kept = [pair for pair in listed if digest_of(pair) in named]
        result[DICTIONARY] = list(dict.fromkeys([*best_company(listed, company, TRANSLATIONS), *kept]))
    for name, pairs in result.items():
        print(f"{name}: {len(pairs)} pairs, {sum(len(source.split()) for source, _ in pairs)} English words")
    return result


def main(flags: Flags) -> None:
    """Write the corpora."""
    refuse_existing(flags.output_dir)
    known = [*(origin.name for origin in ORIGINS), DESCRIPTIONS]
    if unknown := [name for name in flags.leave_out if name not in known]:
        raise UserError(f"--leave_out {unknown[0]!r}: no such origin; there are {', '.join(known)}")
    collected = collect(flags)
    parts = held_out(collected)
    everyday = Everyday(pairs_of(EMBEDDED / "everyday.tsv"))
    resembles = Resemblance([source for part in parts.values() for source, _ in part])
    rng = random.Random(flags.seed)
    train: list[Pair] = []
    rows = [("origin", "pairs", "put out", "packages", "licence")]
    licences = {origin.name: (", ".join(origin.packages), origin.licence) for origin in ORIGINS}
    licences[DESCRIPTIONS] = ("Translation-de of the archive", "that of each package")
    licences[MADE] = ("made_sentences.py", "Apache-2.0")
    made = list(make(flags.made_sentences, rng))
    for name, pairs in (collected | {MADE: made}).items():
        kept = [pair for pair in pairs if not resembles(pair[0]) and not everyday(pair)]
        train += kept
        rows.append((name, str(len(kept)), str(len(pairs) - len(kept)), *licences[name]))
    copies = informal_copies(train, INFORMAL_SHARE, rng)
    rows.append(("informal copies", str(len(copies)), "0", "of the above", "as above"))
    train = weighted(train + copies, set(made), flags.sentence_copies, rng)
    flags.output_dir.mkdir(parents=True)
    for part, pairs in {"train": train, **parts}.items():
        text = "".join(f"{source}\t{target}\n" for source, target in pairs)
        (flags.output_dir / f"{part}.tsv").write_text(text, encoding="utf-8")
    (flags.output_dir / "sources.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    print(
        f"{flags.output_dir}: {len(train)} train, " + ", ".join(f"{len(pairs)} {part}" for part, pairs in parts.items())
    )


def held_out(collected: Mapping[str, list[Pair]]) -> dict[str, list[Pair]]:
    """The parts dev and test: the embedded pairs, and those that data/held_out.tsv names."""
    parts = {part: pairs_of(EMBEDDED / f"{part}.tsv") for part in ("dev", "test")}
    part_of = named_parts()
    for pair in dict.fromkeys(pair for pairs in collected.values() for pair in pairs):
        if (part := part_of.get(digest_of(pair))) is not None:
            parts[part].append(pair)
    return parts


def named_parts() -> dict[str, str]:
    """The part of every pair that is held out, by its digest."""
    rows = [line.split("\t") for line in HELD_OUT.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {digest: part for part, digest in rows}


def digest_of(pair: Pair) -> str:
    """What a pair is called where its text shall not stand."""
    return hashlib.sha256("\t".join(pair).encode()).hexdigest()[:16]


def pairs_of(path: Path) -> list[Pair]:
    """The pairs of a file."""
    read = read_tsv(path)
    return list(zip(read.sources, read.targets, strict=True))


if __name__ == "__main__":
    script(lambda: main(parse(Flags)))
