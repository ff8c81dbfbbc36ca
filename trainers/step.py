"""One optimiser step, shared by every trainer."""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

from search_spaces.cells.path import Path


class NonFiniteLoss(Exception):
    """The loss became NaN or infinite: this training has failed, and continuing would only waste time."""


def optimiser_step(
    network: nn.Module,
    loss: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimiser: torch.optim.Optimizer,
    accelerator: Accelerator,
    gradient_clip: float | None,
    path: Path | None = None,
) -> float:
    """Train `network` on one batch and return its loss.

    images: float (B, k, H, W). labels: 0 or 1, (B, m, H, W). path: the sub-network of a supernet. If there are several
    processes, each supplies its part of the batch, and all get the loss of the whole batch. Raises NonFiniteLoss
    before the weights are changed.
    """
    optimiser.zero_grad(set_to_none=True)
    with accelerator.autocast():
        logits = network(images) if path is None else network(images, path)
    # Losses sum over whole batches; half precision would lose small vessels there.
    value = loss(*_of_all_processes(logits.float(), labels.float(), accelerator))
    number = float(value.detach())
    if not torch.isfinite(value.detach()):
        raise NonFiniteLoss(f"the loss became {number}")
    accelerator.backward(value)
    if gradient_clip is not None and accelerator.sync_gradients:
        accelerator.clip_grad_norm_(network.parameters(), gradient_clip)
    optimiser.step()
    return number


def _of_all_processes(logits: Tensor, labels: Tensor, accelerator: Accelerator) -> tuple[Tensor, Tensor]:
    """The whole batch, in the order of the processes.

    The dice of a batch is not the mean of the dice of its parts, so the loss needs all of them. Every process has the
    gradient of the same loss, summed over the processes; DDP takes the mean, which gives the gradient of one process.
    """
    if accelerator.num_processes == 1:
        return logits, labels
    parts = [torch.empty_like(labels) for _ in range(accelerator.num_processes)]
    torch.distributed.all_gather(parts, labels.contiguous())
    return torch.cat(all_gather(logits.contiguous())), torch.cat(parts)  # type: ignore[no-untyped-call]


def weight_groups(named_parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups for AdamW: biases and normalisation scales (one-dimensional) are not decayed.

    Frozen parameters are in neither group.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for _, parameter in named_parameters:
        if parameter.requires_grad:
            (decayed if parameter.ndim > 1 else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
