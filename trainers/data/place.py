"""One volume on disk: where its parts lie, and what their headers say together."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from search_spaces.errors import InputError
from trainers.data.cache_key import cache_key
from trainers.data.geometry import Geometry, Spacing, best_known
from trainers.data.manifest import (
    IMAGES_OF,
    MANIFEST_NAME,
    Manifest,
    composed,
    facts_of,
)
from trainers.data.naming import (
    IMAGE_NAMES,
    LABEL_NAMES,
    entries,
    is_named,
    labelled,
    stem_of,
    suffix_of,
    the_only,
)
from trainers.data.readers import open_slices
from trainers.data.rle import RleRow, RleSlices, rle_slices
from trainers.data.slices import Slices
from trainers.data.soft_labels import DEFAULT_SET, SoftLabels, read_source
from trainers.data.tiff import TiffFolder
from trainers.data.turned import brought_onto, overruled
from trainers.data.zarr_store import is_zarr, label_images
from trainers.report import SILENT, Report

Split = Literal["train", "test"]


@dataclass(frozen=True)
class VolumeSource:
    """A volume on disk; label is None if there is none. `open_volumes` opens it as a Volume."""

    name: str
    kidney: str
    split: Split
    image: Slices
    label: Slices | None
    spacing_um: Spacing | None  # None: not stated anywhere
    annotated: float  # share of the vessels that the labels contain; 0.0 if there are no labels
    label_set: str = DEFAULT_SET  # name of the label set in use
    soft: SoftLabels | None = None  # set if the labels hold levels made by a network

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W), from headers."""
        return self.image.shape

    @property
    def geometry(self) -> Geometry:
        """Where its voxels lie, with the spacing that counts."""
        return replace(self.image.geometry, spacing_um=self.spacing_um)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The type of the source's grey values."""
        return self.image.dtype

    @property
    def labels(self) -> Literal["files", "rles", "none"]:
        """Where the labels are read from."""
        if self.label is None:
            return "none"
        return "rles" if isinstance(self.label, RleSlices) else "files"

    @cached_property
    def key(self) -> str:
        """The name of this volume's folder in the cache, which changes whenever a source file changes."""
        label_set = "" if self.label_set == DEFAULT_SET else f" {self.label_set!r}"
        said = f"{self.labels}{label_set}{' soft' if self.soft else ''}"
        return cache_key(self.name, said, self.image, self.label)


@dataclass(frozen=True)
class Place:
    """The location of a volume; opening it reads its headers."""

    name: str
    split: Split | None  # None: the layout does not say
    image: Path
    labels: tuple[Path, ...]  # of several, dataset.toml must name one
    rles: tuple[Path, dict[int, RleRow]] | None  # only if there are no labels
    manifest: Manifest | None

    @property
    def kidney(self) -> str:
        """The kidney that the volume shows."""
        return facts_of(self.name, self.manifest).kidney or self.name

    def open(self, report: Report = SILENT) -> VolumeSource:
        """The volume, described from its headers. Raises InputError for anything that cannot be a volume."""
        facts = facts_of(self.name, self.manifest)
        image = open_slices(self.image, facts.pick).believed()
        place = next(iter(self.labels), None)
        if facts.labels is not None:
            place = find_set(self.name, self.image, place, facts.labels, facts.position)
        elif len(self.labels) > 1:
            one, other, *_ = self.labels
            raise InputError(
                f"{one.parent}: both {one.name} and {other.name} exist; keep one of them, or name one in "
                f"{MANIFEST_NAME}, as in labels = {stem_of(one)!r}"
            )
        elif place is None and facts.position is not None:
            place = labels_inside(self.image, report, facts.position)
        label = None
        if place is not None:
            label = open_slices(place, replace(facts.pick, where_it_fits=True)).believed()
        if self.name in IMAGES_OF and isinstance(image, TiffFolder):
            numbers = label.numbers if label else tuple(sorted(self.rles[1])) if self.rles else image.numbers
            image = image.select(numbers)
        if label is None and self.rles:
            label = rle_slices(*self.rles, image.numbers, image.shape)
        if label is None:
            for note in overruled(image.path, image.geometry):
                report.note(f"{self.name}: {note}")
        else:
            _check_slices(image, label)
            label, notes = brought_onto(image, label)
            for note in notes:
                report.note(f"{self.name}: {note}")
        if facts.soft and place is None:
            raise InputError(
                f"{self.name}: {MANIFEST_NAME} says soft = true, but it has no label slices to hold levels"
            )
        for note in dict.fromkeys((*image.notes, *(label.notes if label is not None else ()))):
            report.note(f"{self.name}: {note}")
        spacing = best_known(image.geometry, *(() if label is None else (label.geometry,)))
        if spacing is None:
            report.note(f"{self.name}: its voxel spacing is not stated; state it in {MANIFEST_NAME}")
        annotated = 1.0 if facts.annotated is None else facts.annotated
        return VolumeSource(
            self.name, self.kidney, self.split or ("test" if label is None else "train"), image, label,
            spacing, 0.0 if label is None else annotated,
            facts.labels or DEFAULT_SET, read_source(place) if facts.soft and place else None,
        )  # fmt: skip


def find_set(name: str, image: Path, label: Path | None, label_set: str, position: int | None = None) -> Path:
    """The label set of that name, inside the images, beside them, or in their folder; InputError if there is none.

    label: any labels of the volume; where others lent it the images, its sets lie beside these.
    """
    found = label_images(image, position) if is_zarr(image) else []
    near = label if label is not None and is_named(label, LABEL_NAMES) else image
    if image.is_dir() and not is_zarr(image):
        found += [path for path in entries(image) if path.is_dir()]
    if is_named(near, (*IMAGE_NAMES, *LABEL_NAMES)):
        found += [path for path in entries(near.parent) if path != image and (suffix_of(path) or path.is_dir())]
    else:
        found += [path for path in entries(near.parent) if labelled(path) == stem_of(near)]
    there = {stem_of(path): path for path in found}
    if composed(label_set) not in there:
        listed = ", ".join(there) or f"none; they are called {name}_labels or the like, or lie beside images/"
        raise InputError(
            f"{near.parent}: {name} has no label set {label_set!r} (in {MANIFEST_NAME}); the sets there: {listed}"
        )
    return there[composed(label_set)]


def labels_inside(path: Path, report: Report, position: int | None = None) -> Path | None:
    """The labels inside an OME-Zarr store, of the image at that position if it has several images."""
    return the_only(label_images(path, position), path.name, report) if is_zarr(path) else None


def _check_slices(image: Slices, label: Slices) -> None:
    """Check that two folders have the same slices, naming the first file that has no partner."""
    if isinstance(image, TiffFolder) and isinstance(label, TiffFolder):
        for stack, others, one, other in ((label, image, "label", "image"), (image, label, "image", "label")):
            single = sorted(set(stack.numbers) - set(others.numbers))
            if single:
                name = stack.slice_name(stack.numbers.index(single[0]))
                raise InputError(f"{name}: {one} slice without {other}; {others.path} has no slice {single[0]:04d}")
