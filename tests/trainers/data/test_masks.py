import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from stacks import write_kaggle

from nas.bundles.score_masks import score_masks
from search_spaces.errors import InputError
from trainers.data.geometry import Geometry
from trainers.data.masks import read_mask, write_mask
from trainers.data.readers import open_slices
from trainers.data.rle import encode

SPACING = (50.0, 20.5, 30.25)
PLACE = Geometry.counted((40, 9, 13), SPACING)
NAMES = ["mask", "mask.tif", "mask.tiff", "mask.zarr", "mask.ome.zarr", "mask.npy"]


def a_mask() -> np.ndarray:
    return np.random.default_rng(3).random((40, 9, 13)) < 0.2


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_survives_every_format(tmp_path, name: str) -> None:
    path = write_mask(tmp_path / "deep" / name, a_mask(), PLACE)
    assert np.array_equal(read_mask(path), a_mask())
    assert open_slices(path).spacing_um == (None if name.endswith("npy") else SPACING)
    assert [entry.name for entry in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_slices_may_come_one_by_one(tmp_path, name: str) -> None:
    assert np.array_equal(read_mask(write_mask(tmp_path / name, (one for one in a_mask()), PLACE)), a_mask())


def test_a_folder_holds_numbered_slices_of_0_and_255(tmp_path) -> None:
    folder = write_mask(tmp_path / "labels", a_mask()[:3], replace(PLACE, numbers=(496, 497, 498)))
    assert sorted(file.name for file in folder.iterdir()) == ["0496.tif", "0497.tif", "0498.tif"]
    one = tifffile.imread(folder / "0497.tif")
    assert one.dtype == np.uint8
    assert np.array_equal(one, a_mask()[1] * 255)


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_that_fails_half_way_leaves_nothing(tmp_path, name: str) -> None:
    def slices():
        yield from a_mask()[:35]
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write_mask(tmp_path / name, slices(), PLACE)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_of_two_processes_writing_one_path_the_second_gets_an_error_and_the_mask_stays_whole(tmp_path) -> None:
    other = f"""
import numpy as np
from pathlib import Path
from trainers.data.geometry import Geometry
from trainers.data.masks import write_mask
write_mask(Path({str(tmp_path / "mask")!r}), np.ones((40, 9, 13), bool), {PLACE})
"""

    def slices():
        for z, one in enumerate(a_mask()):
            if z == 20:
                subprocess.run([sys.executable, "-c", other], check=True)
            yield one

    with pytest.raises(InputError, match=r"mask: cannot be written \(Directory not empty\)"):
        write_mask(tmp_path / "mask", slices(), PLACE)
    assert [path.name for path in tmp_path.iterdir()] == ["mask"]
    assert read_mask(tmp_path / "mask").all() and len(list((tmp_path / "mask").iterdir())) == 40


def test_existing_files_are_not_overwritten(tmp_path) -> None:
    write_mask(tmp_path / "mask.npy", a_mask(), PLACE)
    write_kaggle(tmp_path, "kidney_1_dense")
    for path in (tmp_path / "mask.npy", tmp_path / "train" / "kidney_1_dense" / "images", Path(os.devnull)):
        with pytest.raises(InputError, match="already exists"):
            write_mask(path, a_mask(), PLACE)


def test_an_empty_folder_may_be_filled(tmp_path) -> None:
    (tmp_path / "mask").mkdir()
    assert read_mask(write_mask(tmp_path / "mask", a_mask(), PLACE)).shape == (40, 9, 13)


def test_what_cannot_be_a_mask_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"mask\.png: masks are written as"):
        write_mask(tmp_path / "mask.png", a_mask(), PLACE)
    with pytest.raises(InputError, match="the mask has no slices"):
        write_mask(tmp_path / "mask", iter(()), PLACE)
    with pytest.raises(InputError, match=r"slice 1 has shape \(9, 12\), not \(9, 13\)"):
        write_mask(tmp_path / "mask", [np.zeros((9, 13)), np.zeros((9, 12))], PLACE)


def test_values_that_are_not_a_mask_are_named(tmp_path) -> None:
    np.save(tmp_path / "mask.npy", np.full((2, 3, 4), 0.5, np.float32))
    with pytest.raises(InputError, match=r"mask\.npy \(slice 0\): label values 0\.5"):
        read_mask(tmp_path / "mask.npy")


def test_a_volume_gives_its_labels(tmp_path) -> None:
    _, label = write_kaggle(tmp_path, "kidney_1_dense")
    assert np.array_equal(read_mask(tmp_path / "train" / "kidney_1_dense"), label.astype(bool))


def test_run_lengths_are_read_where_their_shape_is_known(tmp_path) -> None:
    mask = a_mask()
    path = tmp_path / "s.csv"
    path.write_text("id,rle\n" + "".join(f"kidney_5_{7 + z:04d},{encode(one)}\n" for z, one in enumerate(mask)))
    assert np.array_equal(read_mask(path, shape=mask.shape), mask)
    with pytest.raises(InputError, match="the shape of kidney_5 is not known; add the columns height and width"):
        read_mask(path)
    place = Geometry.counted(mask.shape)
    stack = write_mask(tmp_path / "m.tif", mask, place)
    for masks in ((path, stack), (stack, path)):
        assert score_masks(*masks, None, 0.0)["surface_dice"] == 1.0
    with pytest.raises(InputError, match=r"the mask has shape \(40, 9, 13\), not \(41, 9, 13\)"):
        read_mask(path, shape=(41, 9, 13))
    path.write_text(path.read_text() + "kidney_6_0000,1 0\n")
    with pytest.raises(InputError, match="holds 2 volumes; keep the rows of one of them: kidney_5, kidney_6"):
        read_mask(path, shape=mask.shape)
    assert np.array_equal(read_mask(path, "kidney_5", mask.shape), mask)
    path.write_text("id,rle,height,width\nkidney_6_0000,2 3,4,5\n")
    assert read_mask(path).ravel()[:5].tolist() == [False, True, True, True, False]


@pytest.mark.slow
@pytest.mark.data
def test_the_real_pseudo_mask_is_read_from_its_run_lengths(real_data) -> None:
    mask = read_mask(real_data / "hipct_k3_dense_pseudomask" / "rles.csv")
    assert mask.shape == (501, 1706, 1510)
    assert 0.001 < mask.mean() < 0.004


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("k_0,1 1,4,4\nk_999999999,1 1,4,4\n", "no row for slice 0001"),
        ("k_0,1 1,999999999,999999999\n", "a slice of 999999999 x 999999999 voxels is beyond any scan"),
    ],
)
def test_a_small_table_cannot_ask_for_all_memory(tmp_path, rows: str, says: str) -> None:
    (tmp_path / "a.csv").write_text(f"id,rle,height,width\n{rows}")
    with pytest.raises(InputError, match=says):
        read_mask(tmp_path / "a.csv")
