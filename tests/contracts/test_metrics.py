"""What every metric keeps: 1 for equal masks, 0 for disjoint ones, symmetric, and clear about what it cannot score."""

import numpy as np
import pytest

from trainers.metrics import METRICS

SPACING = (50.0, 25.0, 63.0)
SHAPE = (7, 8, 9)

every_metric = pytest.mark.parametrize("name", METRICS)


@every_metric
def test_a_perfect_prediction_scores_one(name: str) -> None:
    mask = np.random.default_rng(0).random(SHAPE) < 0.3
    assert METRICS[name](mask, mask.copy(), SPACING) == 1.0


@every_metric
def test_masks_far_apart_score_zero(name: str) -> None:
    low, high = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    low[:2], high[5:] = True, True
    assert METRICS[name](low, high, SPACING) == 0.0


@every_metric
def test_two_empty_masks_score_one_and_one_empty_mask_zero(name: str) -> None:
    empty, vessel = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    vessel[3, 3, 3] = True
    assert METRICS[name](empty, empty, SPACING) == 1.0
    assert METRICS[name](empty, vessel, SPACING) == 0.0
    assert METRICS[name](vessel, empty, SPACING) == 0.0


@every_metric
@pytest.mark.parametrize("seed", range(5))
def test_a_score_is_symmetric_and_between_zero_and_one(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, target = rng.random(SHAPE) < 0.3, rng.random(SHAPE) < 0.2
    score = METRICS[name](predicted, target, SPACING)
    assert 0.0 < score < 1.0
    assert METRICS[name](target, predicted, SPACING) == score


@every_metric
def test_labels_of_0_and_255_score_as_bool(name: str) -> None:
    rng = np.random.default_rng(1)
    predicted, target = rng.random(SHAPE) < 0.3, rng.random(SHAPE) < 0.2
    label = np.where(target, 255, 0).astype(np.uint8)
    assert METRICS[name](predicted, label, SPACING) == METRICS[name](predicted, target, SPACING)


@every_metric
def test_unequal_shapes_and_probabilities_are_refused(name: str) -> None:
    mask = np.zeros(SHAPE, bool)
    with pytest.raises(ValueError, match=r"\(7, 8, 9\).*\(7, 8, 8\)"):
        METRICS[name](mask, mask[..., :8], SPACING)
    with pytest.raises(ValueError, match="float64"):
        METRICS[name](mask.astype(float), mask, SPACING)
