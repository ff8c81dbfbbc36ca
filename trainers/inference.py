"""Whole-volume prediction: every axis, overlapping tiles, in bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor, nn

from search_spaces.candidate import Candidate
from search_spaces.errors import InputError
from search_spaces.network import stride, takes_any_size
from trainers.data.volume import Volume

LEVELS = 255  # probabilities are kept in steps of 1/255: a threshold is one of these steps
T = TypeVar("T", bound=np.generic)

_IN_MEMORY_BYTES = 2 << 30  # sums of larger volumes lie in a file
_CHUNK_BYTES = (256 << 20, 4 << 30)  # grey values held at once as float32: at least, at most


class InferenceConfig(BaseModel, frozen=True, extra="forbid"):
    """How a trained network reads a whole volume."""

    axes: tuple[Literal[0, 1, 2], ...] = Field(default=(0, 1, 2), min_length=1)  # slices across z, y, x; averaged
    largest_tile: PositiveInt = 512  # voxels; planes up to this are read whole where the network takes any size
    overlap: float = Field(default=0.25, ge=0, lt=1)  # share of a tile that its neighbour covers too
    batch_voxels: PositiveInt = 1 << 20  # pixels of a plane predicted at once; bounds the memory


@dataclass(frozen=True)
class Reader:
    """A trained network and what must be known to read a volume with it."""

    network: nn.Module  # float (B, slices_in, H, W) -> logits (B, slices_out, H, W)
    slices_in: int
    slices_out: int
    crop: int  # the edge it was trained at
    stride: int  # a tile's edges must divide by it
    any_size: bool  # False: it takes tiles of exactly `crop`

    def tile(self, plane: tuple[int, int], largest: int) -> tuple[int, int]:
        """Edges of the tiles that cover a plane of (H, W) voxels: never smaller than in training."""
        if not self.any_size:
            return self.crop, self.crop
        height, width = (
            max(self.crop, min(largest // self.stride, -(-edge // self.stride)) * self.stride) for edge in plane
        )
        return height, width


def make_reader(network: nn.Module, candidate: Candidate, crop: int) -> Reader:
    """The reader of a network that was built from `candidate` for crops of edge `crop`."""
    return Reader(
        network, candidate.slices_in, candidate.slices_out, crop, stride(candidate), takes_any_size(candidate)
    )


@torch.inference_mode()
def predict(
    reader: Reader,
    volume: Volume,
    config: InferenceConfig,
    accelerator: Accelerator,
    *,
    scratch: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.uint8]:
    """Vessel probability of every voxel in steps of 1/255, (D, H, W).

    Axes along which a plane is shorter than half a crop are left out, as in training (a plane cannot be reflected
    further). A volume whose sums do not fit in 2 GiB keeps them in files in `scratch`, which the caller removes.
    Raises InputError where no axis is left.
    """
    axes = usable_axes(volume, config.axes, reader.crop)
    share = 65_535 // len(axes)  # one axis' part of a sum that fits 16 bits
    sums = _zeros(volume.shape, np.uint16, scratch, "sums")
    reader.network.eval()
    done, total = 0, sum(volume.shape[axis] for axis in axes)
    for axis in axes:
        along = np.moveaxis(volume.image, axis, 0)
        target = np.moveaxis(sums, axis, 0)
        for first, last in _chunks(along.shape, reader.slices_in, accelerator.device):
            block = _grey_block(volume, along, first, last, reader)
            mean = _predict_slices(reader, block, last - first, (first, along.shape[0] - last), config, accelerator)
            target[first:last] += (mean * share).round_().to(torch.int32).cpu().numpy().astype(np.uint16)
            if on_progress:
                on_progress(done + last, total)
        done += along.shape[0]
    levels = _zeros(volume.shape, np.uint8, scratch, "levels")
    full = share * len(axes)
    for z in range(volume.shape[0]):
        levels[z] = (sums[z].astype(np.uint32) * LEVELS + full // 2) // full
    return levels


def usable_axes(volume: Volume, axes: tuple[int, ...], crop: int) -> tuple[int, ...]:
    """The axes whose planes are at least half a crop in both directions."""
    usable = tuple(a for a in axes if min(n for i, n in enumerate(volume.shape) if i != a) * 2 >= crop)
    if not usable:
        raise InputError(f"{volume.name} of {volume.shape} voxels is too small to be read in crops of {crop}")
    return usable


def _zeros(shape: tuple[int, ...], dtype: type[T], scratch: Path | None, name: str) -> NDArray[T]:
    if scratch is None or int(np.prod(shape)) * np.dtype(dtype).itemsize <= _IN_MEMORY_BYTES:
        return np.zeros(shape, dtype)
    scratch.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(scratch / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)


def _chunks(shape: tuple[int, ...], slices_in: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Runs of slices, as long as memory allows: across x each run touches every page of the volume's files.

    A run's grey values, sums and weights are float32 on the device, and its sums once more on their way back.
    """
    free = psutil.virtual_memory().available
    if device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[0])
    room = max(_CHUNK_BYTES[0], min(free // 16, _CHUNK_BYTES[1]))
    count = max(slices_in, room // (4 * shape[1] * shape[2]))
    for first in range(0, shape[0], count):
        yield first, min(first + count, shape[0])


def _grey_block(
    volume: Volume, along: NDArray[np.uint16], first: int, last: int, reader: Reader
) -> NDArray[np.float32]:
    """The slices first..last with the neighbours that their windows reach, the stack's end slices repeated."""
    reach = reader.slices_in // 2 + reader.slices_out // 2
    wanted = np.clip(np.arange(first - reach, last + reach), 0, along.shape[0] - 1)
    return volume.normalise(np.ascontiguousarray(along[wanted]))


def _predict_slices(
    reader: Reader,
    block: NDArray[np.float32],
    count: int,
    beyond: tuple[int, int],
    config: InferenceConfig,
    accelerator: Accelerator,
) -> Tensor:
    """Mean probability of `count` slices, float (count, H, W); `beyond`: slices of the stack before and after them.

    A network with several output slices shows each slice in several windows; all that lie in the stack count.
    """
    tile = reader.tile((block.shape[1], block.shape[2]), config.largest_tile)
    planes, (height, width) = _reflect(block, tile)
    grey = torch.from_numpy(planes).to(accelerator.device)
    sums = torch.zeros((count, *grey.shape[1:]), device=accelerator.device)
    weights = torch.zeros_like(sums)
    hat = _hat(tile, accelerator.device)
    reach = reader.slices_out // 2
    centres = range(-min(reach, beyond[0]), count + min(reach, beyond[1]))  # slice 0 is the first of `count`
    batch = max(1, config.batch_voxels // (tile[0] * tile[1]))
    for top in _starts(grey.shape[1], tile[0], config.overlap):
        for left in _starts(grey.shape[2], tile[1], config.overlap):
            square = grey[:, top : top + tile[0], left : left + tile[1]]
            windows = square.unfold(0, reader.slices_in, 1).permute(0, 3, 1, 2)
            for begin in range(centres.start, centres.stop, batch):
                end = min(begin + batch, centres.stop)
                with accelerator.autocast():
                    logits = reader.network(windows[begin + reach : end + reach].contiguous())
                _add(sums, weights, torch.sigmoid(logits.float()), hat, begin, top, left)
    return (sums / weights)[:, :height, :width]


def _add(sums: Tensor, weights: Tensor, probabilities: Tensor, hat: Tensor, begin: int, top: int, left: int) -> None:
    """Add the outputs (B, m, h, w) of the windows around slices begin, begin + 1 ... to the slices they show."""
    outputs = probabilities.shape[1]
    for offset in range(outputs):
        first = begin + offset - outputs // 2
        skip = max(0, -first)
        stop = min(first + probabilities.shape[0], sums.shape[0])
        if first + skip >= stop:
            continue
        view = (slice(first + skip, stop), slice(top, top + hat.shape[0]), slice(left, left + hat.shape[1]))
        sums[view] += probabilities[skip : stop - first, offset] * hat
        weights[view] += hat


def _reflect(block: NDArray[np.float32], tile: tuple[int, int]) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """The planes padded at their far ends to at least `tile`, and their size before."""
    height, width = block.shape[1:]
    down, right = max(0, tile[0] - height), max(0, tile[1] - width)
    if down or right:
        block = np.pad(block, ((0, 0), (0, down), (0, right)), mode="symmetric")
    return block, (height, width)


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin so that they cover `length` evenly with at least the given overlap."""
    if length <= tile:
        return [0]
    step = max(1, int(tile * (1 - overlap)))
    count = -(-(length - tile) // step) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def _hat(tile: tuple[int, int], device: torch.device) -> Tensor:
    """Weight of a tile's pixels, (h, w): falls towards the edges, where a network sees least around it."""
    lines = []
    for edge in tile:
        ramp = torch.arange(1, edge + 1, device=device, dtype=torch.float32)
        lines.append(torch.minimum(ramp, ramp.flip(0)) / (edge / 2))
    return lines[0][:, None] * lines[1][None, :]
