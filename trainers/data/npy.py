""".npy arrays: three axes in (D, H, W) order, further ones in front of them of length 1."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.axes import UNNAMED, Axes, Pick, find_axes
from trainers.data.geometry import Geometry
from trainers.data.slices import ReadBlock, Slices, decoding, native

UNSTATED = ("z", "y", "x")  # what the last three axes of an array are that does not name them


@dataclass(frozen=True)
class NpyFile(Slices):
    """A .npy array."""

    axes: Axes = field(kw_only=True)

    parallel = True

    @property
    def choice(self) -> str:
        """See Slices."""
        return str(self.axes)

    @contextmanager
    def _opened(self) -> Iterator[ReadBlock]:
        def read(start: int, stop: int) -> NDArray[Any]:
            # A new map for each block, because the pages of a closed map do not count as this process's memory.
            return self.axes.arranged(np.array(_mapped(self.path)[self.axes.index(start, stop)]))

        yield read


def open_npy(path: Path, pick: Pick) -> NpyFile:
    """The array in a file. Raises InputError for one that is not a volume of numbers."""
    mapped = _mapped(path)
    names = (UNNAMED,) * (mapped.ndim - len(UNSTATED)) + UNSTATED
    axes = find_axes(path, names, mapped.shape, pick, stated=False)
    return NpyFile(path, Geometry.counted(axes.shape), native(mapped.dtype), (path,), axes=axes)


def _mapped(path: Path) -> NDArray[Any]:
    with decoding(path, "a .npy array of numbers"):
        if zipfile.is_zipfile(path):
            raise InputError(f"{path}: is an archive of arrays (.npz); write one of them as .npy")
        mapped: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    return mapped
