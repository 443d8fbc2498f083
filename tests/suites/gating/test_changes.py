"""Each exact check, by a real change to a model that makes just that check fail, with a message that names the layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import onnx
import pytest

from depthbench.reports.gate import Check, Limit, judge_static
from depthbench.suites.gating.config import EXACT, Policy
from depthbench.suites.gating.facts import read_facts

Export = Callable[..., Path]


def judge(base: Path, head: Path, **options: object) -> dict[str, Check]:
    policy = Policy()
    found = {metric: policy.tolerance("net", metric) for metric in (*EXACT, "size")}
    limits = {metric: Limit(one.tolerance, one.reason) for metric, one in found.items()}
    checks = judge_static("net", read_facts(base), read_facts(head), limits, **options)  # type: ignore[arg-type]
    assert [check.metric for check in checks] == [*EXACT, "size"]
    return {check.metric: check for check in checks}


def failing(checks: dict[str, Check]) -> list[str]:
    return [metric for metric, check in checks.items() if check.state == "fail"]


def test_nothing_changed(tst: Export) -> None:
    checks = judge(tst(), tst())
    assert {check.state for check in checks.values()} == {"pass"}


def test_weight_sharing_turned_off(tst: Export) -> None:
    checks = judge(tst(), tst(share_layers=False))
    assert failing(checks) == ["params"]
    assert "no longer shared" in checks["params"].message
    assert checks["size"].message.endswith("follows from params")
    assert checks["macs"].state == checks["nodes"].state == "pass"
    assert checks["params"].layers
    assert all("block" in layer for layer in checks["params"].layers)


def test_a_wider_channel(nets: ModuleType, export: Export) -> None:
    checks = judge(export(nets.Plain, "base"), export(lambda: nets.Plain(width=12), "head"))
    assert failing(checks) == ["params"]
    assert {metric for metric, check in checks.items() if check.state == "follows"} == {
        "macs",
        "activation_peak",
        "size",
    }
    assert checks["params"].message == (
        "params: 817 → 1,657 (+102.82%) in first.Conv (+112 params), second.Conv (+724 params), head.Conv (+4 params)"
    )
    assert checks["macs"].message.endswith("; follows from params")


def test_a_wider_transformer_fails_by_its_parameters_alone(tst: Export) -> None:
    checks = judge(tst(), tst(decoder=24))
    assert failing(checks) == ["params"]
    assert checks["params"].layers[0] in checks["params"].message


def test_a_convolution_behind_the_upsampling(nets: ModuleType, export: Export) -> None:
    checks = judge(export(nets.Plain, "base"), export(lambda: nets.Plain(late=True), "head"))
    assert failing(checks) == ["macs"]
    assert checks["macs"].message == "macs: 819,200 → 843,776 (+3.00%) in head.Conv (+24,576 MACs)"
    assert checks["macs"].layers == ("head.Conv",)


def test_a_tensor_that_lives_longer(nets: ModuleType, export: Export) -> None:
    checks = judge(export(lambda: nets.Branches(wait=False), "base"), export(lambda: nets.Branches(wait=True), "head"))
    assert failing(checks) == ["activation_peak"]
    assert checks["activation_peak"].message.endswith("(moved)")
    assert len(checks["activation_peak"].layers) == 1


def test_an_extra_node(nets: ModuleType, tst: Export, tmp_path: Path) -> None:
    base = tst()
    checks = judge(base, nets.edited(base, tmp_path / "head.onnx", nets.add_relu_at_the_end))
    assert failing(checks) == ["nodes"]
    assert checks["nodes"].message == "nodes: Relu +1 in extra.Relu (added Relu)"
    assert checks["nodes"].layers == ("extra.Relu",)


def test_a_layer_that_is_not_quantized_any_more(nets: ModuleType, export: Export, tmp_path: Path) -> None:
    base = nets.quantized(export(nets.Plain, "float"), tmp_path / "base.onnx")
    head = nets.edited(base, tmp_path / "head.onnx", lambda model: nets.dequantize(model, "second"))
    checks = judge(base, head)
    assert failing(checks) == ["quantized_nodes"]
    assert "second.Conv (no longer in INT8)" in checks["quantized_nodes"].message
    assert checks["quantized_nodes"].layers == ("second.Conv",)
    assert checks["nodes"].message.endswith("follows from quantized_nodes")


def test_an_operator_outside_the_allow_list(nets: ModuleType, export: Export, tmp_path: Path) -> None:
    base = export(nets.Plain, "base")
    head = nets.edited(base, tmp_path / "head.onnx", lambda model: nets.swap_first(model, "Relu", "Softsign"))
    allowed = read_facts(base)["operators"]
    for options in ({}, {"allowed": allowed}):
        checks = judge(base, head, **options)
        assert failing(checks) == ["operators"]
        assert checks["operators"].layers == ("Relu",)
        assert "Softsign not among those that" in checks["operators"].message
        assert "Relu (Softsign)" in checks["operators"].message
    assert set(failing(judge(base, head, allowed=[*allowed, "Softsign"]))) == {"nodes"}


def test_another_size(nets: ModuleType, export: Export) -> None:
    checks = judge(export(nets.Plain, "base"), export(nets.Plain, "head", (96, 64)))
    assert failing(checks) == ["shapes"]
    expected = "shapes: input 0: 1x3x64x64, output 1: 1x1x64x64 → input 0: 1x3x96x64, output 1: 1x1x96x64"
    assert checks["shapes"].message == expected
    assert checks["macs"].message.endswith("follows from shapes")


def test_another_signature(nets: ModuleType, export: Export, tmp_path: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.output[0].name = model.graph.node[-1].output[0] = "disparity"

    base = export(nets.Plain, "base")
    checks = judge(base, nets.edited(base, tmp_path / "head.onnx", rename))
    assert failing(checks) == ["signature"]
    assert checks["signature"].message == "signature: output depth: float32 → output disparity: float32"


def test_a_bigger_file(nets: ModuleType, export: Export, tmp_path: Path) -> None:
    def blow_up(model: onnx.ModelProto) -> None:
        model.doc_string = "x" * 1000

    base = export(nets.Plain, "base")
    checks = judge(base, nets.edited(base, tmp_path / "head.onnx", blow_up))
    assert failing(checks) == ["size"]


@pytest.mark.parametrize("metric", ["params", "macs", "nodes", "quantized_nodes"])
def test_accepted_values_settle_just_their_check(tst: Export, metric: str) -> None:
    base, head = tst(), tst(decoder=24)
    facts = read_facts(head)
    checks = judge(base, head, accepted={metric: facts[metric], "reason": "sharper edges"})
    if metric == "params":
        assert checks["params"].state == "accepted"
        assert checks["params"].message.endswith("accepted: sharper edges")
        assert "macs" in failing(checks)
    else:
        assert failing(checks) == ["params"]


def test_layers_are_listed_in_order(tst: Export) -> None:
    layers = read_facts(tst())["layers"]
    assert sum(layer["params"] for layer in layers) == read_facts(tst())["params"]
    assert any(layer["shared"] for layer in layers)
    assert layers[0]["reads"] == ["input"]
