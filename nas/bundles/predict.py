"""From bundles and volumes to masks, a submission or a score, one volume after another."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from nas.bundles.predictor import Predictor, known_threshold, open_predictor, split_paths, threshold_level
from nas.bundles.requests import PredictRequest
from search_spaces.errors import InputError
from trainers.atomic import write_atomically
from trainers.data.masks import check_mask_path, is_whole, mask_slices, unlikely, write_mask
from trainers.data.open_volumes import open_volumes
from trainers.data.place import VolumeSource
from trainers.data.prepare import default_cache
from trainers.data.rle import encode, write_submission
from trainers.data.scratch import scratch_folder
from trainers.data.soft_labels import refuse_as_target
from trainers.data.sources import scan, scan_one
from trainers.data.volume import Volume
from trainers.inference.components import large_components
from trainers.metrics.cross_fit import mask_values, score_slabs
from trainers.metrics.score import Score
from trainers.metrics.slabs import Predictions, check_slabs, cut_into_slabs
from trainers.report import SILENT, Report


class Prediction(BaseModel, frozen=True, extra="forbid"):
    """What `nas predict` did."""

    masks: tuple[Path, ...]
    threshold: float
    kept: tuple[str, ...] = ()  # volumes whose finished masks were kept
    submission: Path | None = None
    submission_rows: int = 0
    score: Score | None = None  # by the protocol of the leaderboard
    mask_values: dict[str, float] = {}  # of the written masks over all volumes, by metric


class MaskNote(BaseModel, frozen=True, extra="forbid"):
    """What a finished mask was made from: an equal note means that predicting again would give the same mask."""

    members: str
    threshold: float
    smallest_component: int | None
    volume: str  # content hash
    grey_scale: tuple[float, float]  # of the volume beside the other volumes of its kidney
    geometry: str  # a hash of where its voxels lie, which its mask states

    @property
    def makers(self) -> tuple[str, float, int | None]:
        """Everything but the volume."""
        return self.members, self.threshold, self.smallest_component


@dataclass
class _Run:
    """What the volumes of one call share."""

    predictor: Predictor
    threshold: float
    device: str
    scratch: Path
    keeps_probabilities: bool  # on the disk, for the score
    keeps_masks: bool  # finished by an earlier call
    whole: set[Path]  # masks of such a call, by the same bundles
    wants_rows: bool
    report: Report
    identity: str  # of the predictor
    volumes: list[Volume] = field(default_factory=list)  # those that are to be scored
    predictions: Predictions = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)

    def note(self, volume: Volume, source: VolumeSource) -> MaskNote:
        return MaskNote(
            members=self.identity,
            threshold=self.threshold,
            smallest_component=self.predictor.reading.inference.smallest_component,
            volume=volume.content_hash,
            grey_scale=(volume.grey_low, volume.grey_high),
            geometry=hashlib.blake2b(repr(source.geometry).encode(), digest_size=16).hexdigest(),
        )


def predict_paths(request: PredictRequest, report: Report = SILENT) -> Prediction:
    """Predict the volumes among the paths with the bundles among them; write masks and whatever else is asked for.

    Volumes are taken in the order of their names. The mask of each is written, and its probabilities are discarded,
    before the next begins. When called again after a stop, finished masks are kept if several volumes go to one folder
    and no score is asked for. Raises InputError if a path holds no volume, or if labels needed for a score are missing.
    """
    out, submission = request.out, request.submission
    bundles, places = split_paths(request.paths)
    predictor = open_predictor(bundles)
    cut, smallest = known_threshold(predictor, request.threshold), predictor.reading.inference.smallest_component
    sources = find_sources(places, report)
    if request.held_out:
        sources = held_out_sources(predictor, sources)
    if request.score:
        _check_score(predictor, sources)
    if len(sources) > 1 and out.exists() and not out.is_dir():
        raise InputError(
            f"{out} is a file, and {len(sources)} volumes need a folder for their masks; name another --out"
        )
    keeps_masks = len(sources) > 1 and not request.score
    masks = _mask_paths([s.name for s in sources], out)
    identity = predictor.identity
    whole = set()
    for source, path in zip(sources, masks, strict=True):
        note = _read_note(path) if keeps_masks else None  # whether its volume is the same is checked once it is open
        alike = note is not None and note.makers == (identity, cut, smallest)
        if alike and is_whole(path, source.image.shape, source.image.numbers):
            whole.add(path)
        else:
            check_mask_path(path)
    for source in sources:
        predictor.check_readable(source)
    if submission is not None and submission.resolve() in {path.resolve() for path in (out, *masks)}:
        raise InputError(f"{submission} is also where a mask goes; give --out and --submission different paths")
    if submission is not None and submission.exists():
        raise InputError(f"{submission} already exists; choose another path or delete it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out.parent) as scratch:
        run = _Run(
            predictor, cut, request.device, scratch, request.score, keeps_masks, whole, submission is not None, report,
            identity,
        )  # fmt: skip
        rows = _predict_each(run, sources, masks)
        count = _write_rows(rows, submission)
        result, alone = _score(run) if request.score else (None, {})
    return Prediction(
        masks=tuple(masks),
        threshold=cut,
        kept=tuple(run.kept),
        submission=submission,
        submission_rows=count,
        score=result,
        mask_values=alone,
    )


def _write_rows(rows: Iterator[tuple[str, str]], submission: Path | None) -> int:
    """Consume all rows, writing the competition's CSV if one is asked for; returns how many there were."""
    count = 0

    def counted() -> Iterator[tuple[str, str]]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    if submission is None:
        for _ in counted():
            pass
    else:
        write_submission(submission, counted())
    return count


def _predict_each(run: _Run, sources: Sequence[VolumeSource], masks: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Write the mask of each volume, and yield the CSV rows of its slices: id and row-major run lengths."""
    volumes = open_volumes(sources, default_cache(), run.report)
    for index, (volume, source, path) in enumerate(zip(volumes, sources, masks, strict=True)):
        report = run.report.part(index, len(sources))
        ids = [f"{volume.name}_{number:04d}" for number in source.image.numbers]
        if _is_finished(run, volume, source, path):
            run.report.note(f"{volume.name}: its mask already exists, by the same bundles and threshold; kept")
            run.kept.append(volume.name)
            codes = (encode(one) for one in mask_slices(path)) if run.wants_rows else iter(())
        else:
            check_mask_path(path)  # before the work, and before the note of an existing mask is replaced
            codes = iter(_predict_one(run, volume, source, path, report))
        report.progress("predicting", 1, 1)
        if run.wants_rows:
            yield from zip(ids, codes, strict=True)


def _predict_one(run: _Run, volume: Volume, source: VolumeSource, path: Path, report: Report) -> list[str]:
    """Predict a volume, write its mask, and discard its probabilities; returns its slices' run lengths if wanted."""
    for doubt in run.predictor.doubts(volume, run.keeps_probabilities):
        run.report.note(doubt)
    place = run.scratch / volume.name
    probabilities = run.predictor.predict(volume, run.device, place, report)
    codes: list[str] = []
    vessel = 0

    def slices() -> Iterator[NDArray[np.bool_]]:
        nonlocal vessel
        level = threshold_level(run.threshold)
        for one in large_components(probabilities, level, run.predictor.reading.inference.smallest_component):
            vessel += int(np.count_nonzero(one))
            if run.wants_rows:
                codes.append(encode(one))  # kept for later: a kidney's run lengths are a few megabytes
            yield one

    _note_path(path).unlink(missing_ok=True)  # of a mask that was there before
    if run.keeps_masks:  # before the mask, so that no mask is ever without its note
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_note_path(path), run.note(volume, source).model_dump_json() + "\n")
    write_mask(path, slices(), source.geometry)
    if (strange := unlikely(vessel, probabilities.size)) is not None:
        run.report.note(f"the mask of {volume.name}, at threshold {run.threshold:g}: {strange}")
    if run.keeps_probabilities:
        file = run.scratch / f"{volume.name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, probabilities, allow_pickle=False)
        run.volumes.append(volume)
        run.predictions[volume.name] = np.load(file, mmap_mode="r", allow_pickle=False)
    shutil.rmtree(place, ignore_errors=True)
    return codes


def _note_path(mask: Path) -> Path:
    return mask.with_name(f".{mask.name}.json")


def _is_finished(run: _Run, volume: Volume, source: VolumeSource, path: Path) -> bool:
    """Whether the mask at a path is what predicting the volume again would give."""
    return path in run.whole and _read_note(path) == run.note(volume, source)


def _read_note(mask: Path) -> MaskNote | None:
    """What a mask was made from; None if that is not known, so that the mask is just a file in the way."""
    try:
        return MaskNote.model_validate_json(_note_path(mask).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _mask_paths(names: Sequence[str], out: Path) -> list[Path]:
    return [out] if len(names) == 1 else [out / name for name in names]


def _score(run: _Run) -> tuple[Score, dict[str, float]]:
    """The score by the protocol of the leaderboard, and the metrics of the masks that were written."""
    config, smallest = run.predictor.reading.score_config, run.predictor.reading.inference.smallest_component
    if not any(volume.vessel_voxels.size for volume in run.volumes):
        run.report.note("no vessel is labelled: the score only says whether some threshold finds none")
    slabs = cut_into_slabs(run.predictions, run.volumes, config.slabs)
    written = mask_values(slabs, config, threshold_level(run.threshold), smallest)
    return score_slabs(slabs, config, smallest), written


def _check_score(predictor: Predictor, sources: Sequence[VolumeSource]) -> None:
    """Raise InputError, before anything is predicted, if there will be no score."""
    if unlabelled := [s.name for s in sources if s.labels == "none"]:
        raise InputError(f"{unlabelled[0]} has no labels, so it cannot be scored; leave out --score")
    for source in sources:
        refuse_as_target(source.name, source.soft)
    predictor.check_scored_alike()
    check_slabs(sources, predictor.reading.score_config.slabs)


def held_out_sources(predictor: Predictor, sources: Sequence[VolumeSource]) -> list[VolumeSource]:
    """The sources that the bundles were scored on, found by name; InputError if one is missing."""
    wanted = predictor.held_out_volumes
    found = [source for source in sources if source.name in wanted]
    if missing := sorted(set(wanted) - {source.name for source in found}):
        raise InputError(f"{missing[0]}, which {predictor.name} was scored on, is not among the volumes")
    return found


def find_sources(paths: Sequence[Path], report: Report) -> list[VolumeSource]:
    """All volumes at the paths (each a volume or a folder of volumes) in the order of their names, as in a search.

    Slabs are numbered across all volumes, so scores depend on this order. InputError if two volumes share a name.
    """
    sources = sorted((s for path in paths for s in _sources(path, report)), key=lambda source: source.name)
    for first, second in pairwise(sources):
        if first.name == second.name:
            raise InputError(f"two of the volumes are named {first.name}; predict them one after the other")
    return sources


def _sources(path: Path, report: Report) -> list[VolumeSource]:
    """The one volume that a path is, or all volumes of a folder of them."""
    try:
        return [scan_one(path, report)]
    except InputError:
        if not path.is_dir():
            raise
    return scan(path, report)
