"""The three packages of Kaldi's pieces each bring OpenFst along: versions that do not fit each other hang when imported."""

import itertools
import subprocess
import sys

import pytest

PACKAGES = ("kaldifst", "kaldi_decoder", "kaldi_native_fbank")
TIME_LIMIT = 60
"""Seconds; they import in less than one."""

TRIAL = """
import numpy as np
graph = kaldifst.compile('0 1 1 7\\n1\\n')
decoder = kaldi_decoder.FasterDecoder(graph, kaldi_decoder.FasterDecoderOptions(beam=16))
decoder.decode(kaldi_decoder.DecodableCtc(np.zeros((1, 1), np.float32)))
found, best = decoder.get_best_path()
assert found and kaldifst.get_linear_symbol_sequence(best)[1:3] == ([1], [7])
"""


@pytest.mark.parametrize("order", itertools.permutations(PACKAGES), ids="-".join)
def test_they_work_together_in_any_order(order: tuple[str, ...]) -> None:
    program = f"import {', '.join(order)}\n{TRIAL}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIME_LIMIT)
    assert ended.returncode == 0, ended.stderr
