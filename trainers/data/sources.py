"""The volumes in a folder: found by their location and described from headers, without reading voxels.

    ROOT/train/NAME/images/NNNN.tif     labels/NNNN.tif      the competition's layout; train_rles.csv at the root is the
    ROOT/test/NAME/images/NNNN.tif                           source of labels where labels/ is missing
    ROOT/NAME/images/NNNN.tif           labels/NNNN.tif      the same without train/
    ROOT/NAME/images.EXT                labels.EXT           one file or store each; image.EXT and label.EXT do as well
    ROOT/NAME.EXT, ROOT/NAME/NNNN.tif   NAME_labels.EXT      or NAME_labels/NNNN.tif, beside it; or labels in it
    NAME.EXT, NAME/NNNN.tif                                  one volume

EXT is tif, tiff, btf (many pages), npy, zarr, ome.zarr (level 0), nii or nii.gz; labels may use another one, and be
called label, seg, segmentation, mask or masks instead of labels, after _, -, a dot or a space where it lies beside its
images. Without train/ and test/, a volume is for training if and only if it has labels. A volume's own folder may
contain several label sets, of which dataset.toml names one by `labels`. naming.py decides what a name means.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from search_spaces.errors import InputError
from trainers.data.cache_key import cache_key
from trainers.data.geometry import Geometry, Spacing
from trainers.data.manifest import (
    IMAGES_OF,
    MANIFEST_NAME,
    Manifest,
    check_name,
    composed,
    facts_of,
    manifest_home,
    read_manifest,
)
from trainers.data.naming import (
    IMAGE_NAMES,
    LABEL_NAMES,
    entries,
    find_labels,
    find_one,
    holds_scans,
    is_named,
    is_readable,
    is_stack,
    labelled,
    not_read,
    slices_among_others,
    sounds_like_labels,
    stem_of,
    suffix_of,
    the_only,
    why_no_volume,
)
from trainers.data.readers import open_slices
from trainers.data.rle import RleRow, RleSlices, read_rles, rle_slices
from trainers.data.slices import Slices
from trainers.data.soft_labels import DEFAULT_SET, SoftLabels, read_source
from trainers.data.tiff import TiffFolder
from trainers.data.turned import brought_onto, overruled
from trainers.data.zarr_store import is_zarr, label_images
from trainers.report import SILENT, Report

Split = Literal["train", "test"]

RLES_NAME = "train_rles.csv"


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
    label: Path | None
    rles: tuple[Path, dict[int, RleRow]] | None  # only if label is None
    manifest: Manifest | None

    @property
    def kidney(self) -> str:
        """The kidney that the volume shows."""
        return facts_of(self.name, self.manifest).kidney or self.name

    def open(self, report: Report = SILENT) -> VolumeSource:
        """The volume, described from its headers. Raises InputError for anything that cannot be a volume."""
        facts = facts_of(self.name, self.manifest)
        image = open_slices(self.image, facts.pick).believed(facts.spacing_um)
        place = self.label
        if facts.labels is not None:
            place = find_set(self.name, self.image, self.label, facts.labels, facts.position)
        elif place is None and facts.position is not None:
            place = _labels_inside(self.image, report, facts.position)
        label = None
        if place is not None:
            label = open_slices(place, replace(facts.pick, where_it_fits=True)).believed(facts.spacing_um)
        if self.name in IMAGES_OF and isinstance(image, TiffFolder):
            numbers = label.numbers if label else tuple(sorted(self.rles[1])) if self.rles else image.numbers
            image = image.select(numbers)
        if label is None and self.rles:
            label = rle_slices(*self.rles, image.numbers, image.shape)
        if label is None:
            for note in overruled(image.path, image.spacing_um, facts.spacing_um):
                report.note(f"{self.name}: {note}")
        else:
            _check_slices(image, label)
            label, notes = brought_onto(image, label, facts.spacing_um)
            for note in notes:
                report.note(f"{self.name}: {note}")
        if facts.soft and place is None:
            raise InputError(
                f"{self.name}: {MANIFEST_NAME} says soft = true, but it has no label slices to hold levels"
            )
        for note in dict.fromkeys((*image.notes, *(label.notes if label is not None else ()))):
            report.note(f"{self.name}: {note}")
        spacing = facts.spacing_um or image.spacing_um
        if spacing is None and label is not None:  # which lies on the same voxels
            spacing = label.spacing_um
        if spacing is None:
            report.note(f"{self.name}: its voxel spacing is not stated; state it in {MANIFEST_NAME}")
        annotated = 1.0 if facts.annotated is None else facts.annotated
        return VolumeSource(
            self.name, self.kidney, self.split or ("test" if label is None else "train"), image, label,
            spacing, 0.0 if label is None else annotated,
            facts.labels or DEFAULT_SET, read_source(place) if facts.soft and place else None,
        )  # fmt: skip


def scan(root: Path, report: Report = SILENT) -> list[VolumeSource]:
    """All volumes in a folder, by name; raises InputError for the first broken one, or if there is none."""
    return [place.open(report) for place in find(root, report)]


def scan_one(path: Path, report: Report = SILENT) -> VolumeSource:
    """The single volume at a path: a volume's folder, a folder of slices, a file or a store."""
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: there is no such file or folder")
    return _place_of(path.absolute(), report).open(report)


def stated_spacing(path: Path) -> Spacing | None:
    """What dataset.toml states of the volume to which images or labels at a path belong, if so."""
    path = path.absolute()
    beside, inside = (labelled(path) or stem_of(path), path.parent), (path.parent.name, path.parent.parent)
    for name, home in (beside, inside):
        manifest = read_manifest(manifest_home(home))
        facts = manifest.volumes.get(name) if manifest else None
        if facts is not None and facts.spacing_um is not None:
            return facts.spacing_um
    return None


def find(root: Path, report: Report = SILENT) -> list[Place]:
    """The locations of the volumes in a folder, by name; volumes left out are reported."""
    if not (root.is_file() or root.is_dir()):
        raise InputError(f"{root}: there is no such file or folder")
    root = root.absolute()
    parts = _parts(root)
    if not parts:
        return [_place_of(root, report)]
    home = manifest_home(root)
    manifest = read_manifest(home)
    places: dict[str, Place] = {}
    labels_only: dict[str, Path] = {}
    if parts[0][0] != root:
        for other in entries(root):
            if other.name not in ("train", "test") and holds_scans(other):
                report.note(f"{other.name}: left out, where there is train/ or test/ nothing else is looked at")
    for folder, split in parts:
        for name, image, label in _volumes_in(folder, report):
            name = check_name(name, str(folder))
            if name in places or name in labels_only:
                raise InputError(f"{folder}: two volumes are named {name!r}; give one of them another name")
            if image is None:
                labels_only[name] = label or folder
            else:
                places[name] = Place(name, split, image, label, None, manifest)
    _lend_images(places, labels_only, report)
    # Volumes for prediction need not be listed: the dataset.toml beside test/ may describe only some of them.
    listing = None if root.name == "test" and home != root else manifest
    listed = _with_rles(_listed(places, listing, home, report), listing, home, report)
    if places and not listed:
        raise InputError(
            f"{home / MANIFEST_NAME}: lists none of the volumes that are there: {', '.join(sorted(places))}"
        )
    if not listed:
        raise InputError(
            f"{root}: no volumes in it; expected train/NAME/images/0000.tif with labels/ beside images/, NAME/images/, "
            "or NAME.tif, .npy, .zarr, .nii.gz with NAME_labels beside it"
        )
    return [listed[name] for name in sorted(listed)]


def find_set(name: str, image: Path, label: Path | None, label_set: str, position: int | None = None) -> Path:
    """The label set of that name in the volume's folder; InputError if there is none, or no folder to hold one."""
    label_set = composed(label_set)
    inside = {composed(one.name): one for one in label_images(image, position)} if is_zarr(image) else {}
    if label_set in inside:
        return inside[label_set]
    home = (label or image).parent
    if not is_named(label or image, (*IMAGE_NAMES, *LABEL_NAMES)):
        raise InputError(
            f"{MANIFEST_NAME}: labels = {label_set!r} of {name} names a folder beside images/, and {image} is none; "
            f"move it to {name}/images{suffix_of(image)}"
        )
    stacks = [path for path in entries(home) if suffix_of(path) or path.is_dir()]
    there = {stem_of(path): path for path in stacks if not is_named(path, IMAGE_NAMES)}
    if label_set not in there:
        listed = ", ".join(there) or "none"
        raise InputError(
            f"{home}: {name} has no label set {label_set!r} (in {MANIFEST_NAME}); the sets there: {listed}"
        )
    return there[label_set]


def _parts(root: Path) -> list[tuple[Path, Split | None]]:
    """The folders of volumes under a root; empty if the root is itself one volume."""
    if root.is_file() or is_zarr(root):
        return []
    named: list[tuple[Path, Split]] = [(root / "train", "train"), (root / "test", "test")]
    present: list[tuple[Path, Split | None]] = [(folder, split) for folder, split in named if folder.is_dir()]
    if present:
        return present
    if find_one(root, IMAGE_NAMES) or is_stack(root):
        return []
    return [(root, "train" if root.name == "train" else "test" if root.name == "test" else None)]


def _volumes_in(folder: Path, report: Report) -> Iterator[tuple[str, Path | None, Path | None]]:
    """(name, images, labels) of each volume directly inside a folder; what looks like one and is none is reported."""
    found = entries(folder)
    names = {stem_of(path) for path in found}
    named = _named_labels(folder)
    slices = slices_among_others(folder)
    for group in slices:
        report.note(
            f"left out: {group[0].name} to {group[-1].name} look like slices, and other TIFF files lie beside them; "
            "give the slices of a volume a folder of their own"
        )
    for path in sorted(set(found) - {file for group in slices for file in group}):
        if is_readable(path):
            if (of := labelled(path)) is None:
                if sounds_like_labels(path):
                    report.note(f"{path.name}: read as a scan; labels of a scan NAME are called NAME_labels")
                yield stem_of(path), path, _labels_of(path, named, report)
            elif of not in names:
                report.note(f"{path.name}: left out, it is named like labels, and there are no images {of} beside it")
        elif path.is_dir():
            image, label = find_one(path, IMAGE_NAMES), find_labels(path, report)
            if image or label:
                if why := not_read(entries(path)):
                    report.note(f"{path.name}: left out: {why}")
                yield path.name, image, _own_or_beside(path, label, named, report)
            else:
                report.note(f"{path.name}: left out, {why_no_volume(path)}")
        elif path.is_symlink() and not path.exists():
            report.note(f"{path.name}: left out, it is a link to something that is gone")
    if why := not_read(found):
        report.note(f"left out: {why}")


def _named_labels(folder: Path) -> dict[str, list[Path]]:
    """What lies in a folder and is named to be labels, by the volume whose labels it is."""
    found: dict[str, list[Path]] = {}
    for path in entries(folder):
        if (of := labelled(path)) is not None and is_readable(path):
            found.setdefault(of, []).append(path)
    return found


def _labels_beside(path: Path, named: dict[str, list[Path]]) -> Path | None:
    beside = named.get(stem_of(path), [])
    if len(beside) > 1:
        raise InputError(f"{path.parent}: both {beside[0].name} and {beside[1].name} exist; keep one of them")
    return beside[0] if beside else None


def _own_or_beside(folder: Path, own: Path | None, named: dict[str, list[Path]], report: Report) -> Path | None:
    """The labels in a volume's folder, or else those beside it."""
    beside = _labels_beside(folder, named)
    if own and beside:
        report.note(f"{beside.name}: left out, {folder.name} has labels of its own")
    return own or beside


def _labels_inside(path: Path, report: Report, position: int | None = None) -> Path | None:
    """The labels inside an OME-Zarr store, of the image at that position if it has several images."""
    return the_only(label_images(path, position), path.name, report) if is_zarr(path) else None


def _labels_of(path: Path, named: dict[str, list[Path]], report: Report) -> Path | None:
    """The labels of a file, a store or a stack: beside it, or inside."""
    if path.is_dir() and not is_zarr(path):
        return _own_or_beside(path, find_labels(path, report), named, report)
    return _labels_beside(path, named) or _labels_inside(path, report)


def _place_of(path: Path, report: Report) -> Place:
    """The place of a path that is a single volume."""
    if path.is_file() or is_zarr(path) or (is_stack(path) and not is_named(path, IMAGE_NAMES)):
        name, home, image = stem_of(path), path.parent, path
        label = _labels_of(path, _named_labels(home), report)
    else:
        home = path.parent if is_named(path, IMAGE_NAMES) else path
        name = home.name
        image = find_one(home, IMAGE_NAMES) or path
        label = _own_or_beside(home, find_labels(home, report), _named_labels(home.parent), report)
        home = home.parent
    manifest = read_manifest(manifest_home(home))
    split: Split | None = "train" if home.name == "train" else "test" if home.name == "test" else None
    return Place(check_name(name, str(path)), split, image, label, None, manifest)


def _lend_images(places: dict[str, Place], labels_only: dict[str, Path], report: Report) -> None:
    """Give the competition's volumes that have only labels the images that belong to them."""
    for name, label in labels_only.items():
        lender = places.get(IMAGES_OF.get(name, ""))
        if lender is None:
            wanted = f"; its images are slices of {IMAGES_OF[name]}, which is not here" if name in IMAGES_OF else ""
            report.note(f"{name}: left out, it has labels but no images{wanted}")
        else:
            places[name] = replace(lender, name=name, label=label)


def _with_rles(places: dict[str, Place], manifest: Manifest | None, root: Path, report: Report) -> dict[str, Place]:
    """The places, with labels from train_rles.csv for volumes without label files."""
    bare = [name for name, place in places.items() if place.label is None and place.split != "test"]
    lent = [name for name, lender in IMAGES_OF.items() if name not in places and lender in places]
    lent = [name for name in lent if manifest is None or name in manifest.volumes]
    csv = next((path for path in (root / RLES_NAME, root / "train" / RLES_NAME) if path.is_file()), None)
    if csv is None or not (bare or lent):
        return places
    rles = read_rles(csv)
    filled = dict(places)
    for name in bare:
        if name in rles:
            filled[name] = replace(places[name], rles=(csv, rles[name]))
        else:
            report.note(f"{name}: no labels, neither a folder nor rows in {csv.name}")
    for name in lent:
        if name in rles:
            filled[name] = replace(places[IMAGES_OF[name]], name=name, label=None, rles=(csv, rles[name]))
    return filled


def _listed(places: dict[str, Place], manifest: Manifest | None, root: Path, report: Report) -> dict[str, Place]:
    if manifest is None:
        return places
    for name in sorted(set(places) - set(manifest.volumes)):
        report.note(f"{name}: left out, {MANIFEST_NAME} does not list it")
    for name in sorted(set(manifest.volumes) - set(places)):
        report.note(f"{name}: {MANIFEST_NAME} lists it, but it is not in {root}")
    return {name: place for name, place in places.items() if name in manifest.volumes}


def _check_slices(image: Slices, label: Slices) -> None:
    """Check that two folders have the same slices, naming the first file that has no partner."""
    if isinstance(image, TiffFolder) and isinstance(label, TiffFolder):
        for stack, others, one, other in ((label, image, "label", "image"), (image, label, "image", "label")):
            single = sorted(set(stack.numbers) - set(others.numbers))
            if single:
                name = stack.slice_name(stack.numbers.index(single[0]))
                raise InputError(f"{name}: {one} slice without {other}; {others.path} has no slice {single[0]:04d}")
