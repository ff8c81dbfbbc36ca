"""Soft pseudo labels: from a bundle and a sparsely labelled volume to a new label set beside the volume's own.

The threshold is mapped to one half. It is chosen so that the volume holds as many vessel voxels as its labels imply: if
200 voxels are labelled and `annotated` is 0.8, these are the 200 labelled voxels and the 50 likeliest others. Labelled
voxels stay vessel.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import BaseModel

from nas.bundles.predictor import open_predictor, refuse_bundles, threshold_level
from nas.bundles.requests import LabelRequest
from results.bundles.architecture import Provenance
from results.bundles.bundle import WEIGHTS, Bundle
from results.version import program_version
from search_spaces.errors import InputError
from trainers.atomic import whole_folder, write_atomically
from trainers.data.geometry import Geometry
from trainers.data.manifest import MANIFEST_NAME, check_name, facts_of, manifest_home
from trainers.data.manifest_edit import Value, table_text, with_facts
from trainers.data.masks import tiff_tags
from trainers.data.naming import IMAGE_NAMES, LABEL_NAMES, find_one, is_named, suffix_of
from trainers.data.open_volumes import open_piece
from trainers.data.place import VolumeSource
from trainers.data.prepare import default_cache
from trainers.data.scratch import scratch_folder
from trainers.data.soft_labels import HIGHEST, SOURCE_NAME, VESSEL_LEVEL, LabelSource, is_vessel
from trainers.data.sources import find, scan_one
from trainers.data.volume import Volume
from trainers.report import SILENT, Report

FAR_SHARE = 0.02  # largest difference between the reached and the annotated share that gets no note


class Labelled(BaseModel, frozen=True, extra="forbid"):
    """What `nas label` did."""

    labels: Path  # the new label set
    threshold: float  # on the bundle's probability; it is mapped to one half
    labelled_voxels: int
    vessel_voxels: int  # of the new set, including the labelled ones
    annotated: float | None  # the labels' share in dataset.toml; None: the threshold was given instead
    source: LabelSource
    manifest: Path
    manifest_lines: str  # the lines that make searches use the set
    written: bool  # whether these lines were written


def label_path(request: LabelRequest, report: Report = SILENT) -> Labelled:
    """Predict a volume and write its new label set.

    Raises InputError for a volume of the kidney that the bundle was ranked on, and if there is no share that the
    threshold could match.
    """
    bundle_path, name, threshold = request.bundle, request.out, request.threshold
    refuse_bundles([request.volume], "`nas label BUNDLE VOLUME`")
    source = scan_one(request.volume, report)
    home = _home(source)
    data_set = manifest_home(home.parent)
    target = home / _check_set_name(name)
    facts: dict[str, Value] = {"labels": name, "soft": True, "annotated": 1.0}
    manifest = data_set / MANIFEST_NAME
    if target.exists() or find_one(home, IMAGE_NAMES) == target:
        lines = "; ".join(table_text(source.name, facts).split("\n")[1:])
        raise InputError(
            f"{target} already exists; choose another name with --out, or delete it; a search uses it with "
            f"[volumes.{source.name}] {lines} in {manifest}"
        )
    _check_share(source, threshold)
    predictor = open_predictor([bundle_path])
    if len(predictor.members) > 1:
        raise InputError(
            f"{bundle_path} is an ensemble, but labels name the one network that made them: give one of its members"
        )
    bundle = predictor.members[0]
    _refuse_ranked_on(bundle, source.name, source.kidney, None)
    if request.write:
        _new_manifest(manifest, source.name, facts)  # a file that cannot be edited is reported before the work
    volume = open_piece(source, data_set, default_cache(), report)
    _refuse_ranked_on(bundle, volume.name, volume.kidney, volume.content_hash)
    with scratch_folder(default_cache()) as scratch:
        for doubt in predictor.doubts(volume, is_scored=False):
            report.note(doubt)
        levels = predictor.predict(volume, request.device, scratch, report)
        outside, labelled = count_levels(levels, volume)
        if threshold is None and not labelled:
            raise InputError(
                f"{volume.name} has no labelled voxel, so there is no share to match (annotated = {volume.annotated:g})"
                ": give --threshold"
            )
        level = match_level(outside, labelled, volume.annotated) if threshold is None else threshold_level(threshold)
        vessels = labelled + int(outside[level:].sum())
        origin = _origin(bundle, source, level / HIGHEST, labelled / vessels if labelled else None)
        write_label_set(target, soft_slices(levels, volume, level), source.geometry, origin)
    if threshold is None and abs(labelled / vessels - volume.annotated) > FAR_SHARE:
        report.note(
            f"at the nearest threshold the labelled voxels are {labelled / vessels:.0%} of the vessels, not "
            f"{volume.annotated:.0%}: the network is too sure, or finds too little"
        )
    if request.write:
        # If it is a link, others read the file that it points to.
        write_atomically(manifest.resolve(), _new_manifest(manifest, source.name, facts))
    return Labelled(
        labels=target,
        threshold=level / HIGHEST,
        labelled_voxels=labelled,
        vessel_voxels=vessels,
        annotated=volume.annotated if threshold is None else None,
        source=origin,
        manifest=manifest,
        manifest_lines=table_text(source.name, facts),
        written=request.write,
    )


def _check_set_name(name: str) -> str:
    """The name of a new label set; InputError if its folder would be taken for something else."""
    check_name(name, "--out")
    if is_named(Path(name), (*IMAGE_NAMES, *LABEL_NAMES)) or name.startswith(".") or suffix_of(Path(name)):
        raise InputError(f"--out {name!r} cannot name a new label set: it stands for something else; use labels_pseudo")
    return name


def count_levels(levels: NDArray[np.uint8], volume: Volume) -> tuple[NDArray[np.int64], int]:
    """How many voxels outside the labels have each level, (256,), and how many are labelled."""
    outside, labelled = np.zeros(HIGHEST + 1, np.int64), 0
    for z, plane in enumerate(levels):
        vessel = _vessel(volume, z)
        outside += np.bincount(plane[~vessel], minlength=HIGHEST + 1)
        labelled += int(np.count_nonzero(vessel))
    return outside, labelled


def match_level(outside: NDArray[np.int64], labelled: int, annotated: float) -> int:
    """The vessel level at which labelled voxels are the share `annotated` of all vessel voxels, labelled ones included.

    1 to 255: the level that comes nearest, and the middle one of several that are equally near.
    """
    vessels = labelled + np.cumsum(outside[::-1])[::-1][1:]  # from level 1 on: at 0 all voxels would be vessel
    missed = np.abs(vessels * annotated - labelled)
    nearest = np.flatnonzero(missed == missed.min())
    return int(nearest[len(nearest) // 2]) + 1


def level_map(level: int) -> NDArray[np.uint8]:
    """Old level -> new one, (256,): 0 to 0, `level` to VESSEL_LEVEL, 255 to 255, linear in between."""
    old = np.arange(HIGHEST + 1)
    below = old * VESSEL_LEVEL // level
    above = VESSEL_LEVEL + np.rint((old - level) * (HIGHEST - VESSEL_LEVEL) / max(HIGHEST - level, 1)).astype(np.int64)
    mapped = np.where(old < level, below, above)
    mapped[HIGHEST] = HIGHEST
    return mapped.astype(np.uint8)


def soft_slices(levels: NDArray[np.uint8], volume: Volume, level: int) -> Iterator[NDArray[np.uint8]]:
    """The new labels, slice by slice: mapped levels, and 255 where a person saw a vessel."""
    mapped = level_map(level)
    for z, plane in enumerate(levels):
        new = mapped[plane]
        new[_vessel(volume, z)] = HIGHEST
        yield new


def write_label_set(folder: Path, slices: Iterable[NDArray[np.uint8]], geometry: Geometry, source: LabelSource) -> None:
    """Write (H, W) slices on the grid of the image, and SOURCE.json; the folder appears when it is complete."""
    with whole_folder(folder) as part:
        for number, one in zip(geometry.numbers, slices, strict=True):
            tifffile.imwrite(part / f"{number:04d}.tif", one, **tiff_tags(geometry))
        (part / SOURCE_NAME).write_text(source.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _vessel(volume: Volume, z: int) -> NDArray[np.bool_]:
    if volume.label is None:
        return np.zeros(volume.shape[1:], np.bool_)
    return is_vessel(np.asarray(volume.label[z]), None)


def _home(source: VolumeSource) -> Path:
    """The volume's folder, which holds images/ and label sets."""
    home = source.image.path.parent
    if home.name != source.name or find_one(home, IMAGE_NAMES) != source.image.path:
        raise InputError(
            f"{source.image.path}: label sets lie beside images/ in a folder of the volume; move it to "
            f"{source.name}/images{suffix_of(source.image.path)}"
        )
    return home


def _check_share(source: VolumeSource, threshold: float | None) -> None:
    """Raise InputError for soft labels, and if no annotated share says what to match."""
    if source.soft is not None:
        raise InputError(
            f"{source.name} uses the soft labels {source.label_set!r}; to make new ones, remove these from "
            f"{MANIFEST_NAME} and set annotated back to what it was ({_share_before(source)})"
        )
    if threshold is not None:
        return
    if source.label is None:
        raise InputError(f"{source.name} has no labels, so there is no share to match; give --threshold")
    if not 0 < source.annotated < 1:
        raise InputError(
            f"{source.name} has annotated = {source.annotated:g}, so there is no share to match; state in "
            f"{MANIFEST_NAME} which share of the vessels is labelled, or give --threshold"
        )


def _share_before(source: VolumeSource) -> str:
    """The annotated share of the labels that people made, as recorded with the soft set."""
    origin = source.soft.source if source.soft else None
    return "not known" if origin is None or origin.annotated is None else f"{origin.annotated:g}"


def _refuse_ranked_on(bundle: Bundle, name: str, kidney: str, content_hash: str | None) -> None:
    provenance = bundle.architecture.provenance
    ranked_on = {_kidney(provenance, held_out) for held_out in provenance.held_out_volumes}
    if kidney in ranked_on or content_hash in provenance.held_out_volumes.values():
        raise InputError(
            f"{name} shows {kidney}, which {bundle.path} was ranked on: its labels could not be used to score, nor to "
            "train in a search that holds out a kidney this bundle knows; use a bundle that was trained on "
            f"{kidney} or holds out another kidney"
        )


def _kidney(provenance: Provenance, volume: str) -> str:
    """The kidney of a volume in a bundle; if the bundle does not say, the one that the volume's name stands for."""
    return provenance.kidneys.get(volume) or facts_of(volume, None).kidney or volume


def _origin(bundle: Bundle, source: VolumeSource, threshold: float, share: float | None) -> LabelSource:
    """Where labels that this bundle makes come from; the bundle counts as knowing everything its teachers knew."""
    architecture = bundle.architecture
    provenance = architecture.provenance
    own = {_kidney(provenance, volume) for volume in provenance.train_volumes}
    with (bundle.path / WEIGHTS).open("rb") as file:
        weights_hash = hashlib.file_digest(file, "sha256").hexdigest()
    return LabelSource(
        kidneys=tuple(sorted(own.union(*(teacher.kidneys for teacher in provenance.teachers)))),
        volumes=provenance.known_volumes,
        held_out=provenance.held_out_volumes,
        bundle=f"{architecture.name} (study {provenance.study}, trial {provenance.trial})",
        weights_hash=weights_hash,
        labels=None if source.label is None else source.label_set,
        annotated=None if source.label is None else source.annotated,
        threshold=threshold,
        matched_share=share,
        version=program_version(),
    )


def _new_manifest(path: Path, name: str, facts: dict[str, Value]) -> str:
    """dataset.toml with these facts; a new file lists all volumes, because volumes that are not listed are left out."""
    if path.is_file():
        return with_facts(path, path.read_bytes().decode(), name, facts)
    others = [table_text(place.name, {}) for place in find(path.parent) if place.name != name]
    return with_facts(path, "".join(f"{table}\n" for table in others), name, facts)
