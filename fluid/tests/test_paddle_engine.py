"""Paddle's executor as an engine: what it runs in place of a Program that was built."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fluid.engine import paddle as engine_module
from fluid.engine.paddle import ONEDNN, PaddleEngine
from fluid.interface import Input
from fluid.program import Value, build

import numpy as np
import paddle

FEED = {"x": np.asarray([[1.0, 2.0], [3.0, 5.0]], np.float32)}
INPUTS = [Input("x", (None, 2))]


def repeating(x: Value, training: bool) -> dict[str, Value]:
    """Two outputs that are one value, a third of other constants."""
    return {"first": x * 2.0 + 1.0, "again": x * 2.0 + 1.0, "other": x * 3.0 + 1.0}


def test_nothing_is_computed_twice_and_every_output_is_there() -> None:
    program = build(repeating, INPUTS, name="repeating", independent_rows=True)
    before = str(program.main)
    main, values = engine_module.merged(program, ["other", "again", "first"])
    names = [op.name() for op in main.global_block().ops]
    assert names.count("pd_op.scale") == 4  # of six: both of `again` are those of `first`
    assert names.count("pd_op.full") == 3  # of six: 2, 3 and the factor beside an offset
    assert len(values) == 3
    assert str(program.main) == before
    engine = PaddleEngine()
    for names in (["other", "again", "first"], ["again"], ["first", "other"]):
        outputs = engine.run(program, FEED, fetch=names)
        assert list(outputs) == names
        for name, array in outputs.items():
            np.testing.assert_array_equal(array, FEED["x"] * (3 if name == "other" else 2) + 1)


def test_two_draws_are_two() -> None:
    def draws(x: Value, training: bool) -> dict[str, Value]:
        return {"first": paddle.bernoulli(x), "second": paddle.bernoulli(x)}

    program = build(draws, [Input("x", (None, 64))], name="draws")
    outputs = PaddleEngine().run(program, {"x": np.full((4, 64), 0.5, np.float32)})
    assert (outputs["first"] != outputs["second"]).any()


def test_onednn_is_for_the_programs_that_ask_for_it(monkeypatch: Any) -> None:
    engine, seen = PaddleEngine(), []
    run = engine._executor.run
    monkeypatch.setattr(
        engine._executor, "run", lambda *a, **k: (seen.append(paddle.get_flags(ONEDNN)[ONEDNN]), run(*a, **k))[1]
    )
    for onednn in (True, False):
        engine.run(build(repeating, INPUTS, name="repeating", independent_rows=True, onednn=onednn), FEED)
    assert seen == [True, False]


def test_what_paddle_brings_is_never_looked_through_for_garbage() -> None:
    code = (
        "import gc, fluid.engine as e; e.create('paddle', 'cpu'); print(gc.get_freeze_count() > 50_000, gc.isenabled())"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).split() == ["True", "True"]
