"""From candidate to network: build it, or say in one line, without allocating it, why it cannot be built."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from search_spaces.candidate import Candidate
from search_spaces.cells.cell_candidate import CellCandidate
from search_spaces.cells.cell_space import CellSpace, check_cell_space
from search_spaces.errors import InputError


def build_network(candidate: Candidate, crop: int, pretrained: bool = True) -> nn.Module:
    """The network of a candidate: float (B, slices_in, H, W) -> logits (B, slices_out, H, W).

    crop: edge of the training patches; H and W equal the crop, or any multiple of `candidate.stride` if
    `candidate.any_size`. With `pretrained` the encoder gets `candidate.encoder_weights`, read from this machine and
    never downloaded; without it no weights are loaded (the caller supplies them). Weights that are not loaded are drawn
    from torch's global generator. Parameters that no output depends on (the stages after PSPNet's last map) are frozen,
    and so are those that `candidate.tuning` freezes: training on several GPUs needs a gradient for every trained one.
    Raises InputError if the candidate cannot be built or its weights are missing.
    """
    check_buildable(candidate, crop)
    path = candidate.find_weights() if pretrained else None
    network = _construct(candidate, crop)
    unused = _training_pass(candidate.from_scratch(), crop, 2).unused
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in unused)
    if path is not None:
        candidate.load_weights(network, crop, path)
    return network


def build_supernet(space: CellSpace, candidate: CellCandidate, crop: int) -> nn.Module:
    """The network that contains all cells of a space; called with an image and a path, it gives a candidate's logits.

    The candidate's genotype is ignored. Raises InputError if the space names unknown operations, the crop does not
    suit it, or the weights are missing.
    """
    check_cell_space(space)
    path = candidate.find_weights()
    network = candidate.build_supernet(space, crop)
    if path is not None:
        candidate.load_weights(network, crop, path)
    return network


def check_buildable(candidate: Candidate, crop: int, batch: int = 2) -> None:
    """Raise InputError, one line with the reason, if a candidate cannot be built or trained at a crop.

    Runs one training pass on torch's meta device: it computes only shapes, takes a fraction of a second, and is cached.
    Weights do not matter here (`find_weights` checks them). A batch of 1 is refused if a batch norm would see only a
    single value.
    """
    candidate.refuse(crop)
    reason = _training_pass(candidate.from_scratch(), crop, min(batch, 2)).failure
    if reason is not None:
        raise InputError(f"{candidate.described()} at crop {crop} cannot be built: {reason}")


def check_weights(candidate: Candidate, crop: int) -> None:
    """Raise InputError if the candidate's weights are missing or belong to another encoder.

    Reads the file without allocating a network.
    """
    check_buildable(candidate, crop)
    path = candidate.find_weights()
    if path is None:
        return
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = _construct(candidate, crop)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter.*")
        candidate.load_weights(network, crop, path)


def parameters(candidate: Candidate, crop: int) -> int:
    """Number of trained parameters of the candidate's network. Raises InputError if it cannot be built."""
    check_buildable(candidate, crop)
    return _training_pass(candidate.from_scratch(), crop, 2).parameters


class _NumbersOnCpu(TorchFunctionMode):
    """Keeps `linspace` on the CPU under the meta device: constructors read their drop-path rates from it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        extra = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**(kwargs or {}), **extra})


def _construct(candidate: Candidate, crop: int) -> nn.Module:
    """The network on torch's default device, which may be meta, without loaded weights."""
    with _NumbersOnCpu():
        network = candidate.build(crop)
    # smp replaces the first convolution by a new one on the CPU, wherever the rest is.
    return network.to(torch.get_default_device())


def _size(candidate: Candidate, crop: int) -> int:
    """The crop if the network depends on it, else 0, so that one cached network serves all crops."""
    return 0 if candidate.any_size else crop


@lru_cache(maxsize=8)
def _on_meta(candidate: Candidate, size: int) -> nn.Module:
    """The network with shapes but no storage. Leaves torch's random state unchanged."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _construct(candidate, size)


@dataclass(frozen=True)
class _TrainingPass:
    """What one pass in training mode on the meta device revealed."""

    failure: str | None
    parameters: int = 0  # number of parameters that get a gradient
    unused: frozenset[str] = frozenset()  # names of parameters that get none


@lru_cache(maxsize=4096)
def _training_pass(candidate: Candidate, crop: int, batch: int) -> _TrainingPass:
    """Catches every exception, because anything that the libraries raise is a reason to refuse the candidate."""
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
    """The parameters that `output` depends on, read from autograd's graph: a backward pass would double the time."""
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
