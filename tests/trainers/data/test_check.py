import numpy as np
import pytest
import tifffile
from matplotlib.image import imread
from stacks import a_volume, write_kaggle, write_slices

from search_spaces.errors import InputError
from trainers.data.check import check
from trainers.report import Report


def has_orange(path) -> bool:
    """Whether any pixel has the colour of an outline, or nearly so where it is drawn half across a pixel."""
    red, green, blue = np.moveaxis(imread(path)[..., :3], -1, 0)
    return bool(((red > 0.8) & (green > 0.45) & (green < 0.75) & (blue < 0.25)).any())


def has_the_nearest_colour(path) -> bool:
    """Whether any pixel has the colour of labels in the first slice."""
    red, _, blue = np.moveaxis(imread(path)[..., :3], -1, 0)
    return bool(((red > 0.8) & (red - blue > 0.15)).any())


def test_a_row_says_what_a_volume_is(tmp_path) -> None:
    image, label = write_kaggle(tmp_path / "data", "kidney_2")
    seen: list[tuple[str, int, int]] = []
    report = Report(progress=lambda *step: seen.append(step))
    (row,) = check(tmp_path / "data", tmp_path / "out", tmp_path / "cache", report)
    assert (row.name, row.kidney, row.split, row.shape, row.dtype) == (
        "kidney_2",
        "kidney_2",
        "train",
        (6, 20, 24),
        "uint16",
    )
    assert (row.labels, row.annotated, row.labelled_share, row.vessel_share) == ("files", 0.65, 1.0, label.mean())
    assert (row.grey_minimum, row.grey_maximum) == (image.min(), image.max())
    assert (row.grey_low, row.grey_high) == pytest.approx(np.percentile(image, [2, 98]))
    assert (row.error, row.notes, row.spacing_um) == (None, (), (50.0,) * 3)
    assert row.picture == tmp_path / "out" / "kidney_2.png"
    assert seen[-2:] == [("converting kidney_2", 6, 6), ("checking volumes", 1, 1)]


def test_one_broken_volume_does_not_stop_the_table(tmp_path) -> None:
    for name in ("a", "b", "c"):
        write_kaggle(tmp_path / "data", name)
    (tmp_path / "data" / "train" / "a" / "images" / "0002.tif").unlink()
    tifffile.imwrite(tmp_path / "data" / "train" / "b" / "labels" / "0002.tif", np.full((20, 24), 7, np.uint8))
    a, b, c = check(tmp_path / "data", tmp_path / "out", tmp_path / "cache")
    assert "slice 0002 is missing" in a.error
    assert "label values 7" in b.error
    assert b.shape == (6, 20, 24)
    assert (a.picture, b.picture, c.error) == (None, None, None)
    assert c.picture.exists()


def test_what_is_odd_is_noted(tmp_path) -> None:
    write_slices(tmp_path / "data" / "a" / "images", np.full((2, 20, 24), 9, np.uint8))
    write_slices(tmp_path / "data" / "a" / "labels", np.zeros((2, 20, 24), np.uint8))
    (tmp_path / "data" / "dataset.toml").write_text("[volumes.a]\nvoxel_spacing_um = [5, 1, 1]\n")
    (row,) = check(tmp_path / "data", None, tmp_path / "cache")
    text = " | ".join(row.notes)
    for said in ("8-bit", "every voxel is 9", "5.0 times", "labels contain no vessel"):
        assert said in text
    assert row.picture is None


@pytest.mark.slow
def test_the_picture_shows_outlines_only_where_there_are_labels(tmp_path) -> None:
    image, label = a_volume()
    write_slices(tmp_path / "data" / "a" / "images", image)
    write_slices(tmp_path / "data" / "a" / "labels", label)
    write_slices(tmp_path / "data" / "b" / "images", image)
    write_slices(tmp_path / "data" / "one" / "images", image[:1])
    a, b, one = check(tmp_path / "data", tmp_path / "out", tmp_path / "cache")
    assert has_orange(a.picture)
    assert not has_orange(b.picture)
    assert imread(one.picture).shape[1] < imread(b.picture).shape[1]  # one slice, one panel


@pytest.mark.slow
def test_a_large_slice_keeps_its_smallest_vessel_in_the_picture(tmp_path) -> None:
    image, label = np.full((1, 2900, 3000), 500, np.uint16), np.zeros((1, 2900, 3000), np.uint8)
    image[0, ::7] = 600
    label[0, 1234, 1235] = 1
    write_slices(tmp_path / "data" / "a" / "images", image)
    write_slices(tmp_path / "data" / "a" / "labels", label)
    (row,) = check(tmp_path / "data", tmp_path / "out", tmp_path / "cache")
    assert has_the_nearest_colour(row.picture)


def test_an_empty_folder_is_an_error(tmp_path) -> None:
    with pytest.raises(InputError, match="no volumes in it"):
        check(tmp_path)


@pytest.mark.data
def test_real_volumes_are_checked_without_an_error(real_data, tmp_path) -> None:
    rows = check(real_data, None, tmp_path)
    assert all(row.error is None for row in rows)
    assert {row.kidney for row in rows} >= {"kidney_1", "kidney_2", "kidney_3"}
    (sparse,) = (row for row in rows if row.name == "hipct_k3_slice")
    assert (sparse.annotated, sparse.shape) == (0.85, (1, 1706, 1510))
