"""Where the pairs of `prepare_debian.py` come from: packages of Debian, and how sentences are found in each kind of file."""

import gettext
import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser

from neural_machine_translation.reader import Pair

Files = dict[str, bytes]
"""Path inside a package -> content."""


@dataclass(frozen=True)
class Origin:
    """Where pairs come from."""

    name: str
    packages: tuple[str, ...]
    wanted: str
    """Regular expression for the paths of the files to read."""
    extract: Callable[[Files], Iterable[Pair]]
    licence: str


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
            # Nothing public tells all that a catalogue holds.
            catalogue = gettext.GNUTranslations(io.BytesIO(content))._catalog  # type: ignore[attr-defined]
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

    TEXTS = frozenset(["p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "td", "dt", "dd"])
    TAGS = TEXTS | frozenset(["th", "div", "ul", "ol", "table", "tr", "pre", "blockquote"])

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, str, str]] = []
        self._tag, self._id, self._hidden = "", "", 0
        self._text: list[str] = []

    def flush(self) -> None:
        """End the open block."""
        text = clean("".join(self._text))
        if text and self._tag in self.TEXTS:
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
DICTIONARY = "dictionary"
"""Of which not every pair is taken."""
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
