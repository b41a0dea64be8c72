"""Real English words of one speaker: the prompts of a telephone exchange, from a package to a word error rate.

    apt-get install asterisk-core-sounds-en asterisk-core-sounds-en-wav        563 recordings, 25 minutes, CC-BY-SA-3.0
    pip install pocketsphinx                                                   its CMU dictionary, BSD
    python recipes/asterisk.py --work asterisk

    1 tables      texts of the prompts, in words of the dictionary; a fifth of the prompts is for test
    2 features    mel bands, alignments from a flat start, a trigram of the training prompts (prepare_wav.py)
    3 gaussians   the word error rate of the monophone Gaussians that the alignments come from
    4 train       a small network (train.py)
    5 scale       the acoustic scale that makes the fewest errors on dev (eval.py --sweep)
    6 test        the word error rate, with the share of words that the training prompts do not have

Nothing that is trained on these recordings comes along.
"""

import gzip
import importlib.util
import json
import re
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from DeepASR.corpus import Part, open_corpus
from DeepASR.decoding.decoder import Decoder
from DeepASR.decoding.graph_building import from_language_model
from DeepASR.decoding.language_model import from_arpa
from DeepASR.decoding.lexicon import Lexicon, lexicon_lines, read_lexicon
from DeepASR.metrics import ErrorRates, error_rates
from DeepASR.preparing.flat_start import gaussians_of, to_cepstra
from DeepASR.recipes.stages import remade, run, run_stages, sweep, write_tables
from fluid import config as configuration
from fluid.config import Count, Seed
from fluid.errors import DataError, UserError
from fluid.records import say_measured, write_result, writing
from fluid.run import console, script
from fluid.text import number_of

import numpy as np
from scipy.special import softmax

SCALES = ("0.1", "0.15", "0.2", "0.3", "0.5")
GAUSSIAN_SCALES = (0.05, 0.07, 0.1, 0.14)
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
RECIPE = ("--filters 12 --batch_size 32 --num_epochs 150 --lr 0.005 --lr_strategy cosine_decay_warmup --warmup_steps 60 "
          "--split_frames 320 --lengths 192 320 592 --running_mean 40 --speed 0.1 --warp 0.1 --volume 6 --microphone 3 "
          "--noise 0.3 --time_masks 2 --frequency_masks 1")  # fmt: skip


@dataclass
class Flags:
    """Real English words of one speaker, from a package to a word error rate."""

    work: Path = Path("asterisk")
    """Folder for everything."""
    sounds: Path = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
    """Folder of the recordings."""
    transcripts: Path = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
    """What is said: lines `NAME: Words.`"""
    dictionary: Path | None = None
    """Words and their phones as CMU's dictionary has them; by default that of the package pocketsphinx."""
    stage: Count | None = None
    """Stage to begin with, anew; by default the first that is not done."""
    stop_stage: Count = 6
    """Stage to end with."""
    train: str = ""
    """Flags of train.py beside those of this recipe."""
    use: str = ""
    """Flags of eval.py, such as --use "--device gpu"."""
    seed: Seed = 0
    """Seed of which prompts are in which part."""


def main(flags: Flags) -> list[int]:
    """Do what is not done yet; returns the numbers of the stages that ran."""
    return run_stages((tables, features, gaussians, train, scale, test), flags)


def tables(flags: Flags) -> None:
    """What prepare_wav.py reads; what no dictionary has is said and left out."""
    texts = read_transcripts(flags.transcripts)
    files = {name: flags.sounds / f"{name}.wav" for name in texts}
    files = {name: path for name, path in files.items() if path.exists()}
    if not files:
        raise DataError(f"{flags.sounds}: has none of the {len(texts)} recordings of {flags.transcripts}")
    words = read_lexicon(flags.dictionary or dictionary_of_pocketsphinx()).words
    strange = {word for name in files for word in texts[name] if word not in words}
    if strange:
        console.print(f"without a pronunciation: {number_of(len(strange), 'word')}, {' '.join(sorted(strange))}")
    known = {name.replace("/", "_"): texts[name] for name in files if not strange & set(texts[name])}
    places = {name.replace("/", "_"): path for name, path in files.items()}
    names = [list(known)[number] for number in np.random.default_rng(flags.seed).permutation(len(known))]
    held_out, dev = len(names) // 5, max(1, len(names) // 20)
    parts = {"test": names[:held_out], "dev": names[held_out : held_out + dev], "train": names[held_out + dev :]}
    for part, chosen in parts.items():
        chosen_texts = {name: known[name] for name in sorted(chosen)}
        write_tables(flags.work / "tables" / part, chosen_texts, places, dict.fromkeys(chosen, "allison"))
    lexicon = Lexicon({word: words[word] for text in known.values() for word in text})
    path = flags.work / "tables" / "lexicon.txt"
    with writing(path):
        path.write_text(lexicon_lines(lexicon), encoding="utf-8")
    counts = ", ".join(f"{part} {len(chosen)}" for part, chosen in parts.items())
    console.print(
        f"{counts} prompts, {len(lexicon.words)} words; {number_of(len(files) - len(known), 'prompt')} left out"
    )


def read_transcripts(path: Path) -> dict[str, list[str]]:
    """Words by recording, of those that are speech. Raises DataError."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8", "replace")
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); install asterisk-core-sounds-en") from None
    found = {}
    for line in text.splitlines():
        name, colon, said = line.partition(":")
        # What is in brackets is no speech; comments begin with a semicolon.
        if colon and not name.startswith(";") and "[" not in said and (words := spelled(said)):
            found[name.strip()] = words
    if not found:
        raise DataError(f"{path}: has no line 'NAME: Words.'")
    return found


def spelled(said: str) -> list[str]:
    """Words in small letters, digits as words."""
    words = re.findall(r"[a-z']+|\d", said.lower().replace("’", "'"))
    return [DIGITS[int(word)] if word.isdecimal() else word for word in (word.strip("'") for word in words) if word]


def dictionary_of_pocketsphinx() -> Path:
    """Where pip installed it. Raises UserError if it did not."""
    package = importlib.util.find_spec("pocketsphinx")
    if package is None or package.origin is None:
        raise UserError("CMU's dictionary is needed: pip install pocketsphinx, or --dictionary FILE")
    return Path(package.origin).parent / "model" / "en-us" / "cmudict-en-us.dict"


def features(flags: Flags) -> None:
    """Features, alignments and language model."""
    tables, prepared = flags.work / "tables", remade(flags.work / "prepared")
    run("prepare_wav", recordings=tables, lexicon=tables / "lexicon.txt", output_dir=prepared, error_rate_type="wer",
        num_bins=24, sample_rate=8000, leave_out=True)  # fmt: skip


def gaussians(flags: Flags) -> None:
    """The errors of a monophone system of Gaussians, by the same graph."""
    began = time.perf_counter()
    corpus = open_corpus(flags.work / "prepared")
    assert corpus.lexicon is not None and corpus.language_model is not None
    model = from_arpa(corpus.language_model)
    graph, words = from_language_model(corpus.lexicon, model)
    train, held_out = corpus.part("train"), corpus.part("test")
    mixtures = gaussians_of(train, {name: text.split() for name, text in train.texts.items()}, corpus.lexicon)
    # Likelihoods are posteriors times what all classes of a frame share, where all are equally probable before.
    decoder = Decoder(graph, words, np.zeros(corpus.class_num))

    def rates_of(part: Part, scale: float) -> ErrorRates:
        decoder.acoustic_scale = scale
        posteriors = {name: softmax(mixtures.scores(to_cepstra(array)), axis=1) for name, array in part.items()}
        heard = {name: decoder.decode(posterior, name).text for name, posterior in posteriors.items()}
        return error_rates(part.texts, heard, unit="wer")

    dev = corpus.part("dev")
    best = min(GAUSSIAN_SCALES, key=lambda scale: rates_of(dev, scale).total.errors)
    rates = rates_of(held_out, best)
    low, high = rates.interval()
    vocabulary = {gram[0] for gram in model if len(gram) == 1}
    spoken = [word for text in held_out.texts.values() for word in text.split()]
    share = 100 * sum(word not in vocabulary for word in spoken) / len(spoken)
    result = {"wer": 100 * rates.total.rate, "interval": [100 * low, 100 * high], "out_of_vocabulary": share}
    seconds = say_measured(len(held_out), "utterance", began)
    write_result(
        flags.work / "gaussians",
        result,
        weights="Gaussians of the alignments",
        data=str(flags.work / "prepared" / "test"),
        samples=len(held_out),
        seconds=seconds,
    )
    console.print(
        f"Gaussians: WER {result['wer']:.1f} %, {low:.1%} to {high:.1%}, at the acoustic scale {best:g}, the best on dev; "
        f"{share:.1f} % of the words are unknown"
    )


def train(flags: Flags) -> None:
    """The network."""
    run("train", *shlex.split(RECIPE), *shlex.split(flags.train), data_dir=flags.work / "prepared",
        output_dir=remade(flags.work / "network"))  # fmt: skip


def scale(flags: Flags) -> None:
    """The best acoustic scale on dev, into scale.txt."""
    sweep(flags.work / "scale.txt", *shlex.split(flags.use), "--sweep", *SCALES, data_dir=flags.work / "prepared",
          checkpoint=flags.work / "network")  # fmt: skip


def test(flags: Flags) -> None:
    """The word error rate of the network beside that of the Gaussians."""
    path, results = flags.work / "scale.txt", flags.work / "results"
    if not path.exists():
        raise UserError(f"{path}: not there; begin with stage 5")
    run("eval", *shlex.split(flags.use), data_dir=flags.work / "prepared", checkpoint=flags.work / "network",
        acoustic_scale=path.read_text(encoding="ascii").strip(), output_dir=results)  # fmt: skip
    for name, folder in (("network", results), ("Gaussians", flags.work / "gaussians")):
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        low, high = found["interval"]
        console.print(f"{name}: WER {found['wer']:.1f} %, 95 % interval {low:.1f} to {high:.1f}")


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
