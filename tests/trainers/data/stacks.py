"""Small volumes on disk, for the tests of this folder."""

from pathlib import Path

import numpy as np
import tifffile

from trainers.data.place import VolumeSource
from trainers.data.sources import scan_one


def a_volume(seed: int = 0, shape: tuple[int, int, int] = (6, 20, 24)) -> tuple[np.ndarray, np.ndarray]:
    """(image uint16, label uint8 of 0 and 1): noise around a bright level, a tube along z and a lone voxel."""
    random = np.random.default_rng(seed)
    image = random.normal(20_000, 600, shape).astype(np.uint16)
    label = np.zeros(shape, np.uint8)
    label[:, 4:7, 5:9] = 1
    label[shape[0] // 2, 15, 20] = 1
    return image, label


def write_slices(folder: Path, stack: np.ndarray, first: int = 0, **options) -> Path:
    """Write NNNN.tif, one per slice."""
    folder.mkdir(parents=True)
    for number, one in enumerate(stack, start=first):
        colour = "rgb" if one.ndim == 3 else "minisblack"
        tifffile.imwrite(folder / f"{number:04d}.tif", one, photometric=colour, metadata=None, **options)
    return folder


def write_kaggle(
    root: Path, name: str, split: str = "train", seed: int = 0, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Write one volume in the competition's layout and return it."""
    image, label = a_volume(seed)
    write_slices(root / split / name / "images", image, first)
    if split == "train":
        write_slices(root / split / name / "labels", label * np.uint8(255), first)
    return image, label


def one_source(tmp_path, image: np.ndarray, label: np.ndarray | None = None) -> VolumeSource:
    """The volume `a` below data/, written there."""
    folder = tmp_path / "data" / "a"
    write_slices(folder / "images", image)
    if label is not None:
        write_slices(folder / "labels", label)
    return scan_one(folder)
