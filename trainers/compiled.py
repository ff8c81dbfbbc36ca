"""compiled: turns a function of numbers and arrays into machine code, which runs without the GIL."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compile with numba at the first call, and keep the result on disk if a cache folder can be written."""
    try:
        return cast(_F, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # no cache folder can be written, as in some containers: compile in each process
        return cast(_F, numba.njit(nogil=True)(function))
