import pytest

from nas.config.study_config import StudyConfig
from nas.study.promotion import PROMOTIONS, Paused, check_promotion, left_behind, pauses_at, promote, rungs
from search_spaces.errors import InputError


def paused(*values: float, promoted: tuple[int, ...] = ()) -> Paused:
    return Paused(dict(enumerate(values)), frozenset(promoted))


def config(name: str = "halving", reduction: int = 2) -> StudyConfig:
    return StudyConfig(promotion=name, rungs=2, reduction=reduction)


@pytest.mark.parametrize("name", PROMOTIONS)
def test_nobody_goes_on_from_empty_rungs(name: str) -> None:
    assert promote(config(name), [paused(), paused()], more=True) is None
    assert promote(config(name), [paused(), paused()], more=False) is None


@pytest.mark.parametrize("name", PROMOTIONS)
def test_only_one_that_is_paused_and_was_not_promoted_goes_on(name: str) -> None:
    rungs = [paused(0.1, 0.2, 0.3, 0.9, promoted=(3,)), Paused({3: 0.9})]
    for more in (True, False):
        found = promote(config(name), rungs, more)
        assert found is None or (found[0] in rungs[found[1]].values and found[0] not in rungs[found[1]].promoted)


def test_the_best_share_goes_on_as_soon_as_enough_have_come() -> None:
    assert promote(config(), [paused(0.3), paused()], more=True) is None
    assert promote(config(), [paused(0.3, 0.5), paused()], more=True) == (1, 0)
    assert promote(config(), [paused(0.3, 0.5, promoted=(1,)), paused()], more=True) is None
    assert promote(config(), [paused(0.3, 0.5, 0.4, 0.2, promoted=(1,)), paused()], more=True) == (2, 0)


def test_one_of_a_later_rung_goes_first() -> None:
    later = Paused({4: 0.6, 5: 0.7})
    assert promote(config(), [paused(0.1, 0.2, 0.3, 0.4), later], more=True) == (5, 1)


def test_where_few_came_and_no_more_will_the_best_goes_on() -> None:
    few = [paused(0.3, 0.5, promoted=(1,)), Paused({1: 0.6})]
    assert promote(config(reduction=3), few, more=True) is None
    assert promote(config(reduction=3), few, more=False) == (1, 1)
    gone = [few[0], Paused({1: 0.6}, frozenset({1}))]
    assert promote(config(reduction=3), gone, more=False) is None


def test_of_equal_scores_the_earlier_trial_goes_on() -> None:
    assert promote(config(), [paused(0.5, 0.5), paused()], more=True) == (0, 0)


def test_those_that_no_later_promotion_can_reach_are_left_behind() -> None:
    study = StudyConfig(rungs=1, reduction=2)
    assert left_behind(study, [paused(0.1, 0.2, 0.3, 0.4, promoted=(3,))], candidates=4) == {0, 1}
    assert left_behind(study, [paused(0.1, 0.2)], candidates=4) == set()


def test_a_trial_pauses_at_every_rung_but_the_last() -> None:
    assert [pauses_at(config(reduction=3), 900, rung) for rung in range(3)] == [100, 300, None]
    assert pauses_at(config("none"), 900, 0) is None
    assert pauses_at(StudyConfig(rungs=0), 900, 0) is None


def test_rungs_grow_by_the_reduction_and_end_at_the_last_step() -> None:
    assert rungs(StudyConfig(rungs=2, reduction=3), 900) == [100, 300, 900]
    assert rungs(StudyConfig(rungs=0), 900) == [900]
    assert rungs(StudyConfig(rungs=2, reduction=3), 10) == [1, 3, 10]


def test_an_unknown_name_is_an_error_with_the_near_one() -> None:
    with pytest.raises(InputError, match="unknown promotion 'halvin'; did you mean 'halving'"):
        check_promotion("halvin")
