"""Reads a volume in overlapping tiles with a network that sees a few slices, and blends their predictions."""

from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.volume import Volume
from trainers.inference.overlap import reflect, starts, tile_weight
from trainers.inference.reader import InferenceConfig, Reader
from trainers.inference.symmetry import mean_probabilities
from trainers.machine import free_memory

_CHUNK_BYTES = (256 << 20, 4 << 30)  # bytes of grey values held at once as float32: at least, at most


def read_tiles(
    reader: Reader,
    volume: Volume,
    along: NDArray[np.uint16],
    config: InferenceConfig,
    accelerator: Accelerator,
) -> Iterator[tuple[int, Tensor]]:
    """Mean probabilities of all slices of a stack (D, H, W), in runs: the first slice's number, and (count, H, W).

    Tiles overlap within a plane and have less weight towards their edges.
    """
    for first, last in _chunks(along.shape, reader.slices_in, accelerator.device):
        block = _grey_block(volume, along, first, last, reader)
        yield first, _blend_tiles(reader, block, last - first, (first, along.shape[0] - last), config, accelerator)


def _chunks(shape: tuple[int, ...], slices_in: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Runs of slices that are as long as memory allows, because along x each run touches every page of the files.

    A run's grey values, sums and weights are float32 on the device; its sums are held a second time when copied back.
    """
    free = free_memory()
    if device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[0])
    room = max(_CHUNK_BYTES[0], min(free // 16, _CHUNK_BYTES[1]))
    count = max(slices_in, room // (4 * shape[1] * shape[2]))
    for first in range(0, shape[0], count):
        yield first, min(first + count, shape[0])


def _grey_block(
    volume: Volume, along: NDArray[np.uint16], first: int, last: int, reader: Reader
) -> NDArray[np.float32]:
    """The slices first..last with the neighbours that their windows need; the stack's end slices are repeated."""
    reach = reader.slices_in // 2 + reader.slices_out // 2
    wanted = np.clip(np.arange(first - reach, last + reach), 0, along.shape[0] - 1)
    return volume.normalise(np.ascontiguousarray(along[wanted]))


def _blend_tiles(
    reader: Reader,
    block: NDArray[np.float32],
    count: int,
    beyond: tuple[int, int],
    config: InferenceConfig,
    accelerator: Accelerator,
) -> Tensor:
    """Mean probability of `count` slices, float (count, H, W); `beyond`: slices of the stack before and after them.

    A network with several output slices predicts each slice in several windows; all windows inside the stack count.
    """
    tile = reader.tile((block.shape[1], block.shape[2]), config.largest_tile)
    planes, (height, width) = reflect(block, tile)
    grey = torch.from_numpy(planes).to(accelerator.device)
    sums = torch.zeros((count, *grey.shape[1:]), device=accelerator.device)
    weights = torch.zeros_like(sums)
    weight = tile_weight(tile, config.weighting, accelerator.device)
    reach = reader.slices_out // 2
    centres = range(-min(reach, beyond[0]), count + min(reach, beyond[1]))  # slice 0 is the first of `count`
    batch = max(1, config.batch_voxels // (tile[0] * tile[1] * reader.scale**2))
    for top in starts(grey.shape[1], tile[0], config.overlap):
        for left in starts(grey.shape[2], tile[1], config.overlap):
            square = grey[:, top : top + tile[0], left : left + tile[1]]
            windows = square.unfold(0, reader.slices_in, 1).permute(0, 3, 1, 2)
            for begin in range(centres.start, centres.stop, batch):
                end = min(begin + batch, centres.stop)
                some = windows[begin + reach : end + reach]
                probabilities = mean_probabilities(reader.network, some, config.symmetries, accelerator)
                _add(sums, weights, probabilities, weight, begin, top, left)
    return sums.div_(weights)[:, :height, :width]


def _add(sums: Tensor, weights: Tensor, probabilities: Tensor, weight: Tensor, begin: int, top: int, left: int) -> None:
    """Add the outputs (B, m, h, w) of the windows around slices begin, begin + 1, ... to the slices they predict."""
    outputs = probabilities.shape[1]
    for offset in range(outputs):
        first = begin + offset - outputs // 2
        skip = max(0, -first)
        stop = min(first + probabilities.shape[0], sums.shape[0])
        if first + skip >= stop:
            continue
        view = (slice(first + skip, stop), slice(top, top + weight.shape[0]), slice(left, left + weight.shape[1]))
        sums[view] += probabilities[skip : stop - first, offset] * weight
        weights[view] += weight
