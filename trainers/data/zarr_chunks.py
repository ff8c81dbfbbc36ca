"""The files of a Zarr array's chunks: which are there, which it never asks for, and what reading one takes."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError
from trainers.data.slices import granted_bytes
from trainers.machine import free_memory

_LIKE_A_CHUNK = re.compile(r"(c[./])?\d+([./]\d+)*")
_SMALL_BYTES = 2**20  # descriptions, and what codecs and shards add


def chunk_notes(folder: Path, array: Any, files: Sequence[Path], mostly_empty: bool) -> tuple[str, ...]:
    """What is to be said of chunks that are not there, which may be empty or not yet copied, and of superfluous ones.

    mostly_empty: as those of labels are, so that only a store without any is told. Raises InputError for a file that
    is named as chunks are, but not as this array names its own: it is never read, and empty space is read instead.
    """
    edges = zip(array.shape, array.shards or array.chunks, strict=True)
    grid = [-(-length // edge) for length, edge in edges]
    there, beyond = 0, []
    for file in files:
        key = file.relative_to(folder).as_posix()
        if not _LIKE_A_CHUNK.fullmatch(key):
            continue
        place = tuple(map(int, re.findall(r"\d+", key)))
        if len(place) != len(grid) or array.metadata.encode_chunk_key(place) != key:
            raise InputError(f"{file}: is named like a chunk, but {_named_by(array)}")
        if all(number < count for number, count in zip(place, grid, strict=True)):
            there += 1
        else:
            beyond.append(key)
    notes = []
    count = math.prod(grid)
    if there < count and not (mostly_empty and there):
        missing, read_as = count - there, array.fill_value or 0
        notes.append(f"{missing:,} of its {count:,} chunks are not there, so empty or not copied: read as {read_as}")
    if beyond:
        shape = " x ".join(map(str, array.shape))
        notes.append(f"chunks beyond its shape of {shape} are not read: {len(beyond):,} files, as {beyond[0]}")
    return tuple(notes)


def _named_by(array: Any) -> str:
    """How an array names its chunks, and where that is stated."""
    example = array.metadata.encode_chunk_key((0,) * array.ndim)
    key = "chunk_key_encoding in zarr.json"
    if array.metadata.zarr_format == 2:
        key = 'dimension_separator in .zarray, which means "." where it is not there'
    return f"its array asks for names like {example} ({key}): correct that, or take the file away"


def chunks_at_once(path: Path, array: Any, files: Sequence[Path], read_bytes: int) -> int:
    """How many chunks can be unpacked at a time within the memory that reading is granted; read_bytes: all voxels.

    Refuses a store whose chunks cannot be held in memory, or that are packed into far more than they are.
    """
    # A shard contains many chunks, of which those that are needed are unpacked one by one.
    stored, unpacked = (
        math.prod(map(int, edges)) * array.dtype.itemsize for edges in (array.shards or array.chunks, array.chunks)
    )
    if stored > free_memory() / 2:
        raise InputError(f"{path}: its chunks of {stored / 2**30:.0f} GiB do not fit into memory; write smaller ones")
    within = int(granted_bytes(read_bytes) // (2 * unpacked))  # once as numbers, once more between two codecs
    if within < 1:
        raise InputError(
            f"{path}: a chunk of it unpacks to {unpacked / 2**30:.1f} GiB, far more than the {read_bytes:,} bytes of "
            "its voxels; write smaller chunks"
        )
    for file in files:
        size = file.stat().st_size
        if size > 2 * stored + _SMALL_BYTES:  # what does not shrink grows by little
            raise InputError(
                f"{file}: damaged: {size:,} bytes for a chunk of {stored:,}, which is packed into less than it is"
            )
    return within
