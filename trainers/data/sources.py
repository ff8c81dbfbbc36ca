"""The volumes in a folder: found by their location and described from headers, without reading voxels.

    ROOT/train/NAME/images/NNNN.tif     labels/NNNN.tif      the competition's layout; train_rles.csv at the root is the
    ROOT/test/NAME/images/NNNN.tif                           source of labels where labels/ is missing
    ROOT/NAME/images/NNNN.tif           labels/NNNN.tif      the same without train/
    ROOT/NAME/images.EXT                labels.EXT           one file or store each; image.EXT and label.EXT do as well
    ROOT/NAME.EXT, ROOT/NAME/NNNN.tif   NAME_labels.EXT      or NAME_labels/NNNN.tif, beside it; or labels in it
    NAME.EXT, NAME/NNNN.tif                                  one volume

EXT is tif, tiff, btf, tf2 or tf8 (many pages), npy, zarr, ome.zarr (level 0), nii or nii.gz; labels may use another
one, and be called label, seg, segmentation, mask or masks instead of labels, after _, -, a dot or a space where they
lie beside images. Without train/ and test/, a volume is for training if and only if it has labels. A volume may have
several label sets, of which dataset.toml names one by `labels`. naming.py decides what a name means.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from search_spaces.errors import InputError
from trainers.data.geometry import Spacing
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
    entries,
    find_labels,
    find_one,
    holds_scans,
    is_named,
    is_readable,
    is_stack,
    labelled,
    not_read,
    numbered_elsewhere,
    slices_among_others,
    slices_numbered_elsewhere,
    sounds_like_labels,
    stem_of,
    why_no_volume,
)
from trainers.data.place import Place, Split, VolumeSource, labels_inside
from trainers.data.rle import read_rles
from trainers.data.zarr_store import is_zarr
from trainers.report import SILENT, Report

RLES_NAME = "train_rles.csv"


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
        for name, image, labels in _volumes_in(folder, manifest, report):
            name = check_name(name, str(folder))
            if name in places or name in labels_only:
                raise InputError(f"{folder}: two volumes are named {name!r}; give one of them another name")
            if image is None:
                labels_only[name] = labels[0] if labels else folder
            else:
                places[name] = Place(name, split, image, labels, None, manifest)
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


def _volumes_in(
    folder: Path, manifest: Manifest | None, report: Report
) -> Iterator[tuple[str, Path | None, tuple[Path, ...]]]:
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
    misnumbered = slices_numbered_elsewhere(folder)
    for group in misnumbered:
        report.note(f"left out: {numbered_elsewhere(group)}")
    for path in sorted(set(found) - {file for group in (*slices, *misnumbered) for file in group}):
        if is_readable(path):
            if (of := labelled(path)) is None:
                if sounds_like_labels(path):
                    report.note(f"{path.name}: read as a scan; labels of a scan NAME are called NAME_labels")
                yield stem_of(path), path, _labels_of(path, named, _of_labels(stem_of(path), manifest, report))
            elif of not in names:
                report.note(f"{path.name}: left out, it is named like labels, and there are no images {of} beside it")
        elif path.is_dir():
            image = find_one(path, IMAGE_NAMES)
            label = find_labels(path, _of_labels(path.name, manifest, report))
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


def _named_labels(folder: Path) -> dict[str, tuple[Path, ...]]:
    """What lies in a folder and is named to be labels, by the volume whose labels it is."""
    found: dict[str, tuple[Path, ...]] = {}
    for path in entries(folder):
        if (of := labelled(path)) is not None and is_readable(path):
            found[of] = (*found.get(of, ()), path)
    return found


def _of_labels(name: str, manifest: Manifest | None, report: Report) -> Report:
    """Where to say that a volume has several labels: nowhere if dataset.toml names one of them."""
    return report if facts_of(composed(name), manifest).labels is None else SILENT


def _own_or_beside(
    folder: Path, own: Path | None, named: dict[str, tuple[Path, ...]], report: Report
) -> tuple[Path, ...]:
    """The labels in a volume's folder, or else those beside it."""
    beside = named.get(stem_of(folder), ())
    if own is None:
        return beside
    for other in beside:
        report.note(f"{other.name}: left out, {folder.name} has labels of its own")
    return (own,)


def _labels_of(path: Path, named: dict[str, tuple[Path, ...]], report: Report) -> tuple[Path, ...]:
    """The labels of a file, a store or a stack: beside it, or inside."""
    if path.is_dir() and not is_zarr(path):
        return _own_or_beside(path, find_labels(path, report), named, report)
    inside = labels_inside(path, report)
    return named.get(stem_of(path)) or (() if inside is None else (inside,))


def _place_of(path: Path, report: Report) -> Place:
    """The place of a path that is a single volume."""
    if path.is_file() or is_zarr(path) or (is_stack(path) and not is_named(path, IMAGE_NAMES)):
        name, home, image = stem_of(path), path.parent, path
        manifest = read_manifest(manifest_home(home))
        labels = _labels_of(path, _named_labels(home), _of_labels(name, manifest, report))
    else:
        home = path.parent if is_named(path, IMAGE_NAMES) else path
        name = home.name
        image = find_one(home, IMAGE_NAMES) or path
        manifest = read_manifest(manifest_home(home.parent))
        own = find_labels(home, _of_labels(name, manifest, report))
        labels = _own_or_beside(home, own, _named_labels(home.parent), report)
        home = home.parent
    split: Split | None = "train" if home.name == "train" else "test" if home.name == "test" else None
    return Place(check_name(name, str(path)), split, image, labels, None, manifest)


def _lend_images(places: dict[str, Place], labels_only: dict[str, Path], report: Report) -> None:
    """Give the competition's volumes that have only labels the images that belong to them."""
    for name, label in labels_only.items():
        lender = places.get(IMAGES_OF.get(name, ""))
        if lender is None:
            wanted = f"; its images are slices of {IMAGES_OF[name]}, which is not here" if name in IMAGES_OF else ""
            report.note(f"{name}: left out, it has labels but no images{wanted}")
        else:
            places[name] = replace(lender, name=name, labels=(label,))


def _with_rles(places: dict[str, Place], manifest: Manifest | None, root: Path, report: Report) -> dict[str, Place]:
    """The places, with labels from train_rles.csv for volumes without label files."""
    bare = [name for name, place in places.items() if not place.labels and place.split != "test"]
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
            filled[name] = replace(places[IMAGES_OF[name]], name=name, labels=(), rles=(csv, rles[name]))
    return filled


def _listed(places: dict[str, Place], manifest: Manifest | None, root: Path, report: Report) -> dict[str, Place]:
    if manifest is None:
        return places
    for name in sorted(set(places) - set(manifest.volumes)):
        report.note(f"{name}: left out, {MANIFEST_NAME} does not list it")
    for name in sorted(set(manifest.volumes) - set(places)):
        report.note(f"{name}: {MANIFEST_NAME} lists it, but it is not in {root}")
    return {name: place for name, place in places.items() if name in manifest.volumes}
