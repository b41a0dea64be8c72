"""It learns: copying digits to BLEU 98, with a seed drawn at random and printed."""

import random

from neural_machine_translation import train


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
