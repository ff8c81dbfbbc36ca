"""Opens every format: TIFF slices or pages, Zarr 2 and 3, OME-Zarr, .npy, NIfTI. Only headers are read here."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data import tiff
from trainers.data.slices import CHUNK_BLOCK_BYTES, ReadBlock, Slices, decoding, depth_within
from trainers.data.volume import Spacing

NIFTI_SUFFIXES = (".nii", ".nii.gz")
LONGEST_EDGE = 2**20  # voxels; a kidney has thousands along each axis, a damaged header may state millions
SUFFIXES = (*tiff.TIFF_SUFFIXES, ".npy", ".ome.zarr", ".zarr", *NIFTI_SUFFIXES)
_ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")
_UNIT_UM = {"micrometer": 1.0, "micron": 1.0, "um": 1.0, "millimeter": 1e3, "mm": 1e3, "nanometer": 1e-3, "meter": 1e6}


def open_slices(path: Path) -> Slices:
    """The stack at a path, in any supported format; raises InputError if there is none."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if path.is_dir():
        return _open_zarr(path) if is_zarr(path) else tiff.open_folder(path)
    suffix = suffix_of(path)
    if suffix in tiff.TIFF_SUFFIXES:
        return tiff.open_pages(path)
    if suffix == ".npy":
        return _open_npy(path)
    if suffix in NIFTI_SUFFIXES:
        return _open_nifti(path)
    raise InputError(
        f"{path}: not a supported format; supported are {', '.join(SUFFIXES)}, and a folder of TIFF slices"
    )


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / name).is_file() for name in _ZARR_FILES)


def suffix_of(path: Path) -> str:
    """The suffix in SUFFIXES that a name ends with, in lower case, or an empty string."""
    matching = [suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)]
    return max(matching, key=len, default="")


def stem_of(path: Path) -> str:
    """The name without such a suffix: `scan.nii.gz` and `scan.ome.zarr` are both `scan`."""
    return path.name[: len(path.name) - len(suffix_of(path))]


@dataclass(frozen=True)
class NpyFile(Slices):
    """A .npy array in (D, H, W) order."""

    parallel = True

    @contextmanager
    def reading(self) -> Iterator[ReadBlock]:
        """See Slices."""

        def read(start: int, stop: int) -> NDArray[Any]:
            # A new map for each block, because the pages of a closed map do not count as this process's memory.
            return np.array(_map_npy(self.path)[start:stop])

        yield read


@dataclass(frozen=True)
class ZarrArray(Slices):
    """A Zarr array in (D, H, W) order, possibly with leading axes of length 1; array_path: its path in the store."""

    array_path: str = ""
    leading_axes: int = 0
    chunk_depth: int = 1

    @property
    def block_depth(self) -> int:
        """As deep as the chunks, because a chunk is decoded whole."""
        most = depth_within(self.shape, self.dtype, CHUNK_BLOCK_BYTES)
        chunks = max(1, super().block_depth // self.chunk_depth)
        return min(most, self.chunk_depth * chunks)

    @contextmanager
    def reading(self) -> Iterator[ReadBlock]:
        """See Slices; Zarr decodes the chunks of a block in its own threads."""
        first_of_leading: tuple[int | slice, ...] = (0,) * self.leading_axes
        array = zarr.open_array(self.path, path=self.array_path, mode="r")

        def read(start: int, stop: int) -> NDArray[Any]:
            with decoding(self.path, f"Zarr in slices {start} to {stop - 1}"):
                return np.asarray(array[(*first_of_leading, slice(start, stop))])

        yield read


@dataclass(frozen=True)
class NiftiFile(Slices):
    """A NIfTI image, which stores (x, y, z); it is read as (z, y, x), and its orientation matrix is ignored."""

    @contextmanager
    def reading(self) -> Iterator[ReadBlock]:
        """See Slices; blocks are read in order, so a compressed file is decompressed once."""
        proxy: Any = _load_nifti(self.path, keep_file_open=True).dataobj

        def read(start: int, stop: int) -> NDArray[Any]:
            rest = (0,) * (len(proxy.shape) - 3)
            with decoding(self.path, "NIfTI"):
                return np.array(np.asanyarray(proxy[(slice(None), slice(None), slice(start, stop), *rest)]).T)

        try:
            yield read
        finally:
            # keep_file_open leaves the handle to the proxy; without this it stays open until garbage collection.
            opener = getattr(proxy, "_opener", None)
            if opener is not None:
                opener.close()


def _map_npy(path: Path) -> NDArray[Any]:
    with decoding(path, "a .npy array of numbers"):
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _open_npy(path: Path) -> NpyFile:
    mapped = _map_npy(path)
    shape = _three(path, mapped.shape)
    return NpyFile(path, shape, mapped.dtype, None, (path,), tuple(range(shape[0])))


def _open_zarr(path: Path) -> ZarrArray:
    with decoding(path, "Zarr"):
        node = zarr.open(path, mode="r")
        array, spacing = _level_0(path, node) if isinstance(node, zarr.Group) else (node, None)
    leading = array.ndim - 3
    if leading > 0 and any(edge != 1 for edge in array.shape[:leading]):
        raise InputError(f"{path}: has shape {array.shape}; only one time point and one channel can be read")
    shape = _three(path, array.shape[max(0, leading) :])
    # A shard contains many chunks and is opened once for all of them, so it sets the depth if there is one.
    chunk_depth = min(int((array.shards or array.chunks)[leading]), shape[0])
    folder = path / array.path
    files = tuple(sorted(file for file in folder.rglob("*") if file.is_file()))
    dtype, numbers = np.dtype(array.dtype), tuple(range(shape[0]))
    return ZarrArray(path, shape, dtype, spacing, files, numbers, 1, array.path, max(0, leading), chunk_depth)


def _level_0(path: Path, group: zarr.Group) -> tuple[Any, Spacing | None]:
    """The full-resolution array in a group: OME-Zarr's first data set, or the only array."""
    attributes: dict[str, Any] = dict(group.attrs)
    attributes = attributes.get("ome", attributes)
    if "multiscales" not in attributes:
        arrays = sorted(group.array_keys())
        if len(arrays) != 1:
            raise InputError(f"{path}: a Zarr group of {len(arrays)} arrays without OME metadata; name one of them")
        return group[arrays[0]], None
    scales = attributes["multiscales"][0]
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales.get("axes", [])]
    names = [str(axis["name"]).lower() for axis in axes]
    if names and names[-3:] != ["z", "y", "x"]:
        raise InputError(f"{path}: its axes are {', '.join(names)}; they must end in z, y, x")
    first = scales["datasets"][0]
    scale = _scale(first.get("coordinateTransformations")), _scale(scales.get("coordinateTransformations"))
    units = [_UNIT_UM.get(str(axis.get("unit", "")).lower()) for axis in axes[-3:]]
    array = group[first["path"]]
    if scale[0] is None or len(units) != 3 or None in units:
        return array, None
    outer = scale[1] or [1.0] * len(scale[0])
    z, y, x = (
        inner * whole * (unit or 1.0) for inner, whole, unit in zip(scale[0][-3:], outer[-3:], units, strict=True)
    )
    return array, (z, y, x)


def _scale(transformations: list[dict[str, Any]] | None) -> list[float] | None:
    found = [step["scale"] for step in transformations or [] if step.get("type") == "scale"]
    return [float(value) for value in found[0]] if found else None


def _open_nifti(path: Path) -> NiftiFile:
    image = _load_nifti(path)
    with decoding(path, "NIfTI"):
        x_edge, y_edge, z_edge = _three(path, image.shape[:3] if set(image.shape[3:]) <= {1} else image.shape)
        slope = image.dataobj.slope == 1 and image.dataobj.inter == 0
        dtype = np.dtype(image.get_data_dtype() if slope else np.float64)
        unit = _UNIT_UM.get(
            {"meter": "meter", "mm": "mm", "micron": "micron"}.get(image.header.get_xyzt_units()[0], "")
        )
        x, y, z = (float(zoom) for zoom in image.header.get_zooms()[:3])
    spacing = None if unit is None else (z * unit, y * unit, x * unit)
    return NiftiFile(path, (z_edge, y_edge, x_edge), dtype, spacing, (path,), tuple(range(z_edge)))


def _load_nifti(path: Path, keep_file_open: bool = False) -> Any:
    try:
        import nibabel
    except ImportError:
        raise InputError(f"{path}: reading NIfTI needs nibabel; pip install 'vessel-nas[nifti]'") from None
    with decoding(path, "NIfTI"):
        return nibabel.load(path, keep_file_open=keep_file_open, mmap=False)


def _three(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3 or not all(shape):
        raise InputError(f"{path}: has shape {tuple(shape)}; a volume has three axes (z, y, x), none of them empty")
    if max(shape) > LONGEST_EDGE:
        raise InputError(f"{path}: its header states {' x '.join(map(str, shape))} voxels and is damaged")
    depth, height, width = shape
    return int(depth), int(height), int(width)
