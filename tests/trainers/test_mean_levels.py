from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from search_spaces.errors import InputError
from trainers.data import scratch
from trainers.inference.mean_levels import mean_levels

SHAPE = (3, 4, 5)


def _constant(*levels: int) -> Iterator[np.ndarray]:
    return (np.full(SHAPE, level, np.uint8) for level in levels)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_equal_members_give_the_members_probabilities_bit_for_bit(count: int) -> None:
    member = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    np.testing.assert_array_equal(mean_levels(iter([member] * count), count, SHAPE, None), member)


@pytest.mark.parametrize(
    ("levels", "mean"),
    [((100, 201), 151), ((100, 200), 150), ((0, 1), 1), ((255, 255, 254), 255), ((0, 0, 1), 0), ((255,) * 257, 255)],
)
def test_the_mean_of_constant_members_is_by_hand_rounded_half_up(levels: tuple[int, ...], mean: int) -> None:
    found = mean_levels(_constant(*levels), len(levels), SHAPE, None)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {mean}


def test_one_member_is_asked_for_after_the_other() -> None:
    alive = []

    def members() -> Iterator[np.ndarray]:
        for level in (10, 20):
            alive.append(level)
            yield np.full(SHAPE, level, np.uint8)
            alive.remove(level)

    mean_levels(members(), 2, SHAPE, None)
    assert alive == [20]  # the generator rests at its last member, having let the first one go


def test_sums_of_a_large_volume_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scratch, "_IN_MEMORY_BYTES", 10)
    found = mean_levels(_constant(1, 3), 2, SHAPE, tmp_path)
    assert isinstance(found, np.memmap)
    assert set(np.unique(found)) == {2}


def test_more_members_than_sums_can_hold_are_refused() -> None:
    with pytest.raises(InputError, match="an ensemble of 258 networks; at most 257"):
        mean_levels(_constant(*[1] * 258), 258, SHAPE, None)
