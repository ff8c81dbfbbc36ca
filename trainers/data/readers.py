"""Opens every format: TIFF slices or pages, Zarr 2 and 3, OME-Zarr, .npy, NIfTI. Only headers are read here."""

from pathlib import Path

from search_spaces.errors import InputError
from trainers.data import tiff
from trainers.data.axes import AS_STORED, Pick
from trainers.data.naming import SUFFIXES, suffix_of
from trainers.data.nifti import NIFTI_SUFFIXES, open_nifti
from trainers.data.npy import open_npy
from trainers.data.slices import Slices
from trainers.data.zarr_store import is_zarr, open_zarr


def open_slices(path: Path, pick: Pick = AS_STORED) -> Slices:
    """The stack at a path, in any supported format; pick: what a person says about its axes.

    Raises InputError if there is none.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if path.is_dir():
        return open_zarr(path, pick) if is_zarr(path) else tiff.open_folder(path, pick)
    suffix = suffix_of(path)
    if suffix.endswith(tiff.TIFF_SUFFIXES):
        return tiff.open_pages(path, pick)
    if suffix == ".npy":
        return open_npy(path, pick)
    if suffix in NIFTI_SUFFIXES:
        return open_nifti(path, pick)
    raise InputError(
        f"{path}: not a supported format; supported are {', '.join(SUFFIXES)}, and a folder of TIFF slices"
    )
