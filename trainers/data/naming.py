"""What the name of a file or folder says: its format, whether it holds labels, whether it is a stack of slices."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from search_spaces.errors import InputError
from trainers.data.nifti import NIFTI_SUFFIXES
from trainers.data.tiff import TIFF_SUFFIXES, is_slice
from trainers.data.zarr_store import is_zarr

SUFFIXES = (*TIFF_SUFFIXES, ".ome.tif", ".ome.tiff", ".npy", ".ome.zarr", ".zarr", *NIFTI_SUFFIXES)
# Pictures and volumes that are not read. A folder that holds some is told about them, and about nothing else.
OTHER_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".jp2", ".dcm", ".nrrd", ".nhdr", ".mha", ".mhd", ".h5", ".hdf5", ".hdf",
    ".czi", ".lif", ".nd2", ".lsm", ".ims", ".vol", ".raw", ".npz", ".mat",
)  # fmt: skip
IMAGE_NAMES, LABEL_NAMES = ("images", "image"), ("labels", "label")  # of what lies in a volume's own folder
_LABELS_OF = re.compile(r"(.+)[_.-](labels?|seg|segmentation|masks?)", re.IGNORECASE)
_NUMBERED = re.compile(r"(.*?)(\d+)")


def suffix_of(path: Path) -> str:
    """The suffix in SUFFIXES that a name ends with, in lower case, or an empty string."""
    matching = [suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)]
    return max(matching, key=len, default="")


def stem_of(path: Path) -> str:
    """The name without such a suffix: `scan.nii.gz` and `scan.ome.zarr` are both `scan`."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def labelled(path: Path) -> str | None:
    """The volume whose labels a path is named to hold: `k` for `k_labels.tif`, `k-seg.nii.gz` and `k_mask/`."""
    found = _LABELS_OF.fullmatch(stem_of(path))
    return None if found is None else found[1]


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
    tiffs = [file for file in entries(path) if file.suffix.lower() in TIFF_SUFFIXES and file.is_file()]
    numbered = [_NUMBERED.fullmatch(stem_of(file)) for file in tiffs]
    prefixes = {None if found is None else found[1] for found in numbered}
    if len(prefixes) != 1 or None in prefixes or (len(tiffs) == 1 and prefixes != {""}):
        return False
    for file in tiffs:  # the first that can be judged
        with suppress(InputError):
            return is_slice(file)
    return False


def not_read(names: Sequence[Path]) -> str:
    """Pictures among the files of a folder that are in no supported format, in words; empty if there are none."""
    found = [path.name for path in names if path.suffix.lower() in OTHER_SUFFIXES and not suffix_of(path)]
    if not found:
        return ""
    shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return f"{shown}: not in a supported format (TIFF, Zarr, .npy, NIfTI)"


def find_one(folder: Path, names: Sequence[str]) -> Path | None:
    """The file, store or folder of one of these names inside a folder, or None; raises InputError if there are two."""
    found = [path for path in entries(folder) if stem_of(path) in names and (suffix_of(path) or path.is_dir())]
    if len(found) > 1:
        raise InputError(f"{folder}: both {found[0].name} and {found[1].name} exist; keep one of them")
    return found[0] if found else None
