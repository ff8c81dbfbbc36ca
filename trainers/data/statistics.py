"""Statistics of a volume, measured during conversion: grey values, a fingerprint, the positions of vessels."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from trainers.compiled import compiled

GREY_LEVELS = 65536
PERCENTILES = (0.5, 2.0, 10.0, 50.0, 90.0, 98.0, 99.8)
# This many positions are enough to sample patches around vessels, and take 8 MB per volume.
MOST_VESSEL_VOXELS = 1_000_000

_LANES = 4
_SEED = np.uint64(0x9E3779B97F4A7C15)


class VolumeStatistics(BaseModel, frozen=True, extra="forbid"):
    """The content of statistics.json, beside the converted voxels."""

    shape: tuple[int, int, int]
    percentiles: dict[float, float]  # exact percentiles over all voxels, for each of PERCENTILES
    minimum: int
    maximum: int
    content_hash: str  # hash of the grey values and the shape
    vessel_share: float | None  # share of labelled voxels; None without labels
    labelled_share: float | None  # share of slices with a labelled voxel
    notes: tuple[str, ...]  # what the conversion changed
    levels_hash: str | None = None  # hash of soft labels
    meaning: tuple[float, float] = (0.0, 1.0)  # the source's value of grey level 0, and of a step


@dataclass(frozen=True)
class BlockMeasures:
    """The measures of a block of slices; blocks are measured in any order and added in the volume's order."""

    histogram: NDArray[np.int64]  # (GREY_LEVELS,)
    fingerprints: NDArray[np.uint64]  # (n, 4), one row per slice
    vessel_voxels: NDArray[np.int64]  # (N,), flat indices in the volume
    labelled_slices: int
    level_hashes: bytes = b""  # one hash per slice of soft labels


def measure(
    image: NDArray[np.uint16], vessel: NDArray[np.bool_] | None, start: int, levels: NDArray[np.uint8] | None = None
) -> BlockMeasures:
    """Measure the slices from `start` on, all (n, H, W). Releases the GIL.

    vessel: which voxels the labels mark as vessel, None without labels. levels: those of soft labels.
    """
    histogram = np.zeros(GREY_LEVELS, np.int64)
    fingerprints = np.empty((len(image), _LANES), np.uint64)
    for z, one in enumerate(image):
        _count_and_mix(one.ravel(), histogram, fingerprints[z])
    if vessel is None:
        return BlockMeasures(histogram, fingerprints, np.zeros(0, np.int64), 0)
    inside = np.flatnonzero(vessel) + start * image[0].size
    hashes = b"" if levels is None else b"".join(hashlib.blake2b(one.tobytes()).digest() for one in levels)
    return BlockMeasures(histogram, fingerprints, inside, np.unique(inside // image[0].size).size, hashes)


@dataclass
class RunningMeasures:
    """The sum of the blocks so far, which does not depend on how the volume was cut into blocks."""

    shape: tuple[int, int, int]
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(GREY_LEVELS, np.int64))
    vessel_count: int = 0
    labelled_slices: int = 0

    def __post_init__(self) -> None:
        self._hash = hashlib.blake2b(repr(self.shape).encode(), digest_size=16)
        self._levels = hashlib.blake2b(digest_size=16)
        self._soft = False
        self._vessels: list[NDArray[np.int64]] = []
        self._kept = 0

    def add(self, block: BlockMeasures) -> None:
        """Add the next block."""
        self.histogram += block.histogram
        self._hash.update(block.fingerprints.tobytes())
        self._levels.update(block.level_hashes)
        self._soft |= bool(block.level_hashes)
        self.vessel_count += block.vessel_voxels.size
        self.labelled_slices += block.labelled_slices
        self._vessels.append(block.vessel_voxels)
        self._kept += block.vessel_voxels.size
        if self._kept > 2 * MOST_VESSEL_VOXELS:
            self._vessels = [draw_million(np.concatenate(self._vessels))]
            self._kept = self._vessels[0].size

    def vessel_voxels(self) -> NDArray[np.int64]:
        """Flat indices of labelled voxels in rising order: all of them, or a million drawn at random."""
        return np.sort(draw_million(np.concatenate([np.zeros(0, np.int64), *self._vessels])))

    def statistics(self, has_label: bool, notes: list[str], meaning: tuple[float, float]) -> VolumeStatistics:
        """The statistics to be kept; meaning: of grey levels, see VolumeStatistics."""
        present = np.flatnonzero(self.histogram)
        voxels = int(self.histogram.sum())
        return VolumeStatistics(
            shape=self.shape,
            percentiles={q: percentile(self.histogram, q) for q in PERCENTILES},
            minimum=int(present[0]),
            maximum=int(present[-1]),
            content_hash=self._hash.hexdigest(),
            vessel_share=self.vessel_count / voxels if has_label else None,
            labelled_share=self.labelled_slices / self.shape[0] if has_label else None,
            notes=tuple(notes),
            levels_hash=self._levels.hexdigest() if self._soft else None,
            meaning=meaning,
        )


def percentile(histogram: NDArray[np.int64], q: float) -> float:
    """The exact percentile of the values counted in a histogram, interpolated like numpy's default."""
    cumulative = np.cumsum(histogram)
    rank = q / 100 * (cumulative[-1] - 1)
    below, above = np.searchsorted(cumulative, [np.floor(rank), np.ceil(rank)], side="right")
    return float(below + (above - below) * (rank - np.floor(rank)))


def levels_between(histogram: NDArray[np.int64], low: float, high: float) -> int:
    """How many grey levels occur between two percentiles; none where there are no voxels."""
    if not histogram.any():
        return 0
    first, last = int(percentile(histogram, low)), int(np.ceil(percentile(histogram, high)))
    return int(np.count_nonzero(histogram[first : last + 1]))


def draw_million(voxels: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most MOST_VESSEL_VOXELS of the voxels: those whose hashed indices are lowest.

    This is a fixed pseudo-random order of all voxels, so the draw depends neither on blocks nor on a resumed run.
    """
    if voxels.size <= MOST_VESSEL_VOXELS:
        return voxels
    order = _mix(voxels.astype(np.uint64))
    drawn: NDArray[np.int64] = voxels[np.argpartition(order, MOST_VESSEL_VOXELS)[:MOST_VESSEL_VOXELS]]
    return drawn


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a one-to-one scrambling of 64-bit numbers."""
    mixed = numbers + _SEED
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@compiled
def _count_and_mix(voxels: Any, histogram: Any, lanes: Any) -> None:
    """Count grey values and fold them into four 64-bit lanes, four voxels to a word, in one pass.

    blake2b over all voxels would take longer than reading them. Each step is one-to-one in the lane and in the word,
    so slices that differ in one word never collide; blake2b is then applied to the lanes.
    """
    prime = np.uint64(0x9E3779B97F4A7C15)
    for lane in range(4):
        lanes[lane] = prime * np.uint64(lane + 1)
    words = voxels.size // 4
    for word in range(words):
        a, b, c, d = voxels[4 * word], voxels[4 * word + 1], voxels[4 * word + 2], voxels[4 * word + 3]
        histogram[a] += 1
        histogram[b] += 1
        histogram[c] += 1
        histogram[d] += 1
        packed = (
            np.uint64(a) | np.uint64(b) << np.uint64(16) | np.uint64(c) << np.uint64(32) | np.uint64(d) << np.uint64(48)
        )
        mixed = (lanes[word & 3] ^ packed) * prime
        lanes[word & 3] = mixed ^ (mixed >> np.uint64(32))
    for rest in range(4 * words, voxels.size):
        histogram[voxels[rest]] += 1
        mixed = (lanes[rest & 3] ^ np.uint64(voxels[rest])) * prime
        lanes[rest & 3] = mixed ^ (mixed >> np.uint64(32))
