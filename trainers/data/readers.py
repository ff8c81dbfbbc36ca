"""Opens every format: TIFF slices or pages, Zarr 2 and 3, OME-Zarr, .npy, NIfTI. Only headers are read here."""

from collections.abc import Callable
from pathlib import Path

from search_spaces.errors import InputError
from trainers.data import tiff
from trainers.data.axes import AS_STORED, Pick
from trainers.data.naming import FORMATS, check_slices, suffix_of
from trainers.data.nifti import open_nifti
from trainers.data.npy import open_npy
from trainers.data.slices import Slices
from trainers.data.zarr_store import is_zarr, open_zarr

_READERS: dict[str | None, Callable[[Path, Pick], Slices]] = {
    "TIFF": tiff.open_pages,
    ".npy": open_npy,
    "NIfTI": open_nifti,
}  # by the names in FORMATS; a Zarr store is a folder


def open_slices(path: Path, pick: Pick = AS_STORED) -> Slices:
    """The stack at a path, in any supported format; pick: what a person says about its axes and spacing.

    Raises InputError if there is none.
    """
    return _opened(path, pick).stated(pick.spacing_um)


def _opened(path: Path, pick: Pick) -> Slices:
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    kind = FORMATS.get(suffix_of(path))
    if path.is_dir():
        if is_zarr(path):
            return open_zarr(path, pick)
        if kind == "Zarr":
            raise InputError(f"{path}: not a Zarr store: none of zarr.json, .zarray and .zgroup is in it")
        check_slices(path)
        return tiff.open_folder(path, pick)
    if not path.is_file():
        raise InputError(f"{path}: is neither a file nor a folder")
    if kind not in _READERS:
        raise InputError(
            f"{path}: not a supported format; supported are {', '.join(FORMATS)}, and a folder of TIFF slices"
        )
    return _READERS[kind](path, pick)
