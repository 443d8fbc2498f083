"""A network in the shapes of its weights: pruned networks are kept as plain tensors, never as pickled objects."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

from torch import Tensor, nn


def shape_like(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of ``module`` in the shapes of ``state``, with its values loaded: a pruned network from its weights alone.

    Parameters and buffers take the shape they have in ``state``; channel counts of convolutions (depthwise ones
    included), linear layers and norms follow. ``ValueError`` names the first key that ``module`` does not have, that is
    missing from ``state``, or whose number of dimensions differs.
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
    return shaped


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
