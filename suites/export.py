"""ONNX files: written from a module, read back with plain errors.

Input ``rgb`` (1, 3, H, W) float32 in [0, 1], output ``depth`` (1, 1, H, W) float32 metres, shapes fixed. Reading needs
onnx alone; torch is imported only to export.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from depthbench.suites.results import write_atomic

if TYPE_CHECKING:
    from torch import nn

OPSET = 17
TENSORRT_8_2_OPSET = 13
"""The newest opset that TensorRT 8.2 (JetPack 4.6: Nano, TX2) parses; it has no LayerNormalization or GridSample."""
OPSETS = range(TENSORRT_8_2_OPSET, OPSET + 1)


def export_onnx(module: nn.Module, path: Path, size: tuple[int, int], *, opset: int = OPSET) -> Path:
    """Write ``module`` as an ONNX file for inputs of ``size`` (height, width) and return ``path``.

    The module is copied first: its mode, device and hooks stay as they are. The file appears whole or not at all.

    Raises:
        ValueError: an opset outside 13..17, an operator that it lacks, a size the module refuses, or an output that is
            not (1, 1, H, W).
    """
    import torch
    from torch.onnx.errors import UnsupportedOperatorError

    if opset not in OPSETS:
        raise ValueError(f"opset {opset} is not one of {', '.join(map(str, OPSETS))}")
    height, width = size
    deployed = copy.deepcopy(module).eval().cpu()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        # Only the TorchScript exporter honours the opset (the newer one delivers 18 whatever is asked for); torch
        # announces its end, and that of a helper inside it, on every call.
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
        warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
        exported = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(
                deployed,
                (torch.zeros(1, 3, height, width),),
                exported,
                input_names=["rgb"],
                output_names=["depth"],
                opset_version=opset,
                dynamo=False,
            )
        except UnsupportedOperatorError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{type(module).__name__} cannot be exported at opset {opset}: {reason}") from None
        model = onnx.load(exported)
    _name_weights_directly(model)
    onnx.checker.check_model(model, full_check=True)
    shape = _shape(model.graph.output[0])
    if shape != (1, 1, height, width):
        wanted = _text((1, 1, height, width))
        raise ValueError(f"{type(module).__name__}: the output is {_text(shape)}, not {wanted}")
    assert opset_of(model) == opset, f"asked for opset {opset}, the exporter wrote {opset_of(model)}"
    if opset <= TENSORRT_8_2_OPSET:
        assert not {"LayerNormalization", "GridSample"} & {node.op_type for node in model.graph.node}
    write_atomic(path, model.SerializeToString())
    return path


def read_onnx(path: Path) -> onnx.ModelProto:
    """The model in an ONNX file, without external weight values, so that graphs without weights can be read too.

    Raises:
        ValueError: no such file, not an ONNX file, a truncated one, or an input whose shape is not fixed.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        raise ValueError(f"{path}: not an ONNX file, or a truncated one") from None
    if not model.graph.node or not model.opset_import:
        raise ValueError(f"{path}: not an ONNX file, or a truncated one")
    constants = {initializer.name for initializer in model.graph.initializer}
    for value in model.graph.input:
        shape = _shape(value)
        if value.name not in constants and not all(shape):
            raise ValueError(f"{path}: input {value.name} is {_text(shape)}: export it with a fixed shape")
    return model


def image_size(model: onnx.ModelProto, path: Path) -> tuple[int, int]:
    """Height and width of the image that a read model takes; ``ValueError`` names ``path`` when it takes something else."""
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] if model.graph.input else []
    if len(dims) != 4 or dims[1] != 3:
        raise ValueError(f"{path}: its input is {'x'.join(map(str, dims)) or 'missing'}, not 1x3xHxW")
    return dims[2], dims[3]


def onnx_size(path: Path) -> tuple[int, int]:
    """Height and width of the image that an ONNX file takes; errors as of :func:`read_onnx` and :func:`image_size`."""
    return image_size(read_onnx(path), path)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operator set that a model imports."""
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def _name_weights_directly(model: onnx.ModelProto) -> None:
    """Drop, in place, the Identity nodes by which the exporter refers to a weight that it stores once."""
    weights = {initializer.name for initializer in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    renamed: dict[str, str] = {}
    nodes = []
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        if node.op_type == "Identity" and node.input[0] in weights and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The shape of a graph's input or output; 0 for a size that is not fixed."""
    return tuple(max(dim.dim_value, 0) for dim in value.type.tensor_type.shape.dim)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) if size else "?" for size in shape)
