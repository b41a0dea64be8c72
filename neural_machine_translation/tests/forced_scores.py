"""What a network thinks of given translations, word by word: what searches are measured by."""

from collections.abc import Sequence

from fluid.engine import Engine
from fluid.interface import Interface
from neural_machine_translation.scoring import feed_of
from neural_machine_translation.translator import Translator

import numpy as np


def forced_scores(
    engine: Engine,
    evaluation: Interface,
    translator: Translator,
    sentences: Sequence[str],
    translations: Sequence[Sequence[int]],
) -> np.ndarray:
    """Log-probability, [N], of given translations (word indices without `<e>`), `<e>` included."""
    encoded = list(zip(translator.source.encode_all(sentences), map(np.asarray, translations), strict=True))
    longest = max(len(words) for pair in encoded for words in pair)
    feed = feed_of(encoded, longest + 2)
    return -np.asarray(engine.run(evaluation, feed)["nll"])
