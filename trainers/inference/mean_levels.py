"""The mean of several networks' probabilities for one volume, with only one network's in memory at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.scratch import zeros

MOST_MEMBERS = 257  # the most whose sum, in steps of 1/255, fits into 16 bits


def mean_levels(
    members: Iterator[NDArray[np.uint8]], count: int, shape: tuple[int, int, int], scratch: Path | None
) -> NDArray[np.uint8]:
    """Mean of `count` arrays of probabilities in steps of 1/255, each (D, H, W), rounded half up to such steps.

    members: yields the arrays one by one; each is released before the next is requested. A single one is returned
    unchanged. Sums of a large volume are kept in a file in `scratch`, as in `predict`. Raises InputError for more than
    257 members.
    """
    if count > MOST_MEMBERS:
        raise InputError(f"an ensemble of {count} networks; at most {MOST_MEMBERS} can be averaged")
    if count == 1:
        return next(members)
    sums = zeros(shape, np.uint16, scratch, "members")
    for _ in range(count):
        levels = next(members)
        for z in range(shape[0]):
            sums[z] += levels[z]
        del levels
    mean = zeros(shape, np.uint8, scratch, "mean")
    for z in range(shape[0]):
        mean[z] = (2 * sums[z].astype(np.uint32) + count) // (2 * count)
    return mean
