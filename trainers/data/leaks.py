"""The guard against the same tissue on both sides of a split, under whatever name and in whatever disguise."""

from hashlib import sha256

import numpy as np

from search_spaces.errors import InputError
from trainers.data.folds import Fold
from trainers.data.landmarks import landmarks_of
from trainers.data.manifest import INSIDE
from trainers.data.same_labels import SameLabels
from trainers.data.shared_tissue import overlap
from trainers.data.soft_labels import origin_leak
from trainers.data.volume import Volume
from trainers.report import SILENT, Report


def guard(fold: Fold, report: Report = SILENT) -> None:
    """Raise InputError, naming both volumes, if tissue of the held-out kidney is also in training."""
    for message in leaks(fold, report):
        raise InputError(message)


def leaks(fold: Fold, report: Report = SILENT) -> list[str]:
    """One line for each pair of a training and a held-out volume that share tissue, directly or through soft labels.

    Detected by kidney, by name (crops and zooms of the competition's volumes), by equal grey values or slices, and by
    what they show: a copy with other grey values, mirrored, turned by right angles, or a crop in any direction; and by
    equal labels, also of a copy that was filtered. A copy on other voxels is not detected.
    """
    volumes = (*fold.train, *fold.held_out)
    slices = {id(volume): _slice_hashes(volume) for volume in volumes}
    same, found = SameLabels(), []
    pairs = [(train, held_out) for train in fold.train for held_out in fold.held_out]
    for number, (train, held_out) in enumerate(pairs):
        why = _same_tissue(train, held_out)
        if why is None and slices[id(train)] & slices[id(held_out)]:
            why = "the two have slices in common"
        if why is None and (leak := origin_leak(train.name, train.soft, held_out.kidney, _contents(held_out))):
            found.append(leak)
            continue
        if why is None and (vessel := same.shared(train, held_out)):
            why = f"the two have the same labels, of {vessel:,} vessel voxels: one is a copy of the other's tissue"
        if why is None:
            why = _shown_twice(train, held_out)
        if why:
            found.append(f"{train.name} is trained on and {held_out.name} is held out, but {why}; exclude one of them")
        report.progress("comparing training and held-out tissue", number + 1, len(pairs))
    return found


def _contents(volume: Volume) -> dict[str, str]:
    return {volume.name: volume.content_hash}


def _same_tissue(train: Volume, held_out: Volume) -> str | None:
    if train.kidney == held_out.kidney:
        return f"both belong to {train.kidney}"
    for inner, outer in ((train.name, held_out.name), (held_out.name, train.name)):
        if INSIDE.get(inner) == outer:
            return f"{inner} lies inside {outer}"
    if train.content_hash == held_out.content_hash:
        return "all their grey values are equal"
    return None


def _shown_twice(train: Volume, held_out: Volume) -> str | None:
    common = overlap(train.image, held_out.image, landmarks_of(train), landmarks_of(held_out))
    if common is None:
        return None
    return (
        f"the two show the same tissue: {common.voxels:,} voxels in common, whose fine detail correlates with "
        f"{common.correlation:.2f}"
    )


def _slice_hashes(volume: Volume) -> set[bytes]:
    """Hashes of all slices that are not uniformly grey, from their middle rows only, so a kidney takes seconds.

    The middle eight rows of a slice contain thousands of noisy 16-bit values; equal rows cannot be a coincidence.
    """
    middle = volume.shape[1] // 2
    rows = slice(max(middle - 4, 0), middle + 4)
    hashes = set()
    for z in range(volume.shape[0]):
        strip = np.ascontiguousarray(volume.image[z, rows])
        if strip.min() != strip.max():
            hashes.add(sha256(repr(strip.shape).encode() + strip.tobytes()).digest())
    return hashes
