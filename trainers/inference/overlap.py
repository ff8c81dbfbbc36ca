"""Overlap of tiles and boxes: where they start, and the weights with which their predictions are averaged."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Weighting = Literal["hat", "flat"]


def reflect(block: NDArray[np.float32], tile: tuple[int, int]) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """The planes, padded at their far ends to at least `tile`, and their size before padding."""
    height, width = block.shape[1:]
    down, right = max(0, tile[0] - height), max(0, tile[1] - width)
    if down or right:
        block = np.pad(block, ((0, 0), (0, down), (0, right)), mode="symmetric")
    return block, (height, width)


def starts(length: int, tile: int, overlap: float) -> list[int]:
    """Start positions of tiles that cover `length` evenly with at least the given overlap."""
    if length <= tile:
        return [0]
    step = max(1, int(tile * (1 - overlap)))
    count = -(-(length - tile) // step) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def tile_weight(tile: tuple[int, int], weighting: Weighting, device: torch.device) -> Tensor:
    """Weights of a tile's pixels for averaging overlapping tiles, (h, w)."""
    return hat(tile, device) if weighting == "hat" else torch.ones(tile, device=device)


def hat(tile: tuple[int, int], device: torch.device) -> Tensor:
    """Weights of a tile's pixels, (h, w), which fall towards the edges, where the network sees the least context."""
    lines = []
    for edge in tile:
        ramp = torch.arange(1, edge + 1, device=device, dtype=torch.float32)
        lines.append(torch.minimum(ramp, ramp.flip(0)) / (edge / 2))
    return lines[0][:, None] * lines[1][None, :]
