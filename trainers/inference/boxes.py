"""Reads a volume in overlapping boxes with a 3D network, and blends their predictions."""

from collections.abc import Iterator
from math import isqrt

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.volume import Volume
from trainers.inference.overlap import reflect, starts, tile_weight
from trainers.inference.reader import InferenceConfig, Reader
from trainers.inference.symmetry import mean_probabilities

# Boxes at once: on a CPU, torch convolves a single one without oneDNN, which takes up to ten times as long (8 channels,
# 16 x 128 x 128 voxels, two threads: 2 million voxels a second, 21 million with two boxes).
_FEWEST = 2


def read_boxes(
    reader: Reader,
    volume: Volume,
    along: NDArray[np.uint16],
    config: InferenceConfig,
    accelerator: Accelerator,
) -> Iterator[tuple[int, Tensor]]:
    """Mean probabilities of all slices of a stack (D, H, W), in runs: the first slice's number, and (count, H, W).

    Boxes overlap along all three axes and have less weight towards their faces. Only as many slices as one box is deep
    are held at a time.
    """
    depth, (slices, height, width) = reader.slices_in, along.shape
    largest = isqrt(max(1, config.batch_voxels // (_FEWEST * depth)))
    tile = reader.tile((height, width), min(config.largest_tile, largest))
    plane, line = (tile_weight(edges, config.weighting, accelerator.device) for edges in (tile, (depth, 1)))
    weight = line[:, :, None] * plane
    sums: Tensor | None = None
    first = starts(slices, depth, config.overlap)
    for z, following in zip(first, [*first[1:], slices], strict=True):
        block = volume.normalise(np.ascontiguousarray(along[z : z + depth]))
        if len(block) < depth:
            block = np.pad(block, ((0, depth - len(block)), (0, 0), (0, 0)), mode="symmetric")
        planes, _ = reflect(block, tile)
        grey = torch.from_numpy(planes).to(accelerator.device)
        if sums is None:
            sums, weights = torch.zeros_like(grey), torch.zeros_like(grey)
        _add_boxes(reader, grey, tile, weight, sums, weights, config, accelerator)
        done = following - z
        yield z, (sums[:done] / weights[:done])[:, :height, :width]
        sums, weights = (torch.cat([t[done:], torch.zeros_like(t[:done])]) for t in (sums, weights))


def _add_boxes(
    reader: Reader,
    grey: Tensor,
    tile: tuple[int, int],
    weight: Tensor,
    sums: Tensor,
    weights: Tensor,
    config: InferenceConfig,
    accelerator: Accelerator,
) -> None:
    """Add the probabilities of all boxes that cover a run of slices, and their weights."""
    tops, lefts = (starts(n, edge, config.overlap) for n, edge in zip(grey.shape[1:], tile, strict=True))
    places = [(slice(None), slice(top, top + tile[0]), slice(left, left + tile[1])) for top in tops for left in lefts]
    batch = max(_FEWEST, config.batch_voxels // weight.numel())
    for begin in range(0, len(places), batch):
        some = places[begin : begin + batch]
        boxes = torch.stack([grey[place] for place in (some * _FEWEST if len(some) == 1 else some)])
        means = mean_probabilities(reader.network, boxes, config.symmetries, accelerator)
        for place, probabilities in zip(some, means, strict=False):
            sums[place] += probabilities * weight
            weights[place] += weight
