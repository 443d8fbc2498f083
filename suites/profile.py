"""Static costs of a network: parameters, multiply-accumulates by three counters, size, operators, activation memory.

All counts are exact. The figure counts convolutions, linear layers, matrix products and attention, without biases:
1 MAC = 2 FLOPs. Three counters read three different things: fvcore the TorchScript trace, ptflops the operators that
torch dispatches, and :mod:`depthbench.suites.graphs.graph` the deployed ONNX file.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.suites.graphs.graph import Graph, load_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

TOLERANCE = 0.01
"""Relative difference between two counts above which operators have to be named."""

_FVCORE_COUNTED = (
    "addmm",
    "baddbmm",
    "bmm",
    "conv",
    "einsum",
    "linear",
    "matmul",
    "mm",
    "scaled_dot_product_attention",
)
_MULTIPLYING = frozenset(
    {
        "bilinear",
        "cdist",
        "conv_tbc",
        "dot",
        "einsum",
        "gru",
        "gru_cell",
        "lstm",
        "lstm_cell",
        "mv",
        "outer",
        "rnn_relu",
    }
    | {"rnn_tanh", "scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu", "tensordot", "vdot"}
)
"""torch operators that multiply and accumulate beyond those that both torch counters always count."""


def profile_model(module: nn.Module | None, onnx_path: Path, size: tuple[int, int]) -> dict[str, Any]:
    """Static costs of a network and of the ONNX file it is deployed as; ``size`` is (height, width).

    Keys: ``params_m`` (a shared parameter once) and ``params_applied_m`` (once per application: a block applied L times
    counts L times); ``gmacs`` with ``fvcore``, ``ptflops`` (None without a module) and ``onnx``;
    ``gmacs_disagreement``: ``relative`` (of the largest and the smallest count), ``verdict``, ``explained`` (operators
    that a counter met and did not count, per counter) and ``left_out`` (what a counter's own total would add);
    ``size_mb`` (1e6 bytes), ``nodes`` (operator: count), ``quantized_nodes``, ``peak_activation_mb``, ``opset``.

    ``verdict`` is ``"agree"`` within 1 %, ``"explained"`` when every counter that lies further below the largest met
    operators that it did not count, ``"unexplained"`` when one did not, and ``"single"`` with one counter. Parameters
    come from the module if there is one.

    Raises:
        ValueError: a file that is not ONNX or has shapes that are not fixed, or a module that refuses ``size``.
    """
    graph = load_graph(onnx_path)
    counts: dict[str, int | None] = {"fvcore": None, "ptflops": None, "onnx": graph.macs}
    explained = {"onnx": graph.uncounted()} if graph.uncounted() else {}
    left_out: dict[str, dict[str, float]] = {}
    stored, applied = graph.parameters(), _applied_in_graph(graph)
    if module is not None:
        network = copy.deepcopy(module).eval().cpu()
        stored = sum(parameter.numel() for parameter in network.parameters())
        applied = applied_parameters(network, size)
        for name, count in (("fvcore", _fvcore), ("ptflops", _ptflops)):
            counts[name], uncounted, extra = count(network, size)
            if uncounted:
                explained[name] = uncounted
            if extra:
                left_out[name] = {op: macs / 1e9 for op, macs in extra.items()}
    return {
        "params_m": stored / 1e6,
        "params_applied_m": applied / 1e6,
        "gmacs": {name: None if count is None else count / 1e9 for name, count in counts.items()},
        "gmacs_disagreement": disagreement(counts, explained) | {"left_out": left_out},
        "size_mb": onnx_path.stat().st_size / 1e6,
        "nodes": graph.histogram(),
        "quantized_nodes": graph.quantized_nodes,
        "peak_activation_mb": graph.peak_activation_bytes() / 1e6,
        "opset": graph.opset,
    }


def disagreement(counts: dict[str, int | None], explained: dict[str, dict[str, int]]) -> dict[str, Any]:
    """How far apart the counts lie, and whether operators that explain it are named for each counter that is too low."""
    known = {name: count for name, count in counts.items() if count is not None}
    most = max(known.values())
    relative = (most - min(known.values())) / most if most else 0.0
    low = {name for name, count in known.items() if most - count > TOLERANCE * most}
    if len(known) == 1:
        verdict = "single"
    elif not low:
        verdict = "agree"
    else:
        verdict = "explained" if low <= explained.keys() else "unexplained"
    return {"relative": relative, "verdict": verdict, "explained": explained}


def applied_parameters(module: nn.Module, size: tuple[int, int]) -> int:
    """Parameters, each as often as the module that holds it is called in one forward pass of (1, 3, H, W).

    Parameters of a module that is not called itself but read by its parent count as often as the parent is called.
    """
    import torch

    calls: Counter[str] = Counter()
    hooks = [
        part.register_forward_pre_hook(lambda *_, name=name: calls.update([name]))
        for name, part in module.named_modules()
    ]
    with torch.no_grad():
        module(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    total = 0
    for name, part in module.named_modules():
        caller = name
        while caller and not calls[caller]:
            caller = caller.rpartition(".")[0]
        total += calls[caller] * sum(parameter.numel() for parameter in part.parameters(recurse=False))
    return total


def _applied_in_graph(graph: Graph) -> int:
    """Stored weights, each as often as a node that computes with it runs."""
    source: dict[str, set[str]] = {name: {name} for name in graph.weights}
    total = 0
    for node in graph.nodes:
        weights = {weight for name in node.inputs for weight in source.get(name, ())}
        if node.kind == "constant":  # dequantized or reshaped weights
            source.update(dict.fromkeys(node.outputs, weights))
        else:
            total += sum(graph.tensors[weight].elements for weight in weights)
    return total


def _fvcore(module: nn.Module, size: tuple[int, int]) -> tuple[int, dict[str, int], dict[str, float]]:
    """MACs by fvcore; operators it met and did not count; what its own total adds."""
    import torch

    with warnings.catch_warnings():
        # fvcore scripts two unrelated losses when it is imported
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(module, (torch.zeros(1, 3, *size),))
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_in_trace)
    # fvcore's own handle takes the first operand for the larger one and misses a matrix applied to a batch
    analysis.set_op_handle("aten::matmul", lambda inputs, outputs: prod(_shape(outputs[0])) * _shape(inputs[0])[-1])
    analysis.set_op_handle("aten::baddbmm", lambda inputs, _: prod(_shape(inputs[1])) * _shape(inputs[2])[-1])
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = analysis.by_operator()
    names = ((op.removeprefix("aten::"), count) for op, count in analysis.unsupported_ops().items())
    uncounted = {name: count for name, count in names if name in _MULTIPLYING}
    counted = sum(int(macs) for op, macs in by_operator.items() if op in _FVCORE_COUNTED)
    return counted, uncounted, {op: macs for op, macs in by_operator.items() if op not in _FVCORE_COUNTED and macs}


def _shape(value: Any) -> Sequence[int]:
    """Shape of a value of a TorchScript trace."""
    shape: Sequence[int] = value.type().sizes()
    return shape


def _attention_in_trace(inputs: list[Any], _: list[Any]) -> int:
    query, key, value = (_shape(value) for value in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _ptflops(module: nn.Module, size: tuple[int, int]) -> tuple[int, dict[str, int], dict[str, float]]:
    """MACs by ptflops' dispatch counter, which sees every application of a shared block; as :func:`_fvcore`."""
    import torch
    from ptflops import get_model_complexity_info

    aten = torch.ops.aten
    biases = 0

    def addmm(inputs: Sequence[Any], _: Sequence[torch.Tensor]) -> int:
        nonlocal biases
        biases += inputs[1].shape[0] * inputs[2].shape[1]
        return int(inputs[1].numel() * inputs[2].shape[1])

    def convolution(inputs: Sequence[Any], outputs: Sequence[torch.Tensor]) -> int:
        nonlocal biases
        x, weight, bias, transposed = inputs[0], inputs[1], inputs[2], inputs[6]
        biases += 0 if bias is None else outputs[0].numel()
        positions = (x if transposed else outputs[0]).shape[2:]
        return int(x.shape[0] * weight.numel() * prod(positions))

    def attention(inputs: Sequence[Any], _: Sequence[torch.Tensor]) -> int:
        query, key, value = (tensor.shape for tensor in inputs[:3])
        return int(prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))

    def batched(inputs: Sequence[Any], _: Sequence[torch.Tensor]) -> int:
        return int(inputs[1].numel() * inputs[2].shape[-1])

    log = io.StringIO()
    with torch.no_grad():
        macs, _ = get_model_complexity_info(
            module,
            (3, *size),
            print_per_layer_stat=False,
            as_strings=False,
            ost=log,
            verbose=True,
            backend="aten",
            custom_modules_hooks={
                aten.addmm: addmm,
                aten.baddbmm: batched,
                aten.convolution: convolution,
                aten._scaled_dot_product_flash_attention_for_cpu: attention,
            },
        )
    assert isinstance(macs, int), f"ptflops could not run {type(module).__name__}"
    met = Counter(line.split()[1].removeprefix("aten.") for line in log.getvalue().splitlines() if "zero-op" in line)
    uncounted = {name: count for name, count in met.items() if name in _MULTIPLYING}
    return macs, uncounted, {"bias": float(biases)} if biases else {}
