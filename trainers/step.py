"""One optimiser step, shared by every trainer."""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from search_spaces.path import Path


class NonFiniteLoss(Exception):
    """The loss became NaN or infinite: this training has failed and going on would only waste time."""


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

    images: float (B, k, H, W). labels: 0 or 1, (B, m, H, W). path: which sub-network of a supernet. Raises
    NonFiniteLoss before the weights are touched.
    """
    optimiser.zero_grad(set_to_none=True)
    with accelerator.autocast():
        logits = network(images) if path is None else network(images, path)
    # Losses sum over whole batches; half precision would lose small vessels there.
    value = loss(logits.float(), labels.float())
    number = float(value.detach())
    if not torch.isfinite(value.detach()):
        raise NonFiniteLoss(f"the loss became {number}")
    accelerator.backward(value)
    if gradient_clip is not None and accelerator.sync_gradients:
        accelerator.clip_grad_norm_(network.parameters(), gradient_clip)
    optimiser.step()
    return number


def weight_groups(named_parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups for AdamW: biases and normalisation scales (one-dimensional) are not decayed."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for _, parameter in named_parameters:
        (decayed if parameter.ndim > 1 else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
