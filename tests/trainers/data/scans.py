"""A scan and its labels, written as people do, for the tests of this folder; and what is found of them."""

from pathlib import Path

import numpy as np
import tifffile

from trainers.data.sources import scan
from trainers.report import Report

GREY = np.random.default_rng(0).integers(0, 60_000, (4, 9, 13)).astype(np.uint16)
MASK = (np.random.default_rng(1).random(GREY.shape) < 0.2).astype(np.uint8)


def slices(folder: Path, voxels: np.ndarray = GREY, prefix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for z, one in enumerate(voxels):
        tifffile.imwrite(folder / f"{prefix}{z:04d}.tif", one, metadata=None)


def found_in(root: Path) -> tuple[dict[str, tuple[tuple[int, int, int], str]], list[str]]:
    """Shape and source of labels of each volume, and the notes, but those about spacing."""
    notes: list[str] = []
    volumes = {source.name: (source.shape, source.labels) for source in scan(root, Report(notes.append))}
    return volumes, [note for note in notes if "spacing" not in note]


def as_npy(path: Path) -> None:
    np.save(path, MASK)
