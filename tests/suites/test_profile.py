"""Static costs: three counters that agree, blocks that are shared, and operators that nobody counts."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthbench.baselines import build_fastdepth, build_mobilevit
from depthbench.suites.export import export_onnx
from depthbench.suites.profile import disagreement, profile_model
from depthbench.tst import build_tst

SIZE = (224, 224)


def depth_of(tokens: Tensor, size: torch.Size) -> Tensor:
    return tokens.mean(-1, keepdim=True).transpose(1, 2).reshape(size[0], 1, size[2], size[3])  # (B, 1, H, W)


class Loops(nn.Module):
    """One linear layer of 4 to 4 with a scale that it does not hold, applied ``times`` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.embed = nn.Conv2d(3, 4, 1)
        self.layer = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, rgb: Tensor) -> Tensor:
        tokens = self.embed(rgb).flatten(2).transpose(1, 2)  # (B, HW, 4)
        for _ in range(self.times):
            tokens = self.layer(tokens)
        return depth_of(tokens * self.scale, rgb.shape)


class Attends(nn.Module):
    """Attention by torch's own function, which fvcore and ptflops do not count by themselves."""

    def forward(self, rgb: Tensor) -> Tensor:
        tokens = rgb.flatten(2).transpose(1, 2)[:, None]  # (B, 1, HW, 3)
        return depth_of(F.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0], rgb.shape)


class Contracts(nn.Module):
    """A product written as einsum: torch's counters count it, the count of the file does not."""

    def forward(self, rgb: Tensor) -> Tensor:
        tokens = rgb.flatten(2)  # (B, 3, HW)
        return depth_of(torch.einsum("bcn,bcm->bnm", tokens, tokens), rgb.shape)


@pytest.mark.parametrize(
    ("build", "gmacs", "params_m"),
    [
        (partial(build_fastdepth, "fastdepth"), 0.737, 3.96),
        (partial(build_fastdepth, "fastdepth-pruned"), 0.366, 1.36),
        (partial(build_tst, "tst-s"), None, None),
        (partial(build_mobilevit, "mobilevit-xxs"), None, None),
    ],
)
def test_three_counters_agree(
    build: Callable[[], nn.Module], gmacs: float | None, params_m: float | None, tmp_path: Path
) -> None:
    module = build()
    profile = profile_model(module, export_onnx(module, tmp_path / "m.onnx", SIZE), SIZE)
    counts = profile["gmacs"]
    assert set(counts) == {"fvcore", "ptflops", "onnx"}
    assert counts["fvcore"] == counts["ptflops"] == counts["onnx"]
    assert profile["gmacs_disagreement"]["verdict"] == "agree"
    assert profile["gmacs_disagreement"]["relative"] == 0
    assert profile["gmacs_disagreement"]["left_out"]["fvcore"]["batch_norm"] > 0, "fvcore's own total adds it"
    if gmacs is not None:
        assert counts["onnx"] == pytest.approx(gmacs, abs=5e-4)
        assert profile["params_m"] == pytest.approx(params_m, abs=5e-3)


@pytest.mark.parametrize("times", [1, 3])
def test_a_shared_layer_is_stored_once_and_counted_at_every_application(times: int, tmp_path: Path) -> None:
    module = Loops(times)
    path = export_onnx(module, tmp_path / "m.onnx", (8, 8))
    profile = profile_model(module, path, (8, 8))
    embed, layer, scale = 3 * 4 + 4, 4 * 4 + 4, 4
    assert profile["params_m"] == pytest.approx((embed + layer + scale) / 1e6)
    assert profile["params_applied_m"] == pytest.approx((embed + times * layer + scale) / 1e6)
    macs = (64 * 3 * 4 + times * 64 * 4 * 4) / 1e9
    assert profile["gmacs"] == pytest.approx({"fvcore": macs, "ptflops": macs, "onnx": macs})
    from_file = profile_model(None, path, (8, 8))
    assert from_file["params_m"] == profile["params_m"]
    assert from_file["params_applied_m"] == profile["params_applied_m"]


def test_a_file_alone_has_one_count(tmp_path: Path) -> None:
    path = export_onnx(Loops(1), tmp_path / "m.onnx", (8, 8), opset=13)
    profile = profile_model(None, path, (8, 8))
    assert profile["gmacs"] == {"fvcore": None, "ptflops": None, "onnx": (64 * 12 + 64 * 16) / 1e9}
    assert profile["gmacs_disagreement"] == {"relative": 0.0, "verdict": "single", "explained": {}, "left_out": {}}
    assert profile["size_mb"] == path.stat().st_size / 1e6
    assert (profile["opset"], profile["quantized_nodes"]) == (13, 0)
    assert (profile["nodes"]["Conv"], profile["nodes"]["MatMul"]) == (1, 1)
    assert profile["peak_activation_mb"] == (4 + 4) * 64 * 4 / 1e6, "the transposition holds its input and its output"


def test_fused_attention_is_counted_by_all(tmp_path: Path) -> None:
    module = Attends()
    profile = profile_model(module, export_onnx(module, tmp_path / "m.onnx", (8, 8), opset=14), (8, 8))
    macs = 2 * 64 * 64 * 3 / 1e9
    assert profile["gmacs"] == {"fvcore": macs, "ptflops": macs, "onnx": macs}
    assert profile["gmacs_disagreement"]["explained"] == {}


def test_an_operator_that_one_counter_misses_is_named(tmp_path: Path) -> None:
    module = Contracts()
    profile = profile_model(module, export_onnx(module, tmp_path / "m.onnx", (8, 8)), (8, 8))
    assert profile["gmacs"] == {"fvcore": 64 * 64 * 3 / 1e9, "ptflops": 64 * 64 * 3 / 1e9, "onnx": 0.0}
    assert profile["gmacs_disagreement"]["verdict"] == "explained"
    assert profile["gmacs_disagreement"]["explained"] == {"onnx": {"Einsum": 1}}


def test_the_module_stays_as_it_was(tmp_path: Path) -> None:
    module = Loops(2)
    profile_model(module, export_onnx(module, tmp_path / "m.onnx", (8, 8)), (8, 8))
    assert module.training
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())


def test_verdicts() -> None:
    same: dict[str, int | None] = {"fvcore": 1000, "ptflops": 1000, "onnx": 991}
    apart: dict[str, int | None] = {"fvcore": 1000, "ptflops": 900, "onnx": 1000}
    assert disagreement(same, {})["verdict"] == "agree"
    assert disagreement(apart, {}) == {"relative": 0.1, "verdict": "unexplained", "explained": {}}
    assert disagreement(apart, {"ptflops": {"lstm": 2}})["verdict"] == "explained"
    assert disagreement(apart, {"onnx": {"LSTM": 2}})["verdict"] == "unexplained", "nothing is said of the low count"
    all_apart: dict[str, int | None] = {"fvcore": 1000, "ptflops": 900, "onnx": 800}
    assert disagreement(all_apart, {"ptflops": {"lstm": 2}})["verdict"] == "unexplained"
    assert disagreement(all_apart, {"ptflops": {"lstm": 2}, "onnx": {"LSTM": 2}})["verdict"] == "explained"
