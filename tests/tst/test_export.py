"""ONNX files at opsets 17 and 13: one stored block, plain operators, the same depth as eager."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from depthbench.suites.export import export_onnx
from depthbench.tst import build_tst


def run(path, rgb):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["depth"], {"rgb": rgb.numpy()})[0]


@pytest.mark.parametrize(
    ("name", "overrides", "size"),
    [
        ("tst-t", {}, (224, 224)),
        ("tst-s", {}, (64, 96)),
        ("tst-b", {}, (64, 64)),
        ("tst-source", {"layers": 3}, (64, 64)),
        ("tst-t", {"share_tokens": False, "share_layers": False}, (64, 64)),
        ("tst-t", {"fusion": False, "refinement": False}, (64, 96)),
    ],
    ids=str,
)
@pytest.mark.parametrize("opset", [17, 13])
def test_runtime_agrees_with_eager(name, overrides, size, opset, tmp_path):
    torch.manual_seed(0)
    model = build_tst(name, **overrides)
    rgb = torch.rand(4, 3, 64, 64)
    model.train()(rgb)  # move the batch norm statistics away from 0 and 1
    model.eval()
    path = export_onnx(model, tmp_path / "model.onnx", size, opset=opset)
    graph = onnx.load(path)
    assert [entry.version for entry in graph.opset_import] == [opset]
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert ("LayerNormalization" in kinds) == (opset == 17)
    assert not {"GridSample", "Einsum", "If", "Loop", "AdaptiveAveragePool", "BatchNormalization"} & set(kinds)
    if name != "tst-source":  # which is written to be read
        assert not {"Shape", "Gather", "Slice", "Mod"} & set(kinds)  # all sizes are constants
    rgb = torch.rand(1, 3, *size)
    with torch.no_grad():
        expected = model(rgb).numpy()
    np.testing.assert_allclose(run(path, rgb), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("opset", [17, 13])
@pytest.mark.parametrize("name", ["tst-t", "tst-source"])
def test_the_shared_block_is_stored_once(name, opset, tmp_path):
    """Applied once or six times, the file holds the same weights; an own block per layer adds five of them."""

    def stored(**overrides):
        model = build_tst(name, **overrides)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)  # equal weights, such as new biases, would be stored once for all
        path = export_onnx(model, tmp_path / "model.onnx", (64, 64), opset=opset)
        return sum(int(np.prod(x.dims)) for x in onnx.load(path).graph.initializer)

    once, often = stored(layers=1), stored(layers=6)
    assert often == once
    if name == "tst-t":
        model = build_tst(name)
        block = sum(p.numel() for p in model.tokenizers[0].blocks[0].parameters())
        assert stored(layers=6, share_layers=False) == once + 5 * block


def test_a_wrong_size_is_refused_while_tracing(tmp_path):
    with pytest.raises(ValueError, match=r"^input is 100x64: height and width must be multiples of 32$"):
        export_onnx(build_tst("tst-t"), tmp_path / "model.onnx", (100, 64))
