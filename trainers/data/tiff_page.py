"""Pages of TIFF files: headers are checked before memory is allocated, and values mean what a viewer shows."""

import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.lzw import is_lzw
from trainers.data.slices import decoding, granted_bytes, native
from trainers.data.tiff_images import planes_in_one_page
from trainers.data.tiff_place import described, differ, resolution_of

KIND = "TIFF"
# 23,000 x 23,000 voxels of 16 bits: no scanner makes such slices, but a damaged header may state them.
MAX_SLICE_BYTES = 2**30
MOST_TAGS = 1000  # most tags of a page; microscopes write dozens
_ALIKE = (
    "imagewidth", "imagelength", "bitspersample", "sampleformat", "samplesperpixel", "compression", "predictor",
    "photometric", "planarconfig", "fillorder",
)  # fmt: skip
_UNCOMPRESSED, _LZW = 1, 5  # values of the tag Compression
_WHITE_IS_ZERO, _PALETTE, _SEPARATE_PLANES, _LOW_BIT_FIRST = 0, 3, 2, 2  # of Photometric, PlanarConfig, FillOrder
_PHOTOMETRIC, _IMAGEJ = 262, 50839  # codes of tags
_GREYS = (_WHITE_IS_ZERO, 1, 2, 4)  # and BlackIsZero, RGB, and a mask
_YCBCR, _JPEG = 6, (6, 7)  # which is decoded into RGB
_OTHER_BIT_ORDER = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_NATIVE_ORDER = "<" if sys.byteorder == "little" else ">"


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file whose chain of pages is whole; files that its metadata names are not read."""
    with decoding(path, KIND):
        _check_chain(path)
        tif = tifffile.TiffFile(path, _multifile=False, is_mmstack=False, is_ndtiff=False)
    with tif:
        yield tif


def single_page(tif: Any, path: Path) -> Any:
    """The only page of a slice file."""
    page = tif.pages.first
    pages = len(tif.pages) if tif.pages.is_multipage else planes_in_one_page(tif)
    if pages != 1:
        raise InputError(f"{path}: holds {pages} pages; a slice file holds one")
    check_header(page, path, tif.filehandle.size)
    axes = str(described(page).get("axes", "YX"))
    if "YX" not in axes:
        raise InputError(f"{path}: its axes are named {axes}; a slice has rows along x: write it again as YX")
    return page


def check_header(page: Any, path: Path, file_bytes: int) -> None:
    """Refuse impossible headers before any memory is allocated."""
    shape = " x ".join(str(edge) for edge in page.shape)
    if page.dtype is None or not page.shape:
        raise InputError(f"{path}: its TIFF header states no usable shape or type; write it again as 16-bit grey")
    if page.samplesperpixel < 1:
        raise InputError(f"{path}: damaged: its header states voxels without a value")
    if page.nbytes > MAX_SLICE_BYTES:
        raise InputError(f"{path}: its header states a slice of {shape}, more than 1 GiB; the file is damaged")
    part = int(np.prod(page.chunks, dtype=np.float64)) * page.dtype.itemsize
    if 2 * part > granted_bytes(page.nbytes):  # as in Zarr stores: once as numbers, once more while it is unpacked
        raise InputError(
            f"{path}: its header states tiles of {' x '.join(map(str, page.chunks))} for slices of {shape}; the file "
            "is damaged, or must be written again in smaller tiles"
        )
    stored = page.nbytes * _bits(page) // (8 * page.dtype.itemsize)  # 1 or 12 bits lie packed in the file
    if page.compression == _UNCOMPRESSED and stored > file_bytes:
        raise InputError(
            f"{path}: truncated or damaged: {shape} voxels need {stored} bytes, but the file has {file_bytes}"
        )
    parts = int(np.prod(page.chunked))
    if len(page.dataoffsets) < parts:
        raise InputError(
            f"{path}: truncated or damaged: {shape} voxels lie in {parts} strips or tiles, but the file has "
            f"{len(page.dataoffsets)}"
        )
    if page.photometric == _PALETTE:
        raise InputError(f"{path}: a palette TIFF holds colours, not grey values; write it again as 16-bit grey")
    if page.photometric not in _GREYS and not (page.photometric == _YCBCR and page.compression in _JPEG):
        name = getattr(page.photometric, "name", page.photometric)
        raise InputError(
            f"{path}: its values are colours of the kind {name}, not grey values; write it again as 16-bit grey"
        )
    if any(int(np.sum(table[..., 0])) > int(np.sum(table[..., -1])) for table in _tables(page)):
        raise InputError(f"{path}: a colour table in it shows low values bright; write it again without the table")
    if white_is_zero(page) and page.dtype.kind not in "bu":
        raise InputError(f"{path}: its tag says WhiteIsZero of {page.dtype} values; write it again with 0 for black")


def _tables(page: Any) -> list[NDArray[Any]]:
    """Tables of colours for values, (3, values): ImageJ's, or a colour map, by which ImageJ shows grey values, too."""
    tables = list((page.tags.valueof(_IMAGEJ) or {}).get("LUTs", ()))
    return tables if page.colormap is None else [*tables, page.colormap]


def white_is_zero(page: Any) -> bool:
    """Whether high values are dark: viewers then show the values inverted, and so they are read."""
    # tifffile takes a page without the tag for one that has it; libtiff and viewers take 0 for black.
    return int(page.photometric) == _WHITE_IS_ZERO and _PHOTOMETRIC in page.tags and not says_so_always(page)


def says_so_always(page: Any) -> bool:
    """Whether the tag WhiteIsZero says nothing: tifffile writes it for every array of bool, whatever it means."""
    return int(page.photometric) == _WHITE_IS_ZERO and _bits(page) == 1 and page.software.startswith("tifffile")


def inverted(page: Any, block: NDArray[Any]) -> NDArray[Any]:
    """Values of a page that says WhiteIsZero, with 0 for black."""
    return ~block if block.dtype.kind == "b" else block.dtype.type(2 ** _bits(page) - 1) - block


def white_value(page: Any) -> int | None:
    """The stored value that is read as 0 because values are inverted; None if they are not."""
    return 2 ** _bits(page) - 1 if white_is_zero(page) else None


def check_alike(tif: Any, pages: Sequence[int], path: Path) -> tuple[str, ...]:
    """Raise InputError for one of these pages whose header is unlike that of the first; what may differ, in words."""
    first: dict[str, Any] | None = None
    notes: list[str] = []
    for number in pages:
        page = tif.pages[number].aspage()
        check_header(page, path, tif.filehandle.size)
        found = {name: getattr(page, name) for name in _ALIKE} | {"orientation": page.tags.valueof("Orientation", 1)}
        if first is None:
            first, resolution = found, resolution_of(page)
        for name, value in found.items():
            if value != first[name]:
                raise InputError(
                    f"{path}: its page {number} has {name} {value}, but the first has {first[name]}; all slices of a "
                    "volume must be alike"
                )
        if not notes and differ(resolution_of(page), resolution):
            notes.append(f"the resolution tags of its page {number} differ from those of the first, which count")
    return tuple(notes)


def decode(tif: Any, page: Any, first: Any, path: Path, into: NDArray[Any]) -> None:
    """The values of a page into an array (H, W) or (H, W, samples) of its native type.

    first: the page that says what values mean, because some programs say it of the first page only.
    """
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > tif.filehandle.size:
        raise InputError(f"{path}: truncated: the file has {tif.filehandle.size} bytes, but its voxels end later")
    if page.compression == _LZW:
        _check_lzw(tif, page, path)
    if page.planarconfig == _SEPARATE_PLANES and into.ndim == 3:
        into[:] = np.moveaxis(page.asarray(), 0, -1)
    elif tif.byteorder == _NATIVE_ORDER and into.dtype == page.dtype:
        page.asarray(out=into)
    else:
        into[:] = page.asarray()
    if white_is_zero(first):
        into[:] = inverted(first, into)


def kind(page: Any) -> str:
    """The type and colour of a page, for messages."""
    return f"{native(page.dtype)} {'colour' if page.samplesperpixel > 1 else 'grey'}"


def _bits(page: Any) -> int:
    """Bits of a stored value."""
    bits = page.bitspersample
    return int(max(bits) if isinstance(bits, tuple) else bits)


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


def _check_lzw(tif: Any, page: Any, path: Path) -> None:
    for number, strip in enumerate(tif.filehandle.read_segments(page.dataoffsets, page.databytecounts, sort=False)):
        data = strip[0] or b""
        if not is_lzw(data.translate(_OTHER_BIT_ORDER) if page.fillorder == _LOW_BIT_FIRST else data):
            raise InputError(f"{path}: damaged: its strip or tile {number} is not valid LZW")
