"""What a profile of a few steps tells."""

import re

from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.errors import UserError
from fluid.interface import Input
from fluid.profiling import profile
from fluid.program import Value, build

import numpy as np
import paddle
import pytest


def test_a_profile_names_what_takes_the_time(tmp_path):
    def network(x: Value, training: bool) -> dict[str, Value]:
        return {"y": paddle.matmul(x, x)}

    program = build(network, [Input("x", (96, 96))], name="square")
    engine = create("cpu")
    feed = {"x": np.ones((96, 96), np.float32)}

    def steps() -> int:
        for _ in range(3):
            np.asarray(engine.run(program, feed)["y"])
        return 3

    steps()
    first, *kinds = profile(engine, steps, tmp_path / "profile").splitlines()
    assert re.match(r"\d+\.\d\d ms a step, 3 steps", first)
    assert re.search(r"ms +1\.0 x .*(dot|fusion)", "\n".join(kinds)), "once a step"
    assert any(path.name.endswith(".xplane.pb") for path in (tmp_path / "profile").rglob("*"))
    with pytest.raises(UserError, match="--engine xla"):
        profile(PaddleEngine(), steps, tmp_path / "other")
