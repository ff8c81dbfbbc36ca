"""Checks every volume in a folder: its properties, what is wrong with it, and a picture of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search_spaces.errors import InputError
from trainers.data.geometry import Spacing
from trainers.data.pictures import draw_volume
from trainers.data.place import Place, VolumeSource
from trainers.data.prepare import default_cache, doubts, prepare, statistics_of
from trainers.data.soft_labels import SOURCE_NAME
from trainers.data.sources import find
from trainers.data.volume import HIGH_PERCENTILE, LOW_PERCENTILE
from trainers.report import SILENT, Report


@dataclass(frozen=True)
class CheckRow:
    """What is known about one volume; None for what a broken volume does not reveal.

    labelled_share: share of slices with a label. annotated: stated share of the vessels that the labels contain.
    vessel_share: share of labelled voxels. Shares are None if there are no labels.
    """

    name: str
    kidney: str | None = None
    split: str | None = None
    shape: tuple[int, int, int] | None = None
    dtype: str | None = None
    spacing_um: Spacing | None = None
    labels: str | None = None  # files, rles or none
    label_set: str | None = None  # name of the label set in use
    soft: bool = False  # whether the set holds levels predicted by a network
    annotated: float | None = None
    labelled_share: float | None = None
    vessel_share: float | None = None
    grey_low: float | None = None  # grey values at LOW_PERCENTILE and HIGH_PERCENTILE
    grey_high: float | None = None
    grey_minimum: int | None = None
    grey_maximum: int | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    picture: Path | None = None


def check(root: Path, out: Path | None = None, cache: Path | None = None, report: Report = SILENT) -> list[CheckRow]:
    """One row for each volume under a folder, and its picture as `<out>/<name>.png` if `out` is given.

    Volumes are also converted into the cache. A broken one gets a row with its error and does not stop the check.
    Volumes that were left out and the number of volumes done are reported. Raises InputError if there is no volume.
    """
    opened = [(place, *_open(place)) for place in find(root, report)]
    rows = []
    for place, source, error, notes in opened:
        if source is None:
            rows.append(CheckRow(place.name, error=error, notes=notes))
        else:
            rows.append(_row(source, notes, out, cache or default_cache(), report))
        report.progress("checking volumes", len(rows), len(opened))
    return rows


def _open(place: Place) -> tuple[VolumeSource | None, str | None, tuple[str, ...]]:
    notes: list[str] = []
    try:
        source = place.open(Report(notes.append))
    except InputError as error:
        return None, str(error), ()
    return source, None, tuple(note.removeprefix(f"{place.name}: ") for note in notes)


def _row(source: VolumeSource, notes: tuple[str, ...], out: Path | None, cache: Path, report: Report) -> CheckRow:
    labelled = source.label is not None
    known = CheckRow(
        name=source.name,
        kidney=source.kidney,
        split=source.split,
        shape=source.shape,
        dtype=str(source.dtype),
        spacing_um=source.spacing_um,
        labels=source.labels,
        label_set=source.label_set if labelled else None,
        soft=source.soft is not None,
        annotated=source.annotated if labelled else None,
        notes=notes,
    )
    try:
        volume = prepare(source, cache, Report(progress=report.progress))  # its notes come with the statistics
    except InputError as error:
        return CheckRow(**{**vars(known), "error": str(error)})
    statistics = statistics_of(source, cache)
    notes = (*notes, *statistics.notes, *doubts(statistics), *_remarks(source, statistics.minimum, statistics.maximum))
    if source.soft is not None and source.soft.source is None:
        notes = (
            *notes,
            f"soft labels without {SOURCE_NAME}: no search will train on them until that file says what made them",
        )
    if labelled and not statistics.vessel_share:
        notes = (*notes, "labels contain no vessel")
    picture = None if out is None else draw_volume(volume, out / f"{source.name}.png")
    return CheckRow(
        **{
            **vars(known),
            "labelled_share": statistics.labelled_share,
            "vessel_share": statistics.vessel_share,
            "grey_low": statistics.percentiles[LOW_PERCENTILE],
            "grey_high": statistics.percentiles[HIGH_PERCENTILE],
            "grey_minimum": statistics.minimum,
            "grey_maximum": statistics.maximum,
            "notes": notes,
            "picture": picture,
        }
    )


def _remarks(source: VolumeSource, minimum: int, maximum: int) -> tuple[str, ...]:
    remarks = []
    if minimum == maximum:
        remarks.append(f"every voxel is {minimum}")
    if source.spacing_um is not None and max(source.spacing_um) > 1.5 * min(source.spacing_um):
        remarks.append(f"voxels are {np.max(source.spacing_um) / np.min(source.spacing_um):.1f} times longer than wide")
    return tuple(remarks)
