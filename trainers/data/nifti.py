"""NIfTI images, which store (x, y, z) and say where they lie in the body."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.axes import UNNAMED, Axes, Pick, find_axes
from trainers.data.geometry import SPACING_TOLERANCE, Geometry, Spacing, Vector, spacing_text
from trainers.data.slices import ReadBlock, Slices, decoding, native
from trainers.data.units import micrometres

NIFTI_SUFFIXES = (".nii", ".nii.gz")
# https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h: three dimensions of space, then time, then values
_NAMES = ("x", "y", "z", "time", "channel", UNNAMED, UNNAMED)
_WORLD = "NIfTI"  # right, anterior, superior


@dataclass(frozen=True)
class NiftiFile(Slices):
    """A NIfTI image as (z, y, x)."""

    axes: Axes = field(kw_only=True)

    @property
    def choice(self) -> str:
        """See Slices."""
        return str(self.axes)

    @contextmanager
    def _opened(self) -> Iterator[ReadBlock]:
        # Blocks are read in order, so that a compressed file is decompressed once.
        proxy: Any = _loaded(self.path, keep_file_open=True).dataobj

        def read(start: int, stop: int) -> NDArray[Any]:
            with decoding(self.path, "NIfTI"):
                return self.axes.arranged(np.asanyarray(proxy[self.axes.index(start, stop)]))

        try:
            yield read
        finally:
            # keep_file_open leaves the handle to the proxy; without this it stays open until garbage collection.
            opener = getattr(proxy, "_opener", None)
            if opener is not None:
                opener.close()


def open_nifti(path: Path, pick: Pick) -> NiftiFile:
    """The image in a file. Raises InputError for one that is no volume, or whose header contradicts itself."""
    image = _loaded(path)
    with decoding(path, "NIfTI"):
        axes = find_axes(path, _NAMES[: len(image.shape)], image.shape, pick)
        unscaled = image.dataobj.slope == 1 and image.dataobj.inter == 0
        dtype = native(image.get_data_dtype() if unscaled else np.float64)
        geometry, notes = _grid(path, image, axes.shape)
    return NiftiFile(path, geometry, dtype, (path,), notes=notes, axes=axes)


def _grid(path: Path, image: Any, shape: tuple[int, int, int]) -> tuple[Geometry, tuple[str, ...]]:
    header = image.header
    placed = any(int(header[code]) > 0 for code in ("qform_code", "sform_code"))
    zooms = _zooms(path, type(header), min(3, len(image.shape)))
    stated = header.get_xyzt_units()[0]
    if stated == "unknown" and not placed and zooms == [1.0, 1.0, 1.0]:
        return Geometry.counted(shape), ()  # the header of an array of which nothing is known
    unit = micrometres(stated) or micrometres("mm") or 1.0
    notes = ("the unit of its voxel size is not stated, taken as mm",) if stated == "unknown" else ()
    spacing = _reversed(unit * zoom for zoom in zooms)
    if not placed:
        return Geometry.counted(shape, spacing), notes
    affine = np.asarray(image.affine, float)
    edges = _reversed(unit * float(edge) for edge in np.linalg.norm(affine[:3, :3], axis=0))
    for own, other in zip(edges, spacing, strict=True):
        if abs(own - other) > SPACING_TOLERANCE * max(own, other):
            raise InputError(
                f"{path}: its affine states voxels of {spacing_text(edges)} µm and pixdim {spacing_text(spacing)} µm; "
                "write the right ones into both"
            )
    if not (np.isfinite(affine).all() and min(edges) > 0):
        return Geometry.counted(shape, edges), notes
    z, y, x = (_vector(unit * affine[:3, axis] / edge) for axis, edge in zip((2, 1, 0), edges, strict=True))
    origin = _vector(unit * affine[:3, 3])
    geometry = Geometry(shape, tuple(range(shape[0])), False, edges, _WORLD, (z, y, x), origin)
    return geometry, notes


def _zooms(path: Path, header_type: Any, count: int) -> list[float]:
    """The edges that pixdim states: as stored, because nibabel makes 1 of 0."""
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as file:
        stored = header_type.from_fileobj(file, check=False)["pixdim"]
    return [abs(float(edge)) for edge in stored[1 : 1 + count]] + [1.0] * (3 - count)


def _reversed(values: Any) -> Spacing:
    x, y, z = values
    return z, y, x


def _vector(values: NDArray[Any]) -> Vector:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _loaded(path: Path, keep_file_open: bool = False) -> Any:
    try:
        import nibabel
    except ImportError:
        raise InputError(f"{path}: reading NIfTI needs nibabel; pip install 'vessel-nas[nifti]'") from None
    nibabel.imageglobals.logger.setLevel(logging.ERROR)  # what it mends in a header is judged here
    with decoding(path, "NIfTI"):
        return nibabel.load(path, keep_file_open=keep_file_open, mmap=False)
