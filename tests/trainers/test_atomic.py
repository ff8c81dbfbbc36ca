"""What is written appears under its name only when it is whole, and lies nowhere else."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from results.pictures.figure import new_figure, save_figure
from trainers.atomic import aside, whole_file, whole_folder, write_atomically
from trainers.data.geometry import Geometry
from trainers.data.masks import write_mask
from trainers.data.rle import write_submission

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
