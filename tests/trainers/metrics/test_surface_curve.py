"""All thresholds at once: equal to one score per threshold, slab by slab."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from parameters import first_is_quick

from search_spaces.errors import InputError
from trainers.metrics.surface_curve import THRESHOLDS, SurfaceCurve, surface_curve
from trainers.metrics.surface_dice import surface_dice


def random_volumes(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Probabilities with ties, zeros and saturation, wider than one run of the kernel on every other seed."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(2, 7)), int(rng.integers(1, 7)), int(rng.integers(1, 10) if seed % 2 else 60 + 20 * seed))
    probabilities = rng.integers(0, [256, 3, 256][seed % 3], shape).astype(np.uint8)
    probabilities[rng.random(shape) < 0.4] = 0
    probabilities[rng.random(shape) < 0.2] = 255
    return probabilities, rng.random(shape) < [0.5, 0.05, 0.2][seed % 3]


def voxel_dice(predicted: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    voxels = int(predicted.sum()) + int(target.sum())
    return 2 * int((predicted & target).sum()) / voxels if voxels else 1.0


@pytest.mark.parametrize("seed", first_is_quick(range(6)))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (63.08, 25.14, 50.0)])
def test_one_pass_equals_255_single_scores(seed: int, spacing: tuple[float, float, float]) -> None:
    probabilities, target = random_volumes(seed)
    curve = surface_curve(probabilities, target, [0, 1], spacing)
    masks = [probabilities >= threshold for threshold in THRESHOLDS]
    single = [surface_dice(mask, target, spacing) for mask in masks]
    np.testing.assert_allclose(curve.surface_dice(), single, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(curve.voxel_dice(), [voxel_dice(mask, target) for mask in masks])


def test_slabs_add_up_to_the_whole_volume_without_extra_caps() -> None:
    rng = np.random.default_rng(0)
    probabilities, target = rng.integers(0, 256, (50, 8, 9)).astype(np.uint8), rng.random((50, 8, 9)) < 0.3
    whole, cut = surface_curve(probabilities, target), surface_curve(probabilities, target, [0, 1, 17, 40, 49])
    assert (whole.slabs, cut.slabs) == (1, 5)
    for name in ("true_positives", "predicted_voxels", "target_voxels"):
        np.testing.assert_array_equal(getattr(cut, name).sum(axis=0), getattr(whole, name)[0])
    for name in ("overlap", "total"):
        np.testing.assert_allclose(getattr(cut, name).sum(axis=0), getattr(whole, name)[0], rtol=1e-13)


def test_a_slab_holds_the_surface_at_the_lower_side_of_its_slices() -> None:
    # A vessel in slice 2 alone: its lower cap lies in cube layer 2, its upper in layer 3, where the second slab begins.
    target = np.zeros((5, 4, 4), bool)
    target[2, 1:3, 1:3] = True
    curve = surface_curve(np.where(target, 255, 0).astype(np.uint8), target, [0, 3])
    np.testing.assert_allclose(curve.total[0], curve.total[1])
    assert curve.target_voxels.tolist() == [4, 0]
    assert (curve.surface_dice() == 1.0).all()


def test_the_score_of_chosen_slabs_is_the_ratio_of_their_sums() -> None:
    rng = np.random.default_rng(1)
    curve = surface_curve(rng.integers(0, 256, (9, 6, 6)).astype(np.uint8), rng.random((9, 6, 6)) < 0.4, [0, 3, 6])
    expected = curve.overlap[[0, 2], 99].sum() / curve.total[[0, 2], 99].sum()
    assert curve.surface_dice([0, 2])[99] == pytest.approx(expected)
    assert curve.surface_dice(np.array([True, False, True]))[99] == pytest.approx(expected)
    voxels = curve.predicted_voxels[[0, 2], 99].sum() + curve.target_voxels[[0, 2]].sum()
    assert curve.voxel_dice([0, 2])[99] == pytest.approx(2 * curve.true_positives[[0, 2], 99].sum() / voxels)


def test_pooled_curves_score_as_their_volumes_side_by_side() -> None:
    # Two volumes with a gap of background between them have the surfaces of both.
    rng = np.random.default_rng(2)
    parts = [(rng.integers(0, 256, (4, 5, 5)).astype(np.uint8), rng.random((4, 5, 5)) < 0.5) for _ in range(2)]
    pooled = SurfaceCurve.pool([surface_curve(*part) for part in parts])
    joined = surface_curve(*(np.concatenate([a, np.zeros((1, 5, 5), a.dtype), b]) for a, b in zip(*parts, strict=True)))
    np.testing.assert_allclose(pooled.surface_dice(), joined.surface_dice(), rtol=1e-13)
    np.testing.assert_array_equal(pooled.voxel_dice(), joined.voxel_dice())


def test_empty_volumes_and_slabs_score_one_and_one_empty_mask_zero() -> None:
    empty = np.zeros((4, 5, 6), np.uint8)
    assert (surface_curve(empty, empty, [0, 2]).surface_dice([1]) == 1.0).all()
    assert (surface_curve(empty, empty).voxel_dice() == 1.0).all()
    target = np.ones((4, 5, 6), bool)
    assert (surface_curve(empty, target).surface_dice() == 0.0).all()
    assert (surface_curve(np.full_like(empty, 255), empty).surface_dice() == 0.0).all()


def test_memory_maps_are_scored(tmp_path: Path) -> None:
    probabilities, target = random_volumes(4)
    np.save(tmp_path / "probabilities.npy", probabilities)
    np.save(tmp_path / "target.npy", target.astype(np.uint8) * 255)
    mapped = surface_curve(
        np.load(tmp_path / "probabilities.npy", mmap_mode="r"),
        np.load(tmp_path / "target.npy", mmap_mode="r"),
    )
    np.testing.assert_array_equal(mapped.surface_dice(), surface_curve(probabilities, target).surface_dice())


@pytest.mark.parametrize("starts", [[], [1], [0, 0], [0, 3, 2], [0, 5], [0, -1]])
def test_slabs_that_do_not_cut_the_volume_are_refused(starts: list[int]) -> None:
    volume = np.zeros((5, 4, 3), np.uint8)
    with pytest.raises(InputError, match="slab_starts"):
        surface_curve(volume, volume, starts)


def test_what_cannot_be_scored_is_named() -> None:
    volume = np.zeros((5, 4, 3), np.uint8)
    with pytest.raises(InputError, match="float32"):
        surface_curve(volume.astype(np.float32), volume)
    with pytest.raises(InputError, match=r"\(5, 4, 2\)"):
        surface_curve(volume, volume[..., :2])
