"""A bound on memory while a file is read: what small files unpack to is known only once they are unpacked."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "linux":
    import resource

_lock = threading.Lock()
_granted: list[int] = []
_before: list[tuple[int, int]] = []  # the limits that hold otherwise, while a bound is set


@contextmanager
def memory_bound(more: int) -> Iterator[None]:
    """A context in which the kernel gives this process at most about `more` bytes above what it has; then MemoryError.

    Contexts may overlap, in any number of threads: what they grant adds up. The kernel keeps the bound (RLIMIT_DATA),
    whichever library allocates, and before a page of it is touched; memory-mapped files do not count. Only on Linux.
    """
    if sys.platform != "linux":
        yield
        return
    with _lock:
        if not _granted:
            _before.append(resource.getrlimit(resource.RLIMIT_DATA))
        _granted.append(more)
        _set()
    try:
        yield
    finally:
        with _lock:
            _granted.remove(more)
            if _granted:
                _set()
            else:
                resource.setrlimit(resource.RLIMIT_DATA, _before.pop())


def _set() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
    soft, hard = _before[0]
    wanted = pages * resource.getpagesize() + sum(_granted)
    bounds = [limit for limit in (soft, wanted) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
