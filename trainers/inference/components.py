"""Connected components of a mask: removes those too small to be vessels, in bounded memory."""

from collections.abc import Iterator
from typing import Final

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

CONNECTIVITY: Final = 26  # voxels that share a face, an edge or a corner belong to one component

_BLOCK_VOXELS = 1 << 26  # voxels labelled at once


def large_components(
    probabilities: NDArray[np.uint8], level: int, smallest: int | None, block_voxels: int = _BLOCK_VOXELS
) -> Iterator[NDArray[np.bool_]]:
    """The mask `probabilities >= level` without components of fewer than `smallest` voxels: slices (H, W) in order.

    probabilities: uint8, (D, H, W), possibly a memory map. smallest: None keeps all. Components are those of the whole
    volume: it is labelled in blocks of slices, and components that touch across blocks are joined; in a second pass
    each block is labelled again, and small components are removed. So nothing as large as the volume is held in memory:
    a block's mask and labels take 5 bytes per voxel, 340 MB, and each component takes less than 100 bytes more.
    """
    if smallest is None:
        for plane in probabilities:
            yield plane >= level
        return
    depth = max(1, block_voxels // (probabilities.shape[1] * probabilities.shape[2]))
    starts = range(0, len(probabilities), depth)
    kept = _kept(probabilities, level, smallest, starts)
    first = 0  # number of the block's first component among all
    for start in starts:
        labels, count = _label(probabilities[start : start + depth], level)
        keep = np.zeros(count + 1, np.bool_)
        keep[1:] = kept[first : first + count]
        first += count
        for plane in labels:
            yield keep[plane]


def _kept(probabilities: NDArray[np.uint8], level: int, smallest: int, starts: range) -> NDArray[np.bool_]:
    """For each component of each block, in order: whether its component in the whole volume is large enough."""
    sizes: list[NDArray[np.int64]] = []
    pairs: list[NDArray[np.int64]] = []
    first, above = 0, None  # last slice of the previous block, its components numbered across all blocks
    for start in starts:
        labels, count = _label(probabilities[start : start + starts.step], level)
        counted = cc3d.statistics(labels, no_slice_conversion=True)["voxel_counts"] if count else np.zeros(1)
        sizes.append(counted[1:].astype(np.int64))
        if above is not None:
            pairs.append(_touching(above, _numbered(labels[0], first)))
        above = _numbered(labels[-1], first)
        first += count
    joined = np.concatenate([*pairs, np.zeros((0, 2), np.int64)])
    ones = np.ones(len(joined), np.bool_)
    _, whole = connected_components(coo_array((ones, (joined[:, 0], joined[:, 1])), shape=(first, first)), False)
    total = np.bincount(whole, weights=np.concatenate(sizes), minlength=1)  # exact up to 2**53 voxels
    large: NDArray[np.bool_] = total[whole] >= smallest
    return large


def _label(block: NDArray[np.uint8], level: int) -> tuple[NDArray[np.unsignedinteger], int]:
    """The components of a block, 1 .. count; 0 is background."""
    labels, count = cc3d.connected_components(block >= level, connectivity=CONNECTIVITY, return_N=True)
    return labels, int(count)


def _numbered(plane: NDArray[np.unsignedinteger], first: int) -> NDArray[np.int64]:
    """A block's labels, numbered across all blocks from 0; -1 for background."""
    return np.where(plane > 0, plane.astype(np.int64) + (first - 1), -1)


def _touching(lower: NDArray[np.int64], upper: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of components that touch across two neighbouring slices, (pairs, 2), each pair once."""
    height, width = upper.shape
    padded = np.pad(lower, 1, constant_values=-1)
    found = []
    for y in range(3):
        for x in range(3):
            under = padded[y : y + height, x : x + width]
            both = (under >= 0) & (upper >= 0)
            found.append(np.unique(np.stack([under[both], upper[both]], axis=1), axis=0))
    return np.unique(np.concatenate(found), axis=0)
