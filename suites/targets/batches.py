"""ONNX files for larger batches, made from files whose batch is fixed at 1, where the graph allows it.

An exporter writes the batch of its example into the graph: into the inputs' shapes, and into the target shapes of
``Reshape`` and ``Expand``, where a 1 in front is the batch, or a first number is a multiple of it (batch x heads).
:func:`rebatched` rewrites these and then proves it: every image of a batch must give what the file of batch 1 gives for it
alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from depthbench.suites.export import read_onnx
from depthbench.suites.results import write_atomic
from depthbench.suites.targets import LARGEST_BATCH

TOLERANCE = 1e-3
"""How far an image's output may be from what it is alone: mean |difference| over mean |value|."""


def parse_batches(text: str) -> tuple[int, ...]:
    """``1,4,8`` as (1, 4, 8); ``ValueError`` for anything else."""
    try:
        sizes = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        sizes = ()
    if not sizes or not all(1 <= size <= LARGEST_BATCH for size in sizes):
        raise ValueError(f"--batch {text}: not batch sizes from 1 to {LARGEST_BATCH}, for example 1,4,8")
    return sizes


def rebatched(path: Path, batch: int, out: Path) -> Path:
    """Write the file at ``path`` (batch 1) for batches of ``batch`` images; ``out``.

    ``ValueError`` when the graph does not allow it: the runtime refuses the rewritten file, or its images are not computed
    each for itself.
    """
    model = read_onnx(path)
    inputs = _images(model, path)
    if batch > 1:
        onnx.load_external_data_for_model(model, str(path.parent))
        _rewrite(model, inputs, batch)
    write_atomic(out, model.SerializeToString())
    if batch > 1:
        _prove(path, out, batch)
    return out


def _images(model: ModelProto, path: Path) -> list[str]:
    """Names of the inputs; ``ValueError`` unless the first side of each is 1."""
    weights = {tensor.name for tensor in model.graph.initializer}
    names = []
    for value in model.graph.input:
        if value.name not in weights:
            sides = value.type.tensor_type.shape.dim
            if not sides or sides[0].dim_value != 1:
                raise ValueError(f"{path.name}: input {value.name} has no batch of 1 to be made larger")
            names.append(str(value.name))
    return names


def _rewrite(model: ModelProto, inputs: list[str], batch: int) -> None:
    """Put the batch into the inputs, the outputs and the target shapes, in place."""
    graph = model.graph
    for value in [*graph.input, *graph.output]:
        if value.name in inputs or value in graph.output:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    del graph.value_info[:]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    varying = _varying(model, inputs)
    for number, node in enumerate(list(graph.node)):
        if node.op_type in ("Reshape", "Expand") and node.input[0] in varying and node.input[1] in constants:
            shape = _larger(node, constants[node.input[1]], batch)
            name = f"batch_shape_{number}"
            graph.initializer.append(numpy_helper.from_array(shape, name))
            node.input[1] = name
        elif (
            node.op_type == "Resize" and len(node.input) > 3 and node.input[3] in constants and node.input[0] in varying
        ):
            sizes = constants[node.input[3]].copy()
            sizes[0] *= batch
            name = f"batch_sizes_{number}"
            graph.initializer.append(numpy_helper.from_array(sizes, name))
            node.input[3] = name


def _larger(node: NodeProto, shape: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
    """A target shape for a batch: its first number times the batch, unless that is taken from elsewhere (0 or -1)."""
    wanted = np.array(shape, np.int64)
    if wanted.size and wanted[0] > 0 and (node.op_type == "Reshape" or wanted[0] == 1):
        wanted[0] *= batch
    return wanted


def _varying(model: ModelProto, inputs: list[str]) -> set[str]:
    """Names of the values that depend on the inputs."""
    found = set(inputs)
    for node in model.graph.node:
        if node.op_type != "Shape" and found & set(node.input):
            found |= set(node.output)
    return found


def _prove(path: Path, out: Path, batch: int) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    single = ort.InferenceSession(str(path), options, providers=providers)
    rng = np.random.default_rng(0)
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
    feed = {}
    for info in single.get_inputs():
        values = rng.random((2, *info.shape[1:]), dtype=np.float32)
        kind = kinds.get(info.type, np.float32)
        feed[info.name] = (values * 255).astype(kind) if kind is np.uint8 else values.astype(kind)
    refusal = f"{path.name}: the graph does not allow a batch of {batch}"
    try:
        many = ort.InferenceSession(str(out), options, providers=providers)
        # two different images: the first, then the second in all other places
        whole = many.run(
            None, {name: np.concatenate([v[:1], np.repeat(v[1:], batch - 1, 0)]) for name, v in feed.items()}
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ValueError(f"{refusal}: {' '.join(str(error).split())[:200]}") from None
    for i, place in ((0, 0), (1, batch - 1)):
        alone = single.run(None, {name: values[i : i + 1] for name, values in feed.items()})
        for one, all_of_them in zip(alone, whole, strict=True):
            wanted = one.astype(np.float64)
            if all_of_them.shape != (batch, *wanted.shape[1:]):
                raise ValueError(f"{refusal}: its output is {'x'.join(map(str, all_of_them.shape))}")
            apart = np.abs(all_of_them[place].astype(np.float64) - wanted[0]).mean() / max(np.abs(wanted).mean(), 1e-12)
            if not apart <= TOLERANCE:
                raise ValueError(f"{refusal}: an image's depth changes by {apart:.2%} when it is not alone")
