"""Score: how well a network segments kidneys it was not trained on, without a threshold tuned on what it scores."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt

from search_spaces.errors import InputError
from trainers.data.resample import resample_volume
from trainers.data.soft_labels import refuse_as_target
from trainers.data.volume import Volume
from trainers.inference import LEVELS, predict
from trainers.metrics.surface_curve import SurfaceCurve, surface_curve
from trainers.reader import InferenceConfig, Reader

Predictions = dict[str, NDArray[np.uint8]]  # volume name -> probabilities in steps of 1/255


class ScoreConfig(BaseModel, frozen=True, extra="forbid"):
    """How the held-out kidney is cut up to be scored."""

    slabs: int = Field(default=8, ge=2)  # runs of slices of a volume: blocks of cross-fitting and bootstrap
    resamples: PositiveInt = 2_000  # bootstrap draws of the interval
    rung_slices: PositiveInt | None = None  # slices a volume scored before the end of a trial; None: all
    rung_axes: tuple[Literal[0, 1, 2], ...] = (0,)  # axes predicted along before the end of a trial
    second_um: PositiveFloat | None = None  # voxel size of a second score, on the same kidney resampled; None: no such


class Slab(BaseModel, frozen=True, extra="forbid"):
    """One block of the score, at the threshold that the other half of the blocks chose."""

    volume: str
    overlap: float  # area of both surfaces where they meet, in µm²
    total: float  # area of both surfaces, in µm²
    threshold: float  # that the other half chose


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
    second: SecondScore | None = None  # None: not asked for, or the kidney has those voxels already or unknown ones


def predict_all(
    reader: Reader,
    volumes: Sequence[Volume],
    config: InferenceConfig,
    accelerator: Accelerator,
    *,
    scratch: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Probabilities of every volume; see `predict`."""
    predictions = {}
    for index, volume in enumerate(volumes):

        def report(done: int, total: int, index: int = index) -> None:
            if on_progress:
                on_progress(index * 1000 + done * 1000 // total, len(volumes) * 1000)

        place = scratch / volume.name if scratch else None
        predictions[volume.name] = predict(reader, volume, config, accelerator, scratch=place, on_progress=report)
    return predictions


def score(predictions: Predictions, volumes: Sequence[Volume], config: ScoreConfig) -> Score:
    """Score of the predictions of all held-out volumes together; labels must exist.

    Slabs are numbered through all volumes; the even ones choose the threshold of the odd ones and the reverse
    (cross-fitting). Numerators and denominators are summed, so a slab counts by its surface.
    Raises InputError where a volume has no labels, and for fewer than two slabs (four slices).
    """
    owners = [volume.name for volume in volumes for _ in slab_starts(volume.shape[0], config.slabs)]
    if len(owners) < 2:
        raise InputError(f"{owners[0]} has too few slices to choose a threshold on one half and score the other")
    return _summarise(pooled_curve(predictions, volumes, config), owners, config)


def evaluate(
    reader: Reader,
    volumes: Sequence[Volume],
    inference: InferenceConfig,
    config: ScoreConfig,
    accelerator: Accelerator,
    *,
    scratch: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Predictions, Score]:
    """Predict and score all held-out volumes, at their own voxel spacing and at the second one.

    Raises InputError where `score` and `predict` do.
    """
    second_um = config.second_um if all(volume.spacing_known for volume in volumes) else None
    again = [resample_volume(v, second_um, scratch / f"{v.name}-second" if scratch else None) for v in volumes]
    twice = any(seen is not volume for seen, volume in zip(again, volumes, strict=True))
    share = 0.5 if twice else 1.0

    def report(begin: float, part: float) -> Callable[[int, int], None]:
        return lambda done, of: on_progress(round(1000 * (begin + part * done / of)), 1000) if on_progress else None

    predictions = predict_all(reader, volumes, inference, accelerator, scratch=scratch, on_progress=report(0.0, share))
    result = score(predictions, volumes, config)
    if not twice:
        return predictions, result
    place = scratch / "second" if scratch else None
    seconds = predict_all(reader, again, inference, accelerator, scratch=place, on_progress=report(share, 1 - share))
    return predictions, result.model_copy(update={"second": second_score(seconds, again, result, config)})


def second_score(
    predictions: Predictions, volumes: Sequence[Volume], first: Score, config: ScoreConfig
) -> SecondScore | None:
    """The score of resampled volumes at the thresholds of the first score: each slab at that of its part of the kidney.

    None where a volume has fewer slabs than at its own spacing.
    """
    assert config.second_um is not None
    thresholds = [slab.threshold for slab in first.slabs]
    curve = pooled_curve(predictions, volumes, config)
    if curve.overlap.shape[0] != len(thresholds):
        return None
    rows, chosen = np.arange(len(thresholds)), np.rint(np.array(thresholds) * LEVELS).astype(int) - 1
    both = 2 * curve.true_positives[rows, chosen]
    either = curve.predicted_voxels[rows, chosen] + curve.target_voxels
    return SecondScore(
        voxel_size_um=config.second_um,
        surface_dice=float(_ratio(curve.overlap[rows, chosen].sum(), curve.total[rows, chosen].sum())),
        voxel_dice=float(_ratio(both.sum(), either.sum())),
    )


def pooled_curve(predictions: Predictions, volumes: Sequence[Volume], config: ScoreConfig) -> SurfaceCurve:
    """What the scores at all thresholds are made of, slab by slab through all volumes; of soft labels InputError."""
    curves = []
    for volume in volumes:
        if volume.label is None:
            raise InputError(f"{volume.name} has no labels, so it cannot be scored")
        refuse_as_target(volume.name, volume.soft)
        starts = slab_starts(volume.shape[0], config.slabs)
        curves.append(surface_curve(predictions[volume.name], volume.label, starts, volume.spacing_um))
    return SurfaceCurve.pool(curves)


def slab_starts(depth: int, slabs: int) -> list[int]:
    """First slices of at most `slabs` runs of about equal length; at least two slices a run where there are two."""
    count = max(1, min(slabs, depth // 2))
    return [round(i * depth / count) for i in range(count)]


def _summarise(curve: SurfaceCurve, owners: list[str], config: ScoreConfig) -> Score:
    count = len(owners)
    chosen = np.empty(count, np.int64)  # column of the threshold that is applied to each slab
    even = np.arange(count) % 2 == 0
    chosen[even], chosen[~even] = _best(curve, ~even), _best(curve, even)
    rows = np.arange(count)
    overlap, total = curve.overlap[rows, chosen], curve.total[rows, chosen]
    both, either = 2 * curve.true_positives[rows, chosen], curve.predicted_voxels[rows, chosen] + curve.target_voxels
    low, high = bootstrap_interval(overlap, total, config.resamples)
    everything = np.ones(count, bool)
    dice_at = curve.surface_dice()
    column = _best(curve, everything)
    names = list(dict.fromkeys(owners))
    owner = np.array(owners)
    return Score(
        surface_dice=float(_ratio(overlap.sum(), total.sum())),
        ci_low=low,
        ci_high=high,
        voxel_dice=float(_ratio(both.sum(), either.sum())),
        threshold=(column + 1) / LEVELS,
        best_surface_dice=float(dice_at[column]),
        mean_over_thresholds=float(dice_at.mean()),
        volumes=tuple(
            VolumeScore(
                volume=name,
                surface_dice=float(_ratio(overlap[owner == name].sum(), total[owner == name].sum())),
                voxel_dice=float(_ratio(both[owner == name].sum(), either[owner == name].sum())),
            )
            for name in names
        ),
        slabs=tuple(
            Slab(volume=name, overlap=float(o), total=float(t), threshold=float(c + 1) / LEVELS)
            for name, o, t, c in zip(owners, overlap, total, chosen, strict=True)
        ),
    )


def _best(curve: SurfaceCurve, slabs: NDArray[np.bool_]) -> int:
    """Column of the threshold with the highest score over the given slabs; the middle one of equals.

    Ties are common where a network is nearly certain; the middle is the least arbitrary of them.
    """
    dice = curve.surface_dice(slabs)
    best = np.flatnonzero(dice == dice.max())
    return int(best[len(best) // 2])


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
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
    dice = _ratio(overlap[draws].sum(axis=1), total[draws].sum(axis=1))
    low, high = np.quantile(dice, [0.025, 0.975])
    return float(low), float(high)
