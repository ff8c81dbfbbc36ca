"""Moved grids: nothing shifts, and an unmoved grid gives the same as a plain cut."""

from dataclasses import replace

import numpy as np
import pytest

from trainers.data.augment import AUGMENTATIONS, Augmentation, Move
from trainers.data.oblique import Grid, cut_grey, cut_label
from trainers.data.patches import PatchLocation, PatchSampler
from trainers.data.resample import WIDEST_STEP
from trainers.data.volume import Volume

EDGE = 48
CENTRE = (23.0, 25.0, 22.0)


def make_ball(radius: float, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    """A ball of `radius` µm around CENTRE (voxels); the image falls linearly from there, up to 1.5 radii."""
    places = np.indices((EDGE,) * 3).astype(float)
    distance = np.sqrt(sum(((p - c) * s) ** 2 for p, c, s in zip(places, CENTRE, spacing, strict=True)))
    label = (distance <= radius).astype(np.uint8)
    image = np.clip(1000 * (1.5 * radius - distance), 0, None).astype(np.uint16)
    return Volume("ball", "ball", image, label, np.flatnonzero(label), spacing, 1.0, 0.0, 1000.0 * radius, "ball")


def centre_of(weights: np.ndarray) -> np.ndarray:
    places = np.indices(weights.shape)
    return np.array([(p * weights).sum() / weights.sum() for p in places])


def rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [0.55, 1.0, 1.3])
def test_a_turned_and_scaled_ball_stays_where_its_centre_was(seed, scale):
    ball, rng = make_ball(4.5), np.random.default_rng(seed)
    off, volumes = [], []
    for _ in range(24):  # of a ball of 2.5 voxels a single voxel more moves the centre by 0.05
        wanted = rng.uniform(8.5, 9.5, 3)
        grid = Grid(anchor=CENTRE, origin=tuple(wanted), matrix=rotation(seed) / scale)
        label = cut_label(ball.label, grid, (19, 19, 19))
        off.append(centre_of(label) - wanted)
        volumes.append(label.sum() / scale**3)
        assert np.abs(centre_of(cut_grey(ball.image, grid, (19, 19, 19))) - wanted).max() < 0.02
    assert np.abs(np.mean(off, 0)).max() < 0.03 and np.abs(off).max() < 0.25
    assert np.mean(volumes) == pytest.approx(ball.label.sum(), rel=0.06)


def test_a_grid_on_the_voxels_gives_them_unchanged():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60_000, (9, 10, 11)).astype(np.uint16)
    grid = Grid(anchor=(2.0, 3.0, 4.0), origin=(0.0, 0.0, 0.0), matrix=np.eye(3))
    assert np.array_equal(cut_grey(image, grid, (4, 5, 6)), image[2:6, 3:8, 4:10])
    label = (image > 30_000).astype(np.uint8)
    assert np.array_equal(cut_label(label, grid, (2, 5, 6), first=1), label[3:5, 3:8, 4:10])


def test_between_voxels_the_grey_value_is_their_mean():
    image = np.array([[[0, 100], [200, 300]], [[400, 500], [600, 700]]], np.uint16)
    grid = Grid(anchor=(0.5, 0.5, 0.5), origin=(0.0, 0.0, 0.0), matrix=np.eye(3))
    assert cut_grey(image, grid, (1, 1, 1)).item() == pytest.approx(350.0)
    quarter = Grid(anchor=(0.0, 0.0, 0.25), origin=(0.0, 0.0, 0.0), matrix=np.eye(3))
    assert cut_grey(image, quarter, (1, 1, 1)).item() == pytest.approx(25.0)


def test_beyond_the_volume_it_is_mirrored_at_the_outer_face():
    image = np.arange(5, dtype=np.uint16).reshape(1, 1, 5)
    grid = Grid(anchor=(0.0, 0.0, -3.0), origin=(0.0, 0.0, 0.0), matrix=np.eye(3))
    assert cut_grey(image, grid, (1, 1, 12))[0, 0].tolist() == [2, 1, 0, 0, 1, 2, 3, 4, 4, 3, 2, 1]


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("boxes", [False, True])
def test_a_move_by_zero_is_the_plain_cut(slices, axis, boxes):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 1000, (20, 21, 22)).astype(np.uint16)
    label = (image > 700).astype(np.uint8)
    volume = Volume("v", "v", image, label, np.flatnonzero(label), (1.0, 1.0, 1.0), 1.0, 0.0, 1000.0, "v")
    sampler = PatchSampler([volume], slices, slices, 8, 1.0, seed=0, axes=(axis,), boxes=boxes)
    still = Move(np.eye(3), None)
    inside = 0
    for number in range(12):
        location = sampler.location(number)
        if min(location.start) < 0 or location.start[axis] + slices > volume.shape[axis]:
            continue  # the plain cut repeats slices beyond the end, the moved one mirrors them
        inside += 1
        plain, moved = sampler.patch(location), sampler.patch(location, still)
        assert np.allclose(plain[0], moved[0], atol=1e-5) and np.array_equal(plain[1], moved[1])
    assert inside > 5


def test_a_vessel_stays_in_its_slice_and_place_however_the_grid_moves():
    ball = make_ball(3.0)
    sampler = PatchSampler([ball], 3, 3, 32, 1.0, seed=0)
    strong = Augmentation("strong")
    rng = np.random.default_rng(0)
    moved = 0
    for number in range(60):
        location = sampler.location(number)
        move = strong.move(rng, 32)
        _, label = sampler.patch(location, move)
        anchor = location.anchor
        in_plane = [anchor[k] - location.start[k] for k in range(3) if k != location.axis]
        # The anchor is a labelled voxel; within a ball of radius 3 its middle slice shows vessel around it.
        near = label[1, max(0, in_plane[0] - 1) : in_plane[0] + 2, max(0, in_plane[1] - 1) : in_plane[1] + 2]
        assert near.any()
        moved += move is not None
    assert moved > 30


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
def test_at_a_voxel_size_a_ball_has_the_radius_of_that_size(spacing):
    """Radius 8 µm at voxels of 1.6 µm: 5 voxels, along every axis, whatever the scan's own voxels."""
    ball = make_ball(8.0, spacing)
    sampler = PatchSampler([ball], 21, 21, 24, 0.0, seed=0, axes=(0,), boxes=True, spacing_um=1.6)
    start = tuple(round(c - (n * 1.6 / s - 1) / 2) for c, n, s in zip(CENTRE, (21, 24, 24), spacing, strict=True))
    _, label = sampler.patch(PatchLocation(0, 0, start))
    assert label.sum() == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.06)
    extents = [np.ptp(np.nonzero(label)[axis]) + 1 for axis in range(3)]
    assert all(9 <= extent <= 11 for extent in extents)


def test_a_target_voxel_size_shows_vessels_as_large_as_its_scans_will():
    ball = make_ball(8.0)
    whole = PatchSampler([ball], 1, 1, 32, 1.0, seed=0)
    coarse = PatchSampler([ball], 1, 1, 32, 1.0, seed=0, spacing_um=1.25)
    sizes = [np.mean([sampler.sample(n)[1].sum() for n in range(100)]) for sampler in (whole, coarse)]
    assert sizes[1] / sizes[0] == pytest.approx(1 / 1.25**2, rel=0.2)


@pytest.mark.parametrize("name", [name for name, changes in AUGMENTATIONS.items() if changes.scale])
def test_the_scale_is_drawn_from_its_whole_range(name):
    augmentation = Augmentation(name)
    low, high = augmentation.changes.scale
    rng = np.random.default_rng(0)
    drawn = [augmentation.move(rng, 16) for _ in range(400)]
    scales = [np.linalg.det(move.matrix) ** (-1 / 3) for move in drawn if move is not None]
    assert low <= min(scales) < low + 0.06 and high - 0.06 < max(scales) <= high


@pytest.mark.parametrize("name", [name for name, changes in AUGMENTATIONS.items() if changes.scale])
@pytest.mark.parametrize("spacing_um", [50.0, 63.08])
def test_at_a_voxel_size_things_are_as_often_larger_as_smaller(name, spacing_um):
    """Of scans of 50 µm shown at `spacing_um`: the middle of the voxel sizes they seem to have is that one."""
    ball = replace(make_ball(8.0), spacing_um=(50.0, 50.0, 50.0))
    seen = apparent_voxels(PatchSampler([ball], 1, 1, 16, 1.0, seed=0, spacing_um=spacing_um), Augmentation(name))
    assert np.exp(np.mean(np.log(seen))) == pytest.approx(spacing_um, rel=0.03)


def test_no_scale_skips_voxels():
    ball = replace(make_ball(8.0), spacing_um=(25.0, 25.0, 25.0))
    sampler = PatchSampler([ball], 1, 1, 8, 1.0, seed=0, spacing_um=45.0)
    seen = apparent_voxels(sampler, Augmentation("strong - tilt - turn"))
    assert 49 < seen.max() <= 50.0001 and 40.4999 <= seen.min() < 41.5


@pytest.mark.parametrize("spacing", [(4.0, 1.0, 1.0), (1.0, 5.0, 1.0)])
def test_no_turn_skips_voxels(spacing):
    sampler = PatchSampler([make_ball(8.0, spacing)], 3, 3, 16, 1.0, seed=0)
    strong, rng = Augmentation("strong"), np.random.default_rng(0)
    places = [(location, strong.move(rng, 16)) for location in map(sampler.location, range(300))]
    largest = [np.abs(sampler._grid(*place).matrix).max() for place in places]
    assert max(largest) == pytest.approx(WIDEST_STEP)


def test_a_scan_with_flat_voxels_is_turned_in_tissue_and_not_in_voxels():
    """A ball of 8 µm in voxels of 2 x 1 x 1 µm is what it was, however it is turned."""
    ball = make_ball(8.0, (2.0, 1.0, 1.0))
    sampler = PatchSampler([ball], 15, 15, 28, 0.0, seed=0, axes=(0,), boxes=True)
    location = PatchLocation(0, 0, (16, 12, 8), anchor=tuple(int(c) for c in CENTRE))
    rng, turned = np.random.default_rng(0), Augmentation("strong - scale - elastic")
    still = sampler.patch(location)[1]
    for move in (m for m in (turned.move(rng, 28) for _ in range(20)) if m is not None):
        assert np.count_nonzero(sampler.patch(location, move)[1] != still) < 0.12 * still.sum()


def apparent_voxels(sampler: PatchSampler, augmentation: Augmentation) -> np.ndarray:
    """The voxel sizes (µm) that the moved ones of 600 samples seem to have."""
    rng = np.random.default_rng(0)
    moves = [sampler.draw_move(sampler.location(number), augmentation, rng) for number in range(600)]
    return sampler.spacing_um * np.array([np.linalg.det(m.matrix) ** (1 / 3) for m in moves if m is not None])


def test_the_tilt_reaches_its_angle_and_no_further():
    rng = np.random.default_rng(0)
    augmentation = Augmentation("strong")
    drawn = [move for move in (augmentation.move(rng, 16) for _ in range(400)) if move is not None]
    normals = [move.matrix[:, 0] / np.linalg.norm(move.matrix[:, 0]) for move in drawn]
    angles = np.rad2deg(np.arccos([normal[0] for normal in normals]))
    assert 28 < angles.max() <= 30.0001 and angles.min() < 3
    assert all(np.allclose(m.matrix.T @ m.matrix, np.eye(3) * np.linalg.det(m.matrix) ** (2 / 3)) for m in drawn)
