"""The model table, and how a MODEL written by a user is turned into a network.

A MODEL is a catalogue name, an ``.onnx`` file, or ``package.module:function`` (a function without arguments that returns an
``nn.Module`` mapping rgb (B, 3, H, W) in [0, 1] to depth (B, 1, H, W) in metres). Importing this module loads no torch.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from depthbench.suites.names import unknown

if TYPE_CHECKING:
    from torch import nn

    from depthbench.suites.variants import Variant

WEIGHTS = Path(__file__).parent / "weights"

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class ModelInfo:
    """A row of the model table: its family (colour and marker in plots), one line of text, and its builder.

    ``config``: the frozen dataclass whose fields are the builder's keyword arguments, for a model that a suite may vary.
    """

    name: str
    family: str
    summary: str
    build: Callable[..., nn.Module]
    config: Callable[[], Any] | None = None

    def options(self) -> dict[str, Any]:
        """The types of the builder's keyword arguments by name; none for a model that is as it is."""
        return get_type_hints(type(self.config())) if self.config else {}


def _tst(name: str) -> Callable[..., nn.Module]:
    def build(**options: Any) -> nn.Module:
        from depthbench.tst import build_tst

        return build_tst(name, **options)

    return build


def _tst_config(name: str) -> Callable[[], Any]:
    def config() -> Any:
        from depthbench.tst import VARIANTS

        return VARIANTS[name]

    return config


def _fastdepth(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from depthbench.baselines import build_fastdepth

        return build_fastdepth(name)

    return build


def _mobilevit(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from depthbench.baselines import build_mobilevit

        return build_mobilevit(name)

    return build


MODELS: Mapping[str, ModelInfo] = MappingProxyType(
    {
        info.name: info
        for info in (
            ModelInfo("tst-t", "tst", "Token-Sharing Transformer, tiny", _tst("tst-t"), _tst_config("tst-t")),
            ModelInfo("tst-s", "tst", "Token-Sharing Transformer, small", _tst("tst-s"), _tst_config("tst-s")),
            ModelInfo("tst-b", "tst", "Token-Sharing Transformer, base", _tst("tst-b"), _tst_config("tst-b")),
            ModelInfo("tst-source", "tst", "the source's pseudo code taken literally", _tst("tst-source")),
            ModelInfo("fastdepth", "fastdepth", "FastDepth, full width", _fastdepth("fastdepth")),
            ModelInfo(
                "fastdepth-pruned", "fastdepth", "FastDepth, NetAdapt-pruned widths", _fastdepth("fastdepth-pruned")
            ),
            ModelInfo(
                "mobilevit-xxs", "mobilevit", "MobileViT-XXS encoder, light decoder", _mobilevit("mobilevit-xxs")
            ),
            ModelInfo(
                "mobilevit-xs",
                "mobilevit",
                "MobileViT-XS encoder, light decoder",
                _mobilevit("mobilevit-xs"),
            ),
            ModelInfo("mobilevit-s", "mobilevit", "MobileViT-S encoder, light decoder", _mobilevit("mobilevit-s")),
        )
    }
)


@dataclass(frozen=True)
class ModelSpec:
    """A MODEL, resolved: its kind, its display name, its ONNX or weights file (None: untrained), and a digest of that.

    ``variant``: what a suite builds and trains under this name; the digest is then that of its training.
    """

    name: str
    kind: Literal["catalogue", "onnx", "function"]
    family: str
    digest: str
    path: Path | None = None
    variant: Variant | None = None


def weights_path(model: str, recipe: str | None = None) -> Path:
    """Where the shipped weights of a catalogue model, or of its compressed child, would lie."""
    return WEIGHTS / (f"{model}--{recipe}.safetensors" if recipe else f"{model}.safetensors")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve_model(text: str, base: Path | None = None, weights: Path | None = None) -> ModelSpec:
    """The model that a user's words name; a relative ``.onnx`` path is looked up from ``base``.

    ``weights`` names a safetensors file to use instead of the shipped one. ``ValueError`` for an unknown name (the
    nearest is offered), a missing file, or a function that cannot be imported.
    """
    if text.endswith(".onnx"):
        path = (base / text) if base else Path(text)
        if not path.is_file():
            raise ValueError(f"{path}: no such ONNX file")
        return ModelSpec(path.stem, "onnx", "user", file_sha256(path), path)
    if _FUNCTION.fullmatch(text):
        return ModelSpec(text, "function", "user", _digest(_code_digest(text), weights), weights)
    if text not in MODELS:
        raise ValueError(unknown("model", text, MODELS) + "; an .onnx file or package.module:function is also accepted")
    if weights is None and (shipped := weights_path(text)).is_file():
        digest = _shipped_digest(shipped, shipped.stat().st_mtime_ns)
        return ModelSpec(text, "catalogue", MODELS[text].family, digest, shipped)
    return ModelSpec(text, "catalogue", MODELS[text].family, _digest("untrained", weights), weights)


@cache
def _shipped_digest(path: Path, _changed_ns: int) -> str:
    """Digest of a file of the package, which a plan asks for many times; read again when the file was changed."""
    return file_sha256(path)


def _digest(otherwise: str, weights: Path | None) -> str:
    if weights is None:
        return otherwise
    if not weights.is_file():
        raise ValueError(f"{weights}: no such weights file")
    return file_sha256(weights)


def _code_digest(text: str) -> str:
    """Digest of the source file that a function MODEL comes from, so that an edited network is a new one."""
    module = text.partition(":")[0]
    found = _find_module(module)
    if found is None:
        raise ValueError(f"model '{text}': no module named {module}")
    return (
        f"code-{file_sha256(Path(found.origin))}" if found.origin and Path(found.origin).is_file() else "code-unknown"
    )


def _find_module(name: str) -> ModuleSpec | None:
    """Where a module lies, without importing the packages around it: a plan runs nothing that its suite names."""
    top, *parts = name.split(".")
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for part in parts:
        if found is None or found.submodule_search_locations is None:
            return None
        place, path = f"{found.name}.{part}", found.submodule_search_locations
        found = next((spec for finder in sys.meta_path if (spec := finder.find_spec(place, path))), None)
    return found


def build_model(spec: ModelSpec, seed: int = 0) -> nn.Module:
    """The network of a catalogue or function MODEL, in eval mode, with its weights, else random ones drawn from ``seed``.

    A variant is built with its options; its weights are not looked for here (see :mod:`depthbench.suites.running.trained`).
    """
    import torch

    from depthbench.suites.checkpoint import load_weights

    if spec.kind == "onnx":
        raise ValueError(
            f"{spec.path}: an ONNX file has no module; this needs a catalogue name or package.module:function"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        name, options = (spec.variant.model, dict(spec.variant.options)) if spec.variant else (spec.name, {})
        module = MODELS[name].build(**options) if spec.kind == "catalogue" else _call_function(name)
    if spec.path is not None:
        load_weights(module, spec.path)
    return module.eval()


def _call_function(text: str) -> nn.Module:
    from torch import nn

    module_name, _, function = text.partition(":")
    try:
        built: Any = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"model '{text}': {error}") from None
    module = built()
    if not isinstance(module, nn.Module):
        raise ValueError(f"model '{text}': the function returned {type(module).__name__}, not an nn.Module")
    return module
