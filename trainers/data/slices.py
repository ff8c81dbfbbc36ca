"""Slices: a stack of 2D slices on disk in any format, read block by block."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.geometry import Geometry, Spacing, believed
from trainers.data.memory_bound import memory_bound

ReadBlock = Callable[[int, int], NDArray[Any]]

# A block is the amount that is read, converted and written at once: large enough to hide the cost of a call, small
# enough to stay in the processor's cache from reading to writing.
BLOCK_BYTES = 3 * 2**20
# A chunk of a chunked file is always decoded whole, so blocks as deep as the chunks may use more memory than that.
CHUNK_BLOCK_BYTES = 160 * 2**20
# What reading may take beside the voxels themselves: decoders, threads, and what the caller does meanwhile.
BESIDES_BYTES = 2**30
_NO_THREAD = "can't start new thread"  # what Python says where there is no memory for one


@contextmanager
def decoding(path: Path, kind: str) -> Iterator[None]:
    """A context for reading a file with a library: any exception becomes one line that names the file.

    No library guarantees which exceptions a damaged file raises, so all of them are caught.
    """
    try:
        yield
    except InputError:
        raise
    except (PermissionError, FileNotFoundError) as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:
        if isinstance(error, MemoryError) or _NO_THREAD in str(error):
            raise InputError(
                f"{path}: cannot be read as {kind}, it unpacks to more than it says, or to more than fits into memory"
            ) from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: cannot be read as {kind}, it is truncated or damaged ({reason})") from error


def native(stored: Any) -> np.dtype[Any]:
    """The type in which values of a stored type are handed on: this machine's byte order, and what numba can read."""
    dtype = np.dtype(stored)
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):  # half and extended precision
        return np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    swapped: np.dtype[Any] = dtype.newbyteorder("=")
    return swapped


@dataclass(frozen=True)
class Slices(ABC):
    """A (D, H, W) stack of which only headers were read.

    dtype: of the blocks, see `native`. files: all files that the voxels depend on. samples: colour channels as stored,
    1 for grey; sample: the one of them that is read, None for all. notes: what was assumed, or is changed by reading.
    white: the stored value that is read as 0, where reading inverts them.
    """

    path: Path
    geometry: Geometry
    dtype: np.dtype[Any]
    files: tuple[Path, ...]
    samples: int = 1
    sample: int | None = None
    notes: tuple[str, ...] = ()
    white: int | None = None

    parallel = False  # whether several threads may read blocks at once

    def __post_init__(self) -> None:
        """Raise InputError for values that are neither grey values nor labels: complex numbers, text, objects."""
        if self.dtype.kind not in "buif":
            raise InputError(f"{self.path}: values of type {self.dtype} are not grey values; write them as uint16")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        return self.geometry.shape

    @property
    def numbers(self) -> tuple[int, ...]:
        """One per slice, as in ids and file names."""
        return self.geometry.numbers

    @property
    def spacing_um(self) -> Spacing | None:
        """As stated in the file itself, or None."""
        return self.geometry.spacing_um

    def stated(self, spacing_um: Spacing | None) -> Self:
        """The stack with the spacing that a person states of it, None for none, beside its own."""
        return replace(self, geometry=replace(self.geometry, stated_um=spacing_um))

    def believed(self) -> Self:
        """The stack with what its file says of spacing and place, as far as that can be: see `geometry.believed`."""
        return replace(self, geometry=believed(self.geometry, str(self.path)))

    @contextmanager
    def reading(self) -> Iterator[ReadBlock]:
        """Open the stack; gives `read(start, stop)` -> (stop - start, H, W), or (..., samples) for colour.

        A block has this stack's type, and may be overwritten by the next `read` in the same thread. Raises InputError,
        naming the file, for a block that cannot be read or does not have the stack's shape.
        """
        whole = int(np.prod(self.shape, dtype=np.float64)) * self.dtype.itemsize * self.samples
        with memory_bound(granted_bytes(whole)), self._opened() as read:

            def handed_on(start: int, stop: int) -> NDArray[Any]:
                block = read(start, stop)
                return (block if self.sample is None else block[..., self.sample]).astype(
                    self.dtype, order="C", copy=False
                )

            yield handed_on

    @abstractmethod
    def _opened(self) -> AbstractContextManager[ReadBlock]:
        """As `reading`, with values of the stored type."""

    @property
    def choice(self) -> str:
        """What of its files is read, and how it is turned: equal files with another choice are another stack."""
        return f"{self.sample}"

    @property
    def block_depth(self) -> int:
        """The best number of slices to read at once."""
        return depth_within(self.shape, self.dtype, BLOCK_BYTES // self.samples)

    def slice_name(self, z: int) -> str:
        """The location of a slice, for messages."""
        return f"{self.path} (slice {self.numbers[z]})"


def granted_bytes(whole: int) -> int:
    """How much memory reading a stack may take that has so many bytes, whatever its files unpack to."""
    return BESIDES_BYTES + 4 * whole


def depth_within(shape: tuple[int, int, int], dtype: np.dtype[Any], limit_bytes: int) -> int:
    """The largest number of slices, at least one, that fits into `limit_bytes`."""
    slice_bytes = max(1, shape[1] * shape[2] * dtype.itemsize)
    return max(1, min(shape[0], limit_bytes // slice_bytes))
