"""Slabs: runs of slices of held-out volumes, which choose thresholds for each other and are counted separately."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.geometry import Spacing
from trainers.data.scratch import zeros
from trainers.data.soft_labels import refuse_as_target
from trainers.data.volume import Scanned, Volume
from trainers.inference.components import large_components
from trainers.metrics import cube_layers
from trainers.metrics.cube_layers import Mask
from trainers.metrics.surface_curve import THRESHOLDS, SurfaceCurve, surface_curve

Predictions = dict[str, NDArray[np.uint8]]  # volume name -> probabilities in steps of 1/255


@dataclass(frozen=True)
class LabelledPrediction:
    """The prediction for one volume, beside its labels.

    probabilities: uint8, (D, H, W), in steps of 1/255. target: bool or uint8 (any value but 0 is vessel), same shape.
    Both may be memory maps. starts: the first slice of each slab, rising from 0.
    """

    name: str
    probabilities: NDArray[np.uint8]
    target: Mask
    spacing_um: Spacing
    starts: Sequence[int]


@dataclass(frozen=True)
class Slabs:
    """The slabs of all held-out volumes, numbered across the volumes in order."""

    volumes: tuple[LabelledPrediction, ...]

    @property
    def owners(self) -> list[str]:
        """The name of each slab's volume."""
        return [volume.name for volume in self.volumes for _ in volume.starts]

    @cached_property
    def curve(self) -> SurfaceCurve:
        """The exact counts of surface and voxels in every slab at all thresholds."""
        return SurfaceCurve.pool(
            [surface_curve(v.probabilities, v.target, v.starts, v.spacing_um) for v in self.volumes]
        )

    def curve_without(self, columns: Iterable[int], smallest_component: int | None) -> SurfaceCurve:
        """The curve, with smaller components removed from the masks at some columns; for None the curve itself."""
        if smallest_component is None:
            return self.curve
        arrays = [getattr(self.curve, field.name).copy() for field in fields(self.curve)]
        for column in set(columns):
            masks = (_without_small(v.probabilities, column + 1, smallest_component) for v in self.volumes)
            clean = Slabs(tuple(replace(v, probabilities=m) for v, m in zip(self.volumes, masks, strict=True))).curve
            for array, field in zip(arrays, fields(clean), strict=True):
                if array.ndim == 2:  # (slabs, thresholds); the labels' own count does not change
                    array[:, column] = getattr(clean, field.name)[:, column]
        return SurfaceCurve(*arrays)

    def cut(self, columns: NDArray[np.int64], smallest_component: int | None = None) -> "CutSlabs":
        """The masks of all slabs, each at the threshold of its own column, without smaller components."""
        return CutSlabs(self, columns, self.curve_without(columns.tolist(), smallest_component), smallest_component)


@dataclass(frozen=True)
class SlabMasks:
    """The masks of one slab.

    predicted, target: bool, (D, H, W), the same shape: the slab's slices, with a margin of neighbouring slices before
    and after them, as wide as requested (narrower at the ends of the volume). `own` are the slab's slices. The
    prediction is cut at the slab's own threshold throughout. Vessels continue beyond the masks: the voxels there are
    unknown, not background, so a cut is not a surface. A metric that depends on a voxel's neighbours requests a margin
    and only counts what belongs to the slab's own slices.
    """

    number: int  # the slab's number across all volumes
    predicted: NDArray[np.bool_]
    target: NDArray[np.bool_]
    own: slice
    spacing_um: Spacing


@dataclass(frozen=True)
class CutSlabs:
    """The masks of all slabs, each cut at its own threshold and without small components: the input of a metric.

    columns: int64, (slabs,), the threshold of each slab as a column of the curve. curve: the counts of surface and
    voxels, exact at these columns.
    """

    slabs: Slabs
    columns: NDArray[np.int64]
    curve: SurfaceCurve
    smallest_component: int | None = None

    def at(self, counts: NDArray[Any]) -> NDArray[Any]:
        """Selects from counts at all thresholds, (slabs, 255), those at the threshold of each slab, (slabs,)."""
        return counts[np.arange(len(self.columns)), self.columns]

    def at_one_threshold(self, column: int) -> "CutSlabs":
        """The same slabs, all cut at the threshold of one column."""
        return replace(self, columns=np.full_like(self.columns, column))

    def masks(self, margin: int = 0) -> Iterator[SlabMasks]:
        """The masks of every slab with a margin of `margin` slices, each made on demand.

        Slabs are ordered by volume and threshold. One slab is in memory at a time, with two bytes per voxel. Components
        are those of the whole volume.
        """
        first = 0  # number of the volume's first slab
        for volume in self.slabs.volumes:
            columns = self.columns[first : first + len(volume.starts)]
            for column in np.unique(columns):
                cut_at = column + 1
                probabilities = volume.probabilities
                if self.smallest_component is not None:
                    probabilities = _without_small(probabilities, cut_at, self.smallest_component)
                for index in np.flatnonzero(columns == column).tolist():
                    yield _masks_of(replace(volume, probabilities=probabilities), index, cut_at, margin, first)
            first += len(volume.starts)


def cut_whole(predicted: Mask, target: Mask, spacing_um: Spacing = (1.0, 1.0, 1.0)) -> CutSlabs:
    """Two masks as one slab, bool or uint8 (any value but 0 is vessel), (D, H, W).

    Raises InputError for unequal shapes, and for types and spacings that cannot be used.
    """
    cube_layers.check_same_shape(predicted, target)
    cube_layers.check_spacing(spacing_um)
    voxels = cube_layers.as_voxels(predicted, "predicted"), cube_layers.as_voxels(target, "target")
    return Slabs((LabelledPrediction("", *voxels, spacing_um, (0,)),)).cut(np.zeros(1, np.int64))


def cut_into_slabs(predictions: Predictions, volumes: Sequence[Volume], slabs: int | Mapping[str, int]) -> Slabs:
    """The slabs of labelled volumes. slabs: the maximum per volume, or the number for each volume by name.

    Raises InputError if a volume has no labels, or soft ones.
    """
    labelled = []
    for volume in volumes:
        if volume.label is None:
            raise InputError(f"{volume.name} has no labels, so it cannot be scored")
        refuse_as_target(volume.name, volume.soft)
        starts = slab_starts(volume.shape[0], slabs if isinstance(slabs, int) else slabs[volume.name])
        prediction = predictions[volume.name]
        labelled.append(LabelledPrediction(volume.name, prediction, volume.label, volume.edges, starts))
    return Slabs(tuple(labelled))


def check_slabs(volumes: Sequence[Scanned], slabs: int) -> None:
    """Raise InputError if volumes give fewer than two slabs, because one half must choose for the other."""
    if sum(len(slab_starts(volume.shape[0], slabs)) for volume in volumes) < 2:
        raise InputError(f"{volumes[0].name} has too few slices to choose a threshold on one half and score the other")


def slab_starts(depth: int, slabs: int) -> list[int]:
    """First slices of at most `slabs` runs of about equal length; at least two slices per run if possible."""
    count = max(1, min(slabs, depth // 2))
    return [round(i * depth / count) for i in range(count)]


def _masks_of(volume: LabelledPrediction, index: int, cut_at: int, margin: int, first: int) -> SlabMasks:
    begin, end = list(pairwise([*volume.starts, len(volume.target)]))[index]
    low, high = max(0, begin - margin), min(len(volume.target), end + margin)
    return SlabMasks(
        number=first + index,
        predicted=np.asarray(volume.probabilities[low:high]) >= cut_at,
        target=np.asarray(volume.target[low:high]) != 0,
        own=slice(begin - low, end - low),
        spacing_um=volume.spacing_um,
    )


def _without_small(probabilities: NDArray[np.uint8], level: int, smallest: int) -> NDArray[np.uint8]:
    """The mask without small components, as probabilities of 0 and 1, so that all thresholds give the same mask.

    It is as large as its volume; if the probabilities lie in a file, it is kept in a temporary file beside them.
    """
    file = probabilities.filename if isinstance(probabilities, np.memmap) else None
    beside = Path(file).parent if file is not None else None
    # Named after its probabilities: those of several volumes may lie in one folder.
    name = "mask" if file is None else f"{Path(file).stem}-mask"
    mask = zeros(probabilities.shape, np.uint8, beside, name)
    for z, plane in enumerate(large_components(probabilities, level, smallest)):
        mask[z] = plane * np.uint8(THRESHOLDS[-1])
    return mask
