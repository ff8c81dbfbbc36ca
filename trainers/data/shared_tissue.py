"""Finds out whether two volumes show the same tissue, however one of them was disguised.

A copy with other grey values (8 bits, float, brighter, stretched, inverted), mirrored, turned by right angles, or cut
out of the other shows the same grains of noise and structure. Landmarks that look alike in both volumes propose how one
lies in the other; a proposal on which several agree is then checked voxel by voxel. Another scan of the same kidney,
and a copy on other voxels (resampled, blurred), is not found.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.stats import rankdata

from trainers.data.landmarks import Ints, Landmarks

ASKED = 4_000  # landmarks of the smaller volume that are looked for in the other
FEWEST_AGREEING = 3  # landmarks that propose the same place
CHECKED = 5  # proposals that are checked, of those on which most agree
SAMPLE = 200_000  # voxels that are compared to check one
FEWEST_VOXELS = 500  # of the overlap, for a check to mean anything
SAME = 0.5  # correlation of fine detail from which on the tissue is the same; of different tissue it is 0.0


@dataclass(frozen=True)
class Overlap:
    """How one volume lies in another: voxels in common, and the correlation of their fine detail, 0 to 1."""

    voxels: int
    correlation: float


_TURNS = [
    np.eye(3, dtype=np.int64)[list(order)] * np.array(signs)[:, None]
    for order in permutations(range(3))
    for signs in product((-1, 1), repeat=3)
]


def overlap(one: NDArray[Any], other: NDArray[Any], of_one: Landmarks, of_other: Landmarks) -> Overlap | None:
    """How two volumes of grey values overlap; None if they show different tissue, as far as can be told."""
    if len(of_one.places) > len(of_other.places):
        one, other, of_one, of_other = other, one, of_other, of_one
    best = None
    for turn, shift in _proposals(of_one, of_other):
        found = _checked(one, other, turn, shift)
        if found is not None and (best is None or found.correlation > best.correlation):
            best = found
    return best if best is not None and best.correlation >= SAME else None


def _proposals(few: Landmarks, many: Landmarks) -> Iterator[tuple[Ints, Ints]]:
    """Turns and shifts that take the places of the first to those of the second, those first on which most agree."""
    if not len(few.places) or not len(many.places):
        return
    asked = np.linspace(0, len(few.places) - 1, min(ASKED, len(few.places))).round().astype(int)
    nearest = KDTree(many.looks).query(few.looks[asked], workers=-1)[1]
    found = []
    for number, turn in enumerate(_TURNS):
        shifts, counts = np.unique(many.places[nearest] - few.places[asked] @ turn.T, axis=0, return_counts=True)
        for place in np.argsort(counts)[::-1][:CHECKED]:
            found.append((int(counts[place]), number, shifts[place]))
    found.sort(key=lambda proposal: -proposal[0])
    for agreeing, number, shift in found[:CHECKED]:
        if agreeing >= FEWEST_AGREEING:
            yield _TURNS[number], shift


def _checked(one: NDArray[Any], other: NDArray[Any], turn: Ints, shift: Ints) -> Overlap | None:
    """The correlation of fine detail where a turn and a shift lay the first volume onto the second."""
    corners = np.array([np.ones(3, int), np.array(one.shape) - 2]) @ turn.T + shift
    low = np.maximum(corners.min(axis=0), 1)
    high = np.minimum(corners.max(axis=0), np.array(other.shape) - 2)
    edges = high - low + 1
    if (edges <= 0).any() or np.prod(edges) < FEWEST_VOXELS:
        return None
    rng = np.random.default_rng(0)
    count = int(min(SAMPLE, np.prod(edges)))
    # Whole lines along W, so that a memory map is read in few places.
    lines = rng.integers(0, edges[:2], (max(1, count // int(edges[2])), 2)) + low[:2]
    there = np.array([(z, y, x) for z, y in lines for x in range(low[2], high[2] + 1)])
    here = (there - shift) @ turn
    first, second = _detail(one, here), _detail(other, there)
    structured = np.isfinite(first) & np.isfinite(second)
    first, second = first[structured], second[structured]
    if structured.sum() < FEWEST_VOXELS or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    # Also of ranks, because a few bright voxels, which a copy of 8 bits may clip, decide the correlation of values; and
    # not of ranks alone, because most voxels of a copy with few grey levels share one. Chance makes neither.
    both = ((first, second), (rankdata(first), rankdata(second)))
    return Overlap(int(np.prod(edges)), max(abs(float(np.corrcoef(*kind)[0, 1])) for kind in both))


def _detail(image: NDArray[Any], places: Ints) -> NDArray[np.float64]:
    """How much voxels differ from the mean of their six neighbours; NaN where one of the seven shows nothing.

    Nothing has the grey value that most voxels have of those that equal all their neighbours: two scans of a beamline
    drop to it along the same edge, that of their field of view.
    """
    steps = ((0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
    z, y, x = places.T
    greys = np.stack([np.asarray(image[z + dz, y + dy, x + dx]) for dz, dy, dx in steps])
    flat = greys[0, (greys == greys[0]).all(axis=0)]
    detail: NDArray[np.float64] = greys[0].astype(np.float64) - greys[1:].mean(axis=0, dtype=np.float64)
    if flat.size:
        values, counts = np.unique(flat, return_counts=True)
        detail[(greys == values[counts.argmax()]).any(axis=0)] = np.nan
    return detail
