"""Confirmation: the leaders and the default are trained with fresh seeds before one of them is called best."""

from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial

from nas.config.search_config import SearchConfig
from nas.config.study_config import REPEATS
from nas.study.race import Finalist, Race
from results.leaderboard.leaderboard import Leaderboard, Row


def next_judging(board: Leaderboard, trials: Sequence[FrozenTrial], config: SearchConfig) -> tuple[int, int] | None:
    """Trial and seed index of the next training of a finalist; None if nobody needs one now.

    trials: all of the study. All candidates are in.
    """
    most = config.study.seeds - 1
    rows = finalists(board, config.study.leaders) if most else []
    known = [_finalist(row, trials) for row in rows]
    place = Race(known, config.score.margin, config.score.sure, most).next()
    return None if place is None else (rows[place].trial, known[place].asked + 1)


def finalists(board: Leaderboard, leaders: int) -> list[Row]:
    """The designs to be judged: those that lead by the seed of the search, and the default; none for no leaders.

    Further ones follow, up to as many again, while they score higher than every finalist does with fresh seeds: the
    best score of many is partly luck, so the first leaders may fall behind those that were not chosen.
    """
    complete = [row for row in board.rows if row.state == "complete"]
    leading = sorted((row for row in complete if not row.default), key=lambda row: (-row.seed_scores[0], row.trial))
    chosen, further = leading[:leaders], list[Row]()
    for row in leading[leaders : 2 * leaders]:
        values = [float(np.mean(list(known.judged.values()))) for known in (*chosen, *further) if known.judged]
        if row.judged or (len(values) == len(chosen) + len(further) and row.seed_scores[0] > max(values)):
            further.append(row)
    return [*chosen, *(row for row in complete if row.default and leaders), *further]


def _finalist(row: Row, trials: Sequence[FrozenTrial]) -> Finalist:
    """What was asked of a design, and what came of it."""
    states = [trial.state for trial in trials if trial.user_attrs.get(REPEATS) == row.trial]
    ended = sum(state.is_finished() for state in states)
    return Finalist(row.judged, waiting=len(states) - ended, failed=max(0, ended - len(row.judged)))
