"""Whole-volume prediction along every axis, in overlapping tiles or boxes and bounded memory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.patches import fitting_axes
from trainers.data.resample import resample_volume, resampled, shape_at, volume_steps
from trainers.data.scratch import zeros
from trainers.data.volume import Scanned, Volume
from trainers.inference.boxes import read_boxes
from trainers.inference.reader import InferenceConfig, Reader
from trainers.inference.tiles import read_tiles
from trainers.report import SILENT, Report

LEVELS = 255  # probabilities are kept in steps of 1/255: a threshold is one of these steps


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
    steps = [own / other for own, other in zip(volume.edges, seen.edges, strict=True)]
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
        read = read_boxes if reader.boxes else read_tiles
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
