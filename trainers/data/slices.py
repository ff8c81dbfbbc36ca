"""Slices: a stack of 2D slices on disk, whatever its format, read block by block."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.volume import Spacing

ReadBlock = Callable[[int, int], NDArray[Any]]

# A block is what is read, converted and written at once: large enough to hide the cost of a call, small
# enough to stay in the processor's cache from reading to writing.
BLOCK_BYTES = 3 * 2**20
# A chunk of a chunked file is decoded whole, so a block as deep as the chunks is worth more memory than that.
CHUNK_BLOCK_BYTES = 160 * 2**20


@contextmanager
def decoding(path: Path, kind: str) -> Iterator[None]:
    """Around what a library reads of a file: whatever it raises becomes one line that names the file.

    Which exceptions damaged files bring is no part of any library's promises, so all are caught.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: cannot be read as {kind}, it is truncated or damaged ({reason})") from error


@dataclass(frozen=True)
class Slices(ABC):
    """A (D, H, W) stack of which only headers were read.

    spacing_um: what the file itself states, or None. files: everything the voxels depend on.
    numbers: one per slice, as ids and slice files carry them. samples: colour channels, 1 for grey.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    spacing_um: Spacing | None
    files: tuple[Path, ...]
    numbers: tuple[int, ...]
    samples: int = 1

    parallel = False  # whether blocks may be read by several threads at once

    @abstractmethod
    def reading(self) -> AbstractContextManager[ReadBlock]:
        """Open the stack; gives `read(start, stop)` -> (stop - start, H, W), or (..., samples) for colour.

        A block may be overwritten by the next `read` of the same thread. One that cannot be read, or has another
        shape than the stack, raises InputError that names its file.
        """

    @property
    def block_depth(self) -> int:
        """How many slices are best read at once."""
        return depth_within(self.shape, self.dtype, BLOCK_BYTES // self.samples)

    def slice_name(self, z: int) -> str:
        """Where a slice is, for messages."""
        return f"{self.path} (slice {self.numbers[z]})"


def depth_within(shape: tuple[int, int, int], dtype: np.dtype[Any], limit_bytes: int) -> int:
    """The most slices, at least one, that fit into so many bytes."""
    slice_bytes = max(1, shape[1] * shape[2] * dtype.itemsize)
    return max(1, min(shape[0], limit_bytes // slice_bytes))
