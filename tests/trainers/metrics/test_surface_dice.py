"""Surface dice: by geometry, in its empty cases, and against the reference implementation."""

import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import surface_distance
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.rle import decode, read_rles
from trainers.metrics.surface_dice import surface_dice

Spacing = tuple[float, float, float]
Mask = NDArray[np.bool_]

SPACINGS: list[Spacing] = [
    (1, 1, 1),
    (2, 1, 1),
    (1, 1, 3),
    (0.5, 1, 0.25),
    (50.16, 50.16, 50.16),
    (25.14, 50.28, 63.08),
]


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch):
    """surface-distance 0.1, which says 0/0 for two empty masks and was written for NumPy 1 and older scipy."""
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)

    def score(predicted: Mask, target: Mask, spacing: Spacing, tolerance: float) -> float:
        if not predicted.any() and not target.any():
            return 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            distances = surface_distance.compute_surface_distances(target, predicted, spacing)
        return float(surface_distance.compute_surface_dice_at_tolerance(distances, tolerance))

    return score


def random_mask(rng: np.random.Generator, shape: tuple[int, int, int]) -> Mask:
    """Empty, full, sparse or dense voxels, or one box that may touch the border."""
    kind = rng.integers(6)
    if kind == 0:
        return np.zeros(shape, bool)
    if kind == 1:
        mask = np.zeros(shape, bool)
        low = [int(rng.integers(0, n)) for n in shape]
        mask[tuple(slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(low, shape, strict=True))] = True
        return mask
    return rng.random(shape) < [0.01, 0.1, 0.5, 1.0][kind - 2]


def pairs_of_masks(seed: int, count: int):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        shape = (int(rng.integers(1, 12)), int(rng.integers(1, 12)), int(rng.integers(1, 16)))
        target = random_mask(rng, shape)
        predicted = target ^ (rng.random(shape) < 0.05) if rng.random() < 0.5 else random_mask(rng, shape)
        spacing = SPACINGS[rng.integers(len(SPACINGS))]
        voxels = rng.choice([0, 0, 1, 1.5, np.sqrt(2), 2, 3, 3 * rng.random()])
        yield predicted, target, spacing, float(voxels * rng.choice(spacing))


@pytest.mark.parametrize("count", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_random_pairs_equal_the_reference(reference, count: int) -> None:
    for predicted, target, spacing, tolerance in pairs_of_masks(seed=count, count=count):
        expected = reference(predicted, target, spacing, tolerance)
        assert surface_dice(predicted, target, spacing, tolerance) == pytest.approx(expected, abs=1e-12)


def test_a_half_space_with_one_more_layer_scores_as_the_reference_says() -> None:
    # From the documentation of the competition's metric: 100³ voxels, half of them filled, and one layer more.
    target = np.zeros((100, 100, 100), bool)
    target[:50] = True
    predicted = target.copy()
    predicted[50] = True
    assert surface_dice(predicted, target) == pytest.approx(0.750877, abs=1e-6)


@pytest.mark.parametrize(("tolerance", "expected"), [(0.0, 0.0), (1.9, 0.0), (2.0, 0.5), (2.9, 0.5), (3.0, 1.0)])
def test_of_two_voxels_three_apart_the_near_halves_agree_first(tolerance: float, expected: float) -> None:
    # A voxel has surface in the cube layers before and behind it: the layers 2 and 3 here, 5 and 6 there.
    predicted, target = np.zeros((12, 5, 5), bool), np.zeros((12, 5, 5), bool)
    predicted[2, 2, 2] = target[5, 2, 2] = True
    assert surface_dice(predicted, target, tolerance_um=tolerance) == pytest.approx(expected, abs=1e-15)


def test_a_vessel_cut_by_the_border_has_a_cap() -> None:
    # A one-voxel vessel through all of the volume, and the same without its last voxel: caps differ, sides agree.
    target = np.zeros((6, 3, 3), bool)
    target[:, 1, 1] = True
    predicted = target.copy()
    predicted[5] = False
    corner, edge = np.sqrt(3) / 8, np.sqrt(0.5)  # a cap is four cubes with one corner, a side four with an edge
    layers_in_both = 4 * 4 * edge * 2 + 4 * corner * 2  # layers 1..4 hold sides, layer 0 a cap
    layer_5 = 4 * (corner + edge)  # predicted's cap, target's side
    layer_6 = 4 * corner  # target's cap alone
    expected = (layers_in_both + layer_5) / (layers_in_both + layer_5 + layer_6)
    assert surface_dice(predicted, target) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1e9])
def test_empty_masks_score_one_together_and_zero_alone(tolerance: float) -> None:
    empty, vessel = np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)
    assert surface_dice(empty, empty, tolerance_um=tolerance) == 1.0
    assert surface_dice(vessel, empty, tolerance_um=tolerance) == 0.0
    assert surface_dice(empty, vessel, tolerance_um=tolerance) == 0.0


def test_a_tolerance_larger_than_the_volume_accepts_any_surface() -> None:
    predicted, target = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
    predicted[0, 0, 0] = target[8, 8, 8] = True
    assert surface_dice(predicted, target, tolerance_um=1e300) == 1.0


def test_layout_and_type_of_the_masks_change_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    predicted, target = rng.random((40, 9, 70)) < 0.3, rng.random((40, 9, 70)) < 0.3
    expected = surface_dice(predicted, target)
    np.save(tmp_path / "mask.npy", predicted.astype(np.uint8))
    doubled = np.repeat(predicted, 2, axis=2)
    for same in (
        predicted.astype(np.uint8),
        predicted.astype(np.uint8) * 255,  # label images hold 0 and 255
        np.asfortranarray(predicted),
        doubled[:, :, ::2],
        predicted[::-1][::-1],
        np.load(tmp_path / "mask.npy", mmap_mode="r"),
    ):
        assert surface_dice(same, target) == expected
        assert surface_dice(same, target, tolerance_um=1.0) == surface_dice(predicted, target, tolerance_um=1.0)


def test_masks_are_not_changed_and_stay_writeable() -> None:
    mask = np.random.default_rng(2).random((5, 6, 7)) < 0.5
    before = mask.copy()
    surface_dice(mask, mask)
    assert mask.flags.writeable
    np.testing.assert_array_equal(mask, before)


def test_several_threads_may_score_at_once() -> None:
    rng = np.random.default_rng(3)
    masks = [rng.random((40, 20, 20)) < 0.2 for _ in range(8)]
    alone = [surface_dice(mask, masks[0], tolerance_um=1.0) for mask in masks]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda mask: surface_dice(mask, masks[0], tolerance_um=1.0), masks)) == alone


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"target": np.zeros((3, 4, 6), bool)}, r"\(3, 4, 5\).*\(3, 4, 6\)"),
        ({"predicted": np.zeros((3, 4, 5), np.float32)}, "float32"),
        ({"predicted": np.zeros((4, 5), bool), "target": np.zeros((4, 5), bool)}, r"\(4, 5\)"),
        ({"spacing_um": (1.0, 0.0, 1.0)}, "spacing_um"),
        ({"spacing_um": (1.0, 1.0)}, "spacing_um"),
        ({"tolerance_um": -1.0}, "tolerance_um is -1.0"),
        ({"tolerance_um": float("nan")}, "tolerance_um is nan"),
    ],
)
def test_what_cannot_be_scored_is_named(change: dict[str, object], named: str) -> None:
    arguments = {"predicted": np.zeros((3, 4, 5), bool), "target": np.zeros((3, 4, 5), bool), **change}
    with pytest.raises(InputError, match=named):
        surface_dice(**arguments)


@pytest.mark.slow
def test_scoring_works_if_no_folder_can_keep_compiled_functions() -> None:
    # As in a container whose user may write nowhere: numba has no place for its cache.
    code = """
import numpy as np
from trainers.metrics.surface_dice import surface_dice
print(surface_dice(np.ones((2, 2, 2), bool), np.ones((2, 2, 2), bool)))
"""
    nowhere = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"}
    run = subprocess.run([sys.executable, "-c", code], env=nowhere, capture_output=True, text=True, check=False)
    assert run.stdout == "1.0\n", run.stderr


@pytest.mark.slow
@pytest.mark.data
def test_a_real_vascular_tree_equals_the_reference(reference, real_data: Path) -> None:
    rows = read_rles(real_data / "hipct_k3_dense_pseudomask" / "rles.csv")["kidney_3_dense"]
    slices = [decode(rows[number].rle, 1706, 1510) for number in range(700, 740)]
    target = np.stack(slices)[:, 600:900, 500:800]
    predicted = np.roll(target, 1, axis=2)
    assert target.any()
    for tolerance in (0.0, 50.16):
        expected = reference(predicted, target, SPACINGS[4], tolerance)
        assert surface_dice(predicted, target, SPACINGS[4], tolerance) == pytest.approx(expected, abs=1e-12)
