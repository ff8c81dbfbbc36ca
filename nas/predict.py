"""Bundle and volumes to masks, a submission, or the score again."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from results.export import Bundle, read_bundle
from search_spaces.errors import InputError
from trainers.data.contrast import share_contrast
from trainers.data.masks import check_mask_path, read_mask, write_mask
from trainers.data.prepare import default_cache, prepare
from trainers.data.rle import encode, write_submission
from trainers.data.soft_labels import refuse_as_target
from trainers.data.sources import VolumeSource, scan, scan_one
from trainers.data.volume import Spacing, Volume
from trainers.evaluate import Predictions, Score, pooled_curve, predict_all, score
from trainers.fit import make_accelerator
from trainers.inference import LEVELS
from trainers.metrics.surface_dice import surface_dice
from trainers.metrics.voxel_dice import voxel_dice

FAR_SPACING = 0.2  # share by which a volume's voxel spacing may differ from the training's without a word


def predict_volumes(
    bundle: Bundle,
    volumes: Sequence[Volume],
    *,
    device: str = "auto",
    scratch: Path | None = None,
    on_note: Callable[[str], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Probabilities of every volume in steps of 1/255; a note where a voxel spacing is unlike the training's."""
    accelerator = make_accelerator(bundle.architecture.fit.precision, device)
    bundle.network.to(accelerator.device)
    trained = np.array(bundle.architecture.voxel_spacing_um)
    for volume in volumes:
        ratio = np.array(volume.spacing_um) / trained
        if on_note and (np.abs(ratio - 1) > FAR_SPACING).any(axis=1).all():
            on_note(
                f"{volume.name} has a voxel spacing of {spacing_text(volume.spacing_um)} µm, but the network was "
                f"trained at {', '.join(sorted({spacing_text(tuple(s)) for s in trained}))} µm: expect errors in width"
            )
    return predict_all(
        bundle.reader, volumes, bundle.architecture.inference, accelerator, scratch=scratch, on_progress=on_progress
    )


def spacing_text(spacing: tuple[float, ...]) -> str:
    """A voxel spacing, as one number where all three are equal."""
    return f"{spacing[0]:g}" if len(set(spacing)) == 1 else " x ".join(f"{s:g}" for s in spacing)


def mask_slices(probabilities: NDArray[np.uint8], threshold: float) -> Iterator[NDArray[np.bool_]]:
    """The mask, slice by slice: (H, W) each."""
    level = threshold_level(threshold)
    for plane in probabilities:
        yield plane >= level


def threshold_level(threshold: float) -> int:
    """A threshold in steps of 1/255, as scoring has them; never 0, which would make every voxel vessel."""
    return max(1, round(threshold * LEVELS))


def write_masks(
    predictions: Predictions, volumes: Sequence[Volume], sources: Sequence[VolumeSource], threshold: float, out: Path
) -> list[Path]:
    """One mask a volume: at `out` itself for one volume, below it for several; slices numbered as the source's are."""
    paths = _mask_paths([volume.name for volume in volumes], out)
    for path, volume, source in zip(paths, volumes, sources, strict=True):
        slices = mask_slices(predictions[volume.name], threshold)
        write_mask(path, slices, volume.spacing_um, first=source.image.numbers[0])
    return paths


def _mask_paths(names: Sequence[str], out: Path) -> list[Path]:
    return [out] if len(names) == 1 else [out / name for name in names]


def write_submission_csv(
    predictions: Predictions, volumes: Sequence[Volume], names: Sequence[Sequence[str]], threshold: float, out: Path
) -> int:
    """The competition's CSV: one row a slice, id and row-major run lengths; the number of rows.

    names: the slice names of each volume, as in "0000".
    """

    def rows() -> Iterator[tuple[str, str]]:
        for volume, slices in zip(volumes, names, strict=True):
            masks = mask_slices(predictions[volume.name], threshold)
            for name, mask in zip(slices, masks, strict=True):
                yield f"{volume.name}_{name}", encode(mask)

    write_submission(out, rows())
    return sum(len(slices) for slices in names)


def score_again(bundle: Bundle, predictions: Predictions, volumes: Sequence[Volume]) -> Score:
    """The score by the same protocol as on the leaderboard. Raises InputError where labels are missing."""
    if not volumes:
        raise InputError("there is nothing to score")
    return score(predictions, volumes, bundle.architecture.score_config)


class Prediction(BaseModel, frozen=True, extra="forbid"):
    """What `nas predict` did."""

    masks: tuple[Path, ...]
    threshold: float
    submission: Path | None = None
    submission_rows: int = 0
    score: Score | None = None  # by the protocol of the leaderboard
    mask_surface_dice: float | None = None  # of the written masks, all volumes together


def predict_paths(
    bundle_path: Path,
    paths: Sequence[Path],
    *,
    out: Path,
    threshold: float | None,
    submission: Path | None,
    wants_score: bool,
    only_held_out: bool,
    device: str,
    on_progress: Callable[[int, int], None],
    on_note: Callable[[str], None],
) -> Prediction:
    """Predict what lies at `paths`, write masks below `out` and whatever else is asked for.

    Raises InputError where a path holds no volume, or labels are missing for a score.
    """
    bundle = read_bundle(bundle_path)
    # In order of their names, as a search has them: slabs are numbered through all volumes.
    sources = sorted((s for path in paths for s in _sources(path, on_note)), key=lambda source: source.name)
    if only_held_out:
        sources = _held_out(bundle, sources)
    for first, second in pairwise(sources):
        if first.name == second.name:
            raise InputError(f"two of the volumes are named {first.name}; predict them one after the other")
    if wants_score and (unlabelled := [s.name for s in sources if s.labels == "none"]):
        raise InputError(f"{unlabelled[0]} has no labels, so it cannot be scored; leave out --score")
    for source in sources if wants_score else ():
        refuse_as_target(source.name, source.soft)
    for path in _mask_paths([s.name for s in sources], out):
        check_mask_path(path)
    if submission is not None and submission.exists():
        raise InputError(f"{submission}: is there already; choose another path or delete it")
    cut = bundle.architecture.threshold if threshold is None else threshold
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".scratch-", dir=out.parent) as scratch:
        volumes = with_known_greys(
            bundle, share_contrast([prepare(source, default_cache(), on_note=on_note) for source in sources])
        )
        seen = [v.name for v in volumes if v.content_hash in bundle.architecture.provenance.known_volumes.values()]
        if wants_score and seen:
            on_note(f"the network was trained on {', '.join(seen)}: the score says nothing about new kidneys")
        predictions = predict_volumes(
            bundle, volumes, device=device, scratch=Path(scratch), on_note=on_note, on_progress=on_progress
        )
        masks = write_masks(predictions, volumes, sources, cut, out)
        rows = 0
        if submission is not None:
            names = [[f"{number:04d}" for number in source.image.numbers] for source in sources]
            rows = write_submission_csv(predictions, volumes, names, cut, submission)
        result, alone = None, None
        if wants_score:
            result = score_again(bundle, predictions, volumes)
            alone = _dice_at(bundle, predictions, volumes, cut)
    return Prediction(
        masks=tuple(masks),
        threshold=cut,
        submission=submission,
        submission_rows=rows,
        score=result,
        mask_surface_dice=alone,
    )


def _dice_at(bundle: Bundle, predictions: Predictions, volumes: Sequence[Volume], threshold: float) -> float:
    curve = pooled_curve(predictions, volumes, bundle.architecture.score_config)
    return curve.surface_dice_at(threshold_level(threshold))


def _held_out(bundle: Bundle, sources: Sequence[VolumeSource]) -> list[VolumeSource]:
    """Those of the sources that the bundle was scored on, by name; InputError if one is missing."""
    wanted = bundle.architecture.provenance.held_out_volumes
    if not wanted:
        raise InputError(f"{bundle.path} was trained on every kidney: it has no held-out volumes")
    found = [source for source in sources if source.name in wanted]
    if missing := sorted(set(wanted) - {source.name for source in found}):
        raise InputError(f"{missing[0]}, which {bundle.path} was scored on, is not among the volumes")
    return found


def with_known_greys(bundle: Bundle, volumes: Sequence[Volume]) -> tuple[Volume, ...]:
    """Volumes that the exporting run had get the grey scale that they had there, whatever lies beside them now."""
    scales = bundle.architecture.grey_scales
    return tuple(
        replace(v, grey_low=scales[v.content_hash][0], grey_high=scales[v.content_hash][1])
        if v.content_hash in scales
        else v
        for v in volumes
    )


def _sources(path: Path, on_note: Callable[[str], None]) -> list[VolumeSource]:
    """The one volume that a path is, or all volumes of a folder of them."""
    try:
        return [scan_one(path, on_note)]
    except InputError:
        if not path.is_dir():
            raise
    return scan(path, on_note)


def score_masks(predicted: Path, target: Path, spacing: str, tolerance_um: float) -> dict[str, float]:
    """Surface dice at a tolerance and voxel dice between two masks on disk."""
    try:
        numbers = [float(part) for part in spacing.split(",")]
        spacing_um: Spacing = (numbers[0],) * 3 if len(numbers) == 1 else (numbers[0], numbers[1], numbers[2])
        if len(numbers) not in (1, 3) or min(numbers) <= 0:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise InputError(f"--spacing-um takes one positive number or three as in 50,50,50; got {spacing!r}") from error
    first, second = read_mask(predicted), read_mask(target)
    if first.shape != second.shape:
        raise InputError(f"{predicted} has {first.shape} voxels and {target} has {second.shape}; they must be equal")
    return {
        "surface_dice": surface_dice(first, second, spacing_um, tolerance_um),
        "voxel_dice": voxel_dice(first, second),
        "tolerance_um": tolerance_um,
    }
