"""Training captured Programs: the result is a checkpoint like any other. Two compilations make it slow."""

from neural_machine_translation import infer, train_captured
from neural_machine_translation.reader import EMBEDDED, read_tsv

import pytest


@pytest.mark.full
def test_capture_run_and_translate(tmp_path, capsys):
    for part, rows in (("train", 300), ("dev", 4), ("test", 4)):
        pairs = read_tsv(EMBEDDED / f"{part}.tsv")
        text = "".join(
            f"{left}\t{right}\n" for left, right in list(zip(pairs.sources, pairs.targets, strict=True))[:rows]
        )
        (tmp_path / f"{part}.tsv").write_text(text, encoding="utf-8")
    captured = tmp_path / "captured"
    train_captured.capture(
        train_captured.Capture(data_dir=tmp_path, folder=captured, model="tiny", n_layer=1, vocab_size=600)
    )
    train_captured.run(
        train_captured.RunCaptured(
            folder=captured,
            output_dir=tmp_path / "trained",
            max_steps=3,
            batch_size=256,
            device="cpu",
            precision="fp32",
        )
    )
    found = infer.main(infer.Flags(inputs=("Open the file.",), checkpoint=tmp_path / "trained", engine="paddle"))
    assert len(found) == 1
    assert "test" in capsys.readouterr().out
