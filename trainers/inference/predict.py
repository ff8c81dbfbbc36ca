"""Whole-volume prediction along every axis, in overlapping tiles and bounded memory."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from search_spaces.errors import InputError
from trainers.data.patches import fitting_axes
from trainers.data.resample import resample_volume, resampled, shape_at, volume_steps
from trainers.data.scratch import zeros
from trainers.data.volume import Scanned, Volume
from trainers.inference.boxes import read_boxes
from trainers.inference.reader import InferenceConfig, Reader
from trainers.inference.symmetry import mean_probabilities
from trainers.inference.tiles import reflect, starts, tile_weight
from trainers.report import SILENT, Report

LEVELS = 255  # probabilities are kept in steps of 1/255: a threshold is one of these steps
_CHUNK_BYTES = (256 << 20, 4 << 30)  # bytes of grey values held at once as float32: at least, at most


@torch.inference_mode()
def predict(
    reader: Reader,
    volume: Volume,
    config: InferenceConfig,
    accelerator: Accelerator,
    *,
    scratch: Path | None = None,
    report: Report = SILENT,
) -> NDArray[np.uint8]:
    """Vessel probability of every voxel in steps of 1/255, (D, H, W), on the volume's own grid.

    A network with another voxel size reads a resampled volume; its probabilities are resampled back before any
    threshold. Axes whose planes are shorter than half a crop are left out, as in training (a plane cannot be reflected
    further). If the sums of a volume do not fit into 2 GiB, they lie in files in `scratch`, which the caller removes.
    Raises InputError if no axis is left.
    """
    seen = resample_volume(replace(volume, label=None), reader.voxel_size_um, scratch)
    levels = _predict_as_seen(reader, seen, config, accelerator, scratch, report)
    if seen.image is volume.image:
        return levels
    back = zeros(volume.shape, np.uint8, scratch, "levels-back")
    steps = [own / other for own, other in zip(volume.spacing_um, seen.spacing_um, strict=True)]
    for z, plane in enumerate(resampled(levels, volume.shape, (steps[0], steps[1], steps[2]))):
        back[z] = np.rint(plane)
    return back


def _predict_as_seen(
    reader: Reader,
    volume: Volume,
    config: InferenceConfig,
    accelerator: Accelerator,
    scratch: Path | None,
    report: Report,
) -> NDArray[np.uint8]:
    """`predict` on the voxels that the network reads."""
    axes = usable_axes(volume, config.axes, reader.crop, reader.depth)
    share = 65_535 // len(axes)  # one axis's share of a sum that fits into 16 bits
    sums = zeros(volume.shape, np.uint16, scratch, "sums")
    reader.network.eval()
    done, total = 0, sum(volume.shape[axis] for axis in axes)
    for axis in axes:
        along = np.moveaxis(volume.image, axis, 0)
        target = np.moveaxis(sums, axis, 0)
        read = read_boxes if reader.boxes else _read_slabs
        for first, mean in read(reader, volume, along, config, accelerator):
            last = first + len(mean)
            if not torch.isfinite(mean).all():
                short = "" if accelerator.mixed_precision == "no" else ", or it needs fit.precision = 'float32'"
                raise InputError(
                    f"{volume.name}: the network's probabilities are not numbers; its weights are damaged{short}"
                )
            target[first:last] += mean.mul_(share).round_().to(torch.int32).cpu().numpy().astype(np.uint16)
            report.progress("predicting", done + last, total)
        done += along.shape[0]
    levels = zeros(volume.shape, np.uint8, scratch, "levels")
    full = share * len(axes)
    for z in range(volume.shape[0]):
        levels[z] = (sums[z].astype(np.uint32) * LEVELS + full // 2) // full
    return levels


def _read_slabs(
    reader: Reader,
    volume: Volume,
    along: NDArray[np.uint16],
    config: InferenceConfig,
    accelerator: Accelerator,
) -> Iterator[tuple[int, Tensor]]:
    """Mean probabilities of all slices of a stack, in runs: the first slice's number, and (count, H, W)."""
    for first, last in _chunks(along.shape, reader.slices_in, accelerator.device):
        block = _grey_block(volume, along, first, last, reader)
        yield first, _predict_slices(reader, block, last - first, (first, along.shape[0] - last), config, accelerator)


def usable_axes(
    volume: Scanned, axes: tuple[int, ...], crop: int, depth: int = 1, voxel_size_um: float | None = None
) -> tuple[int, ...]:
    """The axes whose planes are at least half a crop in both directions, and along which half a box fits.

    voxel_size_um: that of the network that reads the volume.
    """
    shape = shape_at(volume.shape, volume_steps(volume, voxel_size_um))
    usable = fitting_axes(shape, crop, axes, depth)
    if not usable:
        box = f"crops of {crop}" if depth == 1 else f"boxes of {depth} x {crop} x {crop}"
        at = "" if shape == volume.shape else f" at {voxel_size_um:g} µm"
        raise InputError(f"{volume.name} of {shape} voxels{at} is too small to be read with {box}")
    return usable


def _chunks(shape: tuple[int, ...], slices_in: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Runs of slices that are as long as memory allows, because along x each run touches every page of the files.

    A run's grey values, sums and weights are float32 on the device; its sums are held a second time when copied back.
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
    """The slices first..last with the neighbours that their windows need; the stack's end slices are repeated."""
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
