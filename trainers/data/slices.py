"""Slices: a stack of 2D slices on disk in any format, read block by block."""

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

# A block is the amount that is read, converted and written at once: large enough to hide the cost of a call, small
# enough to stay in the processor's cache from reading to writing.
BLOCK_BYTES = 3 * 2**20
# A chunk of a chunked file is always decoded whole, so blocks as deep as the chunks may use more memory than that.
CHUNK_BLOCK_BYTES = 160 * 2**20


@contextmanager
def decoding(path: Path, kind: str) -> Iterator[None]:
    """A context for reading a file with a library: any exception becomes one line that names the file.

    No library guarantees which exceptions a damaged file raises, so all of them are caught.
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

    spacing_um: as stated in the file itself, or None. files: all files that the voxels depend on.
    numbers: one per slice, as in ids and file names. samples: colour channels, 1 for grey.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    spacing_um: Spacing | None
    files: tuple[Path, ...]
    numbers: tuple[int, ...]
    samples: int = 1

    parallel = False  # whether several threads may read blocks at once

    @abstractmethod
    def reading(self) -> AbstractContextManager[ReadBlock]:
        """Open the stack; gives `read(start, stop)` -> (stop - start, H, W), or (..., samples) for colour.

        A block may be overwritten by the next `read` in the same thread. Raises InputError, naming the file, for a
        block that cannot be read or does not have the stack's shape.
        """

    @property
    def block_depth(self) -> int:
        """The best number of slices to read at once."""
        return depth_within(self.shape, self.dtype, BLOCK_BYTES // self.samples)

    def slice_name(self, z: int) -> str:
        """The location of a slice, for messages."""
        return f"{self.path} (slice {self.numbers[z]})"


def depth_within(shape: tuple[int, int, int], dtype: np.dtype[Any], limit_bytes: int) -> int:
    """The largest number of slices, at least one, that fits into `limit_bytes`."""
    slice_bytes = max(1, shape[1] * shape[2] * dtype.itemsize)
    return max(1, min(shape[0], limit_bytes // slice_bytes))
