"""Runs the compiled kernels over a volume: its layers of cubes are split into blocks, which run on all cores."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.machine import available_cores

Mask = NDArray[np.bool_] | NDArray[np.uint8]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Block:
    """Cube layers first..last-1 of a volume, and the slices start..stop-1 that counting them needs."""

    first: int
    last: int
    start: int
    stop: int

    def slices_of(self, voxels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The block's slices, C-contiguous; a copy only where the volume is not."""
        block = np.ascontiguousarray(voxels[self.start : self.stop])
        block.flags.writeable = False  # the same type for the compiler, whether or not it is a read-only memory map
        return block


def blocks(depth: int, first: int, last: int, layers: int, margin: int = 0) -> Iterator[Block]:
    """Blocks of at most `layers` cube layers that cover the layers first..last-1 of a volume of `depth` slices."""
    for start in range(first, last, layers):
        stop = min(start + layers, last)
        yield Block(start, stop, max(start - 1 - margin, 0), min(stop + margin, depth))


def run(kernel: Callable[[Block], _T], work: Iterable[Block], threads: int | None = None) -> Iterator[_T]:
    """Results of the kernel in the order of the blocks. Threads suffice: kernels release the GIL."""
    with ThreadPoolExecutor(threads or available_cores()) as pool:
        yield from pool.map(kernel, work)


def as_voxels(mask: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """A mask's memory as uint8. Raises InputError unless it is bool or uint8, (D, H, W)."""
    voxels = np.asarray(mask)  # a memory map becomes a plain array without being read
    if voxels.ndim != 3 or 0 in voxels.shape:
        raise InputError(f"{name} has the shape {voxels.shape}; a volume (D, H, W) is needed")
    if voxels.dtype not in (np.bool_, np.uint8):
        raise InputError(f"{name} is of type {voxels.dtype}; bool or uint8 is needed")
    return voxels.view(np.uint8)


def check_same_shape(predicted: NDArray[Any], target: NDArray[Any]) -> None:
    """Raise InputError unless both volumes have the same shape."""
    if np.shape(predicted) != np.shape(target):
        raise InputError(
            f"predicted has the shape {np.shape(predicted)}, target {np.shape(target)}; they must be equal"
        )


def check_spacing(spacing_um: tuple[float, float, float]) -> None:
    """Raise InputError unless these are three positive numbers."""
    if len(spacing_um) != 3 or not all(np.isfinite(size) and size > 0 for size in spacing_um):
        raise InputError(f"spacing_um is {spacing_um}; three positive numbers are needed, along (D, H, W)")
