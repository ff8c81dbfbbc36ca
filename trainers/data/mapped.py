"""Volumes sent to another process: memory maps are sent as file names, never as voxels."""

from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np

from trainers.data.volume import Volume

_ARRAYS = ("image", "label", "vessel_voxels")


@dataclass(frozen=True)
class _Mapped:
    """A stand-in for a memory-mapped array."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


def folded(volume: Volume) -> Volume:
    """The volume with stand-ins for its memory maps; only usable with `unfolded`."""
    return replace(volume, **{name: _fold(getattr(volume, name)) for name in _ARRAYS})


def unfolded(volume: Volume) -> Volume:
    """The volume given to `folded`, with its maps opened again."""
    return replace(volume, **{name: _unfold(getattr(volume, name)) for name in _ARRAYS})


def _fold(array: Any) -> Any:
    base: Any = getattr(array, "base", None)
    # A view of a map keeps the file's name but not its position in it, so only whole maps can be opened again.
    if isinstance(array, np.memmap) and isinstance(base, mmap) and array.flags.c_contiguous:
        return _Mapped(Path(str(array.filename)), array.dtype.str, array.shape, array.offset)
    return array


def _unfold(array: Any) -> Any:
    if isinstance(array, _Mapped):
        return np.memmap(array.path, array.dtype, "r", array.offset, array.shape)
    return array
