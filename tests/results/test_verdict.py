"""Which design is exported, and what the leaderboard says about it."""

from typing import Any

import pytest
from records import board_of, trained

from results.leaderboard.reading import reading

LEADER = [0.80, 0.79, 0.80, 0.81]
BEHIND = [0.70, 0.69, 0.70, 0.71]


def test_what_is_surely_better_than_the_default_is_exported() -> None:
    board = board_of(trained(0, BEHIND, default=True), trained(1, LEADER))
    assert board.best == 1
    first, second = board.rows
    assert first.probability_above_default is not None and first.probability_above_default > 0.95
    assert first.probability_best is not None and first.probability_best > 0.95 > (second.probability_best or 0.0)
    assert (second.default, second.tied_with_best) == (True, False)
    assert reading(board).startswith("network 1 is best with a probability of ")


def test_where_nothing_beats_the_default_beyond_noise_it_is_exported_though_another_leads() -> None:
    board = board_of(
        trained(0, [0.70, 0.66, 0.74], default=True), trained(1, [0.80, 0.73, 0.68]), trained(2, [0.75, 0.6, 0.7])
    )
    assert board.rows[0].trial == 1
    assert board.best == 0
    assert reading(board).startswith("The default, network 0, is exported, because nothing beats it beyond noise: ")


def test_among_equally_good_designs_the_cheapest_is_exported() -> None:
    dear, cheap = trained(1, LEADER, seconds=90.0), trained(2, [0.75, 0.788, 0.799, 0.808], seconds=30.0)
    board = board_of(trained(0, BEHIND, default=True), dear, cheap)
    assert board.rows[0].trial == 1
    assert board.best == 2
    assert [row.tied_with_best for row in board.rows] == [True, True, False]
    assert "1 other row(s) are more likely than not as good, and it is the cheapest of them." in reading(board)


def test_one_lucky_seed_does_not_win_over_a_better_mean() -> None:
    assert board_of(trained(0, [0.80, 0.50]), trained(1, [0.70, 0.69])).best == 1


def test_a_default_that_is_exported_is_not_called_the_cheapest() -> None:
    dear = trained(0, LEADER, default=True, seconds=90.0)
    board = board_of(dear, trained(1, [0.75, 0.7905, 0.8002, 0.8093], seconds=30.0), trained(2, BEHIND))
    assert board.best == 0 and board.rows[1].tied_with_best
    assert "cheapest" not in reading(board)


def test_finalists_come_first_and_the_default_among_them_only_if_it_is_ahead_of_one() -> None:
    finalist, unjudged = trained(1, [0.8, 0.6, 0.61]), trained(2, [0.75])
    behind = board_of(trained(0, [0.5, 0.51, 0.49], default=True), finalist, unjudged)
    assert [row.trial for row in behind.rows] == [1, 2, 0]
    ahead = board_of(trained(0, [0.5, 0.70, 0.71], default=True), finalist, unjudged)
    assert [row.trial for row in ahead.rows] == [0, 1, 2]


def test_without_a_fresh_seed_the_first_row_is_exported_and_called_unconfirmed() -> None:
    board = board_of(trained(0, [0.5], default=True), trained(1, [0.6]))
    assert (board.best, board.rows[0].probability_best, board.rows[0].seeds_low) == (1, None, None)
    assert reading(board).startswith("network 1 scores highest, but is not confirmed")


def test_a_leader_is_exported_where_the_default_could_not_be_judged() -> None:
    board = board_of(trained(0, [0.5], default=True), trained(1, [0.6, 0.61]), trained(2, [0.6, 0.3]))
    assert board.best == 1
    assert board.rows[0].probability_above_default is None


def test_only_the_default_was_judged() -> None:
    board = board_of(trained(0, [0.5, 0.51], default=True), trained(1, [0.6]))
    assert board.best == 0
    assert reading(board).startswith("The default, network 0, is exported: no other network was trained with a fresh")


def test_the_intervals_over_seeds_and_over_slabs_stand_apart() -> None:
    board = board_of(trained(0, LEADER), trained(1, BEHIND))
    row = board.rows[0]
    assert (row.ci_low, row.ci_high) == (pytest.approx(0.8), pytest.approx(0.8))  # its slabs are alike
    assert row.seeds_low is not None and row.seeds_high is not None
    assert 0.77 < row.seeds_low < 0.8 < row.seeds_high < 0.83


@pytest.mark.parametrize("key", ["judged", "probability_best", "probability_above_default", "seeds_low", "seeds_high"])
def test_a_verdict_is_there_for_scripts(key: str) -> None:
    values: dict[str, Any] = board_of(trained(0, BEHIND, default=True), trained(1, LEADER)).model_dump(mode="json")
    assert values["rows"][0][key] is not None
