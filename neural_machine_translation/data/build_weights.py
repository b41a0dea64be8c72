"""Makes english_german_small.safetensors, the translator that comes along, of the weights that a run has found best.

    python neural_machine_translation/data/build_weights.py output --corpora FINGERPRINT

In 6 bits; the matrices of the encoder, which a translation asks once and not once a word, in half as many levels.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fluid.run import script
from fluid.weights import compact, read_weights
from neural_machine_translation.model import encoder_layers, fc, parameter_shapes
from neural_machine_translation.translator import Transformer, Translator

TARGET = Path(__file__).resolve().parent / "english_german_small.safetensors"
MATRICES = 6
"""Of an encoder layer."""


def coarse(config: Transformer) -> list[str]:
    """What is stored in half as many levels."""
    return [fc(layer.fc + number) for layer in encoder_layers(config) for number in range(MATRICES)]


def write(source: Path, target: Path, corpora: Iterable[str]) -> None:
    """Store the weights of `source`, a run, checkpoint or compact file. Raises WeightsError."""
    described = compact.describe_source(source, "int6")
    facts = {"translator": {**described.facts["translator"], **({"corpora": list(corpora)} if corpora else {})}}
    config = Translator.from_facts(facts["translator"]).config
    found = read_weights(source)
    weights = {name: found[name] for name in parameter_shapes(config)}
    described = compact.Description(described.task, facts, described.origin, described.storage)
    compact.write(target, weights, described, compact.Finer(coarse=coarse(config)))
    numbers = sum(array.size for array in weights.values())
    print(f"{target}: {len(weights)} arrays, {numbers:,} numbers, {target.stat().st_size:,} bytes")


def main() -> None:
    """Round the weights and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="run, checkpoint, or file of `./zoo weights compact`")
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument(
        "--corpora", nargs="*", default=(), help="fingerprints of the pairs, where the run does not say it"
    )
    flags = parser.parse_args()
    write(flags.source, flags.target, flags.corpora)


if __name__ == "__main__":
    script(main)
