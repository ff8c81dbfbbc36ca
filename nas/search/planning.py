"""Planning: the time limit of a search becomes a plan, and what is left of it decides what may still begin.

The plan is written into the run folder when it is made, and a resumed search follows it: how long trainings are, and at
which steps they are scored, never changes. How many candidates begin follows from the time that is left, whatever the
plan expected.
"""

import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import optuna

from nas.config.difference import Values, merge
from nas.config.read import parse_config
from nas.config.search_config import SearchConfig, design_of
from nas.config.study_config import CONTINUES, FIXED, GIVEN_UP, REPEATS, RUNG, SCORING, SPENT
from nas.config.write import write_config
from nas.jobs.cell_search import plans
from nas.jobs.measure import Costs, read_costs
from nas.jobs.task import MeasureTask
from nas.search.dry_run import dearest
from nas.study.budget import Budget
from nas.study.buildable import Buildable, find_buildable
from nas.study.plan import BASELINES, Pace, Plan, make_plan, plan_in, read_plan
from nas.study.promotion import Paused
from results.record import Job
from results.run_folder import RunFolder
from search_spaces.errors import InputError
from trainers.atomic import write_atomically
from trainers.cell_search.run import CellPlan

_MARGIN = 2  # trainings, by which it begins earlier
_LONGER = 1.05  # how much longer than planned a training may take on a machine that others use, too
MEASURING = 0.05  # share of the time after which no further kind is measured
CELLS = 0.25  # share of the time that cell searches may take together
SEARCHED_BY = 0.25  # share of the time after which a searched network is there


def is_planned(config: SearchConfig) -> bool:
    """Whether there is a time limit to plan for, and lengths are not searched but free to be planned."""
    limited = config.study.minutes is not None or config.study.gpu_hours is not None
    fields = (config.space.choices(family, "fit") for family in config.space.families)
    return limited and bool(config.fixed) and not any("steps" in found for found in fields)


def measuring(config: SearchConfig, possible: Buildable, seconds: float) -> MeasureTask:
    """What is measured: the default, the other fixed trials, one network of each family and crop, and cell searches.

    seconds: that the search may take.
    """
    fixed = sorted(config.fixed, key=lambda fixed: not fixed.default)
    named = [(fixed.name, design_of(config, fixed)) for fixed in fixed]
    jobs = [
        Job(trial=0, name=name, candidate=design.candidate, fit=design.fit, inference=design.inference, seed=0)
        for name, design in named
    ]
    for family in config.space.families:
        by_crop = {combination.crop: combination for combination in possible.of(family)}
        for combination in by_crop.values():
            for name, candidate, fit in list(dearest(config, combination))[:1]:
                job = Job(trial=0, name=name, candidate=candidate, fit=fit, inference=config.inference, seed=0)
                jobs.append(job)
    return MeasureTask(jobs=tuple(jobs), searches=plans(config), most_seconds=MEASURING * seconds)


@dataclass
class Planner:
    """The plan of one search, its settings under this plan, and how much time is left for what.

    config: as the user gave it, until there is a plan. kidneys: how many are held out in turn to confirm. workers: how
    many there are. running: trials that they train.
    """

    config: SearchConfig
    possible: Buildable
    folder: RunFolder
    study: optuna.Study
    budget: Budget
    kidneys: int = 1
    workers: int = 1
    running: int = 0
    plan: Plan | None = field(init=False)
    given_up: bool = False  # nothing could be measured
    decided: bool = False  # no finalist needs a fresh seed any more, so that what was kept for confirmation is free

    def __post_init__(self) -> None:
        self.plan = read_plan(self.folder)
        if self.plan is not None and not is_planned(self.config):
            raise InputError(f"{self.folder.path} was planned for a time limit; give it one, as with --minutes")
        self._given = self.config
        if self.plan is not None:
            self._follow()

    def extend(self) -> None:
        """Follow the plan with the time that there is now, which may be more than when it was made."""
        if self.plan is not None and self._time() > self.plan.time:
            self.plan = plan_in(self.plan.model_copy(update={"kidneys": self.kidneys}), self._given, self._time())
            self._write()
            self._follow()
            self.replan()

    def measuring(self) -> MeasureTask:
        """What is measured before the plan is made."""
        return measuring(self.config, self.possible, self._time() / self.workers)

    @property
    def waits(self) -> bool:
        """Whether a plan has still to be made."""
        return self.plan is None and not self.given_up and is_planned(self.config)

    def begin(self) -> Plan:
        """Make the plan from what was measured, and write it down."""
        costs = read_costs(self.folder)
        assert costs is not None
        pace = Pace(step=costs.kinds[0].seconds, part=costs.part, whole=costs.whole)
        time = self._time()
        cells = tuple(plan.id for plan in self._affordable(costs, time))
        seconds = sum(costs.cells[name] for name in cells)
        made = make_plan(self._given, pace, time, time - self.left(), self.workers, seconds, self.kidneys)
        self.plan = made.model_copy(update={"cells": cells})
        self._write()
        self._follow()
        return self.plan

    @property
    def candidates(self) -> int:
        """How many candidates are going to begin, as far as is known."""
        return self.config.study.candidates if self.plan is None else self.plan.candidates

    @property
    def most_candidates(self) -> int:
        """A number that the candidates that begin will not exceed by chance."""
        return self.candidates if self.plan is None else 2 * self.candidates

    @property
    def trainings(self) -> int:
        """How many fixed trials and candidates are going to begin."""
        fixed = len(self.config.fixed) if self.plan is None else 1 + self.plan.baselines
        return fixed + self.candidates

    def notes(self) -> Iterator[str]:
        """What the user should know about the plan."""
        if self.plan is None:
            return
        left_out = [plan for plan in plans(self._given) if plan not in plans(self.config)]
        if left_out:
            names = ", ".join(plan.id for plan in left_out)
            costs = read_costs(self.folder)
            known = [costs.cells[plan.id] for plan in left_out if costs and plan.id in costs.cells]
            enough = f"--minutes {math.ceil(sum(known) / CELLS / self.workers / 60)}"
            would = f"; a new run with {enough} would" if len(known) == len(left_out) else ""
            yield f"there is no time to search cells ({names}), so hand-made ones are tried{would}"
        if self.plan.kidneys < self.kidneys:
            yield (
                f"there is time to confirm with {self.plan.kidneys} of {self.kidneys} kidneys held out; give it more "
                "to hold out each"
            )
        if self.plan.candidates == 0:
            yield "the time is too short for a searched network; give it more"

    def left(self) -> float:
        """Seconds of all workers that are left, added up, without what running trials are going to take."""
        study, found = self._given.study, []
        if study.minutes is not None:
            found.append((60 * study.minutes - self.budget.seconds()) * self.workers)
        if study.gpu_hours is not None:
            found.append(3600 * study.gpu_hours - self.budget.busy_seconds())
        ahead = 0.0 if self.plan is None else self.plan.training / 2  # of a trial that began at some time
        return min(found) - self.running * ahead

    def steps_of(self, step: int, paused: bool) -> int:
        """All steps of a training whose time came to this step; if it paused there, that is its first rung."""
        assert self.plan is not None
        return step * (self.plan.reduction**self.plan.rungs if paused else 1)

    def replan(self) -> None:
        """Write down what scores take and how many candidates begin, as it is known now."""
        if self.plan is None:
            return
        plan = self.plan = self._with_known_scores(self.plan)
        begun = self._begun()
        more = max(0, int((self.left() - self._kept(plan)) / self._each(plan)))
        most = self._given.study.trials
        candidates = begun + more if most is None else min(most, begun + more)
        self.plan = plan.model_copy(update={"candidates": candidates})
        self._write()

    def _with_known_scores(self, plan: Plan) -> Plan:
        """The plan with the mean of what trials took besides training: to begin, and for a score."""
        again = {CONTINUES, REPEATS}
        trials = [t.user_attrs | {"state": t.state} for t in self.study.get_trials(deepcopy=False)]
        trials = [facts for facts in trials if SCORING in facts and not again & facts.keys()]
        found = {
            name: [max(t[SCORING], t.get(SPENT, 0.0) - trained) for t in trials if t["state"] == state]
            for name, state, trained in (
                ("whole", optuna.trial.TrialState.COMPLETE, plan.seconds),
                ("part", optuna.trial.TrialState.PRUNED, plan.first_rung),
            )
        }
        known = {name: float(np.mean(seconds)) for name, seconds in found.items() if seconds}
        return plan.model_copy(update={"pace": plan.pace.model_copy(update=known)})

    def may_begin(self, what: str, rung: int = 0) -> bool:
        """Whether there is time for a task of this kind, and for what has to come after it.

        what: candidate, promotion (to a rung), baseline, or fresh (a training with a fresh seed).
        """
        plan = self.plan
        if plan is None:
            return True
        if self.left() < _LONGER * self.workers * plan.to_rung(rung):  # it might not end in time
            return False
        match what:
            case "candidate":
                return self.left() - self._kept(plan) >= self._each(plan)
            case "promotion":
                return self.left() - self._kept(plan) >= plan.to_rung(rung)
            case "baseline":
                if not self.has_searched_one() and plan.candidates:
                    return False
                used, count = self._used({FIXED})
                within = used + plan.training <= BASELINES * plan.time + plan.training  # the default is among them
                return count - 1 < plan.baselines and within and self.left() - self._kept(plan) >= plan.training
        _, begun = self._used({REPEATS})
        # With one of two finalists trained again, nothing could be compared; of several kidneys, any that lacks counts.
        pair = 2 - begun % 2 if plan.kidneys == 1 else 1
        return self.left() >= _LONGER * max(pair, self.workers) * plan.training

    def first_to_end(self, waiting: Sequence[Paused]) -> int | None:
        """The paused trial that is to be trained to its end at once, so that a searched network is there in time."""
        plan = self.plan
        late = plan and self.left() <= (1 - SEARCHED_BY) * plan.time + _MARGIN * plan.training * self.workers
        if plan is None or not late or self.has_searched_one():
            return None
        for rung in reversed(waiting):
            best = max(rung.values, key=lambda trial: (rung.values[trial], -trial), default=None)
            if best is not None:
                return best
        return None

    def _kept(self, plan: Plan) -> float:
        """Seconds to be kept for confirmation, and for a first searched network."""
        used, _ = self._used({REPEATS})
        confirming = max(0.0, min(plan.confirming, plan.most_confirming) - used)
        if self.decided:  # further candidates may bring a new leader, which then has to meet every kidney, too
            confirming = min(confirming, plan.kidneys * plan.training)
        return confirming + (0.0 if self.has_searched_one() else plan.to_rung(plan.rungs))

    def _each(self, plan: Plan) -> float:
        """What one more candidate takes, with its share of the promotions."""
        usual = plan.model_copy(update={"candidates": 9 * plan.reduction**plan.rungs})
        return usual.searching / usual.candidates

    def _begun(self) -> int:
        other = {FIXED, REPEATS, CONTINUES, GIVEN_UP}
        trials = self.study.get_trials(deepcopy=False)
        return sum(not other & t.user_attrs.keys() and t.state != optuna.trial.TrialState.WAITING for t in trials)

    def has_searched_one(self) -> bool:
        """Whether a searched network was trained to its end, or is on the way there; always without a plan."""
        if self.plan is None:
            return True
        for trial in self.study.get_trials(deepcopy=False):
            if not {FIXED, REPEATS} & trial.user_attrs.keys():
                to_the_end = trial.user_attrs.get(RUNG, 0) >= self.plan.rungs
                running = trial.state == optuna.trial.TrialState.RUNNING and to_the_end
                if trial.state == optuna.trial.TrialState.COMPLETE or running:
                    return True
        return False

    def _used(self, kinds: set[str]) -> tuple[float, int]:
        """Seconds that trials with one of these attributes took so far, and how many there are."""
        found = [t for t in self.study.get_trials(deepcopy=False) if kinds & t.user_attrs.keys()]
        found = [t for t in found if REPEATS in kinds or REPEATS not in t.user_attrs]
        return sum(t.user_attrs.get(SPENT, 0.0) for t in found), len(found)

    def _time(self) -> float:
        """Seconds of all workers that the search may take, those that are used included."""
        study = self._given.study
        limits = []
        if study.minutes is not None:
            limits.append(60 * study.minutes * self.workers)
        if study.gpu_hours is not None:
            limits.append(3600 * study.gpu_hours)
        return min(limits)

    def _affordable(self, costs: Costs, time: float) -> list[CellPlan]:
        """The cell searches that there is time for, the cheapest first; all of a family, or none."""
        own: dict[str, list[CellPlan]] = {}
        for plan in plans(self._given):
            own.setdefault(plan.family, []).append(plan)
        cost = {name: sum(costs.cells.get(plan.id, math.inf) for plan in found) for name, found in own.items()}
        chosen, left = list[CellPlan](), CELLS * time
        for family in sorted(own, key=lambda name: cost[name]):
            if cost[family] <= left:
                chosen += own[family]
                left -= cost[family]
        return chosen

    def _write(self) -> None:
        assert self.plan is not None
        write_atomically(self.folder.plan, self.plan.model_dump_json(indent=1) + "\n")

    def _follow(self) -> None:
        """Take over what the plan says into the settings."""
        plan = self.plan
        assert plan is not None
        each = max(2, plan.kidneys)  # trainings of a finalist
        leaders = min(self._given.study.leaders, max(1, plan.fresh // each - 1)) if plan.fresh >= 2 else 0
        changes: Values = {"fit": {"steps": plan.steps}, "study": {"rungs": plan.rungs, "leaders": leaders}}
        without = {found.family for found in plans(self._given) if found.id not in plan.cells}
        if without:
            changes["space"] = {family: {"genotype": _hand_made(self._given)} for family in without}
        self.config = parse_config(merge(tomllib.loads(write_config(self._given)), changes), "the plan")
        if "space" in changes:
            self.possible = find_buildable(self.config)


def _hand_made(config: SearchConfig) -> list[str]:
    """Names of genotypes for any family, with as many levels as those that would be searched."""
    return [f"{name}/{config.cell_space.levels}" for name in ("plain", "residual")]
