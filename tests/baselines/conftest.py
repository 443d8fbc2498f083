"""What the tests of both baselines need: a MAC counter, a check of an exported file, a picture that is not noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from depthbench.compression.executed import quiet
from depthbench.suites.export import export_onnx

Exported = Callable[[nn.Module, tuple[int, int], int], tuple[float, list[str]]]


@pytest.fixture
def count_gmacs() -> Callable[[nn.Module], float]:
    """Multiply-accumulates (1e9) of convolutions and linear layers at 224×224, counted by hooks on a real run."""

    def count(network: nn.Module) -> float:
        macs = 0

        def hook(module: nn.Module, _: object, output: Tensor) -> None:
            nonlocal macs
            if isinstance(module, nn.Conv2d):
                macs += output.numel() * module.weight[0].numel()
            elif isinstance(module, nn.Linear):
                macs += output.numel() * module.in_features

        handles = [module.register_forward_hook(hook) for module in network.modules()]
        with torch.no_grad():
            network(torch.zeros(1, 3, 224, 224))
        for handle in handles:
            handle.remove()
        return macs / 1e9

    return count


@pytest.fixture
def picture() -> Callable[[int, int], Tensor]:
    """A smooth colour picture (1, 3, H, W) in [0, 1], the same on every machine."""

    def make(height: int, width: int) -> Tensor:
        y = torch.linspace(0, 1, height)[:, None]
        x = torch.linspace(0, 1, width)[None, :]
        planes = [y * x, 0.5 + 0.5 * torch.sin(9 * x + 4 * y), 0.5 + 0.5 * torch.cos(13 * y - 5 * x)]
        return torch.stack(planes)[None]  # (1, 3, H, W)

    return make


@pytest.fixture
def exported_difference(tmp_path: Path, picture: Callable[[int, int], Tensor]) -> Exported:
    """Export, run in ONNX Runtime: the largest difference to eager (metres), and the operators of the file."""

    def check(network: nn.Module, size: tuple[int, int], opset: int) -> tuple[float, list[str]]:
        path = export_onnx(network, tmp_path / "network.onnx", size, opset=opset)
        rgb = picture(*size)
        with torch.no_grad():
            eager = network(rgb)
        session = ort.InferenceSession(path, quiet(), providers=["CPUExecutionProvider"])
        (depth,) = session.run(None, {"rgb": rgb.numpy()})
        return float((torch.from_numpy(depth) - eager).abs().max()), [n.op_type for n in onnx.load(path).graph.node]

    return check


@pytest.fixture
def randomized() -> Callable[[nn.Module], nn.Module]:
    """Every weight and running statistic of a network random and of a size that matters; in evaluation mode."""

    def fill(network: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(7)
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if tensor.ndim > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif name.endswith("bias") or name.endswith("running_mean"):
                tensor.uniform_(-0.5, 0.5, generator=generator)
            else:
                tensor.uniform_(0.5, 1.5, generator=generator)
        return network.eval()

    return fill
