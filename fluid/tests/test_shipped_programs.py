"""Programs that come along are taken where they are what would be built, and nowhere else."""

import json
import lzma
from pathlib import Path

from fluid import shipped
from fluid.config import EngineFlags
from fluid.interface import Input, Interface
from fluid.program import Program, build, initialise
from fluid.runner import Runner
from fluid.shipped import NoneFits, Recipe
from fluid.weights import Opened

import numpy as np
import paddle
import pytest


def network(units: int, loops: bool = False) -> Program:
    def layers(x: paddle.pir.Value, training: bool) -> dict[str, paddle.pir.Value]:
        layer = paddle.nn.Linear(3, units, weight_attr=paddle.ParamAttr(name="fc_w"), bias_attr=False)
        y = layer(x)
        if loops:
            again = lambda step, y: (step + 1, layer(y))  # noqa: E731
            _, y = paddle.static.nn.while_loop(lambda step, y: step < 3, again, (paddle.zeros([1]), y))
        return {"y": y}

    return build(layers, [Input("x", (None, 3))], name="infer")


def recipe(units: int, **options: bool) -> Recipe:
    return Recipe("infer", {"units": units, **options}, lambda: network(units, **options))


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task whose network is described in some of its modules, and in a package."""
    folder = tmp_path / "some_task"
    (folder / "models").mkdir(parents=True)
    (folder / "network.py").write_text(
        "from some_task import sizes\nfrom some_task.layers import one\nfrom some_task.models import find\n"
    )
    (folder / "models" / "__init__.py").write_text("from some_task.models.small import find\n")
    (folder / "models" / "small.py").write_text("")
    (folder / "layers.py").write_text("one = 1\n")
    (folder / "sizes.py").write_text("")
    (folder / "infer.py").write_text("")
    return folder


def runner(task: Path, program: Program, **flags: str) -> Runner:
    opened = Opened({}, initialise(program, seed=1), "run", "why", folder=task)
    return Runner(opened, EngineFlags(device="cpu", **flags))


def never() -> Interface:
    raise AssertionError("nothing is to be built")


def test_a_recurrent_program_comes_along_and_computes_the_same(task):
    shipped.write(task, [recipe(3, loops=True)])
    built, feed = network(3, loops=True), {"x": np.eye(3, dtype=np.float32)}
    along = runner(task, built)
    program = along.program("infer", never, {"units": 3, "loops": True})
    assert "the Program 'infer' came along" in along.how and along.engine.name == "xla"
    expected = runner(task, built, engine="paddle")
    reference = expected.program("infer", lambda: built, {"units": 3, "loops": True})
    answer = expected.engine.run(reference, feed)["y"]
    np.testing.assert_allclose(np.asarray(along.engine.run(program, feed)["y"]), answer, rtol=1e-6)


def test_where_paddle_is_to_run_it_a_program_is_built(task):
    shipped.write(task, [recipe(2)])
    built = network(2)
    for flags, taken in (({}, False), ({"engine": "paddle"}, False), ({"engine": "xla"}, True)):
        some = runner(task, built, **flags)
        assert (some.program("infer", lambda: built, {"units": 2}) is not built) == taken
        assert ("came along" in some.how) == taken


def test_another_network_is_built_and_the_reason_said(task):
    shipped.write(task, [recipe(2)])
    built = network(3)
    some = runner(task, built, engine="xla")
    assert some.program("infer", lambda: built, {"units": 3}) is built
    assert some.how.endswith("the Program 'infer' was built: none comes along for this network and these flags")


@pytest.mark.parametrize("module", ["network.py", "layers.py", "sizes.py", "models/__init__.py", "models/small.py"])
def test_none_is_taken_once_the_code_is_another(task, module):
    shipped.write(task, [recipe(2)])
    (task / "infer.py").write_text("# is no part of the network\n")
    assert shipped.find(task, "infer", {"units": 2}).outputs.keys() == {"y"}
    (task / module).write_text("one = 2\n")
    with pytest.raises(NoneFits, match="the code that describes it was changed"):
        shipped.find(task, "infer", {"units": 2})


def test_a_damaged_file_is_none(task):
    (file,) = shipped.write(task, [recipe(2)])
    whole = file.read_bytes()
    stored = json.loads(lzma.decompress(whole))
    without_a_source = lzma.compress(json.dumps({**stored, "sources": ["gone.py"]}).encode())
    for damaged in (whole[:-40], b"", lzma.compress(b"[]"), lzma.compress(b"{}"), without_a_source):
        file.write_bytes(damaged)
        with pytest.raises(NoneFits, match="cannot be used"):
            shipped.find(task, "infer", {"units": 2})


def test_writing_is_reproducible_and_leaves_nothing_else(task):
    (first,) = shipped.write(task, [recipe(2)])
    before = first.read_bytes()
    assert shipped.write(task, [recipe(3), recipe(2)])[1] == first and first.read_bytes() == before
    assert len(list(first.parent.iterdir())) == 2
    assert shipped.write(task, [recipe(2)]) == [first] == list(first.parent.iterdir())
