"""The run of train.py without flags, by the figure that README states."""

from pathlib import Path

from DeepASR import eval as evaluation
from DeepASR import train

import numpy as np
import pytest


@pytest.mark.full
def test_the_default_run_learns_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In other voices than it was trained on, at two levels of noise; minutes on two cores."""
    monkeypatch.chdir(tmp_path)
    seed = int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}")
    train.main(train.Flags(output_dir=Path("run"), seed=seed, device="cpu"))
    assert evaluation.main(evaluation.Flags(checkpoint=Path("run"), device="cpu"))["cer"] <= 8
