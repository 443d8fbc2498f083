"""ONNX export and reading: opset, names, sharing, equality with eager, and plain errors."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

from depthbench.suites.export import export_onnx, opset_of, read_onnx


class SharedBlock(nn.Module):
    """A convolution, one layer-normed block applied three times to its pixels as tokens, and a depth map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.block = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 48), nn.GELU(), nn.Linear(48, 16))
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        x = self.stem(rgb)
        tokens = x.flatten(2).transpose(1, 2)  # (B, HW/4, 16)
        for _ in range(3):
            tokens = tokens + self.block(tokens)
        x = tokens.transpose(1, 2).reshape(x.shape)  # (B, 16, H/2, W/2)
        return 10 * F.interpolate(self.head(x).sigmoid(), scale_factor=2.0, mode="nearest")


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return SharedBlock()


@pytest.mark.parametrize("opset", [13, 17])
def test_file_has_the_opset_names_and_shapes_asked_for(module: nn.Module, tmp_path: Path, opset: int) -> None:
    path = export_onnx(module, tmp_path / "new" / "m.onnx", (32, 64), opset=opset)
    model = read_onnx(path)
    assert opset_of(model) == opset
    assert [(v.name, [d.dim_value for d in v.type.tensor_type.shape.dim]) for v in model.graph.input] == [
        ("rgb", [1, 3, 32, 64])
    ]
    assert [(v.name, [d.dim_value for d in v.type.tensor_type.shape.dim]) for v in model.graph.output] == [
        ("depth", [1, 1, 32, 64])
    ]
    operators = {node.op_type for node in model.graph.node}
    assert ("LayerNormalization" in operators) == (opset == 17)


def test_file_computes_what_the_module_computes_in_eval_mode(module: nn.Module, tmp_path: Path) -> None:
    path = export_onnx(module, tmp_path / "m.onnx", (32, 32))
    assert module.training, "the module's own mode stays"
    rgb = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (depth,) = session.run(["depth"], {"rgb": rgb.numpy()})
    module.eval()
    with torch.no_grad():
        np.testing.assert_allclose(depth, module(rgb).numpy(), atol=1e-4)
    module.train()


def test_shared_weights_are_stored_once_and_named_directly(module: nn.Module, tmp_path: Path) -> None:
    graph = read_onnx(export_onnx(module, tmp_path / "m.onnx", (32, 32))).graph
    assert sum(list(entry.dims) == [16, 48] for entry in graph.initializer) == 1
    assert [node.name for node in graph.node if node.op_type == "Identity"] == []


def test_same_module_gives_the_same_bytes(module: nn.Module, tmp_path: Path) -> None:
    first = export_onnx(module, tmp_path / "a.onnx", (32, 32)).read_bytes()
    assert export_onnx(module, tmp_path / "b.onnx", (32, 32)).read_bytes() == first


@pytest.mark.parametrize("opset", [12, 18])
def test_refuses_other_opsets(module: nn.Module, tmp_path: Path, opset: int) -> None:
    with pytest.raises(ValueError, match=f"^opset {opset} is not one of 13, 14, 15, 16, 17$"):
        export_onnx(module, tmp_path / "m.onnx", (32, 32), opset=opset)


def test_refuses_another_output(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^Conv2d: the output is 1x2x32x32, not 1x1x32x32$"):
        export_onnx(nn.Conv2d(3, 2, 1), tmp_path / "m.onnx", (32, 32))
    assert list(tmp_path.iterdir()) == []


def test_names_an_operator_that_the_opset_lacks(tmp_path: Path) -> None:
    class Warp(nn.Module):
        def forward(self, rgb: Tensor) -> Tensor:
            grid = rgb[:, :2].permute(0, 2, 3, 1)
            return F.grid_sample(rgb[:, :1], grid, align_corners=False)

    with pytest.raises(ValueError, match=r"^Warp cannot be exported at opset 13: .*grid_sampler") as error:
        export_onnx(Warp(), tmp_path / "m.onnx", (32, 32), opset=13)
    assert "\n" not in str(error.value)


def test_reading_names_what_is_wrong(tmp_path: Path) -> None:
    missing, empty, text = tmp_path / "missing.onnx", tmp_path / "empty.onnx", tmp_path / "text.onnx"
    empty.touch()
    text.write_text("not a network\n" * 20)
    for path, reason in (
        (missing, "no such file"),
        (tmp_path, "no such file"),
        (empty, "not an ONNX file, or a truncated one"),
        (text, "not an ONNX file, or a truncated one"),
    ):
        with pytest.raises(ValueError, match=reason) as error:
            read_onnx(path)
        assert str(error.value) == f"{path}: {reason}"


def test_a_file_cut_anywhere_is_refused(module: nn.Module, tmp_path: Path) -> None:
    whole = export_onnx(module, tmp_path / "m.onnx", (32, 32)).read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in [*range(1, len(whole), 97), len(whole) - 1, len(whole) - 5]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not an ONNX file, or a truncated one"):
            read_onnx(cut)


def test_a_size_that_is_not_fixed_is_refused(tmp_path: Path) -> None:
    rgb = helper.make_tensor_value_info("rgb", TensorProto.FLOAT, [1, 3, "height", 64])
    out = helper.make_tensor_value_info("depth", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["rgb"], ["depth"])], "g", [rgb], [out])
    path = tmp_path / "dynamic.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    with pytest.raises(ValueError, match="fixed shape") as error:
        read_onnx(path)
    assert str(error.value) == f"{path}: input rgb is 1x3x?x64: export it with a fixed shape"
