"""Confirmation: the leaders and the default are trained with fresh seeds before one of them is called best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial

from nas.config.search_config import SearchConfig
from nas.config.study_config import REPEATS
from nas.study.race import Finalist, Race
from results.leaderboard.leaderboard import Leaderboard, Row


@dataclass(frozen=True)
class Judging:
    """A training of a finalist that judges it."""

    trial: int
    seed_index: int
    hold_out: str | None  # instead of what the search ranks on


def next_judging(
    board: Leaderboard, trials: Sequence[FrozenTrial], config: SearchConfig, kidneys: Sequence[str] = ()
) -> Judging | None:
    """The next training of a finalist; None if nobody needs one now.

    trials: all of the study. All candidates are in. kidneys: those that are held out in turn, first that of the search.
    All designs meet the same one with the same seed, and every one before anything is decided.
    """
    most, count = config.study.seeds - 1, max(1, len(kidneys))
    rows = finalists(board, config.study.leaders, more=count == 1) if most else []
    known = [_finalist(row, trials) for row in rows]
    place = Race(known, config.score.margin, config.score.sure, most, least=count).next()
    if place is None:
        return None
    asked = known[place].asked
    return Judging(rows[place].trial, asked + 1, kidneys[asked % count] if asked % count else None)


def with_each_kidney(config: SearchConfig, kidneys: Sequence[str]) -> SearchConfig:
    """The settings with enough seeds to hold each of several kidneys out once."""
    if len(kidneys) < 2:
        return config
    seeds = max(config.study.seeds, len(kidneys) + 1)
    return config.model_copy(update={"study": config.study.model_copy(update={"seeds": seeds})})


def seeds_note(config: SearchConfig, kidneys: Sequence[str]) -> str | None:
    """That there are more seeds than the settings say, and why; None if there are not."""
    said, seeds = config.study.seeds, with_each_kidney(config, kidneys).study.seeds
    if seeds == said:
        return None
    return f"study.seeds counts as {seeds} instead of {said}: a fresh seed for each of {len(kidneys)} kidneys held out"


def finalists(board: Leaderboard, leaders: int, more: bool = True) -> list[Row]:
    """The designs to be judged: those that lead by the seed of the search, and the default; none for no leaders.

    Further ones follow, up to as many again, while they score higher than every finalist does with fresh seeds: the
    best score of many is partly luck, so the first leaders may fall behind those that were not chosen. more: whether
    they do; not where several kidneys are held out, whose scores cannot be compared with those of the search.
    """
    complete = [row for row in board.rows if row.state == "complete"]
    leading = sorted((row for row in complete if not row.default), key=lambda row: (-row.seed_scores[0], row.trial))
    chosen, further = leading[:leaders], list[Row]()
    for row in leading[leaders : 2 * leaders] if more else ():
        values = [float(np.mean(list(known.judged.values()))) for known in (*chosen, *further) if known.judged]
        if row.judged or (len(values) == len(chosen) + len(further) and row.seed_scores[0] > max(values)):
            further.append(row)
    return [*chosen, *(row for row in complete if row.default and leaders), *further]


def _finalist(row: Row, trials: Sequence[FrozenTrial]) -> Finalist:
    """What was asked of a design, and what came of it."""
    states = [trial.state for trial in trials if trial.user_attrs.get(REPEATS) == row.trial]
    ended = sum(state.is_finished() for state in states)
    return Finalist(row.judged, waiting=len(states) - ended, failed=max(0, ended - len(row.judged)))
