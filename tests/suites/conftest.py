"""Small networks and suites that the tests run for real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def write_net(path: Path, side: int = 32) -> None:
    """A depth network for ``side`` by ``side`` pixels as an ONNX file: the sum of the channels."""
    weight = numpy_helper.from_array(np.full((1, 3, 1, 1), 1.0, np.float32), "w")
    node = helper.make_node("Conv", ["rgb", "w"], ["depth"])
    rgb, depth = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, side, side])
        for name, channels in (("rgb", 3), ("depth", 1))
    )
    graph = helper.make_graph([node], "net", [rgb], [depth], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the tests' own, shared by the tests of one process, never the user's."""
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("DEPTHBENCH_LOCKS", str(tmp_path_factory.getbasetemp() / "locks"))
