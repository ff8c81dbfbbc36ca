"""Another voxel spacing and back: nothing moves, levels are kept, and masks keep their size."""

import numpy as np
import pytest

from trainers.data.resample import resample_volume, resampled, shape_at, steps_at
from trainers.data.volume import Volume


def make_volume(image: np.ndarray, label: np.ndarray | None, spacing: tuple[float, float, float]) -> Volume:
    voxels = np.empty(0, np.int64) if label is None else np.flatnonzero(label)
    return Volume("v", "v", image, label, voxels, spacing, 1.0, 0.0, 1000.0, "v")


def ball(edge: int, centre: float, radius: float) -> np.ndarray:
    places = np.indices((edge,) * 3)
    return (((places - centre) ** 2).sum(0) <= radius**2).astype(np.uint8)


def centre_of(weights: np.ndarray) -> np.ndarray:
    return np.array([(p * weights).sum() / weights.sum() for p in np.indices(weights.shape)])


def test_spacings_within_a_hundredth_are_the_same():
    assert steps_at((50.0, 50.16, 50.28), 50.0) == (1.0, 1.0, 1.0)
    assert steps_at((50.0, 25.0, 63.0), 50.0) == (1.0, 2.0, pytest.approx(50 / 63))
    assert steps_at((50.0, 25.0, 63.0), None) == (1.0, 1.0, 1.0)


def test_a_volume_of_the_wanted_spacing_is_itself():
    volume = make_volume(np.zeros((2, 3, 4), np.uint16), None, (50.0, 50.1, 49.9))
    assert resample_volume(volume, 50.0) is volume and resample_volume(volume, None) is volume


@pytest.mark.parametrize("wanted", [40.0, 63.08, 100.0, 25.0])
def test_a_ball_keeps_its_place_and_its_size_in_micrometres(wanted):
    label = ball(41, 21.3, 9.0)
    seen = resample_volume(make_volume(label * np.uint16(1000), label, (50.0,) * 3), wanted)
    assert seen.shape == shape_at((41, 41, 41), (wanted / 50,) * 3) and seen.spacing_um == pytest.approx((wanted,) * 3)
    assert np.array_equal(seen.vessel_voxels, np.flatnonzero(seen.label))
    for weights, most in ((seen.label, 0.06), (seen.image, 0.02)):
        # Both grids have one centre.
        expected = (centre_of(label) - 20) * 50 / wanted + (seen.shape[0] - 1) / 2
        assert np.abs(centre_of(weights) - expected).max() < most
    assert seen.label.sum() * wanted**3 == pytest.approx(label.sum() * 50**3, rel=0.04)


def test_twice_as_large_voxels_are_the_mean_of_eight():
    image = np.random.default_rng(0).integers(0, 1000, (4, 6, 8)).astype(np.uint16)
    small = np.stack(list(resampled(image, (2, 3, 4), (2.0, 2.0, 2.0))))
    assert np.allclose(small, image.reshape(2, 2, 3, 2, 4, 2).mean((1, 3, 5)), atol=0.01)


def test_much_larger_voxels_skip_none():
    image = np.zeros((1, 1, 40), np.uint16)
    for place in range(8, 32):
        image[:] = 0
        image[0, 0, place] = 8000
        assert np.stack(list(resampled(image, (1, 1, 5), (1.0, 1.0, 8.0)))).max() > 200


def test_a_linear_ramp_comes_back_as_it_was():
    """Levels that were predicted at 63 µm and brought back to 50: exact where they are linear, away from the border."""
    coarse = shape_at((20, 30, 40), (1.2616,) * 3)
    there = [(np.arange(n) - (n - 1) / 2) * 1.2616 for n in coarse]
    ramp = 100 + 2 * there[0][:, None, None] + 3 * there[1][None, :, None] - there[2][None, None, :]
    back = np.stack(list(resampled(ramp, (20, 30, 40), (1 / 1.2616,) * 3)))
    own = [np.arange(n) - (n - 1) / 2 for n in (20, 30, 40)]
    expected = 100 + 2 * own[0][:, None, None] + 3 * own[1][None, :, None] - own[2][None, None, :]
    assert np.allclose(back[2:-2, 2:-2, 2:-2], expected[2:-2, 2:-2, 2:-2], atol=1e-3)


def test_voxels_that_do_not_fit_lie_in_files(tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.data.scratch._IN_MEMORY_BYTES", 100)
    label = ball(12, 5.5, 3.0)
    volume = make_volume(label * np.uint16(1000), label, (50.0,) * 3)
    seen, in_memory = resample_volume(volume, 63.0, tmp_path), resample_volume(volume, 63.0)
    assert isinstance(seen.image, np.memmap) and isinstance(seen.label, np.memmap)
    assert np.array_equal(seen.image, in_memory.image) and np.array_equal(seen.label, in_memory.label)
