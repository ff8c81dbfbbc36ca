"""Plan: how the time of a search is spent, made before its first trial and made again as costs turn out otherwise.

Every training has the same time, that of the default design, whatever its steps cost: what a user asks is which network
is best after the hours there are. So the plan needs the costs of the default alone. The time is shared as follows.

- At most a tenth of it for one training, so that the default and one searched network are there after a quarter.
- At most a quarter for the fixed trials besides the default.
- Up to a fifth for confirmation: trainings of the leaders and the default with fresh seeds; up to three tenths where
  several kidneys are held out in turn.
- The rest for searched candidates, which are promoted from rung to rung (promotion.py); twelve or more of them begin.
"""

import math
import sys
from typing import TYPE_CHECKING

from pydantic import BaseModel, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from results.run_folder import RunFolder
from search_spaces.errors import InputError

if TYPE_CHECKING:  # it imports torch, and `nas status` does without
    from nas.config.search_config import SearchConfig

LEAST_STEPS = 30  # of the default: fewer say nothing
LEAST_RUNG = 15  # steps of the default up to the first rung
LEAST_CANDIDATES = 12
USUAL_CANDIDATES = 24  # that begin before trainings become longer than the preset says
BASELINES, CONFIRMATION, ONE_TRAINING = 0.25, 0.2, 0.1  # shares of the time, at most
OVER_KIDNEYS = 0.3  # share of the time for confirmation where several kidneys are held out in turn
_SHORTER = 0.9  # the next length that is tried


class Pace(BaseModel, frozen=True, extra="forbid"):
    """Seconds that parts of a training of the default take on one worker."""

    step: PositiveFloat  # an optimiser step
    part: NonNegativeFloat  # to score a part of the held-out kidney, at a rung
    whole: NonNegativeFloat  # to score all of it


class Plan(BaseModel, frozen=True, extra="forbid"):
    """What is trained, and for how long; times are seconds of one worker."""

    time: PositiveFloat  # that there was when it was made, of all workers together
    spent: NonNegativeFloat  # before the first trial
    pace: Pace
    steps: PositiveInt  # of the default
    rungs: NonNegativeInt  # scores before the end
    reduction: PositiveInt
    candidates: NonNegativeInt  # that begin, besides the fixed ones
    baselines: NonNegativeInt  # fixed trials besides the default
    fresh: NonNegativeInt  # trainings with fresh seeds
    kidneys: PositiveInt = 1  # that these hold out in turn
    pauses: bool = True  # whether candidates pause at rungs
    cells: tuple[str, ...] = ()  # cell searches that there is time for, by id

    @property
    def seconds(self) -> float:
        """How long every training is trained, without its score."""
        return self.steps * self.pace.step

    @property
    def training(self) -> float:
        """A whole training with its score."""
        return self.seconds + self.pace.whole

    @property
    def first_rung(self) -> float:
        """How long a candidate is trained up to its first rung."""
        return float(self.seconds / self.reduction**self.rungs)

    @property
    def reaching(self) -> list[int]:
        """How many candidates reach each rung, the last of which is the end."""
        found = [self.candidates]
        for _ in range(self.rungs):
            found.append(max(min(1, self.candidates), found[-1] // self.reduction) if self.pauses else found[-1])
        return found

    def to_rung(self, rung: int) -> float:
        """From the rung before to this one, its score included; a branch makes a fifth of a rung's steps twice."""
        share = float(self.reduction) ** (rung - self.rungs)
        before = 0.8 * share / self.reduction if rung else 0.0
        return (share - before) * self.seconds + (self.pace.whole if rung == self.rungs else self.pace.part)

    @property
    def searching(self) -> float:
        """All candidates, up to where they are promoted."""
        if not self.pauses:
            return self.candidates * self.training
        return sum(count * self.to_rung(rung) for rung, count in enumerate(self.reaching))

    @property
    def confirming(self) -> float:
        """All trainings with fresh seeds."""
        return self.fresh * self.training

    @property
    def most_confirming(self) -> float:
        """What these may take."""
        return (CONFIRMATION if self.kidneys == 1 else OVER_KIDNEYS) * self.time

    @property
    def planned(self) -> float:
        """Everything."""
        return self.spent + (1 + self.baselines) * self.training + self.searching + self.confirming


def make_plan(
    config: "SearchConfig",
    pace: Pace,
    time: float,
    spent: float = 0.0,
    workers: int = 1,
    cells: float = 0.0,
    kidneys: int = 1,
) -> Plan:
    """The plan with the longest trainings that leave time for enough candidates, and with as many of these as fit.

    time: seconds of all workers together. spent: of these, before the first trial. cells: of these, for cell searches.
    kidneys: that are held out in turn to confirm; trainings become shorter until two finalists can meet all of them.
    Trainings become longer than the section `fit` says only after `USUAL_CANDIDATES` begin. If the time is too short
    for anything, trainings have `LEAST_STEPS`, and no candidate begins.
    """
    usual, length = config.fit.steps, float(max(config.retrain.steps, config.fit.steps))
    while True:
        steps = max(LEAST_STEPS, round(length))
        plan = _with_steps(config, pace, time, spent + cells, steps, kidneys)
        wanted = LEAST_CANDIDATES if steps <= usual else USUAL_CANDIDATES * steps / usual
        if config.study.trials is not None:
            wanted = min(wanted, config.study.trials)
        short = plan.training <= ONE_TRAINING * time / workers
        if steps == LEAST_STEPS or (short and plan.candidates >= wanted and plan.kidneys == kidneys):
            return plan
        length = usual if steps > usual > length * _SHORTER else length * _SHORTER


def _with_steps(config: "SearchConfig", pace: Pace, time: float, spent: float, steps: int, kidneys: int) -> Plan:
    """As many of everything as fit, if the default is trained for so many steps."""
    pauses = config.study.promotion != "none"
    rungs = _rungs(config, steps) if pauses else 0
    plan = Plan(
        time=time, spent=spent, pace=pace, steps=steps, rungs=rungs, reduction=config.study.reduction, candidates=0,
        baselines=0, fresh=0, kidneys=kidneys, pauses=pauses,
    )  # fmt: skip
    plan = plan_in(plan, config, time)
    study = config.study
    most = sys.maxsize if study.trials is None else study.trials
    low, high = 0, 1
    while high <= most and _fits(plan, high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(plan, middle) else (low, middle)
    return plan.model_copy(update={"candidates": low})


def plan_in(plan: Plan, config: "SearchConfig", time: float) -> Plan:
    """The plan with the fixed trials and the trainings with fresh seeds that fit into this time.

    Kidneys that two finalists have no time to meet are left out.
    """
    study, others = config.study, max(0, len(config.fixed) - 1)
    most = (study.leaders + 1) * (study.seeds - 1) if study.leaders else 0
    plan = plan.model_copy(update={"time": time})
    fresh = min(most, int(plan.most_confirming / plan.training))
    fitting = {
        "baselines": min(others, int(BASELINES * time / plan.training)),
        "fresh": fresh,
        "kidneys": max(1, min(plan.kidneys, fresh // 2)),
    }
    return plan.model_copy(update=fitting)


def _fits(plan: Plan, candidates: int) -> bool:
    return plan.model_copy(update={"candidates": candidates}).planned <= plan.time


def _rungs(config: "SearchConfig", steps: int) -> int:
    """Scores before the end: as many as the section `study` says, more for longer trainings, fewer for short ones."""
    reduction, count = config.study.reduction, config.study.rungs
    if config.study.rungs:
        count += max(0, int(math.log(steps / config.fit.steps, reduction) + 1e-9))
    while count and steps < LEAST_RUNG * reduction**count:
        count -= 1
    return count


def read_plan(folder: RunFolder) -> Plan | None:
    """The plan of a run, or None if it has none. Raises InputError if the file is damaged."""
    if not folder.plan.is_file():
        return None
    try:
        return Plan.model_validate_json(folder.plan.read_bytes())
    except ValidationError as error:
        raise InputError(f"{folder.plan} is damaged, or of another version; restore it from a copy") from error
