"""NIfTI images, which store (x, y, z) and say where they lie in the body."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.axes import UNNAMED, Axes, Pick, find_axes
from trainers.data.geometry import (
    DIRECTION_TOLERANCE,
    ORIGIN_TOLERANCE,
    Geometry,
    Spacing,
    Vector,
    same_spacing,
    spacing_text,
)
from trainers.data.slices import ReadBlock, Slices, decoding, native
from trainers.data.units import micrometres

NIFTI_SUFFIXES = (".nii", ".nii.gz")
# https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h: three dimensions of space, then time, then values
_NAMES = ("x", "y", "z", "time", "channel", UNNAMED, UNNAMED)
_UNITS, _UNIT_BITS = {1: "meter", 2: "mm", 3: "micron"}, 0b111  # of the field xyzt_units
_WORLD = "NIfTI"  # right, anterior, superior
_SLANT_TOLERANCE = 0.01  # cosine between two axes; an affine of four decimals has as much


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
    """The image in a file. Raises InputError for one that is not a volume, or whose header contradicts itself."""
    image = _loaded(path)
    with decoding(path, "NIfTI"):
        first, earliest = image.dataobj.offset, image.header.single_vox_offset
        if first < earliest:
            raise InputError(f"{path}: damaged: its voxels begin at byte {first}, and its header ends at {earliest}")
        axes = find_axes(path, _NAMES[: len(image.shape)], image.shape, pick)
        unscaled = image.dataobj.slope == 1 and image.dataobj.inter == 0
        dtype = native(image.get_data_dtype() if unscaled else np.float64)
        geometry, notes = _grid(path, image, axes, pick.spacing_um)
    return NiftiFile(path, geometry, dtype, (path,), notes=notes, axes=axes)


def _grid(path: Path, image: Any, axes: Axes, stated: Spacing | None) -> tuple[Geometry, tuple[str, ...]]:
    """Where the voxels lie, and what was assumed. stated: by a person, whatever the header says of their edges."""
    header = image.header
    if axes.depth is None or max(columns := (axes.depth, axes.height, axes.width)) > 2:
        of_others = "its affine and pixdim are those of its first three axes, one of which is not read: not taken"
        return Geometry.counted(axes.shape), (of_others,) if axes.depth is not None else ()
    placed = any(int(header[code]) > 0 for code in ("qform_code", "sform_code"))
    pixdim = _pixdim(path, type(header))
    code = int(header["xyzt_units"]) & _UNIT_BITS
    unit_name = _UNITS.get(code)
    if unit_name is None and not placed and (pixdim == 1).all():
        return Geometry.counted(axes.shape), ()  # the header of an array of which nothing is known
    unit = micrometres(unit_name or "mm") or 1.0
    stated_so = f"has the code {code}, which is not known here" if code else "is not stated"
    notes = (f"the unit of its voxel size {stated_so}, taken as mm",) if unit_name is None else ()
    spacing = _three(unit * pixdim[list(columns)])
    if not placed:
        return Geometry.counted(axes.shape, spacing), notes
    affine = np.asarray(image.affine, float)
    steps, origin = unit * affine[:3, list(columns)].T, _three(unit * affine[:3, 3])
    edges = _three(np.linalg.norm(steps, axis=1))
    if not np.isfinite(affine).all() or min(edges) == 0:
        return Geometry.counted(axes.shape, edges), notes
    if stated is None and not same_spacing(edges, spacing):
        raise InputError(
            f"{path}: its affine states voxels of {spacing_text(edges)} µm and pixdim {spacing_text(spacing)} µm; "
            "write the right ones into both, or state voxel_spacing_um in dataset.toml"
        )
    z, y, x = (_three(step / edge) for step, edge in zip(steps, edges, strict=True))
    slant = max(abs(float(np.dot(one, other))) for one, other in ((z, y), (z, x), (y, x)))
    if slant > _SLANT_TOLERANCE:
        if stated is None:
            raise InputError(
                f"{path}: its affine is sheared, its axes meet at {math.degrees(math.acos(min(1.0, slant))):.1f} "
                "degrees; resample it onto right angles, or state voxel_spacing_um in dataset.toml"
            )
        z, y, x = _at_right_angles(np.array((z, y, x)))
        notes = (*notes, "its affine is sheared: it lies as the nearest axes at right angles say")
    geometry = Geometry(axes.shape, tuple(range(axes.shape[0])), False, edges, _WORLD, (z, y, x), origin)
    return geometry, (*notes, *_which_affine(header))


def _at_right_angles(directions: NDArray[np.float64]) -> tuple[Vector, Vector, Vector]:
    """The nearest three directions at right angles: the orthogonal factor of the polar decomposition."""
    left, _, right = np.linalg.svd(directions)
    z, y, x = (_three(direction) for direction in left @ right)
    return z, y, x


def _which_affine(header: Any) -> tuple[str, ...]:
    """A note where a header has two affines that differ: nibabel takes the sform, as others do."""
    if not (int(header["sform_code"]) > 0 and int(header["qform_code"]) > 0):
        return ()
    sform = header.get_sform()
    try:
        qform = header.get_qform()
    except ValueError:  # its quaternion is not a rotation
        qform = np.full((4, 4), np.nan)
    edges = np.linalg.norm(sform[:3, :3], axis=0)
    # Written so that NaN, which compares with nothing, differs.
    same = (np.abs(sform - qform)[:3, :3] <= DIRECTION_TOLERANCE * edges).all()
    if same and math.dist(sform[:3, 3], qform[:3, 3]) <= ORIGIN_TOLERANCE * edges.min():
        return ()
    return ("its sform and its qform differ: it lies as the sform says",)


def _pixdim(path: Path, header_type: Any) -> NDArray[np.float64]:
    """The edges along x, y and z that pixdim states: as stored, because nibabel makes 1 of 0."""
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as file:
        stored = header_type.from_fileobj(file, check=False)["pixdim"]
    return np.abs(np.asarray(stored[1:4], np.float64))


def _three(values: NDArray[Any]) -> Vector:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _loaded(path: Path, keep_file_open: bool = False) -> Any:
    try:
        import nibabel
    except ImportError:
        raise InputError(f"{path}: reading NIfTI needs nibabel; pip install 'vessel-nas[nifti]'") from None
    nibabel.imageglobals.logger.setLevel(logging.CRITICAL)  # what it mends in a header is judged here
    with decoding(path, "NIfTI"):
        return nibabel.load(path, keep_file_open=keep_file_open, mmap=False)
