"""AISHELL-1 from its archives to an error rate: 178 hours of read Mandarin, 400 speakers (openslr.org/33, Apache-2.0).

    python recipes/aishell.py --work aishell                     all stages; those that are done are not done again
    python recipes/aishell.py --work aishell --stage 4           from the fourth on, anew
    python recipes/aishell.py --archives ~/downloads --train "--precision bf16 --batch_size 64"

    1 archives    data_aishell.tgz (15 GB) and resource_aishell.tgz, downloaded unless --archives has them, are unpacked
    2 tables      text, utt2spk and wav.scp of train, dev and test; words that the lexicon lacks are spelled by its characters
    3 features    mel bands, alignments from a flat start, a trigram of the training texts (prepare_wav.py)
    4 train       the network of 2018 (train.py)
    5 realign     alignments by that network (realign.py)
    6 train again on those
    7 scale       the acoustic scale that makes the fewest errors on dev (eval.py --sweep)
    8 test        CER on the 7,176 sentences of test, beside what others published

The states are those of phones without regard to their neighbours. For tied triphones take the alignments and the graph of Kaldi's
recipe: prepare_kaldi.py.
"""

import json
import shlex
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from DeepASR.decoding.lexicon import Lexicon, lexicon_lines, read_lexicon
from DeepASR.kaldi.tables import read_text
from DeepASR.recipes.stages import remade, run, run_stages, sweep, write_tables
from fluid import config as configuration
from fluid.config import Count
from fluid.errors import DataError, UserError
from fluid.records import writing
from fluid.run import console, script
from fluid.text import number_of
from fluid.weights.download import download

ARCHIVES = {
    name: (f"https://www.openslr.org/resources/33/{name}", f"https://us.openslr.org/resources/33/{name}")
    for name in ("data_aishell.tgz", "resource_aishell.tgz")
}
PARTS = ("train", "dev", "test")
SCALES = ("0.05", "0.1", "0.15", "0.2", "0.3")
PUBLISHED = {
    "Kaldi, monophones (GMM)": 33.8,
    "Kaldi, tri5a (GMM)": 12.23,
    "DeepASR of 2018": 10.20,
    "icefall, TDNN-LSTM, 1best": 10.16,
    "Kaldi, nnet3 TDNN": 8.45,
    "Kaldi, chain TDNN": 7.46,
    "PaddleSpeech, DeepSpeech 2 offline": 6.4,
    "WeNet, Conformer": 4.61,
    "icefall, Conformer-CTC with rescoring": 4.26,
}
"""CER on test in per cent, by the projects' own result files."""


@dataclass
class Flags:
    """AISHELL-1 from its archives to an error rate."""

    work: Path = Path("aishell")
    """Folder for everything, 40 GB."""
    archives: Path | None = None
    """Folder that has the archives already."""
    stage: Count | None = None
    """Stage to begin with, anew; by default the first that is not done."""
    stop_stage: Count = 8
    """Stage to end with."""
    train: str = ""
    """Flags of train.py beside those of this recipe: --train "--precision bf16 --max_steps 100"."""
    use: str = ""
    """Flags of realign.py and eval.py, such as --use "--device gpu"."""


def main(flags: Flags) -> list[int]:
    """Do what is not done yet; returns the numbers of the stages that ran."""
    return run_stages((unpack, tables, features, train, realign, train_again, scale, test), flags)


def unpack(flags: Flags) -> None:
    """The archives, and those of each speaker in them."""
    for name, urls in ARCHIVES.items():
        path = (flags.archives or flags.work) / name
        if not path.exists():
            if flags.archives is not None:
                raise UserError(f"{path}: not there; without --archives it is downloaded")
            download(urls, path)
        extract(path, flags.work)
    inner = sorted((flags.work / "data_aishell" / "wav").glob("*.tar.gz"))
    for path in inner:
        extract(path, path.parent)
        path.unlink()
    console.print(f"{number_of(len(inner), 'archive')} of speakers unpacked")


def extract(archive: Path, folder: Path) -> None:
    """Unpack below `folder`, and nowhere else. Raises DataError for what is no archive."""
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); remove it and begin with stage 1") from None


def tables(flags: Flags) -> None:
    """What prepare_wav.py reads."""
    data = flags.work / "data_aishell"
    texts = read_text(data / "transcript" / "aishell_transcript_v0.8.txt")
    lexicon = read_lexicon(flags.work / "resource_aishell" / "lexicon.txt")
    used: dict[str, None] = {}
    for part in PARTS:
        files = {path.stem: path for path in sorted((data / "wav" / part).rglob("*.wav"))}
        if not files:
            raise DataError(f"{data / 'wav' / part}: holds no recording; begin with stage 1")
        silent = [name for name in files if name not in texts]
        if silent:
            console.print(
                f"{part}: left out for lack of a transcript: {len(silent)} of {number_of(len(files), 'recording')}"
            )
        spelled = {name: spell(texts[name].split(), lexicon) for name in files if name in texts}
        used.update(dict.fromkeys(word for words in spelled.values() for word in words))
        # The folder of a recording is its speaker.
        speakers = {name: files[name].parent.name for name in spelled}
        write_tables(flags.work / "tables" / part, spelled, files, speakers)
    path = flags.work / "tables" / "lexicon.txt"
    with writing(path):
        path.write_text(lexicon_lines(lexicon.restricted(used)), encoding="utf-8")
    console.print(f"{len(used)} words")


def spell(words: Iterable[str], lexicon: Lexicon) -> list[str]:
    """Words of the lexicon, others by their characters. Raises DataError for a character without a pronunciation."""
    spelled: list[str] = []
    for word in words:
        spelled += [word] if word in lexicon.words else list(word)
    if missing := lexicon.missing(spelled):
        raise DataError(f"the lexicon pronounces neither a word with them nor the characters {' '.join(missing)}")
    return spelled


def features(flags: Flags) -> None:
    """Features, alignments and language model."""
    tables, prepared = flags.work / "tables", remade(flags.work / "prepared")
    run("prepare_wav", recordings=tables, lexicon=tables / "lexicon.txt", output_dir=prepared, error_rate_type="cer",
        num_bins=80, leave_out=True)  # fmt: skip


RECIPE = ("--hidden_dim 1024 --proj_dim 512 --stacked_num 5 --filters 32 --batch_size 64 --lr 0.0005 --num_epochs 8 "
          "--speed 0.1 --time_masks 1 --frequency_masks 1")  # fmt: skip


def train(flags: Flags) -> None:
    """The first network."""
    run("train", *shlex.split(RECIPE), *shlex.split(flags.train), data_dir=flags.work / "prepared",
        output_dir=remade(flags.work / "first"))  # fmt: skip


def realign(flags: Flags) -> None:
    """Alignments by the first network."""
    run("realign", *shlex.split(flags.use), data_dir=flags.work / "prepared", checkpoint=flags.work / "first",
        output_dir=remade(flags.work / "realigned"))  # fmt: skip


def train_again(flags: Flags) -> None:
    """The second network."""
    run("train", *shlex.split(RECIPE), *shlex.split(flags.train), data_dir=flags.work / "realigned",
        output_dir=remade(flags.work / "second"))  # fmt: skip


def scale(flags: Flags) -> None:
    """The best acoustic scale on dev, into scale.txt."""
    sweep(flags.work / "scale.txt", *shlex.split(flags.use), "--sweep", *SCALES, data_dir=flags.work / "realigned",
          checkpoint=flags.work / "second")  # fmt: skip


def test(flags: Flags) -> None:
    """CER on test beside that of others."""
    path = flags.work / "scale.txt"
    if not path.exists():
        raise UserError(f"{path}: not there; begin with stage 7")
    results = flags.work / "results"
    run("eval", *shlex.split(flags.use), data_dir=flags.work / "realigned", checkpoint=flags.work / "second",
        acoustic_scale=path.read_text(encoding="ascii").strip(), output_dir=results)  # fmt: skip
    own = json.loads((results / "result.json").read_text(encoding="utf-8"))["cer"]
    for name, rate in sorted({**PUBLISHED, "this run, measured": own}.items(), key=lambda item: -item[1]):
        console.print(f"{rate:6.2f} %  {name}{'' if name.startswith('this') else ' (published)'}")


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
