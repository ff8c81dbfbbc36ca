import numpy as np
import pytest
from scipy import ndimage

from trainers.inference.components import large_components


def _mask(probabilities: np.ndarray, smallest: int | None, block_voxels: int = 1 << 20, level: int = 128) -> np.ndarray:
    return np.stack(list(large_components(probabilities, level, smallest, block_voxels)))


def _volume(*voxels: tuple[int, int, int], shape: tuple[int, int, int] = (5, 5, 5)) -> np.ndarray:
    probabilities = np.zeros(shape, np.uint8)
    for voxel in voxels:
        probabilities[voxel] = 200
    return probabilities


def test_a_single_voxel_is_removed_and_one_that_touches_at_a_corner_is_kept() -> None:
    probabilities = _volume((1, 1, 1), (2, 2, 2), (4, 4, 0))
    assert np.argwhere(_mask(probabilities, 2)).tolist() == [[1, 1, 1], [2, 2, 2]]


def test_a_component_of_exactly_the_smallest_size_is_kept() -> None:
    probabilities = _volume((0, 0, 0), (0, 0, 1), (0, 1, 1))
    assert _mask(probabilities, 3).sum() == 3
    assert _mask(probabilities, 4).sum() == 0


def test_only_voxels_from_the_threshold_up_hold_a_component_together() -> None:
    probabilities = _volume((0, 0, 0), (0, 0, 2))
    probabilities[0, 0, 1] = 100
    assert _mask(probabilities, 3, level=100).sum() == 3
    assert _mask(probabilities, 3, level=101).sum() == 0


def test_without_a_smallest_size_the_mask_is_the_threshold() -> None:
    probabilities = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    np.testing.assert_array_equal(_mask(probabilities, None), probabilities >= 128)


@pytest.mark.parametrize("block_voxels", [1, 3 * 12 * 13, 1 << 20])
@pytest.mark.parametrize("smallest", [2, 5, 30])
def test_blocks_give_what_the_whole_volume_gives(block_voxels: int, smallest: int) -> None:
    probabilities = np.random.default_rng(0).integers(0, 256, (11, 12, 13)).astype(np.uint8)
    level = 235  # a few components of many sizes
    labels, count = ndimage.label(probabilities >= level, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    expected = (labels > 0) & (sizes[labels] >= smallest)
    assert 0 < expected.sum() < (labels > 0).sum()
    np.testing.assert_array_equal(_mask(probabilities, smallest, block_voxels, level), expected)


def test_a_vessel_that_winds_through_blocks_and_back_is_one_component() -> None:
    # A U: down at one side, along the last slice, up at the other; each slice before the last holds two pieces.
    probabilities = _volume(
        *((z, 0, 0) for z in range(5)), *((z, 0, 4) for z in range(5)), *((4, 0, x) for x in range(5))
    )
    assert _mask(probabilities, 13, block_voxels=25).sum() == 13
    assert _mask(probabilities, 14, block_voxels=25).sum() == 0


def test_an_empty_mask_stays_empty() -> None:
    assert _mask(np.zeros((3, 4, 5), np.uint8), 10, block_voxels=20).sum() == 0
