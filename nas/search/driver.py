"""Driver: carries out what is decided (decisions.py), from the first question to the study to the last idle worker.

It is the only writer of the study. What an earlier driver left running is resumed from its checkpoint. A worker that
dies costs its task one attempt, never the search.
"""

import shutil
import threading
from dataclasses import dataclass, field

import optuna
from optuna.trial import TrialState

from nas.config.search_config import SearchConfig
from nas.config.study_config import CONTINUES, GIVEN_UP
from nas.jobs.cell_search import plans
from nas.jobs.task import CellSearchTask, MeasureTask, Task, TrialTask
from nas.search.confirmation import seeds_note, with_each_kidney
from nas.search.dashboard_notes import show_in_dashboard, show_reading
from nas.search.decisions import Decisions, GiveUp, Recorded, Step
from nas.search.plan_rows import plan_rows
from nas.search.planning import Planner
from nas.search.view import View
from nas.study.budget import Budget
from nas.study.buildable import Buildable
from nas.study.promotion import left_behind
from nas.study.study import paused, tell
from nas.workers.executor import Executor
from nas.workers.protocol import Died, Ended, Event, Progress, Ready, Scored
from results.leaderboard.leaderboard import Leaderboard
from results.leaderboard.ledger import Ledger
from results.pictures.curve import append_line
from results.record import Outcome, Record
from results.run_folder import CellsFolder, RunFolder, TrialFolder
from results.version import program_version
from search_spaces.errors import InputError
from trainers.atomic import write_atomically


@dataclass
class Driver:
    """One search: keeps the workers busy, writes the outcome of every task, and informs the user."""

    study: optuna.Study
    config: SearchConfig
    folder: RunFolder
    kidneys: tuple[str, ...]  # that which the search ranks on, then the others that are held out to confirm
    view: View
    possible: Buildable
    stop: threading.Event = field(default_factory=threading.Event)  # set by Ctrl-C

    def __post_init__(self) -> None:
        self._seeds_note = seeds_note(self.config, self.kidneys)
        self.config = with_each_kidney(self.config, self.kidneys)
        self._ledger = Ledger(self.folder, self.config.study.name, self.kidneys[0], self.config.score)
        self._budget = Budget(self.config.study, self.study)
        self._planner = Planner(
            self.config, self.possible, self.folder, self.study, self._budget, kidneys=len(self.kidneys)
        )
        self._decisions = Decisions(
            self.study, self._planner, self.folder, self._budget, self.board, self.stop, self.kidneys
        )
        self._shown = set[tuple[str, int]]()  # scores at rungs that the user was told
        self._name_lost_records()

    def board(self) -> Leaderboard:
        """The ranking as it is now, written into the run folder."""
        return self._ledger.board()

    def has_work(self) -> bool:
        """Whether there is anything to train within the budget."""
        return self._decisions.has_work()

    def run(self, executor: Executor) -> None:
        """Run until the budget is used up and every worker is idle. Raises InputError if the search cannot go on."""
        decisions = self._decisions
        self._budget.busy = executor.busy_seconds
        self._planner.workers = executor.size
        self._planner.extend()
        if not self._planner.waits:
            self._say_plan()
        while True:
            if decisions.over():
                if not executor.running():
                    break
                self._ask_to_leave(executor)
            else:
                while executor.idle() and (step := decisions.next_step()) is not None:
                    self._carry_out(step, executor)
                if executor.any_ready() and not executor.running():
                    break
            event = executor.next_event(timeout=0.25)
            if event is not None:
                self._handle(event, executor)
            self._budget.save()
        self._budget.save(now=True)
        show_reading(self.study, self.board())
        if decisions.halted:
            raise InputError(f"{decisions.halted}; once that is fixed, run the same command again to continue")

    def _carry_out(self, step: Step, executor: Executor) -> None:
        match step:
            case GiveUp():
                step.trial.set_user_attr("reason", step.reason)
                step.trial.set_user_attr(GIVEN_UP, True)
                self.study.tell(step.trial.number, state=TrialState.FAIL)
            case Recorded():
                self._close_trial(step.record)
            case TrialTask() | CellSearchTask() | MeasureTask():
                resumed = step.prepare(self.folder)
                self.view.started(step, step.describe(self._planner.config), resumed)
                executor.start(step)

    def _handle(self, event: Event, executor: Executor) -> None:
        decisions = self._decisions
        match event:
            case Ready():
                self._budget.begin()
            case Progress():
                self.view.progress(event)
            case Scored():
                decisions.scored(event)
                if (event.task, event.step) not in self._shown:  # one that goes on reports its rungs again
                    self._shown.add((event.task, event.step))
                    self.view.scored(decisions.task(event.task), event)
            case Ended():
                self._close(decisions.task(event.task), event.outcome)
            case Died():
                if event.given_up:
                    self.view.note(event.given_up)
                if event.task is not None:
                    self._lost(decisions.task(event.task), event.reason)

    def _lost(self, task: Task, reason: str) -> None:
        """A worker died on a task: another resumes it from its checkpoint, unless that happened too often."""
        deaths = 0 if self.stop.is_set() else _count_death(task.place(self.folder), reason)
        outcome = self._decisions.lost(task, reason, deaths)
        if outcome is not None:
            self._close(task, outcome)
        else:
            attempt = f"attempt {deaths + 1} of {self.config.study.attempts}"
            self.view.note(f"{task.title}: {reason}; {attempt} resumes it")

    def _close(self, task: Task, outcome: Outcome) -> None:
        """Write down how a task ended."""
        match task:
            case TrialTask():
                job = task.job
                if job.seconds is not None and outcome.state in ("complete", "paused"):
                    job = job.settled(self._planner.steps_of(outcome.step, job.pauses))
                self._close_trial(Record(job=job, outcome=outcome, version=program_version()))
            case CellSearchTask():
                self._close_search(task, outcome)
            case MeasureTask():
                self._close_measuring(task, outcome)

    def _close_trial(self, record: Record) -> None:
        """Write a trial's end into its own folder, then into the study, then onto the leaderboard."""
        task, outcome = TrialTask(job=record.job), record.outcome
        trial = self._decisions.trial(task.id)
        self._ledger.add(record)
        if outcome.state != "interrupted":
            show_in_dashboard(self.study, trial, record, self.folder)
            if outcome.state != "paused":
                shutil.rmtree(task.place(self.folder).checkpoints, ignore_errors=True)
            if outcome.state != "complete":
                shutil.rmtree(task.place(self.folder).trunk, ignore_errors=True)
        tell(self.study, trial, record)
        self._planner.replan()
        if outcome.state == "paused":  # hundreds of checkpoints would fill a disk
            waiting = paused(self.study, self._planner.config)
            for number in left_behind(self.config.study, waiting, self._planner.most_candidates):
                shutil.rmtree(self.folder.trial(number).checkpoints, ignore_errors=True)
        self._decisions.closed(task, outcome)
        self._ledger.drop_weights(self.config.study.kept_weights, self._decisions.busy_trials())
        self._budget.save(now=True)
        self.view.ended(task, outcome, self.board())

    def _close_measuring(self, task: MeasureTask, outcome: Outcome) -> None:
        """Make the plan; without costs, the numbers of the settings hold."""
        self._decisions.closed(task, outcome)
        self.view.ended(task, outcome, None)
        if outcome.state == "complete":
            self._planner.begin()
        elif outcome.state != "interrupted":
            self._planner.given_up = True
            self.view.note(f"nothing is planned, because no costs are known: {outcome.reason}")
        if outcome.state != "interrupted":
            self._say_plan()

    def _say_plan(self) -> None:
        """Say how much there is to do."""
        planner = self._planner
        self.view.plan(planner.trainings, self._decisions.finished(), self._budget.minutes_left())
        self.view.planned(plan_rows(planner.plan, self.study))
        for note in (*([self._seeds_note] if self._seeds_note else []), *planner.notes()):
            self.view.note(note)
        for plan in plans(planner.config):  # `nas status` shows those that wait, too
            self.folder.cells(plan.id).path.mkdir(parents=True, exist_ok=True)

    def _close_search(self, task: CellSearchTask, outcome: Outcome) -> None:
        """Write down why a search found nothing; what it found has been written by its worker."""
        place = task.place(self.folder)
        if outcome.state not in ("complete", "interrupted"):
            write_atomically(place.failure, f"{outcome.reason or 'unknown'}\n")
            self.view.note(f"delete {place.failure} to try the {task.title} again")
        self._decisions.closed(task, outcome)
        self.view.ended(task, outcome, None)

    def _name_lost_records(self) -> None:
        """Name trials that the study has closed but that have no record: they are not trained again, nor ranked."""
        for trial in self.study.get_trials(deepcopy=False):
            unrecorded = trial.number not in self._ledger and not {GIVEN_UP, CONTINUES} & trial.user_attrs.keys()
            if trial.state.is_finished() and unrecorded:
                gone = self.folder.trial(trial.number).record
                self.view.note(f"trial {trial.number} has ended, but {gone} is gone: it is not ranked")

    def _ask_to_leave(self, executor: Executor) -> None:
        if self._decisions.leaving:
            return
        self._decisions.leaving = True
        for task in executor.running():
            executor.leave(task)
        over = self._budget.over()
        why, how = "stopping", "the same command"
        if not self.stop.is_set() and not self._decisions.halted and over is not None:
            why, _, more = over.partition("; ")
            how += f" {more}"
        self.view.note(f"{why}: running trials write a checkpoint and leave; {how} continues them")


def _count_death(place: TrialFolder | CellsFolder, reason: str) -> int:
    """Note that a worker died on the task of this folder; returns how many have."""
    append_line(place.attempts, {"reason": reason})
    return len(place.attempts.read_bytes().splitlines())
