"""The rows of a plan: what it says, and what has come of it."""

from collections.abc import Callable, Iterator, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, NonNegativeFloat, NonNegativeInt

from nas.config.study_config import FIXED, REPEATS, RUNG, SPENT
from nas.study.plan import Plan
from results.text import seconds


class PlanRow(BaseModel, frozen=True, extra="forbid"):
    """One kind of training. Times are seconds of one worker."""

    what: str
    each: str  # how long one of them is
    planned: NonNegativeInt
    seconds: NonNegativeFloat
    came: NonNegativeInt  # that have ended so far
    came_seconds: NonNegativeFloat

    @property
    def cells(self) -> tuple[str, ...]:
        """As text: what, each, planned, time, came, time."""
        came = (str(self.came), seconds(self.came_seconds)) if self.came else ("", "")
        return self.what, self.each, str(self.planned), seconds(self.seconds), *came


HEADINGS = ("plan", "each", "planned", "time", "ended", "time")


def plan_rows(plan: Plan | None, study: optuna.Study) -> list[PlanRow]:
    """The rows of a plan; none without one."""
    return [] if plan is None else list(_rows(plan, study.get_trials(deepcopy=False)))


def _rows(plan: Plan, trials: Sequence[FrozenTrial]) -> Iterator[PlanRow]:
    def row(what: str, each: str, planned: int, cost: float, belongs: Callable[[FrozenTrial], bool]) -> PlanRow:
        ended = [t for t in trials if t.state.is_finished() and SPENT in t.user_attrs and belongs(t)]
        spent = sum(float(t.user_attrs[SPENT]) for t in ended)
        return PlanRow(
            what=what, each=each, planned=planned, seconds=cost, came=len(ended), came_seconds=spent
        )  # fmt: skip

    def fixed(trial: FrozenTrial) -> bool:
        return FIXED in trial.user_attrs and REPEATS not in trial.user_attrs

    def searched(rung: int) -> Callable[[FrozenTrial], bool]:
        def belongs(trial: FrozenTrial) -> bool:
            other = {FIXED, REPEATS} & trial.user_attrs.keys()
            return not other and trial.user_attrs.get(RUNG, 0) == rung and trial.state != TrialState.FAIL

        return belongs

    length = f"{seconds(plan.seconds)} of training"
    count = 1 + plan.baselines
    yield row("default and other fixed trials", length, count, count * plan.training, fixed)
    for rung, reached in enumerate(plan.reaching if plan.pauses else plan.reaching[:1]):
        last = rung == plan.rungs
        up_to = plan.seconds * plan.reduction ** (rung - plan.rungs)
        where = "searched, to the end" if last else f"searched, to rung {rung + 1}"
        each = length if last else f"{seconds(up_to)} of training"
        yield row(where, each, reached, reached * plan.to_rung(rung), searched(rung))
    yield row("confirmation, fresh seeds", length, plan.fresh, plan.confirming, lambda t: REPEATS in t.user_attrs)


def plan_lines(rows: Sequence[PlanRow]) -> list[str]:
    """A table as text; none without rows. The last two columns are left out while nothing has ended."""
    if not rows:
        return []
    table = [HEADINGS, *(row.cells for row in rows)]
    if not any(row.came for row in rows):
        table = [cells[:4] for cells in table]
    widths = [max(len(cells[place]) for cells in table) for place in range(len(table[0]))]
    return ["  ".join(_padded(cells, widths)).rstrip() for cells in table]


def _padded(cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """Words to the left, numbers to the right."""
    for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        yield cell.ljust(width) if place < 2 else cell.rjust(width)
