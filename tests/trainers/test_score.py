from dataclasses import replace

import numpy as np
import pytest
from kidneys import tube
from records import score as made_up

from search_spaces.errors import InputError
from trainers.metrics.cross_fit import bootstrap_interval, score
from trainers.metrics.score import Score, ScoreConfig
from trainers.metrics.slabs import slab_starts
from trainers.metrics.surface_dice import SURFACE_DICE, surface_dice

CONFIG = ScoreConfig(slabs=4, resamples=200)


def test_a_certain_and_right_prediction_scores_one() -> None:
    volume = tube("a")
    assert volume.label is not None
    result = score({"a": volume.label * np.uint8(255)}, [volume], CONFIG)
    assert result.value == result.values["voxel_dice"] == result.ci_low == result.ci_high == 1.0
    assert result.mean_over_thresholds == 1.0


def test_an_empty_prediction_scores_zero() -> None:
    volume = tube("a")
    result = score({"a": np.zeros(volume.shape, np.uint8)}, [volume], CONFIG)
    assert result.values == {"surface_dice": 0.0, "voxel_dice": 0.0}


def test_with_one_good_threshold_the_score_is_that_of_the_mask() -> None:
    """Only two probabilities occur, so every half of the slabs chooses a mask that is the same."""
    volume = tube("a", radius=6.0)
    predicted = tube("a", radius=5.0).label
    assert predicted is not None
    assert volume.label is not None
    probabilities = np.where(predicted > 0, 200, 10).astype(np.uint8)
    result = score({"a": probabilities}, [volume], CONFIG)
    expected = surface_dice(predicted > 0, volume.label > 0, (50.0, 50.0, 50.0))
    assert result.value == pytest.approx(expected, abs=1e-12)
    assert 10 / 255 < result.threshold <= 200 / 255


def test_the_threshold_of_a_slab_is_chosen_on_the_other_half() -> None:
    """Even slabs are right at a low threshold, odd ones at a high one: cross-fitting must get both wrong."""
    volume = tube("a", (16, 32, 32), radius=6.0)
    wide, narrow = tube("a", (16, 32, 32), radius=9.0).label, volume.label
    assert wide is not None
    assert narrow is not None
    probabilities = np.zeros(volume.shape, np.uint8)
    for slab in range(4):
        planes = slice(4 * slab, 4 * slab + 4)
        right, wrong = (100, 0) if slab % 2 == 0 else (200, 100)
        probabilities[planes] = np.where(narrow[planes] > 0, right, np.where(wide[planes] > 0, wrong, 0))
    result = score({"a": probabilities}, [volume], CONFIG)
    assert result.best > result.value + 0.2


def test_slabs_of_several_volumes_are_pooled_and_reported_apart() -> None:
    good, bad = tube("good"), tube("bad")
    assert good.label is not None
    predictions = {"good": good.label * np.uint8(255), "bad": np.zeros(bad.shape, np.uint8)}
    result = score(predictions, [good, bad], CONFIG)
    by_name = {v.volume: v.values["surface_dice"] for v in result.volumes}
    assert by_name == {"good": 1.0, "bad": 0.0}
    # The bad volume adds its own surface to the denominator only once: 2a / (2a + a).
    assert result.value == pytest.approx(2 / 3)
    assert [slab.volume for slab in result.slabs] == ["good"] * 4 + ["bad"] * 4


def test_an_unlabelled_volume_is_named() -> None:
    volume = replace(tube("nameless"), label=None)
    with pytest.raises(InputError, match="nameless has no labels"):
        score({"nameless": np.zeros(volume.shape, np.uint8)}, [volume], CONFIG)


def test_slabs_are_about_equal_and_hold_at_least_two_slices() -> None:
    assert slab_starts(32, 8) == [0, 4, 8, 12, 16, 20, 24, 28]
    assert slab_starts(5, 8) == [0, 2]
    assert slab_starts(1, 8) == [0]


def test_the_interval_is_a_point_when_all_slabs_agree() -> None:
    assert bootstrap_interval(np.array([[2.0] * 6, [4.0] * 6]), SURFACE_DICE.combine, 100) == (0.5, 0.5)


def test_the_interval_covers_the_spread_of_the_slabs() -> None:
    low, high = bootstrap_interval(np.array([[0.0, 1.0, 0.0, 1.0], [1.0] * 4]), SURFACE_DICE.combine, 2000)
    # Means of four fair draws of 0 and 1: 2.5 % lies at 0, 97.5 % at 1.
    assert (low, high) == (0.0, 1.0)


def test_a_score_whose_slabs_lack_what_ranks_is_refused() -> None:
    volume = tube("a")
    assert volume.label is not None
    values = score({"a": volume.label * np.uint8(255)}, [volume], CONFIG).model_dump()
    values["slabs"][1]["parts"].pop("surface_dice")
    with pytest.raises(ValueError, match="the ranking metric 'surface_dice' was not measured everywhere"):
        Score.model_validate(values)


def test_a_score_survives_json() -> None:
    volume = tube("a")
    assert volume.label is not None
    result = score({"a": volume.label * np.uint8(255)}, [volume], CONFIG)
    assert Score.model_validate_json(result.model_dump_json()) == result


def test_an_interval_that_ends_before_it_begins_is_no_score() -> None:
    values = made_up(0.5).model_dump() | {"ci_low": 0.6, "ci_high": 0.4}
    with pytest.raises(ValueError, match=r"ends before it begins: 0\.6 to 0\.4"):
        Score.model_validate(values)
