"""The running average of a network's weights, which is scored and exported."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def weight_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of all weights and buffers of `network`.

    The decay grows to its full value over the first updates, min(decay, (1 + n) / (10 + n)), so that the random
    initial weights do not linger in a short training (the rule of TensorFlow's ExponentialMovingAverage).
    """
    return AveragedModel(network, multi_avg_fn=_blend(decay), use_buffers=True)


def _blend(decay: float) -> Callable[[Any, Any, Any], None]:
    @torch.no_grad()
    def blend(averaged: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
        count = float(updates)
        share = 1.0 - min(decay, (1.0 + count) / (10.0 + count))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value.to(mean.dtype), share)
            else:
                mean.copy_(value)

    return blend
