"""Score: how well masks fit a kidney's labels, at thresholds that were not tuned on what they score."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt

from search_spaces.errors import InputError
from trainers.data.scratch import zeros
from trainers.data.soft_labels import refuse_as_target
from trainers.data.volume import Scanned, Volume
from trainers.inference.components import large_components
from trainers.inference.predict import LEVELS
from trainers.metrics.surface_curve import SurfaceCurve, surface_curve

Predictions = dict[str, NDArray[np.uint8]]  # volume name -> probabilities in steps of 1/255


class ScoreConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How the held-out kidney is cut up to be scored."""

    slabs: int = Field(default=8, ge=2)  # runs of slices of a volume: blocks of cross-fitting and bootstrap
    resamples: PositiveInt = 2_000  # bootstrap draws of the interval
    rung_slices: int | None = Field(default=None, ge=4)  # slices a volume scored before the end of a trial; None: all
    rung_axes: tuple[Literal[0, 1, 2], ...] = Field(
        default=(0,), min_length=1
    )  # axes predicted along before the end of a trial
    second_um: PositiveFloat | None = None  # voxel size of a second score, on the same kidney resampled; None: no such


class Slab(BaseModel, frozen=True, extra="forbid"):
    """One block of the score, at the threshold that the other half of the blocks chose."""

    volume: str
    overlap: float  # area of both surfaces where they meet, in µm²
    total: float  # area of both surfaces, in µm²
    threshold: float | None = None  # that the other half chose; scores of before do not say


class VolumeScore(BaseModel, frozen=True, extra="forbid"):
    """One held-out volume's own part of the score."""

    volume: str
    surface_dice: float
    voxel_dice: float


class SecondScore(BaseModel, frozen=True, extra="forbid"):
    """The same kidney as if it had been scanned with other voxels: image and labels resampled, nothing chosen anew."""

    voxel_size_um: float
    surface_dice: float
    voxel_dice: float


class Score(BaseModel, frozen=True, extra="forbid"):
    """What one set of weights reached on the held-out kidney; every dice is 0.0 to 1.0.

    The thresholds of `surface_dice` and `voxel_dice` were chosen on other slabs than those they are applied to.
    `best_surface_dice` takes the one threshold that suits all slabs best, so it is optimistic.
    """

    surface_dice: float
    ci_low: float  # bounds of the 95 % bootstrap interval over slabs
    ci_high: float
    voxel_dice: float
    threshold: float  # for new kidneys: the best over all slabs
    best_surface_dice: float
    mean_over_thresholds: float
    volumes: tuple[VolumeScore, ...]
    slabs: tuple[Slab, ...]
    second: SecondScore | None = None
    no_second: str | None = None  # why there is none, where one was asked for

    def text(self, in_search: float | None = None) -> str:
        """For people; in_search: the surface dice that the same design had in the search."""
        compared = "" if in_search is None else f"; {in_search:.4f} in the search"
        second = f"; {self.second_text}" if self.second_text else ""
        return (
            f"surface dice {self.surface_dice:.4f} (95 % interval {self.ci_low:.3f} – {self.ci_high:.3f}{compared}), "
            f"voxel dice {self.voxel_dice:.4f}{second}"
        )

    @property
    def second_text(self) -> str:
        """For people: the second score, or why there is none; empty where none was asked for."""
        if self.second is None:
            return f"no second score: {self.no_second}" if self.no_second else ""
        return (
            f"resampled to {self.second.voxel_size_um:g} µm, at the same thresholds: surface dice "
            f"{self.second.surface_dice:.4f}, voxel dice {self.second.voxel_dice:.4f}"
        )


def score(
    predictions: Predictions, volumes: Sequence[Volume], config: ScoreConfig, smallest_component: int | None = None
) -> Score:
    """Score of the predictions of all held-out volumes together; labels must exist.

    Slabs are numbered through all volumes; the even ones choose the threshold of the odd ones and the reverse
    (cross-fitting). Numerators and denominators are summed, so a slab counts by its surface.
    smallest_component: thresholds are chosen as without it; then the masks at them lose smaller components, and those
    masks are scored. `mean_over_thresholds` is that of the masks before.
    Raises InputError where a volume has no labels, and for fewer than two slabs (four slices).
    """
    owners = slab_owners(volumes, config)
    curve = pooled_curve(predictions, volumes, config)

    def cleaned(columns: Iterable[int]) -> SurfaceCurve:
        return without_small(curve, columns, predictions, volumes, config, smallest_component)

    return _summarise(curve, owners, config, cleaned)


def slab_owners(volumes: Sequence[Scanned], config: ScoreConfig) -> list[str]:
    """The volume of each slab, by name. Raises InputError where there are fewer than two slabs."""
    owners = [volume.name for volume in volumes for _ in slab_starts(volume.shape[0], config.slabs)]
    if len(owners) < 2:
        raise InputError(f"{owners[0]} has too few slices to choose a threshold on one half and score the other")
    return owners


def slab_starts(depth: int, slabs: int) -> list[int]:
    """First slices of at most `slabs` runs of about equal length; at least two slices a run where there are two."""
    count = max(1, min(slabs, depth // 2))
    return [round(i * depth / count) for i in range(count)]


def pooled_curve(
    predictions: Predictions, volumes: Sequence[Volume], config: ScoreConfig, slabs: Mapping[str, int] | None = None
) -> SurfaceCurve:
    """What the scores at all thresholds are made of, slab by slab through all volumes; of soft labels InputError.

    slabs: how many each volume has, by name, instead of what the configuration says.
    """
    curves = []
    for volume in volumes:
        if volume.label is None:
            raise InputError(f"{volume.name} has no labels, so it cannot be scored")
        refuse_as_target(volume.name, volume.soft)
        starts = slab_starts(volume.shape[0], config.slabs if slabs is None else slabs[volume.name])
        curves.append(surface_curve(predictions[volume.name], volume.label, starts, volume.spacing_um))
    return SurfaceCurve.pool(curves)


def without_small(
    curve: SurfaceCurve,
    columns: Iterable[int],
    predictions: Predictions,
    volumes: Sequence[Volume],
    config: ScoreConfig,
    smallest_component: int | None,
    slabs: Mapping[str, int] | None = None,
) -> SurfaceCurve:
    """The curve with the masks of some columns freed of small components; what it was for None.

    A mask is as large as its volume; where the probabilities lie in a file, it lies in one beside them meanwhile.
    """
    if smallest_component is None:
        return curve
    arrays = [getattr(curve, field.name).copy() for field in fields(curve)]
    for column in set(columns):
        masks = {v.name: _clean(predictions[v.name], column + 1, smallest_component) for v in volumes}
        clean = pooled_curve(masks, volumes, config, slabs)
        for array, field in zip(arrays, fields(curve), strict=True):
            if array.ndim == 2:  # (slabs, thresholds); the labels' own count does not change
                array[:, column] = getattr(clean, field.name)[:, column]
    return SurfaceCurve(*arrays)


def _clean(probabilities: NDArray[np.uint8], level: int, smallest: int) -> NDArray[np.uint8]:
    """The mask without small components as probabilities of 0 and 1, so that every threshold cuts it alike."""
    file = probabilities.filename if isinstance(probabilities, np.memmap) else None
    beside = Path(file).parent if file is not None else None
    # Named after its probabilities: those of several volumes may lie in one folder.
    name = "mask" if file is None else f"{Path(file).stem}-mask"
    mask = zeros(probabilities.shape, np.uint8, beside, name)
    for z, plane in enumerate(large_components(probabilities, level, smallest)):
        mask[z] = plane * np.uint8(LEVELS)
    return mask


def _summarise(
    curve: SurfaceCurve,
    owners: list[str],
    config: ScoreConfig,
    cleaned: Callable[[Iterable[int]], SurfaceCurve],
) -> Score:
    count = len(owners)
    chosen = np.empty(count, np.int64)  # column of the threshold that is applied to each slab
    even = np.arange(count) % 2 == 0
    chosen[even], chosen[~even] = best_column(curve, ~even), best_column(curve, even)
    column = best_column(curve, np.ones(count, bool))
    applied = cleaned({*chosen.tolist(), column})
    return summarise(applied, chosen, column, float(curve.surface_dice().mean()), owners, config)


def summarise(
    curve: SurfaceCurve, chosen: NDArray[np.int64], column: int, mean: float, owners: list[str], config: ScoreConfig
) -> Score:
    """The score of slabs at the columns of the thresholds that were chosen for each, and for new kidneys `column`.

    mean: the dice over all thresholds. owners: the volume of each slab.
    """
    overlap, total, both, either = dice_parts(curve, chosen)
    low, high = bootstrap_interval(overlap, total, config.resamples)
    names = list(dict.fromkeys(owners))
    owner = np.array(owners)
    return Score(
        surface_dice=float(ratio(overlap.sum(), total.sum())),
        ci_low=low,
        ci_high=high,
        voxel_dice=float(ratio(both.sum(), either.sum())),
        threshold=(column + 1) / LEVELS,
        best_surface_dice=float(curve.surface_dice()[column]),
        mean_over_thresholds=mean,
        volumes=tuple(
            VolumeScore(
                volume=name,
                surface_dice=float(ratio(overlap[owner == name].sum(), total[owner == name].sum())),
                voxel_dice=float(ratio(both[owner == name].sum(), either[owner == name].sum())),
            )
            for name in names
        ),
        slabs=tuple(
            Slab(volume=name, overlap=float(o), total=float(t), threshold=float(c + 1) / LEVELS)
            for name, o, t, c in zip(owners, overlap, total, chosen, strict=True)
        ),
    )


def dice_parts(curve: SurfaceCurve, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """What the dices are made of, with each slab at its own column: of surfaces overlap and total, of voxels both."""
    rows = np.arange(len(chosen))
    both, either = 2 * curve.true_positives[rows, chosen], curve.predicted_voxels[rows, chosen] + curve.target_voxels
    return curve.overlap[rows, chosen], curve.total[rows, chosen], both.astype(np.float64), either.astype(np.float64)


def best_column(curve: SurfaceCurve, slabs: NDArray[np.bool_]) -> int:
    """Column of the threshold with the highest score over the given slabs; the middle one of equals.

    Ties are common where a network is nearly certain; the middle is the least arbitrary of them.
    """
    dice = curve.surface_dice(slabs)
    best = np.flatnonzero(dice == dice.max())
    return int(best[len(best) // 2])


def ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dice of sums; 1.0 where there is nothing to find and nothing was found."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.ones_like(denominator), where=denominator > 0)


def bootstrap_interval(
    overlap: NDArray[np.float64], total: NDArray[np.float64], resamples: int, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of sum(overlap) / sum(total) when slabs are drawn again with replacement.

    It says how far the score depends on which part of this kidney was scored. One kidney cannot tell how much
    kidneys differ.
    """
    draws = np.random.default_rng(seed).integers(0, len(total), (resamples, len(total)))
    dice = ratio(overlap[draws].sum(axis=1), total[draws].sum(axis=1))
    low, high = np.quantile(dice, [0.025, 0.975])
    return float(low), float(high)
