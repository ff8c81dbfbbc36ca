"""Symmetries of the plane: a network sees each image turned and mirrored, and its predictions are averaged."""

from collections.abc import Iterator
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

Symmetries = Literal["none", "flips", "d4"]

# How a view is made from an image (..., H, W): transposed or not, then mirrored along these axes.
_FLIPS: tuple[tuple[int, ...], ...] = ((), (-2,), (-1,), (-2, -1))
_VIEWS: dict[Symmetries, tuple[tuple[bool, tuple[int, ...]], ...]] = {
    "none": ((False, ()),),
    "flips": tuple((False, axes) for axes in _FLIPS),
    "d4": tuple((turned, axes) for turned in (False, True) for axes in _FLIPS),
}


def count(symmetries: Symmetries) -> int:
    """Number of views read per image, and therefore the factor by which prediction time grows."""
    return len(_VIEWS[symmetries])


def mean_probabilities(network: nn.Module, images: Tensor, symmetries: Symmetries, accelerator: Accelerator) -> Tensor:
    """Mean over the views of the sigmoid of a network's logits, float32, (B, k, H, W) -> (B, m, H, W).

    Transposed views are W x H, so a network of fixed size needs square images. For boxes k is their depth: the
    symmetries are still those of the plane, and the slices keep their order.
    """
    total: Tensor | None = None
    for view, back in _views(images, symmetries):
        with accelerator.autocast():
            logits = network(view)
        probabilities = back(torch.sigmoid(logits.float()))
        total = probabilities if total is None else total + probabilities
    assert total is not None
    return total / count(symmetries)


class _Back:
    """Undoes the change that made a view."""

    def __init__(self, turned: bool, axes: tuple[int, ...]) -> None:
        self._turned, self._axes = turned, axes

    def __call__(self, view: Tensor) -> Tensor:
        image = view.flip(self._axes) if self._axes else view
        return image.transpose(-2, -1) if self._turned else image


def _views(images: Tensor, symmetries: Symmetries) -> Iterator[tuple[Tensor, _Back]]:
    for turned, axes in _VIEWS[symmetries]:
        view = images.transpose(-2, -1) if turned else images
        view = view.flip(axes) if axes else view
        yield view.contiguous(), _Back(turned, axes)
