"""Agreement of scores at rungs with those at the end, and what is said about it."""

import pytest
from records import record

from results.leaderboard.agreement import Pair, agreement, sentence
from results.leaderboard.ranking import rank
from trainers.metrics.score import ScoreConfig

EQUAL: list[Pair] = [(0.1 * place, 0.2 * place, 1.0) for place in range(6)]
OPPOSITE: list[Pair] = [(0.1 * place, 1 - 0.1 * place, 1.0) for place in range(6)]


def test_equal_and_opposite_orders() -> None:
    equal, opposite = agreement(0.33, EQUAL), agreement(0.33, OPPOSITE)
    assert equal is not None and equal.designs == 6
    assert (equal.spearman, equal.kendall) == pytest.approx((1.0, 1.0))
    assert (equal.spearman_low, equal.spearman_high) == pytest.approx((1.0, 1.0))
    assert opposite is not None and (opposite.spearman, opposite.kendall) == pytest.approx((-1.0, -1.0))


@pytest.mark.parametrize("rows", [[], EQUAL[:4], [(0.5, second, 1.0) for _, second, _ in EQUAL]])
def test_nothing_is_said_about_few_designs_or_equal_scores(rows: list[Pair]) -> None:
    assert agreement(0.33, rows) is None
    assert sentence([]) == ""


def test_an_order_that_is_that_of_costs_alone_does_not_hold_within_classes_of_cost() -> None:
    rows = [
        (cost + 0.01 * place, cost + 0.01 * (place % 2) * (6 - place), cost)
        for cost in (1.0, 2.0, 3.0)
        for place in range(5)
    ]
    found = agreement(0.33, rows)
    assert found is not None and found.within_cost is not None
    assert found.spearman > 0.8 > 0.3 > found.within_cost


def test_the_sentence_compares_the_last_rung_with_the_seeds() -> None:
    equal, seeds, bad = agreement(0.33, EQUAL), agreement(None, EQUAL), agreement(0.33, OPPOSITE)
    assert equal and seeds and bad
    assert sentence([equal]).endswith("too few were trained with two seeds to say what could be reached.")
    assert sentence([seeds]) == ""
    assert sentence([bad, equal.model_copy(update={"share": 0.5}), seeds]) == (
        "At 50 % of the steps, 6 designs were ordered as at the end with a rank correlation of 1.00 (1.00 to 1.00), as "
        "well as two seeds of the same designs agree with each other: 1.00 (1.00 to 1.00)."
    )
    assert "worse than two seeds" in sentence([bad, seeds])


def test_the_leaderboard_has_it_from_the_scores_of_each_design() -> None:
    records = []
    for trial in range(6):
        found = record(trial, 0.1 * trial)
        steps = found.job.fit.steps
        outcome = found.outcome.model_copy(update={"scored": {steps // 3: 0.05 * trial}})
        records.append(found.model_copy(update={"outcome": outcome}))
    (found_,) = rank(records, "s", "k", ScoreConfig()).agreements
    assert (found_.share, found_.designs, found_.spearman) == (pytest.approx(1 / 3, abs=0.01), 6, 1.0)


def test_supernets_are_compared_with_the_first_scores_of_what_they_found() -> None:
    """Within each supernet, and with every genotype once: losses of two supernets say nothing about each other."""
    records = []
    for trial in range(12):
        genotype, name = trial % 3, f"cells-{trial // 6}"
        found = record(trial, None, "paused")
        loss = 0.5 - 0.01 * genotype + 0.3 * (trial // 6)
        job = found.job.model_copy(update={"supernet": name, "supernet_loss": loss})
        value = 0.1 * genotype + 0.4 * (trial // 6) + 0.04 * (trial % 6 > 2)  # the worse losses have the better scores
        outcome = found.outcome.model_copy(update={"so_far": value, "scored": {30: value}})
        records.append(found.model_copy(update={"job": job, "outcome": outcome}))
    board = rank(records, "s", "k", ScoreConfig())
    (found_,) = board.agreements
    assert (found_.supernet, found_.designs, found_.spearman) == (True, 6, 1.0)  # the lower the loss the better
    assert sentence(board.agreements).startswith("The supernets ordered their 6 genotypes as the first scores of ")
