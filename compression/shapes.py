"""A network in the shapes of its weights: pruned networks are kept as plain tensors, never as pickled objects."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor, nn

HEADS = ("num_heads", "heads", "num_attention_heads")
"""Attributes in which an attention module keeps its number of heads."""


def shape_like(module: nn.Module, state: Mapping[str, Tensor], heads: Mapping[str, int] | None = None) -> nn.Module:
    """A copy of ``module`` in the shapes of ``state``, with its values loaded: a pruned network from its weights alone.

    Parameters and buffers take the shape they have in ``state``; channel counts of convolutions (depthwise ones
    included), linear layers and norms follow. ``heads``: the number of heads of attention modules that have lost some, by
    name: weights do not tell it. ``ValueError`` names the first key that ``module`` does not have, that is missing from
    ``state``, or whose number of dimensions differs.
    """
    own = module.state_dict()
    for problem, keys in (("unknown", state.keys() - own.keys()), ("missing", own.keys() - state.keys())):
        if keys:
            raise ValueError(f"state: {problem} key {min(keys)!r} ({len(keys)} in all) for {type(module).__name__}")
    for key, value in state.items():
        if value.dim() != own[key].dim():
            raise ValueError(f"state: {key!r} has shape {tuple(value.shape)}, expected {own[key].dim()} dimensions")
    shaped = copy.deepcopy(module)
    for owner, prefix in _owners(shaped):
        for name, parameter in owner.named_parameters(recurse=False):
            shape = state[prefix + name].shape
            if parameter.shape != shape:
                setattr(owner, name, nn.Parameter(parameter.new_empty(shape), requires_grad=parameter.requires_grad))
        for name, buffer in owner.named_buffers(recurse=False):
            if prefix + name in state and buffer.shape != state[prefix + name].shape:
                setattr(owner, name, buffer.new_empty(state[prefix + name].shape))
        _follow(owner, prefix)
    shaped.load_state_dict(state)
    set_heads(shaped, heads or {})
    return shaped


def head_count(owner: nn.Module) -> int | None:
    """The number of heads that an attention module keeps in one of ``HEADS``; None for any other module."""
    return next((n for n in (getattr(owner, name, None) for name in HEADS) if isinstance(n, int)), None)


def set_heads(module: nn.Module, heads: Mapping[str, int]) -> None:
    """Give attention modules of ``module``, by name, another number of heads, in place."""
    for name, count in heads.items():
        owner = module.get_submodule(name)
        setattr(owner, next(key for key in HEADS if isinstance(getattr(owner, key, None), int)), count)


def state_digest(module: nn.Module) -> str:
    """First 20 hexadecimal digits of the SHA-256 of a network's tensors, their names and shapes, and its numbers of heads."""
    sha = hashlib.sha256()
    for key, value in module.state_dict().items():
        sha.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        sha.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    sha.update(repr([head_count(owner) for owner in module.modules()]).encode())
    return sha.hexdigest()[:20]


def _owners(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for name, owner in module.named_modules():
        yield owner, f"{name}." if name else ""


def _follow(layer: nn.Module, prefix: str) -> None:
    """Set the channel counts that a layer keeps beside its weights to what the weights say."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        first, second = layer.weight.shape[:2]
        if layer.groups == layer.in_channels == layer.out_channels and layer.groups > 1:
            layer.groups = first
        outside, inside = (second, first) if layer.transposed else (first, second)
        layer.out_channels = outside * (layer.groups if layer.transposed else 1)
        layer.in_channels = inside * (1 if layer.transposed else layer.groups)
        if layer.out_channels % layer.groups or layer.in_channels % layer.groups:
            raise ValueError(f"state: '{prefix}weight' has shape {tuple(layer.weight.shape)}, no {layer.groups} groups")
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        layer.num_features = len(layer.running_mean if layer.running_mean is not None else layer.weight)
    elif isinstance(layer, nn.LayerNorm) and layer.elementwise_affine:
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.GroupNorm) and layer.affine:
        layer.num_channels = len(layer.weight)
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
