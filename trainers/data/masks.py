"""Writes and reads masks: a folder of TIFF slices, one TIFF, Zarr or .npy, chosen by the suffix of the path."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.atomic import whole_file, whole_folder
from trainers.data.axes import Pick
from trainers.data.geometry import Geometry, Spacing
from trainers.data.greys import VesselValue, to_mask
from trainers.data.naming import find_labels, suffix_of
from trainers.data.readers import open_slices
from trainers.data.rle import EMPTY, read_rles, rle_slices
from trainers.data.slices import Slices
from trainers.data.tiff_place import tags_for
from trainers.data.zarr_store import is_zarr, ome_attributes

Mask = NDArray[Any]
MOST_VESSEL = 0.5  # share of the voxels; vessels of an organ take a few percent

_INSIDE = 255
_ZARR_CHUNK = (32, 256, 256)


def write_mask(path: Path, slices: Mask | Iterable[Mask], geometry: Geometry) -> Path:
    """Write a mask, 0 and 255, from a (D, H, W) array or from a stream of (H, W) slices; any value but 0 is inside.

    No suffix: a folder of NNNN.tif, numbered as in the geometry. .tif: one file of many pages. .zarr: OME-Zarr. .npy:
    an array. What is known of its place is stored with it, except in .npy. The mask appears under its name only once
    it is complete. Raises InputError if the path already exists, for other suffixes, and for no slices or unequal ones.
    """
    write = _WRITERS[check_mask_path(path)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, _equal_slices(path, slices), geometry)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def check_mask_path(path: Path) -> str:
    """The suffix that decides how a mask is written; InputError if none can be written there."""
    suffix = suffix_of(path) or path.suffix.lower()
    if suffix not in _WRITERS:
        raise InputError(f"{path}: masks are written as .tif, .zarr, .npy, or a folder of slices without a suffix")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: already exists; choose another path or delete it")
    return suffix


def unlikely(vessel: int, voxels: int) -> str | None:
    """What everybody should know of a mask with so many of its voxels inside; None for a usual one."""
    if vessel == 0:
        return "no vessel is in it"
    if vessel > MOST_VESSEL * voxels:
        return f"{vessel / voxels:.0%} of its voxels are vessel: is it inverted, or of the whole organ?"
    return None


def is_table(path: Path) -> bool:
    """Whether a path is named like a table of run lengths."""
    return path.suffix.lower() == ".csv"


def open_mask(
    path: Path,
    volume: str | None = None,
    shape: tuple[int, int, int] | None = None,
    spacing_um: Spacing | None = None,
) -> Slices:
    """A mask from any source: the output of `write_mask`, a volume's folder, or run lengths.

    A volume's folder gives its labels. For a CSV file with several volumes, `volume` names one; without the columns
    height and width, `shape` is needed. spacing_um: by a person, who may know better than a header.
    """
    if is_table(path):
        stack = _open_rles(path, volume, shape).stated(spacing_um)
    else:
        stack = open_slices(_stack_in(path), Pick(spacing_um=spacing_um))
    if shape is not None and stack.shape != shape:
        raise InputError(f"{path}: the mask has shape {stack.shape}, not {shape}")
    return stack


def read_mask(path: Path, volume: str | None = None, shape: tuple[int, int, int] | None = None) -> NDArray[np.bool_]:
    """The voxels of the mask that `open_mask` opens."""
    return inside(open_mask(path, volume, shape))


def inside(stack: Slices) -> NDArray[np.bool_]:
    """The voxels of a mask as bool (D, H, W). Raises InputError for values other than 0 and 255, or 0 and 1."""
    mask = np.empty(stack.shape, np.bool_)
    for z, one in enumerate(_slices_of(stack)):
        mask[z] = one
    return mask


def is_whole(path: Path, shape: tuple[int, int, int], numbers: Sequence[int]) -> bool:
    """Whether a folder holds a mask of that shape in slices with these numbers, all of them readable."""
    try:
        stack = open_slices(path)
        if stack.shape != shape or tuple(stack.numbers) != tuple(numbers):
            return False
        for _ in _slices_of(stack):
            pass
    except InputError:
        return False
    return True


def mask_slices(path: Path) -> Iterator[NDArray[np.bool_]]:
    """The slices (H, W) of a mask written by `write_mask`, in order; only a few are held in memory at once."""
    return _slices_of(open_slices(_stack_in(path)))


def _slices_of(stack: Slices) -> Iterator[NDArray[np.bool_]]:
    vessel: VesselValue | None = None
    with stack.reading() as read:
        for start in range(0, stack.shape[0], stack.block_depth):
            stop = min(start + stack.block_depth, stack.shape[0])
            mask, found = to_mask(read(start, stop), _name_of(stack, start), stack.white)
            vessel = found if vessel is None else vessel.agreed(found)
            yield from mask.view(np.bool_)


def _stack_in(path: Path) -> Path:
    if path.is_dir() and not is_zarr(path):
        return find_labels(path) or path
    return path


def _name_of(stack: Slices, start: int) -> Callable[[int], str]:
    return lambda z: stack.slice_name(start + z)


def _open_rles(path: Path, volume: str | None, shape: tuple[int, int, int] | None) -> Slices:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    volumes = read_rles(path)
    if volume is None and len(volumes) != 1:
        raise InputError(
            f"{path}: holds {len(volumes)} volumes; keep the rows of one of them: {', '.join(sorted(volumes))}"
        )
    name = volume or next(iter(volumes))
    if name not in volumes:
        raise InputError(f"{path}: no rows for {name!r}; it holds {', '.join(sorted(volumes))}")
    rows = volumes[name]
    first, last = min(rows), max(rows)
    if last - first >= len(rows):  # before that many numbers are made
        missing = next(number + 1 for number in sorted(rows) if number + 1 not in rows)
        raise InputError(f"{path}: no row for slice {missing:04d}; a slice without vessels has the code '{EMPTY}'")
    row = rows[first]
    if shape is None and (row.height is None or row.width is None):
        raise InputError(f"{path}: the shape of {name} is not known; add the columns height and width")
    height, width = shape[1:] if shape is not None else (row.height or 0, row.width or 0)
    numbers = tuple(range(first, last + 1))
    return rle_slices(path, rows, numbers, (len(numbers), height, width))


def _equal_slices(path: Path, slices: Mask | Iterable[Mask]) -> Iterator[NDArray[np.uint8]]:
    shape = None
    for z, one in enumerate(slices):
        if one.ndim != 2 or (shape is not None and one.shape != shape):
            raise InputError(f"{path}: slice {z} has shape {one.shape}, not {shape or '(H, W)'}")
        shape = one.shape
        yield (one != 0).astype(np.uint8) * np.uint8(_INSIDE)
    if shape is None:
        raise InputError(f"{path}: the mask has no slices")


def tiff_tags(geometry: Geometry) -> dict[str, Any]:
    """Options for writing slices: compression, and what is known of their place."""
    return {"compression": "deflate", "photometric": "minisblack", "metadata": None, **tags_for(geometry)}


def _write_folder(path: Path, slices: Iterator[NDArray[np.uint8]], geometry: Geometry) -> None:
    with whole_folder(path) as folder:
        for number, one in enumerate(slices, start=geometry.numbers[0]):
            tifffile.imwrite(folder / f"{number:04d}.tif", one, **tiff_tags(geometry))


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    with whole_file(path) as file:
        yield file
        if path.is_dir():  # an empty one
            path.rmdir()


def _write_pages(path: Path, slices: Iterator[NDArray[np.uint8]], geometry: Geometry) -> None:
    with _new_file(path) as file, tifffile.TiffWriter(file, bigtiff=True) as writer:
        for one in slices:
            writer.write(one, **tiff_tags(geometry))


def _write_npy(path: Path, slices: Iterator[NDArray[np.uint8]], geometry: Geometry) -> None:
    with _new_file(path) as file:
        depth, shape = 0, (0, 0)
        for one in slices:
            if not depth:
                # The depth is only known at the end; numpy leaves room for its digits in the header.
                _npy_header(file, (0, *one.shape))
            file.write(one.data)
            depth, shape = depth + 1, one.shape
        file.seek(0)
        _npy_header(file, (depth, *shape))


def _npy_header(file: Any, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _write_zarr(path: Path, slices: Iterator[NDArray[np.uint8]], geometry: Geometry) -> None:
    with whole_folder(path) as folder:
        group = zarr.open_group(folder, mode="w", zarr_format=3)
        array: Any = None
        waiting: list[NDArray[np.uint8]] = []
        for one in slices:
            if array is None:
                chunks = (_ZARR_CHUNK[0], min(_ZARR_CHUNK[1], one.shape[0]), min(_ZARR_CHUNK[2], one.shape[1]))
                array = group.create_array("0", shape=(0, *one.shape), chunks=chunks, dtype="uint8")
            waiting.append(one)
            if len(waiting) == _ZARR_CHUNK[0]:
                array.append(np.stack(waiting))
                waiting = []
        if waiting:
            array.append(np.stack(waiting))
        group.attrs["ome"] = ome_attributes(geometry)


_WRITERS: dict[str, Callable[[Path, Iterator[NDArray[np.uint8]], Geometry], None]] = {
    "": _write_folder,
    **dict.fromkeys((".tif", ".tiff", ".ome.tif", ".ome.tiff"), _write_pages),
    ".zarr": _write_zarr,
    ".ome.zarr": _write_zarr,
    ".npy": _write_npy,
}
