"""Candidate to network: build it, or say in one line and without allocating it why it cannot be built."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from search_spaces.candidate import Candidate, Family, describe
from search_spaces.cells.cell_space import CellSpace, check_cell_space
from search_spaces.errors import InputError
from search_spaces.families import cells, hybrid, sam, unet
from search_spaces.published.weights import find_weights, load_weights


def build_network(candidate: Candidate, crop: int, pretrained: bool = True) -> nn.Module:
    """The network of a candidate: float (B, slices_in, H, W) -> logits (B, slices_out, H, W).

    crop: edge of the training patches; H and W are the crop, or any multiple of `stride` where `takes_any_size`.
    With `pretrained` the encoder gets `candidate.encoder_weights` from this machine, never from the network;
    without, nothing is loaded at all (the caller has weights of its own). What is not loaded is drawn from torch's
    global generator. Parameters that no output depends on (the stages after PSPNet's last map) are frozen, as is what
    `candidate.tuning` keeps: training on several GPUs wants a gradient for each that is not.
    Raises InputError where the candidate cannot be built or its weights are missing.
    """
    check_buildable(candidate, crop)
    path = find_weights(candidate) if pretrained else None
    network = _construct(candidate, crop)
    unused = _training_pass(_without_weights(candidate), crop, 2).unused
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in unused)
    if path is not None:
        _load_encoder(network, candidate, crop, path)
    return network


def build_supernet(space: CellSpace, candidate: Candidate, crop: int) -> nn.Module:
    """The network that holds all of a space's cells; called with an image and a path, it gives a candidate's logits.

    candidate: family, slices, width and encoder, with its weights; its genotype does not matter. Raises InputError
    where the space names unknown operations, the crop does not suit it, or the weights are missing.
    """
    check_cell_space(space)
    path = find_weights(candidate)
    if candidate.family == "cells":
        return cells.construct_supernet(space, candidate.width or 1)
    network = hybrid.construct_supernet(space, candidate, crop)
    if path is not None:
        _load_encoder(network, candidate, crop, path)
    return network


def check_buildable(candidate: Candidate, crop: int, batch: int = 2) -> None:
    """Raise InputError, one line with the reason, where a candidate cannot be built or trained at a crop.

    Runs one training pass on torch's meta device: shapes only, a fraction of a second, and remembered. Weights do
    not matter here (`find_weights` checks those). batch 1 is refused where a batch norm would see a single value.
    """
    BUILDERS[candidate.family].refuse(candidate, crop)
    reason = _training_pass(_without_weights(candidate), crop, min(batch, 2)).failure
    if reason is not None:
        raise InputError(f"{describe(candidate)} at crop {crop} cannot be built: {reason}")


def check_weights(candidate: Candidate, crop: int) -> None:
    """Raise InputError where the candidate's weights are missing, or are of another encoder.

    Reads the file, and allocates no network beside it.
    """
    check_buildable(candidate, crop)
    path = find_weights(candidate)
    if path is None:
        return
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = _construct(candidate, crop)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter.*")
        _load_encoder(network, candidate, crop, path)


def parameters(candidate: Candidate, crop: int) -> int:
    """How many numbers of the candidate's network are trained. Raises InputError where it cannot be built."""
    check_buildable(candidate, crop)
    return _training_pass(_without_weights(candidate), crop, 2).parameters


def takes_any_size(candidate: Candidate) -> bool:
    """True where the network predicts on tiles of any multiple of `stride`, False where only on its crop."""
    return BUILDERS[candidate.family].any_size(candidate)


def stride(candidate: Candidate) -> int:
    """What the edge of a crop, or of a tile at prediction, must divide by."""
    return BUILDERS[candidate.family].stride(candidate)


@dataclass(frozen=True)
class Builder:
    """How the networks of a family are built: `construct`, after `refuse` has raised InputError for what cannot be."""

    construct: Callable[[Candidate, int], nn.Module]
    refuse: Callable[[Candidate, int], None]
    stride: Callable[[Candidate], int]
    any_size: Callable[[Candidate], bool]


BUILDERS: dict[Family, Builder] = {
    "unet": Builder(unet.construct, unet.refuse, unet.stride, unet.any_size),
    "cells": Builder(cells.construct, cells.refuse, cells.stride, lambda _: True),
    "hybrid": Builder(hybrid.construct, hybrid.refuse, hybrid.stride, unet.any_size),
    "sam": Builder(sam.construct, sam.refuse, sam.stride, sam.any_size),
}


def _load_encoder(network: nn.Module, candidate: Candidate, crop: int, path: Path) -> None:
    arguments = {} if candidate.family == "sam" else unet.encoder_arguments(candidate, crop)
    load_weights(network.get_submodule("encoder"), candidate, path, arguments)


class _NumbersOnCpu(TorchFunctionMode):
    """Keeps `linspace` real on the meta device: constructors read their drop-path rates from it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        extra = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**(kwargs or {}), **extra})


def _construct(candidate: Candidate, crop: int) -> nn.Module:
    """The network on torch's default device, meta included, with nothing loaded."""
    with _NumbersOnCpu():
        network = BUILDERS[candidate.family].construct(candidate, crop)
    # smp makes the first convolution anew, on the CPU wherever the rest is.
    return network.to(torch.get_default_device())


def _without_weights(candidate: Candidate) -> Candidate:
    """The same architecture; weights would only split the caches."""
    return candidate.model_copy(update={"encoder_weights": "none"})


def _size(candidate: Candidate, crop: int) -> int:
    """The crop where the network depends on it, else 0, so that one network serves all crops in the cache."""
    return 0 if takes_any_size(candidate) else crop


@lru_cache(maxsize=8)
def _on_meta(candidate: Candidate, size: int) -> nn.Module:
    """The network with shapes and no storage. Leaves torch's random state as it was."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _construct(candidate, size)


@dataclass(frozen=True)
class _TrainingPass:
    """What one pass in training mode on the meta device told."""

    failure: str | None
    parameters: int = 0  # that get a gradient
    unused: frozenset[str] = frozenset()  # names of those that get none


@lru_cache(maxsize=4096)
def _training_pass(candidate: Candidate, crop: int, batch: int) -> _TrainingPass:
    """Whatever the libraries raise is a reason to refuse the candidate, so everything is caught."""
    try:
        network = _on_meta(candidate, _size(candidate, crop)).train()
        logits = network(torch.empty(batch, candidate.slices_in, crop, crop, device="meta"))
    except Exception as error:
        return _TrainingPass(" ".join(str(error).split()) or type(error).__name__)
    wanted = (batch, candidate.slices_out, crop, crop)
    if tuple(logits.shape) != wanted:
        return _TrainingPass(f"it gives {tuple(logits.shape)} instead of {wanted}")
    named = dict(network.named_parameters())
    reached = _reached_by_gradient(logits)
    unused = frozenset(name for name, parameter in named.items() if parameter not in reached)
    return _TrainingPass(None, sum(p.numel() for name, p in named.items() if name not in unused), unused)


def _reached_by_gradient(output: Tensor) -> set[Tensor]:
    """The parameters that `output` depends on, read from autograd's graph: a backward pass would take as long again."""
    found, seen, stack = set(), set(), [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable)
        stack.extend(following for following, _ in node.next_functions)
    return found
