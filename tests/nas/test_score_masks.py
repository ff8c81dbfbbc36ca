"""Two masks on disk are compared with the spacing that is stated of them, in the memory that is there."""

import json

import numpy as np
import pytest
import zarr
from command_line import nas

from nas.bundles.score_masks import score_masks
from search_spaces.errors import InputError
from trainers.data.geometry import Geometry
from trainers.data.masks import write_mask
from trainers.metrics.surface_dice import surface_dice
from trainers.report import Report

MASK = np.random.default_rng(1).random((4, 9, 13)) < 0.2


def test_the_tolerance_of_a_score_is_measured_with_the_spacing_of_the_files(tmp_path) -> None:
    shifted = np.roll(MASK, 1, axis=2)
    place = Geometry.counted(MASK.shape, (50.0, 40.0, 30.0))
    one, other = write_mask(tmp_path / "p.tif", shifted, place), write_mask(tmp_path / "t.tif", MASK, place)
    np.save(tmp_path / "t.npy", MASK)
    np.save(tmp_path / "p.npy", shifted)
    for tolerance in (0.0, 29.0, 31.0):
        expected = surface_dice(shifted, MASK, (50.0, 40.0, 30.0), tolerance)
        assert score_masks(one, other, None, tolerance)["surface_dice"] == expected
        assert score_masks(one, tmp_path / "t.npy", None, tolerance)["surface_dice"] == expected
        assert score_masks(tmp_path / "p.npy", tmp_path / "t.npy", "50,40,30", tolerance)["surface_dice"] == expected
    with pytest.raises(InputError, match=r"neither .*p\.npy nor .*t\.npy states a voxel spacing, so 31 µm"):
        score_masks(tmp_path / "p.npy", tmp_path / "t.npy", None, 31.0)
    assert score_masks(tmp_path / "p.npy", tmp_path / "t.npy", None, 0.0)["surface_dice"] > 0


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1,2", "fifty", "", "1e9"])
def test_a_spacing_that_makes_no_sense_is_refused(tmp_path, given: str) -> None:
    path = write_mask(tmp_path / "m.tif", MASK, Geometry.counted(MASK.shape))
    with pytest.raises(InputError, match="--spacing-um"):
        score_masks(path, path, given, 0.0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["m.zarr", "m.csv"])
def test_masks_that_memory_cannot_hold_are_refused_before_it_is_taken(tmp_path, name: str) -> None:
    if name == "m.csv":
        rows = "".join(f"m_{z:04d},1 0,32768,32768\n" for z in range(3000))
        (tmp_path / name).write_text(f"id,rle,height,width\n{rows}")
        says = "3000 x 32768 x 32768 voxels take 6,000 GiB of memory"
    else:
        zarr.create_array(str(tmp_path / name), shape=(30_000,) * 3, chunks=(64, 64, 64), dtype="uint8")
        says = "30000 x 30000 x 30000 voxels take 50,291 GiB of memory"
    with pytest.raises(InputError, match=says):
        score_masks(tmp_path / name, tmp_path / name, None, 0.0)


def test_a_score_says_with_which_spacing_it_was_made(tmp_path) -> None:
    place = Geometry.counted(MASK.shape, (50.0, 40.0, 30.0))
    stated, unknown = write_mask(tmp_path / "p.tif", MASK, place), tmp_path / "p.npy"
    np.save(unknown, MASK)
    used = [(stated, unknown), (unknown, unknown), (unknown, unknown, "--spacing-um", "7")]
    said = [json.loads(nas("score", *arguments, "--json").stdout)["spacing_um"] for arguments in used]
    assert said == [[50.0, 40.0, 30.0], None, [7.0, 7.0, 7.0]]
    assert "spacing um: 50 x 40 x 30\n" in nas("score", stated, unknown).stdout
    assert "spacing um: not stated\n" in nas("score", unknown, unknown).stdout


@pytest.mark.parametrize(("value", "says"), [(0, "no vessel is in it"), (1, "100% of its voxels are vessel: is it")])
def test_masks_that_agree_because_there_is_nothing_to_find_are_told(tmp_path, value: int, says: str) -> None:
    np.save(tmp_path / "p.npy", np.full(MASK.shape, value, np.uint8))
    np.save(tmp_path / "t.npy", np.full(MASK.shape, value, np.uint8))
    notes: list[str] = []
    assert score_masks(tmp_path / "p.npy", tmp_path / "t.npy", None, 0.0, Report(notes.append))["surface_dice"] == 1
    for name in ("t.npy", "p.npy"):
        assert any(note.startswith(f"{tmp_path / name}: {says}") for note in notes)
