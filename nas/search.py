"""The driver: asks the study, keeps the workers busy, tells the study, and writes the leaderboard.

One driver a run folder: it holds the folder's lock and is the only writer of the study. Whatever the study says is
running when it starts belonged to a driver that is gone, and is taken up again from its checkpoint.
"""

import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import optuna
from filelock import FileLock, Timeout
from optuna.trial import Trial, TrialState

from nas.best import export_best
from nas.cells import genotypes_of, plan_for, plans, read_findings
from nas.config import SearchConfig, write_config
from nas.dashboard import show_in_dashboard
from nas.executor import Executor
from nas.fold import check_same_data, open_fold
from nas.preflight import preflight
from nas.protocol import Died, Event, Finished, Progress, Ready, Scored, Searched
from nas.signals import stop_on_signal
from nas.study import (
    FIXED,
    GIVEN_UP,
    REPEATS,
    ask,
    cells_needed,
    count_candidates,
    enqueue_repeat,
    job_of,
    open_study,
    seconds_used,
    tell,
    unfinished,
)
from results.leaderboard import Leaderboard, rank, to_markdown
from results.record import Job, Outcome, Record, State, read_record
from results.run_folder import RunFolder
from results.version import program_version
from search_spaces.candidate import Family
from search_spaces.cell_space import CellFamily
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from trainers.cell_run import CellFindings, CellPlan
from trainers.checkpoint import write_atomically

NOTE_SECONDS = 60.0
ATTEMPTS = 3  # at a cell search, before it is given up
MOST_HELD = 16  # trials that may wait for a cell search while workers try something else


class View(Protocol):
    """Where a search shows what it does."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def working(self, what: str, done: int, total: int) -> None:
        """Progress of the preparation."""

    def plan(self, candidates: int, finished: int, minutes_left: float | None) -> None:
        """How much there is to do."""

    def started(self, job: Job, resumed: bool) -> None:
        """A trial begins or goes on."""

    def cells_started(self, plan: CellPlan, steps: int, resumed: bool) -> None:
        """A cell search begins or goes on."""

    def cells_ended(self, plan: CellPlan, findings: CellFindings | None) -> None:
        """A cell search has found something, or has failed."""

    def progress(self, event: Progress) -> None:
        """A trial or a cell search has come this far."""

    def scored(self, event: Scored, answer: str) -> None:
        """A trial was scored at a rung."""

    def ended(self, record: Record, board: Leaderboard) -> None:
        """A trial has ended."""


@dataclass
class _Driver:
    study: optuna.Study
    config: SearchConfig
    folder: RunFolder
    held_out: str
    view: View
    used_before: float  # seconds that earlier drivers of this study have searched
    began: float | None = None  # when the first worker was ready
    trials: dict[int, tuple[Trial, Job]] = field(default_factory=dict)
    cells: dict[str, CellPlan] = field(default_factory=dict)  # searches that workers are busy with
    lost: dict[str, int] = field(default_factory=dict)  # how often the worker of a cell search died
    held: list[tuple[Trial, CellPlan]] = field(default_factory=list)  # trials that wait for a cell search to end
    stop: threading.Event = field(default_factory=threading.Event)  # set by Ctrl-C
    asked_to_leave: bool = False
    noted: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Search time so far; starting workers and preparing data do not count."""
        return self.used_before + (0.0 if self.began is None else time.monotonic() - self.began)

    def out_of_time(self) -> bool:
        limit = self.config.study.minutes
        return limit is not None and self.seconds() >= limit * 60

    def board(self) -> Leaderboard:
        return write_leaderboard(self.folder, self.config.study.name, self.held_out)

    def begin(self, trial: Trial, executor: Executor) -> None:
        """Hand a trial to a worker, or close it if an earlier driver only missed to tell the study.

        One whose cells are still being searched is held until they are found.
        """
        plan = cells_needed(trial, self.config)
        if plan is not None and self.folder.cells(plan.id).failure.is_file():
            self._give_up(trial, plan)
            return
        if plan is not None and not self.folder.cells(plan.id).findings.is_file():
            self.held.append((trial, plan))
            return
        job = job_of(trial, self.config, self._genotypes)
        place = self.folder.trial(trial.number)
        self.trials[trial.number] = (trial, job)
        known = read_record(place.record)
        if known is not None and known.outcome.state != "interrupted":
            self.close(known)
            return
        place.path.mkdir(parents=True, exist_ok=True)
        resumed = place.job.is_file()
        write_atomically(place.job, job.model_dump_json(indent=2))
        self.view.started(job, resumed)
        executor.start(job)

    def _genotypes(self, family: CellFamily, crop: int) -> Mapping[str, Genotype]:
        return genotypes_of(self.folder, plan_for(self.config, family, crop))

    def _give_up(self, trial: Trial, plan: CellPlan) -> None:
        """Close a trial whose cells could not be found: it has no candidate, so no record either."""
        reason = self.folder.cells(plan.id).failure.read_text(encoding="utf-8").strip()
        trial.set_user_attr("reason", f"the cell search {plan.id} failed: {reason}")
        trial.set_user_attr(GIVEN_UP, True)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _nothing_to_try(self) -> bool:
        """Whether every family's cells could not be found, so that no trial would have a candidate."""
        failed: dict[Family, bool] = {plan.family: True for plan in plans(self.config)}
        for plan in plans(self.config):
            failed[plan.family] &= self.folder.cells(plan.id).failure.is_file()
        waits = any(
            t.state == TrialState.WAITING and FIXED in t.user_attrs for t in self.study.get_trials(deepcopy=False)
        )
        return not waits and all(failed.get(family, False) for family in self.config.space.families)

    def next_cells(self) -> CellPlan | None:
        """A cell search that has neither ended nor begun; they come first, because trials wait for them."""
        for plan in plans(self.config):
            place = self.folder.cells(plan.id)
            if plan.id not in self.cells and not place.findings.is_file() and not place.failure.is_file():
                return plan
        return None

    def begin_cells(self, plan: CellPlan, executor: Executor) -> None:
        """Hand a cell search to a worker."""
        self.cells[plan.id] = plan
        resumed = self.folder.cells(plan.id).checkpoints.is_dir()
        self.view.cells_started(plan, self.config.cell_search.steps, resumed)
        executor.start_cells(plan)

    def lose_cells(self, identity: str, reason: str) -> None:
        """The worker of a cell search died: another takes it up from its checkpoint, unless that happens too often."""
        self.lost[identity] = self.lost.get(identity, 0) + 1
        if self.stop.is_set() or self.lost[identity] < ATTEMPTS:
            self.cells.pop(identity)
            self.view.note(f"cell search {identity}: {reason}; it is taken up again")
        else:
            self.close_cells(identity, "failed", f"{reason}, {ATTEMPTS} times")

    def close_cells(self, identity: str, state: str, reason: str | None) -> None:
        """A cell search is over: what it left lies in its folder."""
        plan = self.cells.pop(identity)
        if state == "interrupted":
            return
        place = self.folder.cells(identity)
        if state == "failed":
            place.path.mkdir(parents=True, exist_ok=True)
            write_atomically(place.failure, f"{reason or 'unknown'}\n")
            self.view.note(f"the cell search {identity} failed: {reason}; without {place.failure} it is tried again")
        self.view.cells_ended(plan, read_findings(place))

    def next_trial(self, waiting: list[Trial]) -> Trial | None:
        """What an idle worker should do: go on with what was left, try something new, or repeat a leader."""
        for number, (trial, plan) in enumerate(self.held):
            if plan.id not in self.cells:
                del self.held[number]
                return trial
        if waiting:
            return waiting.pop(0)
        if len(self.held) > MOST_HELD:
            return None
        if count_candidates(self.study) < self.config.study.trials:
            return None if self._nothing_to_try() else ask(self.study, self.config)
        if self.held or any(job.repeats is None for _, job in self.trials.values()):
            return None  # who leads is known when all candidates are in
        leader = self._leader_to_repeat()
        if leader is None:
            return None
        enqueue_repeat(self.study, *leader)
        return ask(self.study, self.config)

    def has_work(self) -> bool:
        """Whether there is anything to train within the budget."""
        left = unfinished(self.study) or count_candidates(self.study) < self.config.study.trials
        return not self.out_of_time() and bool(left or self._leader_to_repeat())

    def _leader_to_repeat(self) -> tuple[int, int] | None:
        """Trial and seed index of the first leader with too few trainings; None when all have enough."""
        for row in self.board().rows[: self.config.study.leaders]:
            asked = sum(t.user_attrs.get(REPEATS) == row.trial for t in self.study.get_trials(deepcopy=False))
            if row.state == "complete" and asked < self.config.study.seeds - 1:
                return row.trial, asked + 1
        return None

    def close(self, record: Record) -> None:
        """Write down how a trial ended: first its own folder, then the study, then the leaderboard."""
        trial, job = self.trials.pop(record.job.trial)
        place = self.folder.trial(job.trial)
        write_atomically(place.record, record.model_dump_json(indent=2))
        if record.outcome.state != "interrupted":
            show_in_dashboard(self.study, trial, record, self.folder)
            shutil.rmtree(place.checkpoints, ignore_errors=True)
        tell(self.study, trial, record)
        board = self.board()
        self._drop_weights(board)
        self.study.set_user_attr("seconds", self.seconds())
        self.view.ended(record, board)

    def _drop_weights(self, board: Leaderboard) -> None:
        """Keep the weights of the rows at the top alone: hundreds of trials would fill a disk."""
        kept = {row.trial for row in board.rows[: self.config.study.kept_weights]}
        for number, place in self.folder.trial_folders():
            if place.weights.is_file() and number not in self.trials:
                record = read_record(place.record)
                if record is None or record.job.design not in kept:
                    place.weights.unlink()

    def handle(self, event: Event, executor: Executor) -> None:
        if isinstance(event, Ready):
            self.began = self.began or time.monotonic()
        elif isinstance(event, Progress):
            self.view.progress(event)
        elif isinstance(event, Scored):
            trial, job = self.trials[event.trial]
            trial.report(event.surface_dice, event.step)
            spared = job.baseline or job.repeats is not None
            answer = "stop" if not spared and trial.should_prune() else "go"
            executor.answer(event.trial, answer)
            self.view.scored(event, answer)
        elif isinstance(event, Finished):
            _, job = self.trials[event.trial]
            self.close(Record(job=job, outcome=event.outcome, version=program_version()))
        elif isinstance(event, Searched):
            self.close_cells(event.cells, event.state, event.reason)
        elif isinstance(event, Died) and event.work is not None:
            # On the way out a signal may have reached the workers too; their checkpoints are good.
            state: State = "interrupted" if self.stop.is_set() else "failed"
            if isinstance(event.work, str):
                self.lose_cells(event.work, event.reason)
                return
            _, job = self.trials[event.work]
            self.close(Record(job=job, outcome=Outcome(state=state, reason=event.reason), version=program_version()))

    def run(self, executor: Executor) -> None:
        """Until the budget is used up and every worker is idle."""
        waiting = unfinished(self.study)
        left = None if self.config.study.minutes is None else self.config.study.minutes - self.seconds() / 60
        self.view.plan(self.config.study.trials, count_candidates(self.study) - len(waiting), left)
        while True:
            if self.stop.is_set() or self.out_of_time():
                if not executor.running():
                    return
                self._ask_to_leave(executor)
            else:
                while executor.idle() and (plan := self.next_cells()) is not None:
                    self.begin_cells(plan, executor)
                while executor.idle() and (trial := self.next_trial(waiting)) is not None:
                    self.begin(trial, executor)
                if executor.all_ready() and not executor.running():
                    return
            event = executor.next_event(timeout=0.25)
            if event is not None:
                self.handle(event, executor)
            self._note_time()

    def _note_time(self) -> None:
        """Keep the time used in the study, so that a kill forgets at most a minute of it."""
        if time.monotonic() - self.noted > NOTE_SECONDS:
            self.noted = time.monotonic()
            self.study.set_user_attr("seconds", self.seconds())

    def _ask_to_leave(self, executor: Executor) -> None:
        if self.asked_to_leave:
            return
        self.asked_to_leave = True
        for number in executor.running():
            executor.answer(number, "leave")
        why = "stopping" if self.stop.is_set() else f"{self.config.study.minutes:g} minutes are over"
        how = "goes on" if self.stop.is_set() else "with more --minutes goes on"
        self.view.note(f"{why}: running trials write a checkpoint and leave; the same command {how} with them")


def run_search(config: SearchConfig, folder: RunFolder, view: View, workers: int | None = None) -> Leaderboard:
    """Search, or go on with a search, until its budget is used up; the leaderboard it ends with.

    Raises InputError where the run folder belongs to another search or another driver, or the data cannot be used.
    """
    lock = FileLock(folder.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"another search is running in {folder.path}; wait for it, or choose another --run") from error
    try:
        return _search(config, folder, view, workers)
    finally:
        lock.release()


def _search(config: SearchConfig, folder: RunFolder, view: View, workers: int | None) -> Leaderboard:
    fold = open_fold(config, folder, view.note, view.working)
    preflight(config, fold, view.working)
    check_same_data(folder, fold)
    # Written only now: a mistake in the settings must not bind the folder to them.
    write_atomically(folder.config, write_config(config))
    held_out = ", ".join(sorted({volume.kidney for volume in fold.held_out}))
    study = open_study(folder, config)
    driver = _Driver(study, config, folder, held_out, view, used_before=seconds_used(study))
    if driver.has_work():
        with stop_on_signal(driver.stop), Executor(folder, config.device, workers) as executor:
            try:
                driver.run(executor)
            finally:
                study.set_user_attr("seconds", driver.seconds())
    board = driver.board()
    if board.best is not None and not export_best(folder, board.best, config, fold):
        view.note(f"the weights of trial {board.best} were not kept; `nas retrain {board.best}` trains it again")
    return board


def write_leaderboard(folder: RunFolder, study: str, held_out: str) -> Leaderboard:
    """Rank all records of a run and write leaderboard.json and LEADERBOARD.md."""
    records = [r for _, place in folder.trial_folders() if (r := read_record(place.record)) is not None]
    board = rank(records, study, held_out)
    write_atomically(folder.leaderboard_json, board.model_dump_json(indent=2) + "\n")
    write_atomically(folder.leaderboard_markdown, to_markdown(board))
    return board
