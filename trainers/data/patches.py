"""Patches: slabs of neighbouring slices along any of the three axes, or boxes, cut from memory-mapped volumes.

Sample number i is a function of the sampler's seed and i alone, so that one integer says where a training run stands
and several loader processes make the same samples as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.soft_labels import Label, soften
from trainers.data.volume import Volume


@dataclass(frozen=True)
class PatchLocation:
    """Where a patch lies: `start` is its lowest voxel (z, y, x), which may lie outside where the volume is padded.

    axis: 0, 1 or 2, the axis that the slices are stacked along; the patch's plane is spanned by the two others.
    """

    volume: int
    axis: int
    start: tuple[int, int, int]


class PatchSampler:
    """Random patches of labelled volumes, numbered from 0.

    A share `vessel_share` of the patches (0.0 to 1.0) holds a random vessel voxel of its middle slice at a random
    place; these are drawn from the volumes by their number of known vessel voxels. The others lie anywhere, drawn by
    the volumes' voxels times the share of their vessels that is labelled. Axes are drawn evenly among those of `axes`
    whose planes are large enough: at least half the crop on both edges; they are then mirrored to the crop's size.
    slices_out is 1 (the label of the middle slice, number slices_in // 2) or slices_in.

    boxes: the slices are a third edge like the crop's, for networks that work in three dimensions. A box lies inside
    its volume where there is room, and the vessel anywhere in it; volumes too small for boxes are passed over.

    Raises InputError for a volume without a label, or with no plane that large, and where vessels are wanted and there
    are none.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        slices_in: int,
        slices_out: int,
        crop: int,
        vessel_share: float,
        seed: int,
        axes: tuple[int, ...] = (0, 1, 2),
        boxes: bool = False,
    ) -> None:
        if slices_out not in (1, slices_in):
            raise InputError(f"slices_out {slices_out} is neither 1 nor slices_in, which is {slices_in}")
        depth = slices_in if boxes else 1
        self.volumes = tuple(v for v in volumes if not boxes or _fits(v, crop, axes, depth)) or tuple(volumes)
        self.slices_in, self.slices_out, self.crop = slices_in, slices_out, crop
        self.vessel_share, self.seed, self.boxes = vessel_share, seed, boxes
        self.usable_axes = [_usable_axes(volume, crop, axes, depth) for volume in self.volumes]
        sizes = [volume.image.size * max(volume.annotated, 0.01) for volume in self.volumes]
        vessels = [len(volume.vessel_voxels) for volume in self.volumes]
        if not self.volumes:
            raise InputError("no volumes to take patches from")
        if vessel_share > 0 and not sum(vessels):
            names = ", ".join(volume.name for volume in self.volumes)
            raise InputError(f"no vessel is labelled in {names}; label some, or set vessel_share to 0")
        self._by_size = np.cumsum(sizes) / sum(sizes)
        self._by_vessels = np.cumsum(vessels) / max(sum(vessels), 1)

    def location(self, number: int) -> PatchLocation:
        """Where sample `number` lies; the same for every call, process and order."""
        rng = np.random.default_rng((self.seed, number))
        around_vessel = rng.random() < self.vessel_share
        shares = self._by_vessels if around_vessel else self._by_size
        index = min(int(np.searchsorted(shares, rng.random(), side="right")), len(self.volumes) - 1)
        volume, axes = self.volumes[index], self.usable_axes[index]
        axis = axes[rng.integers(len(axes))]
        vessel = None
        if around_vessel:
            flat = volume.vessel_voxels[rng.integers(len(volume.vessel_voxels))]
            vessel = [int(place) for place in np.unravel_index(int(flat), volume.shape)]
        start = [0, 0, 0]
        for along, edge in enumerate(volume.shape):
            if along == axis and not self.boxes:
                middle = int(rng.integers(edge)) if vessel is None else vessel[along]
                start[along] = middle - self.slices_in // 2
            else:
                # Where the plane is smaller than the crop, the room is negative and the crop starts outside.
                size = self.slices_in if along == axis else self.crop
                room = edge - size
                lowest, highest = min(0, room), max(0, room)
                if vessel is None:
                    start[along] = int(rng.integers(lowest, highest + 1))
                else:
                    wanted = vessel[along] - int(rng.integers(size))
                    start[along] = min(max(wanted, lowest), highest)
        return PatchLocation(index, axis, (start[0], start[1], start[2]))

    def patch(self, location: PatchLocation) -> tuple[NDArray[np.float32], Label]:
        """Image (slices_in, crop, crop) float32, normalised, and label (slices_out, crop, crop): see Label.

        Only these voxels are read. Slices beyond the volume repeat its last one; planes and boxes are mirrored.
        """
        volume, axis = self.volumes[location.volume], location.axis
        assert volume.label is not None  # checked when the sampler was made
        image = volume.normalise(_cut(volume.image, axis, location.start, self.slices_in, self.crop, self.boxes))
        start = list(location.start)
        if self.slices_out == 1:
            start[axis] += self.slices_in // 2
        label = _cut(volume.label, axis, (start[0], start[1], start[2]), self.slices_out, self.crop, self.boxes)
        return image, soften(label, volume.soft)

    def sample(self, number: int) -> tuple[NDArray[np.float32], Label]:
        """Image and label of sample `number`."""
        return self.patch(self.location(number))

    def __getstate__(self) -> dict[str, Any]:
        """For loader processes: memory maps travel as file names, never as their voxels."""
        return {**self.__dict__, "volumes": tuple(_folded(volume) for volume in self.volumes)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "volumes": tuple(_unfolded(volume) for volume in state["volumes"])})


@dataclass(frozen=True)
class _Mapped:
    """Stands for a memory-mapped array on its way to another process."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


_ARRAYS = ("image", "label", "vessel_voxels")


def _folded(volume: Volume) -> Volume:
    return replace(volume, **{name: _fold(getattr(volume, name)) for name in _ARRAYS})


def _unfolded(volume: Volume) -> Volume:
    return replace(volume, **{name: _unfold(getattr(volume, name)) for name in _ARRAYS})


def _fold(array: Any) -> Any:
    base: Any = getattr(array, "base", None)
    # A view of a map keeps the file's name but not its own place in it, so only whole maps can be opened again.
    if isinstance(array, np.memmap) and isinstance(base, mmap) and array.flags.c_contiguous:
        return _Mapped(Path(str(array.filename)), array.dtype.str, array.shape, array.offset)
    return array


def _unfold(array: Any) -> Any:
    if isinstance(array, _Mapped):
        return np.memmap(array.path, array.dtype, "r", array.offset, array.shape)
    return array


def fitting_axes(shape: tuple[int, int, int], crop: int, axes: tuple[int, ...], depth: int = 1) -> tuple[int, ...]:
    """The axes across which planes are at least half the crop on both edges, so that mirroring once fills it.

    depth: slices that a box has along the axis; there has to be at least half of them too.
    """

    def fits(axis: int) -> bool:
        plane = min(edge for other, edge in enumerate(shape) if other != axis)
        return 2 * plane >= crop and 2 * shape[axis] >= depth

    return tuple(axis for axis in axes if fits(axis))


def _fits(volume: Volume, crop: int, axes: tuple[int, ...], depth: int) -> bool:
    return bool(fitting_axes(volume.shape, crop, axes, depth))


def _usable_axes(volume: Volume, crop: int, axes: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """The axes along which patches can be cut; InputError where there is none."""
    if volume.label is None:
        raise InputError(f"{volume.name} has no labels and cannot be trained on; leave it out, or add its labels")
    usable = fitting_axes(volume.shape, crop, axes, depth)
    if usable:
        return usable
    if depth > 1:
        raise InputError(f"boxes of {depth} x {crop} x {crop} are too large for {volume.name} of shape {volume.shape}")
    largest = 2 * max(min(edge for other, edge in enumerate(volume.shape) if other != axis) for axis in axes)
    raise InputError(
        f"crop {crop} is too large for {volume.name} of shape {volume.shape}; the largest possible is {largest}"
    )


def _cut(
    voxels: NDArray[Any], axis: int, start: tuple[int, int, int], slices: int, crop: int, mirror: bool
) -> NDArray[Any]:
    """(slices, crop, crop): beyond the volume planes are mirrored; slices repeat its last, or are mirrored too."""
    boxes: list[slice] = []
    gathers: list[NDArray[np.int64] | None] = []
    for along, (first, edge) in enumerate(zip(start, voxels.shape, strict=True)):
        size = slices if along == axis else crop
        if first >= 0 and first + size <= edge:
            boxes.append(slice(first, first + size))
            gathers.append(None)
            continue
        wanted = np.arange(first, first + size)
        mirrored = np.minimum(wanted % (2 * edge), 2 * edge - 1 - wanted % (2 * edge))
        places = mirrored if mirror or along != axis else np.clip(wanted, 0, edge - 1)
        boxes.append(slice(int(places.min()), int(places.max()) + 1))
        gathers.append(places - places.min())
    # Along x every voxel costs a cache line, so what lies inside is read once, before anything is repeated.
    block = np.ascontiguousarray(np.moveaxis(np.asarray(voxels[tuple(boxes)]), axis, 0))
    for along, gather in enumerate([gathers.pop(axis), *gathers]):
        if gather is not None:
            block = block.take(gather, along)
    return block
