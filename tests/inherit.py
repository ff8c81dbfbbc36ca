"""Weights of a supernet for a network that lies inside it."""

import torch
from torch import Tensor, nn


def part_of(stored: Tensor, shape: torch.Size, dims: int) -> Tensor:
    """The leading channels, and of larger kernels the middle."""
    for axis, size in enumerate(shape):
        spare = stored.shape[axis] - size
        kernel = axis >= stored.ndim - dims and stored.ndim > 2
        stored = stored.narrow(axis, spare // 2 if kernel else 0, size)
    return stored


def inherit(network: nn.Module, supernet: nn.Module, dims: int) -> None:
    """Copy into every parameter and buffer of `network` what the supernet has under the same name."""
    known = supernet.state_dict()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            value.copy_(part_of(known[name], value.shape, dims))


def gradients(network: nn.Module) -> dict[str, Tensor | None]:
    """The gradient of every parameter by its name; parameters that are one and the same under all their names."""
    return {name: p.grad for name, p in network.named_parameters(remove_duplicate=False)}
