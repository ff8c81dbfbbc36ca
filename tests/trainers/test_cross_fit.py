"""Choosing by cross-fitting, on a kidney of four slabs whose vessel is a bar along z."""

from dataclasses import replace

import numpy as np
import pytest
from kidneys import tube

from trainers.data.volume import Volume
from trainers.metrics.cross_fit import Tried, choose, score, try_reading
from trainers.metrics.score import ScoreConfig
from trainers.metrics.slabs import cut_into_slabs

CONFIG = ScoreConfig(slabs=4)


def _kidney() -> Volume:
    label = np.zeros((16, 12, 12), np.uint8)
    label[:, 4:8, 4:8] = 1
    return replace(tube("k", (16, 12, 12)), label=label)


KIDNEY = _kidney()


def _label() -> np.ndarray:
    assert KIDNEY.label is not None
    return KIDNEY.label.copy()


def _try(mask: np.ndarray, smallest: int | None = None) -> Tried:
    predictions = {"k": (mask * 200).astype(np.uint8)}
    return try_reading(cut_into_slabs(predictions, [KIDNEY], CONFIG.slabs), CONFIG, smallest)


def _wrong_in(*slabs: int) -> np.ndarray:
    """The label, but with the bar elsewhere in some slabs."""
    mask = _label()
    for slab in slabs:
        mask[4 * slab : 4 * slab + 4] = np.roll(mask[4 * slab : 4 * slab + 4], 6, axis=1)
    return mask


def test_a_way_that_is_right_everywhere_is_chosen_and_scored_unchanged() -> None:
    best, found = choose([_try(_wrong_in(0, 1)), _try(_label())], CONFIG)
    assert best == 1
    assert (found.value, found.best, found.values["voxel_dice"]) == (1.0, 1.0, 1.0)


def test_ways_that_suit_only_the_slabs_that_chose_them_score_badly() -> None:
    # One way is right in the even slabs, the other in the odd ones: each half chooses what is wrong in the other.
    ways = [_try(_wrong_in(1, 3)), _try(_wrong_in(0, 2))]
    _, found = choose(ways, CONFIG)
    assert found.values["voxel_dice"] == 0.0
    assert found.value < 0.2  # caps of the pieces meet where slabs do
    assert found.best > 0.4


def test_among_equals_the_first_is_chosen() -> None:
    best, _ = choose([_try(_label()), _try(_label(), 2)], CONFIG)
    assert best == 0


@pytest.mark.parametrize("smallest", [None, 5])
def test_a_single_way_scores_as_the_protocol_does(smallest: int | None) -> None:
    mask = _wrong_in(2)
    mask[::3, 0, 0] = 1
    predictions = {"k": (mask * 200).astype(np.uint8)}
    way = try_reading(cut_into_slabs(predictions, [KIDNEY], CONFIG.slabs), CONFIG, smallest)
    _, found = choose([way], CONFIG)
    assert found == score(predictions, [KIDNEY], CONFIG, smallest)
    assert way.value == pytest.approx(found.value, abs=1e-12)


def test_removing_specks_scores_the_mask_without_them() -> None:
    specks = _label()
    specks[::3, 0, 0] = 1  # single voxels
    assert score({"k": specks * 200}, [KIDNEY], CONFIG).value < 1.0
    assert score({"k": specks * 200}, [KIDNEY], CONFIG, 2).value == 1.0
    best, found = choose([_try(specks), _try(specks, 2)], CONFIG)
    assert (best, found.value) == (1, 1.0)
