"""It learns: copying digits to BLEU 98, with a seed drawn at random and printed; and what was learned comes along."""

import random

from neural_machine_translation import eval as evaluate
from neural_machine_translation import train, translation_memory
from neural_machine_translation.reader import EMBEDDED


def test_digits_are_copied(tmp_path):
    seed = random.SystemRandom().randrange(2**31)
    print(f"seed {seed}")
    flags = train.Flags(
        digit_copy=True,
        n_layer=1,
        d_model=64,
        d_inner_hid=128,
        dropout=0.0,
        label_smooth_eps=0.0,
        warmup_steps=150,
        lr=0.8,
        max_steps=500,
        eval_every=500,
        eval_batch_size=100,
        beta2=0.98,
        engine="paddle",
        seed=seed,
        output_dir=tmp_path / "run",
    )
    outcome = train.main(flags)
    assert outcome.metrics["bleu"] >= 98, f"BLEU {outcome.metrics['bleu']:.2f} with seed {seed}"


def test_the_shipped_model_translates_everyday_sentences():
    """BLEU 45.5 was measured; repeating the nearest of the embedded training sentences scores next to nothing."""
    everyday = str(EMBEDDED / "everyday.tsv")
    result = evaluate.main(evaluate.Flags(test_file_pattern=everyday))
    assert result.bleu > 42 and result.chrf > 63
    assert translation_memory.main(translation_memory.Flags(test_file_pattern=everyday)).bleu < 5
