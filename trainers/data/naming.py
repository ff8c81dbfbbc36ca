"""What the name of a file or folder says: its format, whether it holds labels, whether it is a stack of slices."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from search_spaces.errors import InputError
from trainers.data.manifest import MANIFEST_NAME, composed
from trainers.data.nifti import NIFTI_SUFFIXES
from trainers.data.tiff import TIFF_SUFFIXES, is_slice
from trainers.data.zarr_store import is_zarr
from trainers.report import SILENT, Report

# What every ending says about a file. Folders of TIFF slices have none.
FORMATS: dict[str, str] = {
    **dict.fromkeys((*TIFF_SUFFIXES, *(f".ome{ending}" for ending in TIFF_SUFFIXES)), "TIFF"),
    **dict.fromkeys((".zarr", ".ome.zarr"), "Zarr"),
    ".npy": ".npy",
    **dict.fromkeys(NIFTI_SUFFIXES, "NIfTI"),
}
# Pictures and volumes that are not read. A folder that holds some is told about them, and about nothing else.
OTHER_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2", ".j2k", ".jpx", ".dcm", ".dicom", ".ima",
    ".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".hdr", ".mgz", ".mgh", ".mnc", ".am", ".vol", ".raw", ".mrc", ".rec",
    ".h5", ".hdf5", ".hdf", ".n5", ".ims", ".czi", ".lif", ".nd2", ".lsm", ".oib", ".oif", ".oir", ".vsi", ".vti",
    ".npz", ".mat", ".zarr.zip", ".zarr.tar", ".tif.gz", ".tiff.gz", ".npy.gz",
)  # fmt: skip
# Of what lies in a volume's own folder, in any case. Of labels the first two come before all others.
IMAGE_NAMES, LABEL_NAMES = ("images", "image"), ("labels", "label", "segmentation", "seg", "masks", "mask")
# Names that sound like labels, too, and are not read as such.
_OTHER_LABEL_NAMES = ("segmentations", "gt", "ground truth", "groundtruth", "annotations", "annotation")
_LABELS_OF = re.compile(rf"(.+)[ _.-]({'|'.join(LABEL_NAMES)})", re.IGNORECASE)
_OWN_NAMES = "call a volume NAME/images.tif, or NAME.tif with NAME_labels.tif beside it"
_LIKE_LABELS = re.compile(rf"(.*[ _.-])?({'|'.join((*LABEL_NAMES, *_OTHER_LABEL_NAMES))})([ _.-].*)?", re.IGNORECASE)
_NUMBERED = re.compile(r"(.*?)(\d+)")
_NUMBER = re.compile(r"\d+")
_FEWEST_SLICES = 2  # of which the names tell that they belong together


def suffix_of(path: Path) -> str:
    """The ending in FORMATS that a name has, in lower case, or an empty string."""
    parts = path.name.lower().split(".")
    for count in (2, 1):
        ending = "".join(f".{part}" for part in parts[1:][-count:])
        if ending in FORMATS:
            return ending
    return ""


def stem_of(path: Path) -> str:
    """The name without such an ending, composed: `scan.nii.gz` and `scan.ome.zarr` are both `scan`."""
    return composed(path.name[: len(path.name) - len(suffix_of(path))])


def is_named(path: Path, names: Sequence[str]) -> bool:
    """Whether a path has one of these names, with any ending in FORMATS."""
    return stem_of(path).casefold() in names


def labelled(path: Path) -> str | None:
    """The volume whose labels a path is named to hold: `k` for `k_labels.tif`, `k-seg.nii.gz` and `k_mask/`."""
    found = _LABELS_OF.fullmatch(stem_of(path))
    return None if found is None else found[1]


def sounds_like_labels(path: Path) -> bool:
    """Whether a name has a word for labels at a place where it does not say whose they are."""
    return labelled(path) is None and _LIKE_LABELS.fullmatch(stem_of(path)) is not None


def is_readable(path: Path) -> bool:
    """Whether a path is a file or store in a supported format, or a stack of slices."""
    return bool(suffix_of(path)) or is_stack(path)


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without hidden files."""
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def is_stack(path: Path) -> bool:
    """Whether a folder's own TIFF files are the slices of one volume, rather than volumes.

    They are if they have one page, and names that differ only in the number at their end: `0000.tif`, `slice_0000.tif`.
    A single file is a slice only if its name is nothing but a number.
    """
    if not path.is_dir() or is_zarr(path):
        return False
    match list(_by_name(path).items()):
        case [(str(prefix), files)] if len(files) > 1 or not prefix:
            return _are_slices(files)
        case _:
            return False


def slices_among_others(folder: Path) -> list[list[Path]]:
    """The files in a folder that would be a stack, were there no other TIFF files beside them."""
    groups = _by_name(folder)
    found = [files for prefix, files in groups.items() if prefix is not None and len(files) > 1]
    otherwise = {file for files in slices_numbered_elsewhere(folder) for file in files}
    return [files for files in found if len(groups) > 1 and otherwise.isdisjoint(files) and _are_slices(files)]


def slices_numbered_elsewhere(folder: Path) -> list[list[Path]]:
    """The files in a folder of one page whose names differ in a number that is not at their end, two or more each."""
    groups: dict[str, list[Path]] = {}
    for file in entries(folder):
        if file.suffix.lower() in TIFF_SUFFIXES:
            groups.setdefault(_NUMBER.sub("0", stem_of(file)), []).append(file)
    several = [files for files in groups.values() if len(files) >= _FEWEST_SLICES]
    at_the_end = [
        {found and found[1] for found in (_NUMBERED.fullmatch(stem_of(one)) for one in files)} for files in several
    ]
    return [
        files
        for files, before in zip(several, at_the_end, strict=True)
        if (before == {None} or len(before) > 1) and _are_slices(files)
    ]


def numbered_elsewhere(files: Sequence[Path]) -> str:
    """What such files are, and what to do."""
    return (
        f"{files[0].name} to {files[-1].name} look like slices, but their number is not at the end of their names: "
        "rename them to 0000.tif, 0001.tif and so on, in a folder for each volume and channel"
    )


def check_slices(folder: Path) -> None:
    """Raise InputError for a folder whose files are not the slices of one volume, as their names say."""
    groups = _by_name(folder)
    if not groups:
        inside = entries(folder)
        instead = f"; it holds {not_read(inside) or _shown(inside)}" if inside else ""
        if len(inside) == 1 and suffix_of(inside[0]):
            instead += f": move it to {stem_of(folder)}{suffix_of(inside[0])}"
        raise InputError(f"{folder}: no TIFF slices in it; slices are named 0000.tif, 0001.tif and so on{instead}")
    if None in groups and not _are_slices(groups[None]):
        raise InputError(f"{folder}: holds {_shown(groups[None])} of many pages, and slices have one; {_OWN_NAMES}")
    if misnumbered := slices_numbered_elsewhere(folder):
        raise InputError(f"{folder}: {numbered_elsewhere(misnumbered[0])}")
    if len(groups) > 1 and None not in groups:  # opening it names a file without a number
        odd, *_, usual = sorted(groups.values(), key=len)
        raise InputError(
            f"{odd[0]} is named unlike {usual[0].name}: slices of one volume have names that differ only in the number "
            "at their end; put other files into another folder"
        )
    for file in next(iter(groups.values())):
        if not file.is_file():
            raise InputError(f"{file}: is not a file, or is a link to one that is gone")


def _by_name(folder: Path) -> dict[str | None, list[Path]]:
    """The TIFF files in a folder by what stands before the number at the end of their names; None: there is none."""
    groups: dict[str | None, list[Path]] = {}
    for file in entries(folder):
        if file.suffix.lower() in TIFF_SUFFIXES:
            number = _NUMBERED.fullmatch(stem_of(file))
            groups.setdefault(None if number is None else number[1], []).append(file)
    return groups


def _are_slices(files: Sequence[Path]) -> bool:
    """Whether files are slices, by the first that can be judged."""
    for file in files:
        with suppress(InputError):
            if file.is_file():
                return is_slice(file)
    return False


def why_no_volume(folder: Path) -> str:
    """Why a folder without images/ and labels/ is not a volume, in words."""
    inside = entries(folder)
    if misnumbered := slices_numbered_elsewhere(folder):
        return numbered_elsewhere(misnumbered[0])
    if slices := next(iter(slices_among_others(folder)), None):
        other = next(files[0] for files in _by_name(folder).values() if files != slices)
        return f"{other.name} is named unlike the slices {slices[0].name} to {slices[-1].name} beside it"
    if scans := [path for path in inside if is_readable(path) or _has_images(path)]:
        if len(scans) > 1 and all(FORMATS.get(suffix_of(path)) == "TIFF" and _are_slices([path]) for path in scans):
            return (
                f"it holds {_shown(scans)}, of one page each: name the slices of a volume 0000.tif, 0001.tif and so on"
            )
        return (
            f"it holds {_shown(scans)}, and nothing that is called images: rename it, or name this folder as the data"
        )
    unknown = "none of its files is in a supported format" if any(path.is_file() for path in inside) else ""
    return not_read([folder, *inside]) or unknown or "it contains no images"


def holds_scans(path: Path) -> bool:
    """Whether a scan is at a path, or in it, or in one of its folders."""
    if is_readable(path) or _has_images(path):
        return True
    return path.is_dir() and any(is_readable(one) or _has_images(one) for one in entries(path))


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and any(is_named(path, IMAGE_NAMES) for path in entries(folder))


def not_read(names: Sequence[Path]) -> str:
    """Pictures among the files of a folder that are in no supported format, in words; empty if there are none."""
    found = [path for path in names if path.name.lower().endswith(OTHER_SUFFIXES) and not suffix_of(path)]
    return f"{_shown(found)}: not in a supported format ({', '.join(dict.fromkeys(FORMATS.values()))})" if found else ""


def _shown(paths: Sequence[Path]) -> str:
    listed = ", ".join(path.name for path in paths[:3])
    return listed + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def find_one(folder: Path, names: Sequence[str]) -> Path | None:
    """The file, store or folder of one of these names inside a folder, or None; raises InputError if there are two."""
    found = _all_named(folder, names)
    if len(found) > 1:
        raise InputError(f"{folder}: both {found[0].name} and {found[1].name} exist; keep one of them")
    return found[0] if found else None


def find_labels(folder: Path, report: Report = SILENT) -> Path | None:
    """The labels inside a volume's own folder, or None; InputError if there are both `labels` and `label`."""
    of_first_names = find_one(folder, LABEL_NAMES[:2])
    return of_first_names or the_only(_all_named(folder, LABEL_NAMES[2:]), folder.name, report)


def _all_named(folder: Path, names: Sequence[str]) -> list[Path]:
    """A link to something that is gone counts: opening it then says so."""
    named = [path for path in entries(folder) if is_named(path, names)]
    return [path for path in named if suffix_of(path) or path.is_dir() or path.is_symlink()]


def the_only(labels: Sequence[Path], name: str, report: Report) -> Path | None:
    """The labels of a volume, or None if there are none or several, which is reported."""
    if len(labels) > 1:
        listed = ", ".join(stem_of(one) for one in labels)
        report.note(f"{name}: holds several labels, of which `labels` in {MANIFEST_NAME} can name one: {listed}")
    return labels[0] if len(labels) == 1 else None
