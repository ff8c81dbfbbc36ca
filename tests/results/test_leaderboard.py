from io import StringIO

import numpy as np
import pytest
from records import board_of, over_kidneys, ranked, record, score
from rich.console import Console

from nas.commands.leaderboard_table import leaderboard_table
from results.leaderboard.columns import interval, to_markdown
from results.leaderboard.leaderboard import Leaderboard, State
from results.leaderboard.ranking import rank, seed_deviation
from results.leaderboard.reading import reading
from results.record import Record
from results.text import seconds
from search_spaces.errors import InputError
from search_spaces.families.unet import UnetCandidate
from trainers.metrics.score import ScoreConfig


def test_rows_are_ordered_by_surface_dice() -> None:
    board = ranked([record(0, 0.5), record(1, 0.7), record(2, 0.6)])
    assert [(row.rank, row.trial) for row in board.rows] == [(1, 1), (2, 2), (3, 0)]
    assert board.best == 1


def test_repeats_are_one_row_that_counts_by_its_fresh_seeds() -> None:
    board = ranked([record(0, 0.70), record(1, 0.64), record(2, 0.60, repeats=0), record(3, 0.62, repeats=0)])
    first = board.rows[0]
    assert (first.trial, first.seeds, first.seed_scores, first.judged) == (0, 3, (0.70, 0.60, 0.62), {2: 0.60, 3: 0.62})
    assert first.surface_dice == pytest.approx(0.61)  # what chose it does not judge it
    assert board.value(board.rows[1]) == 0.64 and not board.rows[1].judged


def test_what_slabs_tell_apart_is_not_tied() -> None:
    board = ranked([record(0, 0.70, spread=0.2), record(1, 0.60, spread=0.2)])
    # The same slabs are easy for both, so the difference is 0.1 in each of them, whatever the spread.
    assert [row.tied_with_best for row in board.rows] == [True, False]


def test_what_slabs_do_not_tell_apart_is_tied() -> None:
    board = ranked([record(0, 0.70, spread=0.2), record(1, 0.69, spread=0.2, seed=1)])
    assert [row.tied_with_best for row in board.rows] == [True, True]


def test_the_interval_of_a_row_with_one_seed_comes_from_its_slabs() -> None:
    same = ranked([record(0, 0.5)]).rows[0]
    assert (same.ci_low, same.ci_high) == (0.5, 0.5)
    spread = ranked([record(0, 0.5, spread=0.2)]).rows[0]
    assert spread.ci_low is not None
    assert spread.ci_high is not None
    assert spread.ci_low < 0.45 < 0.55 < spread.ci_high


def test_the_deviation_of_seeds_is_pooled_over_designs() -> None:
    board = ranked([record(0, 0.70), record(1, 0.68), record(2, 0.62, repeats=1), record(3, 0.74, repeats=0)])
    assert board.seed_deviation == pytest.approx(np.sqrt((2 * 0.02**2 + 2 * 0.03**2) / 2))


def test_the_spread_of_seeds_is_unknown_without_repeats() -> None:
    assert seed_deviation([[score(0.5)], [score(0.9)]]) is None


@pytest.mark.parametrize("state", ["paused", "failed", "interrupted"])
def test_what_is_not_complete_follows_unranked_with_its_reason(state: State) -> None:
    board = ranked([record(0, None, state), record(1, 0.1)])
    last = board.rows[1]
    assert (last.trial, last.rank, last.surface_dice, last.state, last.reason) == (0, None, None, state, "a reason")


def test_without_any_record_there_is_no_best() -> None:
    board = ranked([])
    assert board.best is None
    assert board.rows == ()
    assert "# s: leaderboard" in to_markdown(board)


def test_the_json_has_the_keys_that_scripts_rely_on() -> None:
    board = ranked([record(0, 0.5)])
    assert Leaderboard.model_validate_json(board.model_dump_json()) == board
    values = board.model_dump(mode="json")
    assert {"study", "held_out", "metric", "best", "rows"} <= set(values)
    assert {
        "rank", "trial", "family", "name", "surface_dice", "ci_low", "ci_high", "threshold", "voxel_dice", "seeds",
        "parameters", "train_seconds", "peak_memory_gib", "tied_with_best", "state", "baseline",
    } <= set(values["rows"][0])  # fmt: skip


def _with_start(trial: int, weights: str) -> Record:
    before = record(trial, 0.5 + trial / 10)
    candidate = UnetCandidate(encoder_weights=weights)
    return before.model_copy(update={"job": before.job.model_copy(update={"candidate": candidate})})


def test_a_row_says_what_its_weights_were_at_the_start() -> None:
    records = [_with_start(0, "none"), _with_start(1, "imagenet"), _with_start(2, "/a/b/own.safetensors")]
    board = ranked(records)
    assert [row.start for row in board.rows] == ["own", "imagenet", "scratch"]
    assert "| network 2 | own | 0.7000 |" in to_markdown(board)
    console = Console(file=StringIO(), width=160)
    console.print(leaderboard_table(board, 160))
    assert "scratch" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_of_any_width_shows_whole_columns_and_the_right_edge() -> None:
    rows = ranked([record(0, 0.5), record(1, 0.7, state="interrupted")])
    for board in (rows, rows.model_copy(update={"second_um": 63.0})):
        for width in range(76, 201):
            console = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
            console.print(leaderboard_table(board, width))
            printed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
            assert printed[1].endswith("┓"), width


@pytest.mark.parametrize(
    ("weights", "said"), [(("none", "imagenet"), True), (("none", "none"), False), (("imagenet", "ssl"), False)]
)
def test_a_ranking_with_two_kinds_of_start_says_so(weights: tuple[str, ...], said: bool) -> None:
    board = ranked([_with_start(trial, name) for trial, name in enumerate(weights)])
    assert ("1 of 2 ranked row(s) started from random weights" in reading(board)) is said


def test_a_bar_in_a_reason_does_not_break_the_table() -> None:
    broken = record(0, None, "failed")
    broken = broken.model_copy(update={"outcome": broken.outcome.model_copy(update={"reason": "a | b"})})
    row = next(line for line in to_markdown(ranked([broken])).splitlines() if "network 0" in line)
    assert row.count("|") - row.count("\\|") == 12


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (59.6, "60 s"), (600, "10 min"), (36_000, "10.0 h")])
def test_durations_are_in_the_largest_fitting_unit(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_what_was_ranked_by_another_metric_is_not_ranked_with_the_rest() -> None:
    with pytest.raises(
        InputError,
        match=r"trial 3 was ranked by surface_dice, but score\.rank_by is voxel_dice; set it to surface_dice",
    ):
        rank([record(3, 0.5)], "s", "k", ScoreConfig(rank_by="voxel_dice"))


def test_a_title_from_elsewhere_is_no_command_to_a_terminal() -> None:
    board = ranked([record(0, 0.5)]).model_copy(update={"titles": {"surface_dice": "a|b \x1b[31m[red]"}})
    console = Console(file=StringIO(), width=160)
    console.print(leaderboard_table(board, 160))
    assert "\x1b" not in console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "| a\\|b " in to_markdown(board)


def test_a_leaderboard_without_the_column_that_ranks_is_refused() -> None:
    values = ranked([record(0, 0.5)]).model_dump() | {"rank_by": "other"}
    with pytest.raises(ValueError, match="'other' ranks but has no title"):
        Leaderboard.model_validate(values)


def test_an_unknown_interval_is_a_dash() -> None:
    assert interval(ranked([record(0, None, "failed")]).rows[0]) == "–"


def test_a_name_is_no_markup_on_a_page_and_no_command_to_a_terminal() -> None:
    evil = record(0, 0.5)
    evil = evil.model_copy(update={"job": evil.job.model_copy(update={"name": "a|b <img src=x>\n# hi \x1b[31m"})})
    board = ranked([evil])
    page = to_markdown(board)
    assert "<img" not in page.replace("\\<img", "")
    assert "\n# hi" not in page
    console = Console(file=StringIO(), width=160)
    console.print(leaderboard_table(board, 160))
    assert "\x1b" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_several_kidneys_rank_by_their_mean_and_each_has_a_column() -> None:
    board = board_of(
        over_kidneys(0, 0.70, (None, 0.40), ("b", 0.50), ("c", 0.60), default=True),
        over_kidneys(1, 0.90, (None, 0.75), ("b", 0.55), ("c", 0.65), (None, 0.65)),
    )
    first, second = board.rows
    assert (first.trial, second.trial) == (1, 0)
    assert first.kidneys == pytest.approx({"k": 0.70, "b": 0.55, "c": 0.65})
    assert first.surface_dice == pytest.approx((0.70 + 0.55 + 0.65) / 3)  # kidneys count alike, seeds or not
    assert second.surface_dice == pytest.approx(0.50)
    assert first.seeds_low is None
    reach = 4.302653 * np.std([0.70, 0.55, 0.65], ddof=1) / 3**0.5  # Student's t of two degrees
    assert first.kidneys_low == pytest.approx(1.9 / 3 - reach, abs=1e-6)
    page = to_markdown(board)
    assert "| k | b | c |" in page
    assert "Held-out: **k, b, c in turn (mean over kidneys)**." in page
    assert "0.7000 | 0.5500 | 0.6500" in page
    assert "ranked by their mean over kidneys, each held out in turn: k 0.400, b 0.500, c 0.600" in reading(board)
    variance = (0.3**2 / 2 + np.var([0.90, 0.75, 0.65]) * 3) / 3  # on the kidney of the search alone
    assert board.seed_deviation == pytest.approx(np.sqrt(variance))


def test_a_kidney_that_two_seeds_met_counts_once_for_what_is_exported_too() -> None:
    ahead = over_kidneys(0, 0.6, (None, 0.57), ("b", 0.80), ("c", 0.57), default=True)
    often = over_kidneys(1, 0.6, (None, 0.50), ("b", 0.90), ("c", 0.50), (None, 0.50), ("b", 0.90))
    board = board_of(ahead, often)
    assert [row.trial for row in board.rows] == [0, 1]  # 0.647 and 0.633; over seeds 0.647 and 0.660
    assert board.best == 0


def test_one_kidney_that_is_not_that_of_the_search_is_named() -> None:
    board = board_of(over_kidneys(0, 0.8, ("b", 0.5)), over_kidneys(1, 0.7, ("b", 0.4)), over_kidneys(2, 0.6))
    assert board.rows[0].kidneys == {"b": 0.5}
    assert "All other rows are scored on k alone." in reading(board)


def test_cells_that_were_searched_on_a_kidney_held_out_later_are_told() -> None:
    found = over_kidneys(0, 0.8, (None, 0.7), ("b", 0.5))
    assert "Cells were searched" not in reading(board_of(found))
    cells = [r.model_copy(update={"job": r.job.model_copy(update={"supernet": "cells-48"})}) for r in found]
    assert "Cells were searched with only k held out" in reading(board_of(cells))


def test_two_kidneys_are_too_few_for_an_interval() -> None:
    board = board_of(over_kidneys(0, 0.7, (None, 0.6), ("b", 0.5)), over_kidneys(1, 0.6, (None, 0.4), ("b", 0.3)))
    assert board.rows[0].kidneys_low is None
    assert "too few to say how much kidneys differ" in reading(board)


def test_a_finalist_that_lacks_a_hard_kidney_is_not_ahead_for_that() -> None:
    board = board_of(
        over_kidneys(0, 0.70, (None, 0.80), ("c", 0.30), default=True),
        over_kidneys(1, 0.70, (None, 0.85), ("c", 0.37)),
        over_kidneys(2, 0.75, (None, 0.70)),  # the mean of what it has is the highest
    )
    assert [row.trial for row in board.rows] == [1, 0, 2]
    assert "1 finalist(s) lack a kidney" in reading(board)
