"""What every metric guarantees: 1 for equal masks, 0 for disjoint ones, symmetric, and the same for any slabs."""

import numpy as np
import pytest
from numpy.typing import NDArray

from trainers.metrics.score import ScoreConfig
from trainers.metrics.slabs import LabelledPrediction, Slabs, cut_whole
from trainers.metrics.table import METRICS, title_of

SPACING = (50.0, 25.0, 63.0)
SHAPE = (7, 8, 9)

every_metric = pytest.mark.parametrize("name", METRICS)


def value(name: str, predicted: NDArray[np.generic], target: NDArray[np.generic]) -> float:
    cut = cut_whole(predicted, target, SPACING)  # type: ignore[arg-type]
    return METRICS[name].value(METRICS[name].parts_of(cut))


@every_metric
def test_a_perfect_prediction_scores_one(name: str) -> None:
    mask = np.random.default_rng(0).random(SHAPE) < 0.3
    assert value(name, mask, mask.copy()) == 1.0


@every_metric
def test_masks_far_apart_score_zero(name: str) -> None:
    low, high = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    low[:2], high[5:] = True, True
    assert value(name, low, high) == 0.0


@every_metric
def test_two_empty_masks_score_one_and_one_empty_mask_zero(name: str) -> None:
    empty, vessel = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    vessel[3, 3, 3] = True
    assert value(name, empty, empty) == 1.0
    assert value(name, empty, vessel) == 0.0
    assert value(name, vessel, empty) == 0.0


@every_metric
@pytest.mark.parametrize("seed", range(5))
def test_a_score_is_symmetric_and_between_zero_and_one(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, target = rng.random(SHAPE) < 0.3, rng.random(SHAPE) < 0.2
    found = value(name, predicted, target)
    assert 0.0 < found < 1.0
    assert value(name, target, predicted) == found


@every_metric
def test_labels_of_0_and_255_score_as_bool(name: str) -> None:
    rng = np.random.default_rng(1)
    predicted, target = rng.random(SHAPE) < 0.3, rng.random(SHAPE) < 0.2
    label = np.where(target, 255, 0).astype(np.uint8)
    assert value(name, predicted, label) == value(name, predicted, target)


@every_metric
@pytest.mark.parametrize("starts", [(0, 3), (0, 1, 2, 6)])
def test_the_parts_of_slabs_add_up_to_the_value_of_the_whole_volume(name: str, starts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    probabilities, target = rng.integers(0, 256, SHAPE).astype(np.uint8), rng.random(SHAPE) < 0.3
    slabs = Slabs((LabelledPrediction("k", probabilities, target, SPACING, starts),))
    parts = METRICS[name].parts_of(slabs.cut(np.full(len(starts), 99)))
    assert parts.shape[1] == len(starts)
    assert METRICS[name].value(parts) == pytest.approx(value(name, probabilities >= 100, target), rel=1e-12)
    middle = METRICS[name].value(parts, [1])
    assert middle == METRICS[name].value(parts[:, 1:2])


@every_metric
def test_many_sums_are_combined_at_once(name: str) -> None:
    rng = np.random.default_rng(3)
    parts = METRICS[name].parts_of(cut_whole(rng.random(SHAPE) < 0.3, rng.random(SHAPE) < 0.3, SPACING))
    many = np.broadcast_to(parts[:, :, None], (*parts.shape, 4))
    assert METRICS[name].combine(many).tolist() == [[METRICS[name].value(parts)] * 4]


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.at_thresholds is not None])
def test_a_value_at_all_thresholds_is_that_of_each_mask(name: str) -> None:
    rng = np.random.default_rng(4)
    probabilities, target = rng.integers(0, 256, SHAPE).astype(np.uint8), rng.random(SHAPE) < 0.3
    slabs = Slabs((LabelledPrediction("k", probabilities, target, SPACING, (0, 3)),))
    at_thresholds = METRICS[name].at_thresholds
    assert at_thresholds is not None
    expected = [value(name, probabilities >= level, target) for level in range(1, 256)]
    np.testing.assert_allclose(at_thresholds(slabs.curve, [0, 1]), expected, rtol=0, atol=1e-12)


@every_metric
def test_unequal_shapes_and_probabilities_are_refused(name: str) -> None:
    mask = np.zeros(SHAPE, bool)
    with pytest.raises(ValueError, match=r"\(7, 8, 9\).*\(7, 8, 8\)"):
        value(name, mask, mask[..., :8])
    with pytest.raises(ValueError, match="float64"):
        value(name, mask.astype(float), mask)


def test_every_metric_is_measured_and_no_two_have_one_title() -> None:
    assert ScoreConfig().names == tuple(METRICS)
    assert len({title_of(name) for name in METRICS}) == len(METRICS)


def test_the_metric_that_ranks_is_always_measured_and_comes_first() -> None:
    assert ScoreConfig(rank_by="voxel_dice", metrics=("surface_dice",)).names == ("voxel_dice", "surface_dice")
    assert ScoreConfig(rank_by="voxel_dice").ranking_alone().names == ("voxel_dice",)


@pytest.mark.parametrize("setting", [{"rank_by": "surface_dise"}, {"metrics": ("voxel_dice", "surface_dise")}])
def test_an_unknown_metric_names_the_near_one(setting: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="unknown metric 'surface_dise'; did you mean 'surface_dice'"):
        ScoreConfig.model_validate(setting)
