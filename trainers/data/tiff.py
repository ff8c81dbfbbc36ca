"""TIFF: a folder of numbered slices, or one file of many pages; headers are checked before memory is allocated."""

import re
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.lzw import is_lzw
from trainers.data.slices import ReadBlock, Slices, decoding
from trainers.data.volume import Spacing

TIFF_SUFFIXES = (".tif", ".tiff")
# 23,000 x 23,000 voxels of 16 bits: no scanner makes such slices, but a damaged header may state them.
MAX_SLICE_BYTES = 2**30
MOST_TAGS = 1000  # most tags of a page; microscopes write dozens
_KIND = "TIFF"
_UNCOMPRESSED, _LZW = 1, 5  # values of the tag Compression
_PALETTE, _SEPARATE_PLANES, _LOW_BIT_FIRST = 3, 2, 2  # of the tags Photometric, PlanarConfig, FillOrder
_OTHER_BIT_ORDER = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_NATIVE_ORDER = "<" if sys.byteorder == "little" else ">"
_MICROMETRES = {"micron": 1.0, "um": 1.0, "µm": 1.0, "\\u00b5m": 1.0, "mm": 1e3, "cm": 1e4, "nm": 1e-3}


@dataclass(frozen=True)
class TiffFolder(Slices):
    """A folder of files NNNN.tif, one per slice, without gaps in the numbers."""

    parallel = True

    @contextmanager
    def reading(self) -> Iterator[ReadBlock]:
        """See Slices; slices are opened one by one, so any number of threads may read."""
        sample_axis = (self.samples,) if self.samples > 1 else ()
        # One block of memory per thread, which is reused: allocating memory costs as much as reading into it.
        own = threading.local()

        def read(start: int, stop: int) -> NDArray[Any]:
            shape = (stop - start, *self.shape[1:], *sample_axis)
            if getattr(own, "block", np.empty(0)).shape != shape:
                own.block = np.empty(shape, self.dtype)
            block: NDArray[Any] = own.block
            for z in range(start, stop):
                read_slice(self.files[z], block[z - start], self.files[0])
            return block

        yield read

    def slice_name(self, z: int) -> str:
        """The file of the slice."""
        return str(self.files[z])

    def select(self, numbers: tuple[int, ...]) -> "TiffFolder":
        """The stack with only these slices; raises InputError if one is missing."""
        by_number = dict(zip(self.numbers, self.files, strict=True))
        missing = [number for number in numbers if number not in by_number]
        if missing:
            raise InputError(f"{self.path}: slice {missing[0]:04d} is missing, but it has a label")
        files = tuple(by_number[number] for number in numbers)
        return replace(self, files=files, numbers=numbers, shape=(len(files), *self.shape[1:]))


@dataclass(frozen=True)
class TiffPages(Slices):
    """One TIFF file whose pages are the slices."""

    @contextmanager
    def reading(self) -> Iterator[ReadBlock]:
        """See Slices."""
        with _opened(self.path) as tif:
            with decoding(self.path, _KIND):
                series = tif.series[0]

            def read(start: int, stop: int) -> NDArray[Any]:
                with decoding(self.path, _KIND):
                    if series.dataoffset is not None and self.samples == 1:
                        # ImageJ writes large stacks as one page followed by one run of voxels.
                        dtype = self.dtype.newbyteorder(tif.byteorder)
                        return np.array(np.memmap(self.path, dtype, "r", series.dataoffset, self.shape)[start:stop])
                    sample_axis = (self.samples,) if self.samples > 1 else ()
                    block = np.empty((stop - start, *self.shape[1:], *sample_axis), self.dtype)
                    for z in range(start, stop):
                        _decode(tif, series.pages[z], self.path, block[z - start])
                    return block

            yield read


def open_folder(folder: Path) -> TiffFolder:
    """The slices in a folder, ordered by number. Raises InputError for gaps, duplicates and an empty folder."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in TIFF_SUFFIXES or path.name.startswith("."):
            continue
        number = re.search(r"(\d+)$", path.stem)
        if not number:
            raise InputError(f"{path}: a slice needs a number at the end of its name, as in 0000.tif")
        twin = found.setdefault(int(number[1]), path)
        if twin is not path:
            raise InputError(f"{path}: slice {int(number[1])} appears twice; the other file is {twin.name}")
    if not found:
        raise InputError(f"{folder}: no TIFF slices in it; slices are named 0000.tif, 0001.tif and so on")
    numbers = tuple(sorted(found))
    for before, after in pairwise(numbers):
        if after != before + 1:
            raise InputError(
                f"{folder}: slice {before + 1:04d} is missing between {found[before].name} and {found[after].name}"
            )
    files = tuple(found[number] for number in numbers)
    with _opened(files[0]) as tif, decoding(files[0], _KIND):
        page = _single_page(tif, files[0])
        height, width = _height_width(page)
        dtype, spacing, samples = _native(page.dtype), _spacing(tif), int(page.samplesperpixel)
    return TiffFolder(folder, (len(files), height, width), dtype, spacing, files, numbers, samples)


def open_pages(path: Path) -> TiffPages:
    """A multi-page file as a stack; raises InputError if its pages differ."""
    with _opened(path) as tif, decoding(path, _KIND):
        if len(tif.series) != 1:
            shapes = ", ".join(str(tuple(series.shape)) for series in tif.series[:3])
            raise InputError(f"{path}: its pages have different shapes ({shapes}); a volume needs equal slices")
        series = tif.series[0]
        page = series.keyframe
        _check_header(page, path, tif.filehandle.size)
        height, width = _height_width(page)
        depth = int(np.prod(series.shape)) // int(np.prod(page.shape))
        if series.dataoffset is not None and series.dataoffset + series.nbytes > tif.filehandle.size:
            raise InputError(f"{path}: truncated: its header states {depth} slices, but the file ends earlier")
        dtype, spacing, samples = _native(page.dtype), _spacing(tif), int(page.samplesperpixel)
    return TiffPages(path, (depth, height, width), dtype, spacing, (path,), tuple(range(depth)), samples)


def count_pages(path: Path) -> int:
    """The number of slices in a TIFF file."""
    return open_pages(path).shape[0]


def read_slice(path: Path, into: NDArray[Any], like: Path) -> None:
    """Read one slice into an array (H, W) or (H, W, samples), which must match the file `like`.

    Raises InputError for a slice of another shape or type.
    """
    with _opened(path) as tif, decoding(path, _KIND):
        page = _single_page(tif, path)
        height, width = _height_width(page)
        if (height, width) != into.shape[:2]:
            raise InputError(
                f"{path}: {height} x {width} voxels, but {like.name} has {into.shape[0]} x {into.shape[1]}; "
                "all slices of a volume must have the same shape"
            )
        samples = into.shape[2] if into.ndim == 3 else 1
        if _native(page.dtype) != into.dtype or page.samplesperpixel != samples:
            raise InputError(
                f"{path}: {_kind(page.dtype, page.samplesperpixel)}, but {like.name} is "
                f"{_kind(into.dtype, samples)}; all slices of a volume must be alike"
            )
        _decode(tif, page, path, into)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with decoding(path, _KIND):
        _check_chain(path)
        tif = tifffile.TiffFile(path)
    with tif:
        yield tif


def _check_chain(path: Path) -> None:
    """Follow the pages from one to the next by their headers alone.

    A damaged page leads into voxels, where every few bytes look like another page: tifffile then reads for minutes.
    """
    with path.open("rb") as file:
        order = {b"II": "<", b"MM": ">"}.get(file.read(2))
        if order is None:
            raise InputError(f"{path}: cannot be read as TIFF, which begins with II or MM")
        (version,) = struct.unpack(order + "H", file.read(2))
        if version == 43:  # BigTIFF
            file.seek(8)
            counts, tag_bytes, pointer = order + "Q", 20, order + "Q"
        else:
            counts, tag_bytes, pointer = order + "H", 12, order + "I"
        seen: set[int] = set()
        while offset := struct.unpack(pointer, file.read(struct.calcsize(pointer)))[0]:
            if offset in seen:
                raise InputError(f"{path}: damaged: its page {len(seen)} leads back to an earlier one")
            seen.add(offset)
            file.seek(offset)
            (tags,) = struct.unpack(counts, file.read(struct.calcsize(counts)))
            if not 0 < tags <= MOST_TAGS:
                raise InputError(f"{path}: damaged: its page {len(seen) - 1} states {tags} tags")
            file.seek(tags * tag_bytes, 1)


def _single_page(tif: Any, path: Path) -> Any:
    pages, page = len(tif.pages), tif.pages.first
    if pages != 1:
        raise InputError(f"{path}: holds {pages} pages; a slice file holds one")
    _check_header(page, path, tif.filehandle.size)
    return page


def _check_header(page: Any, path: Path, file_bytes: int) -> None:
    """Refuse impossible headers before any memory is allocated."""
    shape = " x ".join(str(edge) for edge in page.shape)
    if page.dtype is None or not page.shape:
        raise InputError(f"{path}: its TIFF header states no usable shape or type; write it again as 16-bit grey")
    if page.samplesperpixel < 1:
        raise InputError(f"{path}: damaged: its header states voxels without a value")
    if page.nbytes > MAX_SLICE_BYTES:
        raise InputError(f"{path}: its header states a slice of {shape}, more than 1 GiB; the file is damaged")
    if page.compression == _UNCOMPRESSED and page.nbytes > file_bytes:
        raise InputError(
            f"{path}: truncated or damaged: {shape} voxels need {page.nbytes} bytes, but the file has {file_bytes}"
        )
    parts = int(np.prod(page.chunked))
    if len(page.dataoffsets) < parts:
        raise InputError(
            f"{path}: truncated or damaged: {shape} voxels lie in {parts} strips or tiles, but the file has "
            f"{len(page.dataoffsets)}"
        )
    if page.photometric == _PALETTE:
        raise InputError(f"{path}: a palette TIFF holds colours, not grey values; write it again as 16-bit grey")


def _decode(tif: Any, page: Any, path: Path, into: NDArray[Any]) -> None:
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > tif.filehandle.size:
        raise InputError(f"{path}: truncated: the file has {tif.filehandle.size} bytes, but its voxels end later")
    if page.compression == _LZW:
        _check_lzw(tif, page, path)
    if page.keyframe.planarconfig == _SEPARATE_PLANES and into.ndim == 3:
        into[:] = np.moveaxis(page.asarray(), 0, -1)
    elif tif.byteorder == _NATIVE_ORDER:
        page.asarray(out=into)
    else:
        into[:] = page.asarray()


def _check_lzw(tif: Any, page: Any, path: Path) -> None:
    for number, strip in enumerate(tif.filehandle.read_segments(page.dataoffsets, page.databytecounts, sort=False)):
        data = strip[0] or b""
        if not is_lzw(data.translate(_OTHER_BIT_ORDER) if page.fillorder == _LOW_BIT_FIRST else data):
            raise InputError(f"{path}: damaged: its strip or tile {number} is not valid LZW")


def _native(dtype: Any) -> np.dtype[Any]:
    """The type after decoding, regardless of the file's byte order."""
    native: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
    return native


def _kind(dtype: Any, samples: int) -> str:
    return f"{dtype} {'colour' if samples > 1 else 'grey'}"


def _height_width(page: Any) -> tuple[int, int]:
    return int(page.imagelength), int(page.imagewidth)


def _spacing(tif: Any) -> Spacing | None:
    """Voxel spacing that our own masks or ImageJ state in the file, or None."""
    page = tif.pages.first
    own = re.match(r"spacing_um=([\d.e+-]+),([\d.e+-]+),([\d.e+-]+)$", page.description or "")
    if own:
        return float(own[1]), float(own[2]), float(own[3])
    imagej = tif.imagej_metadata or {}
    scale = _MICROMETRES.get(str(imagej.get("unit", "")).lower())
    tags = [page.tags.get(name) for name in ("YResolution", "XResolution")]
    if scale is None or "spacing" not in imagej or None in tags:
        return None
    (y_pixels, y_units), (x_pixels, x_units) = (tag.value for tag in tags if tag is not None)
    if min(y_pixels, x_pixels, imagej["spacing"]) <= 0:
        return None
    return float(imagej["spacing"]) * scale, scale * y_units / y_pixels, scale * x_units / x_pixels
