"""What it costs to train a candidate, found without training it: parameters, memory and time of a step."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.candidate import Candidate
from search_spaces.network import build_network
from trainers.fit import FitConfig, make_accelerator
from trainers.losses.losses import build_loss
from trainers.machine import whole_memory

# For trained parameters: weights, gradient, two moments of AdamW and the weight average, float32 each.
_COPIES = 5
_FROZEN_COPIES = 2  # weights and their average
_MOST_KEPT = 1_000  # times the bytes of a batch that a backward pass needs; of U-Nets at most 400


@dataclass(frozen=True)
class Estimate:
    """Cost of one optimiser step."""

    parameters: int
    memory_bytes: int  # weights with their copies, and what autograd keeps for the backward pass
    operations: int  # multiplications and additions, forward and backward


def estimate(candidate: Candidate, fit: FitConfig) -> Estimate:
    """Count a training step on torch's meta device: exact for what autograd saves, but without library workspaces.

    Half precision on a GPU saves about half of the activations, so the memory is an upper bound there.
    Raises InputError if the candidate cannot be built.
    """
    with torch.device("meta"):
        network = build_network(candidate, fit.crop, pretrained=False).train()
        images = torch.empty(fit.batch_size, candidate.slices_in, fit.crop, fit.crop)
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        kept.append(tensor)  # the address of a freed storage would be reused
        return tensor

    kept: list[Tensor] = []
    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        network(images).sum().backward()
    count = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    activations = sum(size for key, size in saved.items() if key not in weights)
    copies = _COPIES * trained + _FROZEN_COPIES * (count - trained)
    return Estimate(count, activations + 4 * copies, counter.get_total_flops())


def check_memory(candidate: Candidate, fit: FitConfig) -> None:
    """Raise MemoryError if a step on the CPU keeps more than this machine has: it would end this process, or others.

    Nothing is estimated where a batch is far too small for that.
    """
    batch = 4 * fit.batch_size * candidate.slices_in * fit.crop**2
    whole = whole_memory()
    if batch * _MOST_KEPT > whole and (needed := estimate(candidate, fit).memory_bytes) > whole:
        raise MemoryError(f"can't allocate memory: you tried to allocate {needed} bytes")  # as torch says it


def operations_per_second(candidate: Candidate, fit: FitConfig, device: str = "auto", steps: int = 3) -> float:
    """How fast this machine trains: operations in a real step of one candidate, divided by its median time."""
    accelerator = make_accelerator(fit.precision, device)
    network: nn.Module = build_network(candidate, fit.crop, pretrained=False).to(accelerator.device).train()
    loss = build_loss(fit.loss)
    images = torch.rand(fit.batch_size, candidate.slices_in, fit.crop, fit.crop, device=accelerator.device)
    labels = (images[:, : candidate.slices_out] > 0.9).float()
    seconds = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        with accelerator.autocast():
            logits = network(images)
        accelerator.backward(loss(logits.float(), labels))
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return estimate(candidate, fit).operations / sorted(seconds[1:])[steps // 2]
