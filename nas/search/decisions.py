"""Decisions: what comes next, which trials go on, what is tried again, and when the search is over.

They are made from the study, the run folder and the ranking. The driver (driver.py) carries them out: it starts tasks,
writes records and informs the user.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import optuna
from optuna.trial import Trial

from nas.config.search_config import SearchConfig
from nas.config.study_config import CONTINUES, FIXED, REPEATS
from nas.jobs.cell_search import genotypes_of, plan_for, plans, with_supernet
from nas.jobs.task import CellSearchTask, MeasureTask, Task, TrialTask
from nas.search.confirmation import Judging, next_judging
from nas.search.diagnosis import LAST_ENDED, diagnose
from nas.search.planning import Planner
from nas.study.budget import Budget
from nas.study.promotion import promote
from nas.study.study import (
    ask,
    begin_fixed,
    cells_needed,
    count_candidates,
    default_place,
    go_on,
    job_of,
    paused,
    repeat,
    unfinished,
)
from nas.workers.protocol import Scored
from results.leaderboard.leaderboard import Leaderboard, State
from results.record import Job, Outcome, Record, read_record
from results.run_folder import RunFolder
from search_spaces.cells.genotype import Genotype
from trainers.cell_search.run import CellPlan

MOST_HELD = 16  # trials that may wait for a cell search while workers try something else


@dataclass(frozen=True)
class GiveUp:
    """A trial whose cells could not be found: it has no candidate, so it is closed without a record."""

    trial: Trial
    reason: str


@dataclass(frozen=True)
class Recorded:
    """A trial that has ended, but whose end an earlier driver did not report to the study."""

    record: Record


Step = Task | GiveUp | Recorded  # a task is to be started; for the others, a trial is closed


@dataclass(frozen=True)
class _RunningTrial:
    task: TrialTask
    trial: Trial


@dataclass
class Decisions:
    """All decisions of one driver, and what they depend on.

    planner: the settings, and what there is time for. board: the ranking as it is now. stop: set by the user. kidneys:
    those that are held out in turn to confirm, first that of the search.

    Trials that the study lists as running at the start belonged to an earlier driver, and are tried again.
    """

    study: optuna.Study
    planner: Planner
    folder: RunFolder
    budget: Budget
    board: Callable[[], Leaderboard]
    stop: threading.Event = field(default_factory=threading.Event)
    kidneys: tuple[str, ...] = ()
    halted: str | None = None  # why the search cannot go on, whatever the budget says
    leaving: bool = False  # the workers were asked to leave
    _trials: dict[str, _RunningTrial] = field(default_factory=dict)  # that workers are busy with, by the id of the task
    _searches: dict[str, CellSearchTask | MeasureTask] = field(default_factory=dict)  # that workers are busy with
    _held: list[tuple[Trial, CellPlan]] = field(default_factory=list)  # trials that wait for a cell search to end
    _again: list[Trial] = field(init=False)  # left by an earlier driver, or by a worker that died
    _ended: deque[State] = field(default_factory=lambda: deque(maxlen=LAST_ENDED))  # states of the last trials

    def __post_init__(self) -> None:
        self._again = unfinished(self.study)

    @property
    def config(self) -> SearchConfig:
        """The settings, as the plan has them if there is one."""
        return self.planner.config

    def finished(self) -> int:
        """Fixed trials and candidates that were over, or paused, before this driver began."""
        begun = {t.user_attrs[FIXED] for t in self.study.get_trials(deepcopy=False) if FIXED in t.user_attrs}
        left = sum(not {REPEATS, CONTINUES} & trial.user_attrs.keys() for trial in self._again)
        return len(begun) + count_candidates(self.study) - left

    def has_work(self) -> bool:
        """Whether there is anything to train within the budget."""
        if self.budget.over() is not None:
            return False
        if self.planner.waits or self._again:
            return True
        begins = self._candidate_begins() or self._next_fixed() is not None
        return begins or self._to_promote() is not None or self._to_judge() is not None

    def over(self) -> bool:
        """Whether nothing more is started, and running tasks are to leave."""
        return self.stop.is_set() or self.halted is not None or self.budget.over() is not None

    def task(self, identity: str) -> Task:
        """What a worker is busy with."""
        return self._trials[identity].task if identity in self._trials else self._searches[identity]

    def trial(self, identity: str) -> Trial:
        """The study's trial that a worker is busy with."""
        return self._trials[identity].trial

    def busy_trials(self) -> set[int]:
        """Numbers of the trials that workers are busy with."""
        return {running.task.job.trial for running in self._trials.values()}

    def next_step(self) -> Step | None:
        """What an idle worker should do; None if there is nothing to do now.

        What is needed for a plan comes first, if there is to be one. Cell searches come next, because trials wait for
        them. Meanwhile one worker trains the baselines, before the cells if it is the only worker, so that there is
        something to compare and to export whenever the time runs out.
        """
        if self.planner.waits:
            return self._measure()
        self.planner.running = len(self._trials)
        while True:
            plan = self._next_search()
            if plan is not None and (self._trials or self._may_search_cells()):
                return self._begin_search(plan)
            trial = self._next_trial()
            if trial is None:
                return None if plan is None else self._begin_search(plan)
            if (step := self._step_of(trial)) is not None:
                return step

    def scored(self, score: Scored) -> None:
        """Report a score at a rung to the study."""
        self._trials[score.task].trial.report(score.value, score.step)

    def lost(self, task: Task, reason: str, deaths: int) -> Outcome | None:
        """How a task whose worker died ends; None if it is tried again. deaths: workers that died on it so far."""
        if self.stop.is_set():  # a signal may have reached the workers too; their checkpoints are good
            return Outcome(state="interrupted", reason=reason)
        if deaths >= self.config.study.attempts:
            return Outcome(state="failed", reason=f"{reason}, {self.config.study.attempts} times")
        self._searches.pop(task.id, None)  # `_next_search` finds it again
        if (running := self._trials.pop(task.id, None)) is not None:
            self._again.append(running.trial)
        return None

    def closed(self, task: Task, outcome: Outcome) -> None:
        """A task is over; the board has a trial's record. Halts the search if no other task would fare better."""
        self._searches.pop(task.id, None)
        trial = self._trials.pop(task.id, None)
        if outcome.state == "interrupted":
            if not self.leaving and not self.stop.is_set():  # a full disk
                self.halted = self.halted or outcome.reason
        elif trial is not None:
            self._ended.append(outcome.state)
            share = self.config.study.failing_share
            self.halted = self.halted or diagnose(self._ended, share, self.board(), self.folder)

    def _measure(self) -> MeasureTask | None:
        task = self.planner.measuring()
        if task.id in self._searches:
            return None
        self._searches[task.id] = task
        return task

    def _begin_search(self, plan: CellPlan) -> CellSearchTask:
        task = CellSearchTask(plan=plan)
        self._searches[task.id] = task
        return task

    def _step_of(self, trial: Trial) -> Step | None:
        """What to do about a trial; None if it is held until its cells are found."""
        plan = cells_needed(trial, self.config, self.planner.possible)
        if plan is not None and self.folder.cells(plan.id).failure.is_file():
            reason = self.folder.cells(plan.id).failure.read_text(encoding="utf-8", errors="replace").strip()
            return GiveUp(trial, f"the cell search {plan.id} failed: {reason}")
        if plan is not None and not self.folder.cells(plan.id).findings.is_file():
            self._held.append((trial, plan))
            return None
        job = job_of(trial, self.config, self.planner.possible, self._genotypes, self.planner.plan)
        task = TrialTask(job=with_supernet(self.folder, self.config, job))
        self._trials[task.id] = _RunningTrial(task, trial)
        known = read_record(task.place(self.folder).record)
        ended = known is not None and _same(known.job, task.job) and known.outcome.state != "interrupted"
        return Recorded(known) if known is not None and ended else task

    def _genotypes(self, family: str, crop: int) -> Mapping[str, Genotype]:
        return genotypes_of(self.folder, plan_for(self.config, family, crop))

    def _next_search(self) -> CellPlan | None:
        """A cell search that has neither ended nor begun."""
        # A search that trials wait for may no longer be in the configuration, if fewer trials are wanted now.
        for plan in dict.fromkeys((*plans(self.config), *(plan for _, plan in self._held))):
            if CellSearchTask(plan=plan).id not in self._searches and not self._searched(plan):
                return plan
        return None

    def _searched(self, plan: CellPlan) -> bool:
        place = self.folder.cells(plan.id)
        return place.findings.is_file() or place.failure.is_file()

    def _next_trial(self) -> Trial | None:
        """What comes next of these, in this order.

        A trial that waited for its cells; one to be tried again; a paused one that goes on; a new one; a finalist with
        a fresh seed.
        """
        for number, (trial, plan) in enumerate(self._held):
            if self._searched(plan):
                del self._held[number]
                return trial
        if self._again:
            return self._again.pop(0)
        if (promoted := self._to_promote()) is not None:
            return go_on(self.study, *promoted)
        if (fixed := self._next_fixed()) is not None:
            return begin_fixed(self.study, self.config, self.planner.possible, fixed)
        if len(self._held) > MOST_HELD:
            return None
        if self._candidate_begins():
            return None if self._nothing_to_try() else ask(self.study, self.config)
        if self._held or any(running.task.is_candidate for running in self._trials.values()):
            return None  # who leads is known when all candidates are in
        finalist = self._to_judge()
        if finalist is None:  # if nothing is left to confirm, the rest of the time is for more candidates
            more = self.planner.decided and self._candidate_begins() and not self._nothing_to_try()
            return ask(self.study, self.config) if more else None
        return repeat(self.study, finalist.trial, finalist.seed_index, finalist.hold_out)

    def _next_fixed(self) -> int | None:
        """The place of the next fixed trial, the default before all others; None if none is to begin now."""
        begun = {t.user_attrs.get(FIXED) for t in self.study.get_trials(deepcopy=False)}
        order = sorted(range(len(self.config.fixed)), key=lambda place: place != default_place(self.config))
        place = next((place for place in order if place not in begun), None)
        if self.planner.plan is None or place in (None, default_place(self.config)):
            return place
        return place if self.planner.may_begin("baseline") else None

    def _candidate_begins(self) -> bool:
        """Whether another candidate is to begin now."""
        if self.planner.plan is not None and self.config.study.trials is None:
            return self.planner.may_begin("candidate")
        return count_candidates(self.study) < self.config.study.candidates and self.planner.may_begin("candidate")

    def _may_search_cells(self) -> bool:
        """Whether the only worker may search cells: something was trained before, to rank whenever the time is over."""
        return self._next_fixed() is None and self.planner.has_searched_one()

    def _nothing_to_try(self) -> bool:
        """Whether no family's cells could be found, so that no trial would have a candidate."""
        failed: dict[str, bool] = {plan.family: True for plan in plans(self.config)}
        for plan in plans(self.config):
            failed[plan.family] &= self.folder.cells(plan.id).failure.is_file()
        return all(failed.get(family, False) for family in self.config.space.families)

    def _to_promote(self) -> tuple[int, int] | None:
        """A paused trial that goes on, and the rung to which it goes."""
        waiting = paused(self.study, self.config)
        if (first := self.planner.first_to_end(waiting)) is not None:
            return first, self.config.study.rungs
        on_the_way = self._held or any(running.task.is_candidate for running in self._trials.values())
        more = bool(on_the_way or self._again) or self._candidate_begins()
        promoted = promote(self.config.study, waiting, more)
        if promoted is None or not self.planner.may_begin("promotion", promoted[1] + 1):
            return None
        return promoted[0], promoted[1] + 1

    def _to_judge(self) -> Judging | None:
        if not self.planner.may_begin("fresh"):
            return None
        plan = self.planner.plan
        kidneys = self.kidneys if plan is None else self.kidneys[: plan.kidneys]
        found = next_judging(self.board(), self.study.get_trials(deepcopy=False), self.config, kidneys)
        known = plan is not None and any(row.judged for row in self.board().rows)
        self.planner.decided = known and found is None and not self._is_judging()
        return found

    def _is_judging(self) -> bool:
        return any(not running.task.is_candidate for running in self._trials.values())


def _same(known: Job, job: Job) -> bool:
    """Whether this job was done; if its steps follow from its time, they are known only afterwards."""
    return known == (job if job.seconds is None else job.settled(known.fit.steps))
