"""Which designs are trained with fresh seeds before one of them is called best."""

from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial
from records import board_of, over_kidneys, trained
from searches import tiny_config

from nas.config.study_config import REPEATS
from nas.search.confirmation import Judging, finalists, next_judging, with_each_kidney


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


KIDNEYS = ("a", "b", "c")


def test_every_finalist_meets_every_kidney_with_the_same_seeds() -> None:
    config = with_each_kidney(tiny_config({"study": {"leaders": 1, "seeds": 2}}), KIDNEYS)
    values: list[list[Any]] = [[0.5], [0.6]]
    asked = []
    for _ in range(6):
        board = board_of(*(over_kidneys(trial, *known, default=trial == 0) for trial, known in enumerate(values)))
        wanted = next_judging(board, _ended(values), config, KIDNEYS)
        assert wanted is not None
        asked.append(wanted)
        values[wanted.trial].append((wanted.hold_out, 0.9 - wanted.trial / 2))
    held_out: list[str | None] = [None, "b", "c"]  # None: that of the search
    rounds = [(index + 1, kidney) for index, kidney in enumerate(held_out)]
    assert asked == [Judging(trial, index, kidney) for index, kidney in rounds for trial in (1, 0)]


def test_one_kidney_changes_nothing() -> None:
    config = tiny_config({"study": {"leaders": 0}})
    assert with_each_kidney(config, ("a",)) is config


def test_a_hard_kidney_does_not_bring_runners_up_into_the_final() -> None:
    known = [[0.60, (None, 0.40), ("b", 0.30)], [0.55]]
    board = board_of(*(over_kidneys(trial, *own) for trial, own in enumerate(known)))
    assert [row.trial for row in finalists(board, 1)] == [0, 1]
    assert [row.trial for row in finalists(board, 1, more=False)] == [0]


def _ended(values: list[list[Any]]) -> list[FrozenTrial]:
    """The study's trials of these trainings, by design."""
    return [
        create_trial(state=TrialState.COMPLETE, value=0.5, user_attrs={} if seed == 0 else {REPEATS: design})
        for design, known in enumerate(values)
        for seed, _ in enumerate(known)
    ]
