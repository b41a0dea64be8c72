"""Collect English-German sentence pairs from Debian packages, without an account or a download page.

    python prepare_debian.py --output_dir corpora
    python train.py --data_dir corpora --model small --vocab_size 8000 --batch_size 8192 --warmup_steps 4000

The packages (1.9 GB, listed in debian_origins.py) are fetched with `apt-get download` into --packages_dir, which needs no root rights
but a Debian or Ubuntu system; what is there already is used again. Result:

    OUTPUT_DIR/train.tsv dev.tsv test.tsv    source, tab, target
               sources.tsv                   pairs, package and licence by origin

Test and dev pairs are those embedded in this repository and those that data/held_out.tsv names, always the same. No sentence
of the training part resembles one of theirs: Dice overlap of the words above 0.8 puts a pair out.
"""

import glob
import hashlib
import random
import re
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import files
from fluid.config import Count, Natural, Seed, parse
from fluid.errors import DataError, UserError
from fluid.records import refuse_existing
from fluid.run import script
from fluid.text import number_of
from neural_machine_translation.debian_origins import CATALOGUE, DICTIONARY, ORIGINS, Files, sentences, usable
from neural_machine_translation.made_sentences import make
from neural_machine_translation.reader import EMBEDDED, Pair, read_tsv
from neural_machine_translation.resemblance import Everyday, Resemblance, words_of


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


INFORMAL_SHARE = 0.15
"""Of the short sentences, of which there are copies as people type in haste."""
HELD_OUT = EMBEDDED / "held_out.tsv"
"""Digests of the pairs of dev and test."""
TRANSLATIONS = 2
"""Of a word of the dictionary, at most."""
DESCRIPTIONS, MADE = "package descriptions", "made sentences"


def main(flags: Flags) -> None:
    """Write the corpora, completely or not at all."""
    refuse_existing(flags.output_dir)
    known = [*(origin.name for origin in ORIGINS), DESCRIPTIONS]
    if unknown := [name for name in flags.leave_out if name not in known]:
        raise UserError(f"--leave_out {unknown[0]!r}: no such origin; there are {', '.join(known)}")
    collected = collect(flags)
    parts = held_out(collected)
    everyday = Everyday(read_tsv(EMBEDDED / "everyday.tsv"))
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
    with files.whole(flags.output_dir) as unfinished:
        unfinished.mkdir()
        tables: dict[str, Sequence[Sequence[str]]] = {"train": train, **parts, "sources": rows}
        for name, lines in tables.items():
            text = "".join("\t".join(line) + "\n" for line in lines)
            (unfinished / f"{name}.tsv").write_text(text, encoding="utf-8")
    print(
        f"{flags.output_dir}: {len(train)} train, " + ", ".join(f"{len(pairs)} {part}" for part, pairs in parts.items())
    )


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
        contents: Files = {}
        for package in origin.packages:
            read = read_package(package, flags.packages_dir, origin.wanted)
            contents |= {
                f"{package}:{path}" if origin.wanted == CATALOGUE else path: data for path, data in read.items()
            }
        if origin.name == DICTIONARY:
            listed = [pair for pair in origin.extract(contents) if usable(*pair)]
        else:
            add(origin.name, origin.extract(contents))
    if DESCRIPTIONS not in flags.leave_out:
        add(DESCRIPTIONS, descriptions(flags.descriptions_dir, flags.packages_dir))
    if DICTIONARY not in flags.leave_out:
        company = Company(pair for pairs in [*result.values(), listed] for pair in pairs)
        kept = [pair for pair in listed if digest_of(pair) in named]
        result[DICTIONARY] = list(dict.fromkeys([*best_company(listed, company, TRANSLATIONS), *kept]))
    for name, pairs in result.items():
        print(f"{name}: {len(pairs)} pairs, {sum(len(source.split()) for source, _ in pairs)} English words")
    return result


def held_out(collected: Mapping[str, list[Pair]]) -> dict[str, list[Pair]]:
    """The parts dev and test: the embedded pairs, and those that data/held_out.tsv names."""
    parts = {part: list(read_tsv(EMBEDDED / f"{part}.tsv")) for part in ("dev", "test")}
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


def fetch(packages: Iterable[str], folder: Path) -> None:
    """Download the packages that `folder` lacks. Raises UserError if apt-get fails."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in packages if not glob.glob(str(folder / f"{name}_*.deb"))]
    if missing:
        print(f"fetching {number_of(len(missing), 'package')} into {folder}")
        try:
            subprocess.run(["apt-get", "download", "-q", *missing], cwd=folder, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(
                f"apt-get download failed ({error}). On another system put the packages into {folder}: {' '.join(missing)}"
            ) from None


def read_package(name: str, folder: Path, wanted: str) -> Files:
    """The files of a package whose path matches. Raises DataError if there is no such package, or it is damaged."""
    found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
        raise DataError(f"{folder}: no package {name}")
    contents: Files = {}
    try:
        with (
            subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(found[-1])], stdout=subprocess.PIPE) as process,
            tarfile.open(fileobj=process.stdout, mode="r|") as archive,
        ):
            assert process.stdout is not None
            for member in archive:
                path = member.name.removeprefix(".")
                if member.isfile() and re.search(wanted, path) and (file := archive.extractfile(member)) is not None:
                    contents[path] = file.read()
            # What fills up the archive, else dpkg-deb fails because nobody reads it.
            process.stdout.read()
        damaged = process.returncode != 0
    except tarfile.TarError:
        damaged = True
    if damaged:
        raise DataError(f"{found[-1]}: dpkg-deb cannot read it; remove it and run this again")
    return contents


def descriptions(folder: Path | None, packages_dir: Path) -> Iterator[Pair]:
    """Package descriptions and their translations by the Debian Description Translation Project.

    Raises UserError if apt cannot fetch its lists, DataError if there are none or they cannot be read.
    """
    if folder is None:
        folder = packages_dir / "lists"
        (folder / "partial").mkdir(parents=True, exist_ok=True)
        if not glob.glob(str(folder / "*Translation-de*")):
            options = ["Acquire::Languages=en,de", f"Dir::State::lists={folder.resolve()}"]
            command = ["apt-get", "update", "-q", *(word for option in options for word in ("-o", option))]
            try:
                subprocess.run(command, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise UserError(f"apt-get update into {folder} failed ({error}); give --descriptions_dir") from None
    texts: dict[str, dict[str, str]] = {}
    for language in ("en", "de"):
        texts[language] = {}
        names = glob.glob(str(folder / f"*i18n_Translation-{language}*"))
        if not names:
            raise DataError(
                f"{folder}: holds no *i18n_Translation-{language}*; give --descriptions_dir, or --leave_out '{DESCRIPTIONS}'"
            )
        for name in names:
            try:
                helper = ["/usr/lib/apt/apt-helper", "cat-file", name]
                raw = subprocess.run(helper, capture_output=True, check=True).stdout
            except (OSError, subprocess.CalledProcessError) as error:
                raise DataError(f"{name}: apt-helper cannot read it ({error})") from None
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

    for key, english in texts["en"].items():
        if key in texts["de"]:
            left, right = paragraphs(english), paragraphs(texts["de"][key])
            if len(left) == len(right):
                for source, target in zip(left, right):
                    if source and target:
                        yield from sentences(source, target)


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


if __name__ == "__main__":
    script(lambda: main(parse(Flags)))
