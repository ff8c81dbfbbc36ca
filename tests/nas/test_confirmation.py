"""Which designs are trained with fresh seeds before one of them is called best."""

from records import board_of, trained

from nas.search.confirmation import finalists


def trials_of(leaders: int, *designs: list[float], default: int | None = None) -> list[int]:
    board = board_of(*(trained(trial, values, trial == default) for trial, values in enumerate(designs)))
    return [row.trial for row in finalists(board, leaders)]


def test_the_leaders_by_the_seed_of_the_search_are_judged_and_the_default() -> None:
    assert trials_of(2, [0.3], [0.5], [0.7], [0.6], default=0) == [2, 3, 0]


def test_a_default_that_leads_is_judged_with_the_best_of_the_others() -> None:
    assert trials_of(1, [0.9], [0.5], [0.6], default=0) == [2, 0]


def test_the_default_comes_before_further_ones() -> None:
    assert trials_of(1, [0.1], [0.80, 0.60], [0.70], default=0) == [1, 0, 2]


def test_without_leaders_nothing_is_judged() -> None:
    assert trials_of(0, [0.3], [0.5], default=0) == []


def test_one_that_scores_higher_than_judged_leaders_is_judged_too() -> None:
    assert trials_of(1, [0.80, 0.60], [0.70], [0.5]) == [0, 1]
    assert trials_of(1, [0.80, 0.75], [0.70], [0.5]) == [0]


def test_further_ones_wait_until_every_leader_has_a_score() -> None:
    assert trials_of(2, [0.80, 0.60], [0.75], [0.70]) == [0, 1]


def test_at_most_as_many_again_are_judged() -> None:
    assert trials_of(1, [0.80, 0.1], [0.79, 0.1], [0.78], [0.77]) == [0, 1]
