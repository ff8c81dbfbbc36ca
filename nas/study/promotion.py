"""PROMOTIONS: which trials are trained on; and the rungs, the steps at which they are scored for that.

A candidate is trained to the first rung, scored, and paused. A rule says which paused one goes on to the next rung,
from its checkpoint. `Decisions` of `nas.search.decisions` asks it whenever a worker is idle. Fixed trials and
trainings with fresh seeds never pause.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nas.config.study_config import StudyConfig
from search_spaces.errors import unknown_name


@dataclass(frozen=True)
class Paused:
    """The candidates that were scored at one rung, by trial, and those that were promoted from it."""

    values: Mapping[int, float]
    promoted: frozenset[int] = frozenset()


Rule = Callable[[Sequence[Paused], int, bool], tuple[int, int] | None]


def _halving(rungs: Sequence[Paused], reduction: int, more: bool) -> tuple[int, int] | None:
    """The best `1 / reduction` of each rung go on, those of later rungs first (Li et al., arXiv 1810.05934).

    Where fewer than `reduction` came and no more will, the best one goes on.
    """
    for least in (0,) if more else (0, 1):
        for place, rung in reversed(list(enumerate(rungs))):
            quota = max(len(rung.values) // reduction, least)
            best = sorted(rung.values, key=lambda trial: (-rung.values[trial], trial))[:quota]
            for trial in best:
                if trial not in rung.promoted:
                    return trial, place
    return None


def _none(rungs: Sequence[Paused], reduction: int, more: bool) -> tuple[int, int] | None:
    return None


PROMOTIONS: dict[str, Rule] = {
    "halving": _halving,
    "none": _none,  # nothing pauses: every trial is trained to its end
}


def promote(config: StudyConfig, rungs: Sequence[Paused], more: bool) -> tuple[int, int] | None:
    """The trial to be trained on, and the rung it leaves; None if none is to be now.

    rungs: from the first on, without the last step. more: whether candidates are still to be started, or on their way.
    """
    return PROMOTIONS[config.promotion](rungs, config.reduction, more)


def left_behind(config: StudyConfig, rungs: Sequence[Paused], candidates: int) -> set[int]:
    """Paused trials that cannot be promoted any more, however the others of so many candidates score."""
    found: set[int] = set()
    for place, rung in enumerate(rungs):
        most = math.ceil(candidates / config.reduction ** (place + 1))
        best = sorted(rung.values, key=lambda trial: (-rung.values[trial], trial))
        found |= {trial for trial in best[most:] if trial not in rung.promoted}
    return found


def check_promotion(name: str) -> str:
    """The name of a rule. Raises InputError for an unknown one."""
    if name not in PROMOTIONS:
        raise unknown_name("promotion", name, PROMOTIONS)
    return name


def rungs(config: StudyConfig, steps: int) -> list[int]:
    """Steps at which a trial is scored, the last one included: each `reduction` times the one before."""
    first = max(1, steps // config.reduction**config.rungs)
    return [first * config.reduction**k for k in range(config.rungs) if first * config.reduction**k < steps] + [steps]


def pauses_at(config: StudyConfig, steps: int, rung: int) -> int | None:
    """The step at which a trial that goes to rung `rung` (from 0 on) pauses; None if it is trained to its end."""
    found = rungs(config, steps)
    return None if config.promotion == "none" or rung >= len(found) - 1 else found[rung]
