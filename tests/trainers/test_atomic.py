"""What is written appears under its name only when it is whole, and lies nowhere else."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import bundle

from nas.bundles.trunk import Trunk, continue_from
from results.pictures.figure import new_figure, save_figure
from results.run_folder import TrialFolder
from trainers.atomic import aside, whole_file, whole_folder, write_atomically
from trainers.checkpoint import save_checkpoint
from trainers.data.geometry import Geometry
from trainers.data.masks import write_mask
from trainers.data.phantom import PhantomConfig, write_phantoms
from trainers.data.prepare import prepare
from trainers.data.rle import write_submission
from trainers.data.sources import scan

MASK = np.ones((2, 3, 4), bool)
PLACE = Geometry.counted(MASK.shape)


def test_a_file_that_is_not_finished_leaves_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    with pytest.raises(KeyError), whole_file(tmp_path / "a") as file:
        file.write(b"half")
        raise KeyError("a reason")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def test_a_folder_that_is_not_finished_is_gone(tmp_path: Path) -> None:
    with pytest.raises(KeyError), whole_folder(tmp_path / "a") as folder:
        (folder / "half").write_text("")
        raise KeyError("a reason")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_the_place_of_another_only_where_that_is_meant(tmp_path: Path) -> None:
    for text in ("before", "after"):
        with whole_folder(tmp_path / "deep" / "a", replacing=True) as folder:
            (folder / text).write_text(text)
    with pytest.raises(OSError, match="not empty"), whole_folder(tmp_path / "deep" / "a") as folder:
        (folder / "later").write_text("later")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "deep" / "a").iterdir()] == ["after"]


def checkpoint(place: Path) -> Path:
    return save_checkpoint(place, 3, {"w": torch.ones(2)}, {})


def continued(place: Path) -> Path:
    work = TrialFolder(place / "work")
    continue_from(Trunk(checkpoint(place / "trunk").parent, 3), work)
    return work.checkpoints


def phantoms(place: Path) -> Path:
    write_phantoms(place / "set", PhantomConfig(kidneys=1, shape=(16, 16, 16)), 0)
    return place / "set"


def converted(place: Path) -> Path:
    (source,) = scan(phantoms(place))
    prepare(source, place / "cache")
    return place / "cache" / source.key


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "bundle": lambda place: bundle(place / "a"),
    "checkpoint": checkpoint,
    "checkpoints to go on from": continued,
    "converted scan": converted,
    "mask of slices": lambda place: write_mask(place / "a", MASK, PLACE),
    "mask as Zarr": lambda place: write_mask(place / "a.zarr", MASK, PLACE),
    "phantoms": phantoms,
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_is_flushed_to_disk_before_it_gets_its_name(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[int] = set()

    def fsync(handle: int, really: Callable[[int], None] = os.fsync) -> None:
        really(handle)
        parts = Path(f"/proc/self/fd/{handle}").readlink().parts
        if any(part.endswith((f".{os.getpid()}", ".part")) for part in parts):
            flushed.add(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = FOLDERS[kind](tmp_path)
    found = [folder, *folder.rglob("*")]
    assert len(found) > 1
    assert [path.name for path in found if path.stat().st_ino not in flushed] == []


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.json": lambda path: write_atomically(path, "{}"),
    "a.csv": lambda path: write_submission(path, [("k_0", "1 0")]),
    "a.tif": lambda path: write_mask(path, MASK, PLACE),
    "a.npy": lambda path: write_mask(path, MASK, PLACE),
    "a.png": lambda path: save_figure(new_figure(1, 1), path, 10),
}


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_through_a_link_that_lies_in_the_way(tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").write_text("mine")
    aside(tmp_path / name).symlink_to(tmp_path / "victim")
    WRITERS[name](tmp_path / name)
    assert (tmp_path / "victim").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "victim"]
    assert (tmp_path / name).stat().st_size > 0


@pytest.mark.parametrize("name", WRITERS)
def test_the_umask_decides_who_may_read(tmp_path: Path, name: str) -> None:
    before = os.umask(0o027)
    try:
        WRITERS[name](tmp_path / name)
    finally:
        os.umask(before)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
