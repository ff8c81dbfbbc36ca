"""Landmarks: voxels by which the tissue of a volume is known again, whatever its grey values and orientation.

A landmark differs more from its surroundings than all voxels around it. What it looks like at every distance is the
same in a mirror, after turns by right angles, and after linear changes of grey, also inverted ones.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.atomic import whole_file
from trainers.compiled import compiled
from trainers.data.slices import decoding
from trainers.data.volume import Volume
from trainers.machine import available_cores

RADIUS = 3  # voxels around a landmark that must differ less
REACH = 3  # voxels around it that describe it
MARGIN = RADIUS + 2  # voxels at every border without landmarks, because the surroundings of a voxel reach two further
_TILE = (64, 384, 384)  # voxels that are searched at once
_THREADS = min(8, available_cores())
_FILE = "landmarks.npz"  # beside the converted voxels

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Landmarks:
    """places: int64, (N, 3), of voxels; looks: float32, (N, features), equal for every orientation and grey scale."""

    places: Ints
    looks: NDArray[np.float32]


def _rings() -> list[Ints]:
    """The offsets within REACH, those together that mirrors and right angles exchange."""
    rings = []
    for reach in combinations_with_replacement(range(REACH + 1), 3):
        signs = product((-1, 1), repeat=3)
        found = {
            tuple(s * r for s, r in zip(sign, order, strict=True)) for sign in signs for order in permutations(reach)
        }
        rings.append(np.array(sorted(found), np.int64))
    return rings


_RINGS = _rings()
_OFFSETS = np.concatenate(_RINGS)
_RING_OF = np.repeat(np.arange(len(_RINGS)), [len(ring) for ring in _RINGS])


def landmarks_of(volume: Volume) -> Landmarks:
    """The landmarks of a volume, found once and kept beside its converted voxels."""
    place = _place(volume)
    if place is not None and place.is_file():
        damaged = suppress(InputError)  # they are found again
        with damaged, decoding(place, "landmarks"), place.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return Landmarks(kept["places"].astype(np.int64), kept["looks"])
    found = landmarks(volume.image)
    if place is not None:
        with suppress(OSError), whole_file(place) as new:  # a full disk, or a cache that others own
            np.savez(new, places=found.places.astype(np.int32), looks=found.looks)
    return found


def _place(volume: Volume) -> Path | None:
    """Where the landmarks of a volume are kept; None for one that is not a whole file."""
    image = volume.image
    if not isinstance(image, np.memmap) or image.filename is None:
        return None
    path = Path(image.filename)
    header = path.stat().st_size - image.nbytes
    return path.with_name(_FILE) if 0 < header == image.offset else None


def landmarks(image: NDArray[Any]) -> Landmarks:
    """The landmarks of grey values (D, H, W), read tile by tile; none for a volume thinner than 2 MARGIN + 1 voxels."""
    if min(image.shape) <= 2 * MARGIN:
        return Landmarks(np.zeros((0, 3), np.int64), np.zeros((0, len(_RINGS)), np.float32))

    def search(begin: tuple[int, ...]) -> Landmarks:
        tile = tuple(slice(first, first + edge + 2 * MARGIN) for first, edge in zip(begin, _TILE, strict=True))
        contrast = _contrast(np.asarray(image[tile]).astype(np.int32))
        places = _strongest(contrast, RADIUS, MARGIN)
        return Landmarks(places + np.array(begin), _looks(contrast, places))

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(search, _tiles(image.shape)))
    return Landmarks(np.concatenate([one.places for one in found]), np.concatenate([one.looks for one in found]))


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Where tiles begin; each of them has a margin on all sides, which overlaps with others."""
    return product(*(range(0, edge - 2 * MARGIN, step) for edge, step in zip(shape, _TILE, strict=True)))


def _contrast(image: NDArray[np.int32]) -> NDArray[np.int32]:
    """How much 3 x 3 x 3 voxels differ from 5 x 5 x 5, times 3,375: no slope shows in it. The border is not used."""
    near = _sums(image, 1)
    near *= 5**3
    far = _sums(image, 2)
    far *= 3**3
    near -= far
    return near


def _sums(image: NDArray[np.int32], reach: int) -> NDArray[np.int32]:
    """Sums over cubes of 2 reach + 1 voxels."""
    for axis in range(3):
        summed = image.copy()
        inner: list[slice] = [slice(None)] * 3
        inner[axis] = slice(reach, -reach)
        for step in range(-reach, reach + 1):
            if step:
                beside = list(inner)
                beside[axis] = slice(reach + step, image.shape[axis] - reach + step)
                summed[tuple(inner)] += image[tuple(beside)]
        image = summed
    return image


@compiled
def _strongest(contrast: Any, radius: int, margin: int) -> Any:
    """Places (N, 3) of voxels whose contrast, bright or dark, exceeds all others within `radius` along every axis."""
    depth, height, width = contrast.shape
    found = []
    for z in range(margin, depth - margin):
        for y in range(margin, height - margin):
            for x in range(margin, width - margin):
                own = abs(contrast[z, y, x])
                # The nearest first: nearly all voxels fail there.
                if own <= abs(contrast[z, y, x - 1]) or own <= abs(contrast[z, y, x + 1]):
                    continue
                if own <= abs(contrast[z, y - 1, x]) or own <= abs(contrast[z, y + 1, x]):
                    continue
                if own <= abs(contrast[z - 1, y, x]) or own <= abs(contrast[z + 1, y, x]):
                    continue
                highest = True
                for dz in range(-radius, radius + 1):
                    for dy in range(-radius, radius + 1):
                        for dx in range(-radius, radius + 1):
                            if (dz or dy or dx) and abs(contrast[z + dz, y + dy, x + dx]) >= own:
                                highest = False
                                break
                        if not highest:
                            break
                    if not highest:
                        break
                if highest:
                    found.append((z, y, x))
    places = np.empty((len(found), 3), np.int64)
    for number, place in enumerate(found):
        places[number, 0], places[number, 1], places[number, 2] = place
    return places


def _looks(contrast: NDArray[np.int32], places: Ints) -> NDArray[np.float32]:
    """The mean contrast of every ring around each place, as shares of that of the place itself."""
    sums = np.zeros((len(places), len(_RINGS)), np.float64)
    for offset, ring in zip(_OFFSETS, _RING_OF, strict=True):
        z, y, x = (places + offset).T
        sums[:, ring] += contrast[z, y, x]
    means = sums / np.bincount(_RING_OF)
    looks: NDArray[np.float32] = (means / means[:, :1]).astype(np.float32)
    return looks
