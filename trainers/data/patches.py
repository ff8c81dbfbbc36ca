"""Patches: slabs of neighbouring slices along any of the three axes, or boxes, cut from memory-mapped volumes.

Sample number i depends only on the sampler's seed and i, so one integer records the progress of a training run, and
several loader processes make the same samples as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.augment import Augmentation, Move, Patch, Rectangle, draw_rectangle
from trainers.data.geometry import spacing_text
from trainers.data.mapped import folded, unfolded
from trainers.data.oblique import Grid, blend_label, cut_grey, cut_label
from trainers.data.resample import WIDEST_STEP, shape_at, volume_steps
from trainers.data.soft_labels import soften
from trainers.data.unsure import to_target
from trainers.data.volume import Volume

NOTHING = Augmentation("none")
# Streams of random numbers for a sample, besides the one for its location.
_CHANGES, _PARTNER = 1, 2


@dataclass(frozen=True)
class PatchLocation:
    """Where a patch lies: `start` is its lowest voxel (z, y, x), which may lie outside if the volume is padded.

    axis: 0, 1 or 2, the axis along which the slices are stacked; the other two span the patch's plane.
    anchor: the voxel that stays at its position in the patch when the patch's grid is moved; None: the patch's middle.
    """

    volume: int
    axis: int
    start: tuple[int, int, int]
    anchor: tuple[int, int, int] | None = None


class PatchSampler:
    """Random patches of labelled volumes, numbered from 0.

    A share `vessel_share` of the patches (0.0 to 1.0) is placed so that a random vessel voxel lies at a random position
    in the middle slice; for these, volumes are drawn in proportion to their known vessel voxels. The others lie
    anywhere, and volumes are drawn in proportion to their voxels times the labelled share of their vessels. Axes are
    drawn evenly from those of `axes` whose planes measure at least half the crop on both edges; smaller planes are
    mirrored to the crop's size. slices_out is 1 (the label of the middle slice, number slices_in // 2) or slices_in.

    boxes: the slices form a third edge like those of the crop, for networks that work in three dimensions. A box lies
    inside its volume if there is room, with the vessel anywhere in it; volumes too small for boxes are skipped.

    spacing_um: edge of a patch's voxels; None: each volume's own. If the two differ, or the grid is moved, voxels are
    interpolated.

    Raises InputError for a volume without a label, without a large enough plane, or without a voxel spacing if one is
    needed, and if patches around vessels are wanted but there are no vessels.
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
        spacing_um: float | None = None,
    ) -> None:
        if slices_out not in (1, slices_in):
            raise InputError(f"slices_out {slices_out} is neither 1 nor slices_in, which is {slices_in}")
        depth = slices_in if boxes else 1
        self.spacing_um = spacing_um
        self.volumes = tuple(v for v in volumes if not boxes or self._fits(v, crop, axes, depth)) or tuple(volumes)
        self.slices_in, self.slices_out, self.crop = slices_in, slices_out, crop
        self.vessel_share, self.seed, self.boxes = vessel_share, seed, boxes
        self.steps = [_cuttable_steps(volume, spacing_um) for volume in self.volumes]
        self.usable_axes = [self._usable_axes(volume, crop, axes, depth) for volume in self.volumes]
        sizes = [volume.image.size * max(volume.annotated, 0.01) for volume in self.volumes]
        vessels = [len(volume.vessel_voxels) for volume in self.volumes]
        if not self.volumes:
            raise InputError("there are no volumes to take patches from")
        if vessel_share > 0 and not sum(vessels):
            names = ", ".join(volume.name for volume in self.volumes)
            raise InputError(f"no vessel is labelled in {names}; label some, or set vessel_share to 0")
        self._by_size = np.cumsum(sizes) / sum(sizes)
        self._by_vessels = np.cumsum(vessels) / max(sum(vessels), 1)

    def location(self, number: int) -> PatchLocation:
        """Where sample `number` lies; the same for every call, in any process and order."""
        return self._draw(np.random.default_rng((self.seed, number)))

    def partner(self, number: int, location: PatchLocation) -> PatchLocation:
        """Where a second patch for sample `number` lies, in the same kidney as the first one, `location`.

        It is drawn like any other patch until one lies in that kidney; after 32 draws the first patch itself is used.
        """
        rng = np.random.default_rng((self.seed, number, _PARTNER))
        for _ in range(32):
            other = self._draw(rng)
            if self.volumes[other.volume].kidney == self.volumes[location.volume].kidney:
                return other
        return location

    def _draw(self, rng: np.random.Generator) -> PatchLocation:
        around_vessel = rng.random() < self.vessel_share
        shares = self._by_vessels if around_vessel else self._by_size
        index = min(int(np.searchsorted(shares, rng.random(), side="right")), len(self.volumes) - 1)
        volume, axes = self.volumes[index], self.usable_axes[index]
        axis = axes[rng.integers(len(axes))]
        vessel = None
        if around_vessel:
            flat = volume.vessel_voxels[rng.integers(len(volume.vessel_voxels))]
            z, y, x = (int(place) for place in np.unravel_index(int(flat), volume.shape))
            vessel = (z, y, x)
        start, sizes = [0, 0, 0], self._sizes(index, axis)
        for along, edge in enumerate(volume.shape):
            if along == axis and not self.boxes:
                middle = int(rng.integers(edge)) if vessel is None else vessel[along]
                start[along] = middle - sizes[along] // 2
            else:
                # If the plane is smaller than the crop, the room is negative and the crop starts outside.
                size = sizes[along]
                room = edge - size
                lowest, highest = min(0, room), max(0, room)
                if vessel is None:
                    start[along] = int(rng.integers(lowest, highest + 1))
                else:
                    wanted = vessel[along] - int(rng.integers(size))
                    start[along] = min(max(wanted, lowest), highest)
        return PatchLocation(index, axis, (start[0], start[1], start[2]), vessel)

    def patch(self, location: PatchLocation, move: Move | None = None, part: Rectangle | None = None) -> Patch:
        """Normalised image (slices_in, crop, crop) float32, and label (slices_out, crop, crop): see Label.

        part: the rows and columns to cut; None: all of them. Slices beyond the volume repeat its last one; planes and
        boxes are mirrored, and so is everything beyond the volume if the grid is moved or has another voxel spacing.
        """
        volume, axis = self.volumes[location.volume], location.axis
        assert volume.label is not None  # checked when the sampler was created
        if move is not None or self.steps[location.volume] != (1.0, 1.0, 1.0):
            return self._interpolated(volume, location, move, part)
        image = volume.normalise(_cut(volume.image, axis, location.start, self.slices_in, self.crop, self.boxes))
        start = list(location.start)
        if self.slices_out == 1:
            start[axis] += self.slices_in // 2
        label = _cut(volume.label, axis, (start[0], start[1], start[2]), self.slices_out, self.crop, self.boxes)
        label = soften(label, volume.soft)
        return (image, label) if part is None else (image[:, *part], label[:, *part])

    def draw_move(self, location: PatchLocation, augmentation: Augmentation, rng: np.random.Generator) -> Move | None:
        """How the patch's grid is moved; its scale varies around `spacing_um`, if that is set."""
        smallest = None if self.spacing_um is None else min(1.0, max(self.steps[location.volume]) / WIDEST_STEP)
        return augmentation.move(rng, self.crop, smallest)

    def _interpolated(
        self, volume: Volume, location: PatchLocation, move: Move | None, part: Rectangle | None
    ) -> Patch:
        assert volume.label is not None
        rows, columns = part or (slice(0, self.crop), slice(0, self.crop))
        grid = self._grid(location, move).part(rows, columns)
        plane = (rows.stop - rows.start, columns.stop - columns.start)
        image = cut_grey(volume.image, grid, (self.slices_in, *plane))
        first = self.slices_in // 2 if self.slices_out == 1 else 0
        cut = cut_label if volume.soft is None else blend_label
        label = cut(volume.label, grid, (self.slices_out, *plane), first)
        return volume.normalise(image), soften(label, volume.soft)

    def _grid(self, location: PatchLocation, move: Move | None) -> Grid:
        """The patch's grid: centred on the voxels from `start` on, then moved about the anchor."""
        order = [location.axis, *(along for along in range(3) if along != location.axis)]
        steps = np.array(self.steps[location.volume])
        sizes = np.array(self._sizes(location.volume, location.axis))
        middle = np.array(location.start) + (sizes - 1) / 2
        centre = (np.array([self.slices_in, self.crop, self.crop]) - 1) / 2
        if not self.boxes:  # the slice for which start was chosen
            middle[location.axis] = location.start[location.axis] + sizes[location.axis] // 2
            centre[0] = self.slices_in // 2
        anchor = middle if location.anchor is None else np.array(location.anchor, float)
        origin = ((anchor - middle) / steps)[order] + centre
        matrix = np.zeros((3, 3))
        matrix[order, range(3)] = 1.0
        if move is not None:  # a rotation of tissue is a shear in voxels that are not cubes
            edges = (steps * self.volumes[location.volume].edges)[order]
            matrix = matrix @ (move.matrix * (edges / edges[:, None]))
            # After turning, the long edge of a voxel may skip short ones: then the patch shows a smaller part.
            matrix /= max(1.0, np.abs(steps[:, None] * matrix).max() / WIDEST_STEP)
        return Grid(
            anchor=(anchor[0], anchor[1], anchor[2]),
            origin=(origin[0], origin[1], origin[2]),
            matrix=steps[:, None] * matrix,
            bend=None if move is None or move.bend is None else _still_at(move.bend, origin[1], origin[2]),
        )

    def _sizes(self, index: int, axis: int) -> tuple[int, int, int]:
        """Edges of a patch in voxels of the volume, along (z, y, x)."""
        z, y, x = (
            max(1, round((self.slices_in if along == axis else self.crop) * step))
            for along, step in enumerate(self.steps[index])
        )
        return z, y, x

    def _shape(self, volume: Volume) -> tuple[int, int, int]:
        return shape_at(volume.shape, volume_steps(volume, self.spacing_um))

    def _fits(self, volume: Volume, crop: int, axes: tuple[int, ...], depth: int) -> bool:
        return bool(fitting_axes(self._shape(volume), crop, axes, depth))

    def _usable_axes(self, volume: Volume, crop: int, axes: tuple[int, ...], depth: int) -> tuple[int, ...]:
        """The axes along which patches can be cut; InputError if there is none."""
        if volume.label is None:
            raise InputError(f"{volume.name} has no labels and cannot be trained on; leave it out, or add labels")
        shape = self._shape(volume)
        usable = fitting_axes(shape, crop, axes, depth)
        if usable:
            return usable
        at = "" if shape == volume.shape else f" at {self.spacing_um:g} µm"
        if depth > 1:
            raise InputError(f"boxes of {depth} x {crop} x {crop} are too large for {volume.name} of shape {shape}{at}")
        largest = 2 * max(min(edge for other, edge in enumerate(shape) if other != axis) for axis in axes)
        raise InputError(
            f"crop {crop} is too large for {volume.name} of shape {shape}{at}; the largest possible is {largest}"
        )

    def sample(
        self, number: int, augmentation: Augmentation = NOTHING, sparse_margin: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Image and target of sample `number`, augmented; equal numbers give equal samples, in any process.

        sparse_margin: see `to_target`.
        """
        rng = np.random.default_rng((self.seed, number, _CHANGES))

        def cut(place: PatchLocation, part: Rectangle | None = None) -> Patch:
            # Marked before mixing, because only one of the two volumes may have incomplete labels.
            image, label = self.patch(place, self.draw_move(place, augmentation, rng), part)
            return image, to_target(label, self.volumes[place.volume], sparse_margin)

        location = self.location(number)
        patch = cut(location)
        if augmentation.wants_partner(rng):
            part = draw_rectangle(rng, self.crop)
            patch[0][:, *part], patch[1][:, *part] = cut(self.partner(number, location), part)
        image, target = augmentation.change(patch, rng)
        return image, target.astype(np.float32, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        """For loader processes: memory maps are sent as file names, never as voxels."""
        return {**self.__dict__, "volumes": tuple(folded(volume) for volume in self.volumes)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "volumes": tuple(unfolded(volume) for volume in state["volumes"])})


def _still_at(bend: NDArray[np.float32], row: float, column: float) -> NDArray[np.float32]:
    """The bend minus its displacement of the anchor, which lies in the patch or beside it."""
    edge = bend.shape[1] - 1
    anchor = (slice(None), min(max(round(row), 0), edge), min(max(round(column), 0), edge))
    return bend - bend[anchor][:, None, None]


def _cuttable_steps(volume: Volume, spacing_um: float | None) -> tuple[float, float, float]:
    """`volume_steps`; InputError if a cut would skip voxels, which does not happen when a whole volume is resampled."""
    steps = volume_steps(volume, spacing_um)
    if max(steps) > WIDEST_STEP:
        raise InputError(
            f"{volume.name} has voxels of {spacing_text(volume.edges)} µm and cannot be trained on at "
            f"{spacing_um:g} µm, more than {WIDEST_STEP:g} times as much: use a coarser grid, or leave it out"
        )
    return steps


def fitting_axes(shape: tuple[int, int, int], crop: int, axes: tuple[int, ...], depth: int = 1) -> tuple[int, ...]:
    """The axes whose planes measure at least half the crop on both edges, so that mirroring once fills the crop.

    depth: number of slices of a box along the axis; the volume must have at least half as many.
    """

    def fits(axis: int) -> bool:
        plane = min(edge for other, edge in enumerate(shape) if other != axis)
        return 2 * plane >= crop and 2 * shape[axis] >= depth

    return tuple(axis for axis in axes if fits(axis))


def _cut(
    voxels: NDArray[Any], axis: int, start: tuple[int, int, int], slices: int, crop: int, mirror: bool
) -> NDArray[Any]:
    """(slices, crop, crop): beyond the volume, planes are mirrored; slices repeat the last one or are mirrored too."""
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
    # Along x every voxel costs a cache line, so the part inside is read once, before anything is repeated.
    block = np.ascontiguousarray(np.moveaxis(np.asarray(voxels[tuple(boxes)]), axis, 0))
    for along, gather in enumerate([gathers.pop(axis), *gathers]):
        if gather is not None:
            block = block.take(gather, along)
    return block
