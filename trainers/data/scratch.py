"""Arrays of a volume's size: in memory if they are small, otherwise in files in a folder that the caller removes."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

_IN_MEMORY_BYTES = 2 << 30
_PREFIX, _LOCK = ".scratch-", "lock"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder for such files inside `parent`, removed at the end; folders left by killed processes are removed too."""
    for old in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(Timeout, OSError), FileLock(old, timeout=0):  # locked while its process lives
            shutil.rmtree(old.parent, ignore_errors=True)
    unnamed = Path(tempfile.mkdtemp(prefix=".begun-", dir=parent))
    with FileLock(unnamed / _LOCK):  # locked before it gets the name by which others find it
        place = unnamed.rename(parent / f"{_PREFIX}{unnamed.name.removeprefix('.begun-')}")
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def zeros(shape: tuple[int, ...], dtype: type[T], scratch: Path | None, name: str) -> NDArray[T]:
    """Zeros, in memory up to 2 GiB or if scratch is None; otherwise in the file `name`.npy in the folder `scratch`."""
    if scratch is None or int(np.prod(shape)) * np.dtype(dtype).itemsize <= _IN_MEMORY_BYTES:
        return np.zeros(shape, dtype)
    scratch.mkdir(parents=True, exist_ok=True)
    file = scratch / f"{name}.npy"
    mapped = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    with file.open("r+b") as handle:  # a full disk gives an error here, but would kill the process at a page of the map
        os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
    return mapped
