"""Phantom kidneys are seeded, labelled and anatomical, and cannot be solved by grey values alone."""

from pathlib import Path
from time import thread_time

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from search_spaces.errors import InputError
from trainers.data import phantom_tree as tree
from trainers.data.folds import DataConfig, choose
from trainers.data.phantom import Phantom, PhantomConfig, make_phantom, phantom_seed, write_phantoms
from trainers.data.phantom_organ import Organ, SmoothNoise
from trainers.data.rle import decode
from trainers.data.sources import scan
from trainers.metrics.surface_dice import surface_dice
from trainers.report import Report

SMALL = PhantomConfig(shape=(32, 64, 64))


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [make_phantom(PhantomConfig(), seed) for seed in range(3)]


def test_a_phantom_is_an_image_and_a_mask_of_one_shape(phantoms):
    for phantom in phantoms:
        assert phantom.image.shape == phantom.label.shape == (64, 128, 128)
        assert phantom.image.dtype == np.uint16 and phantom.label.dtype == np.uint8
        assert np.unique(phantom.label).tolist() == [0, 1]


def test_equal_seeds_give_equal_kidneys_and_others_differ():
    first, again, other = (make_phantom(SMALL, seed) for seed in (4, 4, 5))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.label, again.label)
    assert not np.array_equal(first.label, other.label)


def test_vessels_fill_one_to_four_per_cent(phantoms):
    for phantom in phantoms:
        assert 0.01 < phantom.label.mean() < 0.04


def test_vessels_are_few_connected_trees_with_thin_ends(phantoms):
    for phantom in phantoms:
        components, _ = ndimage.label(phantom.label, np.ones((3, 3, 3)))
        sizes = np.sort(np.bincount(components.ravel())[1:])
        assert sizes[-3:].sum() > 0.9 * sizes.sum()
        opened = ndimage.binary_opening(phantom.label, np.ones((2, 2, 2)))
        assert 0.03 < 1 - opened.sum() / phantom.label.sum() < 0.6  # what is one voxel thick somewhere


def test_lumens_are_dark_inside_bright_walls(phantoms):
    for phantom in phantoms:
        lumen = ndimage.binary_erosion(phantom.label)
        to_vessel = ndimage.distance_transform_edt(phantom.label == 0)
        wall, tissue = (to_vessel > 0) & (to_vessel <= 1), (to_vessel > 6) & (to_vessel < 9)
        dark, bright, between = (np.median(phantom.image[part]) for part in (lumen, wall, tissue))
        assert dark < between < bright


def test_the_surroundings_are_dark_too(phantoms):
    for phantom in phantoms:
        corners = phantom.image[:6, :12, :12], phantom.image[-6:, -12:, -12:]
        middle = np.median(phantom.image[24:40, 40:88, 40:88])
        assert all(np.median(corner) < np.percentile(phantom.image, 40) < middle for corner in corners)


def test_each_kidney_has_a_grey_scale_of_its_own(phantoms):
    lows, highs = zip(*(np.percentile(phantom.image, [2, 98]) for phantom in phantoms), strict=True)
    assert np.ptp(lows) > 1000
    assert max(h - w for h, w in zip(highs, lows, strict=True)) > 1.3 * min(
        h - w for h, w in zip(highs, lows, strict=True)
    )


def test_decoys_are_as_dark_as_lumens_and_not_labelled():
    plain, with_decoys = (make_phantom(SMALL.model_copy(update={"decoys": share, "noise": 0.0}), 1) for share in (0, 2))
    assert np.array_equal(plain.label, with_decoys.label)
    changed = with_decoys.image.astype(int) - plain.image
    lumen = np.median(plain.image[ndimage.binary_erosion(plain.label)])
    dark = (changed < 0) & (with_decoys.image <= lumen)
    assert dark.sum() > 100
    assert not (dark & (plain.label == 1)).any()


def test_rings_lie_around_an_axis_along_z():
    with_rings, without = (make_phantom(SMALL.model_copy(update={"rings": size}), 3).image for size in (0.2, 0.0))
    difference = with_rings[16].astype(float) - without[16]
    # Seen from the axis, which lies within 3 voxels of the middle, all of a ring has one grey value.
    y, x = np.indices(difference.shape)
    spreads = []
    for cy in np.arange(29, 35.5, 0.5):
        for cx in np.arange(29, 35.5, 0.5):
            bins = np.rint(np.hypot(y - cy, x - cx)).astype(int)
            means = np.bincount(bins.ravel(), difference.ravel()) / np.maximum(np.bincount(bins.ravel()), 1)
            spreads.append(np.mean((difference - means[bins]) ** 2))
    assert difference.std() > 0
    assert min(spreads) < 0.35 * difference.var()


@pytest.mark.slow
def test_grey_values_alone_do_not_find_the_vessels(phantoms):
    for phantom in phantoms:
        thresholds = np.percentile(phantom.image, np.linspace(0.5, 60, 25))
        best = max(surface_dice(phantom.image < threshold, phantom.label) for threshold in thresholds)
        assert best < 0.35


def test_a_phantom_is_made_in_under_two_seconds():
    started = thread_time()
    make_phantom(PhantomConfig(), 0)
    assert thread_time() - started < 2.0


def test_a_shape_without_room_for_a_kidney_is_an_error():
    with pytest.raises(InputError, match=r"\(8, 64, 64\) is too small; every edge needs at least 16"):
        make_phantom(PhantomConfig(shape=(8, 64, 64)), 0)
    assert make_phantom(PhantomConfig(shape=(16, 16, 16)), 0).label.any()


def grown_tree(radius: float, smallest: float) -> tree.Segments:
    """A tree in a ball of radius 60."""
    centre = np.array([60.0, 60.0, 60.0])
    return tree.grow_tree(
        np.array([60.0, 60.0, 5.0]), np.array([0.0, 0.0, 1.0]), radius, smallest,
        lambda point: 60.0 - float(np.linalg.norm(point - centre)),
        lambda point: (centre - point) / max(float(np.linalg.norm(centre - point)), 1e-9),
        np.random.default_rng(0),
    )  # fmt: skip


def test_branches_follow_murrays_law():
    forks = grown_tree(4.0, 0.8).forks
    assert len(forks) > 30
    assert forks[:, 0] ** 3 == pytest.approx(forks[:, 1] ** 3 + forks[:, 2] ** 3)
    assert (forks[:, 1:] < forks[:, :1]).all()


def test_branching_ends_at_the_smallest_radius():
    radii = grown_tree(4.0, 0.8).radii
    assert radii.max() == 4.0
    assert 0.8 <= radii.min() < 0.9


def test_vessels_stay_inside_the_organ():
    ends = grown_tree(4.0, 0.8).ends
    assert np.linalg.norm(ends - 60.0, axis=1).max() < 60.5


def test_a_straight_segment_is_drawn_as_a_tube():
    distance = np.full((20, 20, 20), 99.0, np.float32)
    segment = tree.Segments(
        np.array([[2.0, 10.0, 10.0]]), np.array([[17.0, 10.0, 10.0]]), np.array([[3.0, 3.0]]), np.zeros((0, 3))
    )
    tree.draw_segments(distance, segment, reach=2.0, wall=np.zeros_like(distance))
    assert distance[10, 10, 10] == pytest.approx(-3.0)
    assert distance[10, 10, 13] == pytest.approx(0.0)
    assert distance[10, 14, 13] == pytest.approx(2.0)  # 3, 4, 5: five voxels from the axis
    assert distance[0, 10, 10] == pytest.approx(-1.0)  # beyond the end, rounded off
    assert distance[10, 0, 0] == 99.0


def test_the_trunk_grows_with_the_volume_to_fill():
    small, large = (tree.trunk_radius(voxels, 0.75) for voxels in (1e4, 1e6))
    assert 0.75 < small < large
    assert tree.trunk_radius(1.0, 0.75) == 0.75


def test_an_organ_is_deepest_in_its_middle_and_ends_before_the_border():
    organ = Organ.random((60, 80, 100), np.random.default_rng(0))
    assert organ.depth_at(organ.centre) > 15
    for z, y, x in np.ndindex(2, 2, 2):
        assert organ.depth_at(np.array([59.0 * z, 79.0 * y, 99.0 * x])) < 0
    depth, sinus = organ.slice(30)
    assert depth.shape == sinus.shape == (80, 100)
    assert depth[37, 61] == pytest.approx(organ.depth_at(np.array([30.0, 37.0, 61.0])), abs=1e-3)


def test_smooth_noise_has_mean_0_deviation_1_and_the_asked_wavelength():
    noise = SmoothNoise((100, 100, 100), 5.0, np.random.default_rng(0))
    field = np.stack([noise.slice(z) for z in range(100)])
    assert field.mean() == pytest.approx(0.0, abs=0.05)
    assert field.std() == pytest.approx(1.0, abs=0.15)
    for axis in range(3):
        near, far = (np.mean(field * np.roll(field, steps, axis)) for steps in (1, 15))
        assert near > 0.8 * field.var() and abs(far) < 0.1


def test_written_phantoms_are_a_dataset_in_the_competitions_layout(tmp_path):
    config = PhantomConfig(kidneys=2, shape=(16, 24, 32), spacing_um=63.0)
    calls: list[tuple[str, int, int]] = []
    write_phantoms(tmp_path / "set", config, 7, Report(progress=lambda *step: calls.append(step)))
    assert calls == [("making phantom kidneys", slices, 32) for slices in range(1, 33)]
    sources = scan(tmp_path / "set")
    assert [(s.name, s.kidney, s.split, s.shape, s.labels) for s in sources] == [
        ("phantom_1", "phantom_1", "train", (16, 24, 32), "files"),
        ("phantom_2", "phantom_2", "train", (16, 24, 32), "files"),
    ]
    assert sources[0].spacing_um == (63.0, 63.0, 63.0) and sources[0].annotated == 1.0
    train, held_out = choose(sources, DataConfig(hold_out="phantom_2"), Report(pytest.fail))
    assert [s.name for s in train] == ["phantom_1"] and [s.name for s in held_out] == ["phantom_2"]


def test_written_slices_are_those_of_the_phantom(tmp_path):
    config = PhantomConfig(kidneys=2, shape=(16, 24, 32))
    write_phantoms(tmp_path / "set", config, 7)
    phantom = make_phantom(config, phantom_seed(7, 1))
    rles = dict(line.split(",") for line in (tmp_path / "set" / "train_rles.csv").read_text().splitlines()[1:])
    assert len(rles) == 32
    for z in (0, 8, 15):
        folder = tmp_path / "set" / "train" / "phantom_2"
        assert np.array_equal(tifffile.imread(folder / "images" / f"{z:04d}.tif"), phantom.image[z])
        label = tifffile.imread(folder / "labels" / f"{z:04d}.tif")
        assert label.dtype == np.uint8 and np.array_equal(label, phantom.label[z] * 255)
        assert np.array_equal(decode(rles[f"phantom_2_{z:04d}"], 24, 32), phantom.label[z] == 1)


def test_phantoms_do_not_overwrite_a_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty; name a new folder"):
        write_phantoms(tmp_path, PhantomConfig(kidneys=1, shape=(16, 16, 16)), 0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_interrupted_writing_leaves_no_half_dataset_and_can_be_repeated(tmp_path):
    config = PhantomConfig(kidneys=1, shape=(16, 16, 16))

    def interrupt(_what: str, done: int, _total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path / "set", config, 0, Report(progress=interrupt))
    assert not (tmp_path / "set").exists()
    write_phantoms(tmp_path / "set", config, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert len(list((tmp_path / "set" / "train" / "phantom_1" / "images").iterdir())) == 16


@pytest.mark.data
def test_lumens_and_walls_look_like_those_of_a_real_kidney(real_data: Path, phantoms):
    """In units of the volume's own contrast, vessels of HiP-CT and of phantoms lie at similar grey values."""

    def levels(image: np.ndarray, label: np.ndarray) -> tuple[float, float]:
        tissue_near = ndimage.distance_transform_edt(label == 0)
        lumen = np.median(image[ndimage.binary_erosion(label)])
        around = image[(tissue_near > 4) & (tissue_near < 10)]
        edge = np.percentile(image[(tissue_near > 0) & (tissue_near < 3)], 75)
        return (np.median(around) - lumen) / np.median(around), (edge - np.median(around)) / (np.median(around) - lumen)

    folder = real_data / "hipct_k1_p02"
    image, label = (
        np.stack([tifffile.imread(file) for file in sorted((folder / part).glob("*.tif"))])
        for part in ("images", "labels")
    )
    depth, rim = levels(image.astype(float), label > 0)
    assert depth > 0
    for phantom in phantoms:
        phantom_depth, phantom_rim = levels(phantom.image.astype(float), phantom.label > 0)
        assert depth / 3 < phantom_depth < depth * 3
        assert abs(rim - phantom_rim) < 0.6
