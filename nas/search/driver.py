"""Driver: asks the study, keeps the workers busy, tells the study, and writes the leaderboard.

It is the only writer of the study. Whatever the study says is running when it starts belonged to a driver that is gone,
and is taken up again from its checkpoint. A worker that dies costs its trial one attempt, never the search.
"""

import shutil
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import optuna
from optuna.trial import Trial, TrialState

from nas.config.search_config import SearchConfig
from nas.config.study_config import FIXED, GIVEN_UP, REPEATS
from nas.jobs.cell_search import genotypes_of, plan_for, plans, read_findings
from nas.search.dashboard_notes import show_in_dashboard
from nas.search.view import View
from nas.study.budget import Budget
from nas.study.buildable import Buildable
from nas.study.study import ask, cells_needed, count_candidates, enqueue_repeat, job_of, tell, unfinished
from nas.workers.executor import Executor
from nas.workers.protocol import Died, Event, Finished, Progress, Ready, Scored, Searched
from results.leaderboard.leaderboard import Leaderboard
from results.leaderboard.ledger import Ledger
from results.pictures.curve import append_line
from results.record import Job, Outcome, Record, read_record
from results.run_folder import CellsFolder, RunFolder, TrialFolder
from results.version import program_version
from search_spaces.cells.genotype import Genotype
from search_spaces.errors import InputError
from trainers.cell_search.run import CellPlan
from trainers.checkpoint import write_atomically

MOST_HELD = 16  # trials that may wait for a cell search while workers try something else
LAST_ENDED = 20  # trials that failures are counted in
ENOUGH_ENDED = 5  # trials, before their failures say anything about the search


@dataclass
class Driver:
    """One search, from the first question to the study to the last idle worker."""

    study: optuna.Study
    config: SearchConfig
    folder: RunFolder
    held_out: str
    view: View
    possible: Buildable
    stop: threading.Event = field(default_factory=threading.Event)  # set by Ctrl-C
    halted: str | None = None  # why the search cannot go on, whatever the budget says
    _trials: dict[int, tuple[Trial, Job]] = field(default_factory=dict)  # that workers are busy with
    _cells: dict[str, CellPlan] = field(default_factory=dict)  # searches that workers are busy with
    _held: list[tuple[Trial, CellPlan]] = field(default_factory=list)  # trials that wait for a cell search to end
    _again: list[Trial] = field(default_factory=list)  # left by an earlier driver, or by a worker that died
    _ended: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_ENDED))  # states of the last trials
    _asked_to_leave: bool = False

    def __post_init__(self) -> None:
        self.budget = Budget(self.config.study, self.study)
        self._ledger = Ledger(self.folder, self.config.study.name, self.held_out, self.config.score)
        self._name_lost_records()

    def board(self) -> Leaderboard:
        """The ranking as it is now, written into the run folder."""
        return self._ledger.board()

    def begin(self, trial: Trial, executor: Executor) -> None:
        """Hand a trial to a worker, or close it if an earlier driver only missed to tell the study.

        One whose cells are still being searched is held until they are found.
        """
        plan = cells_needed(trial, self.config, self.possible)
        if plan is not None and self.folder.cells(plan.id).failure.is_file():
            self._give_up(trial, plan)
            return
        if plan is not None and not self.folder.cells(plan.id).findings.is_file():
            self._held.append((trial, plan))
            return
        job = job_of(trial, self.config, self.possible, self._genotypes)
        place = self.folder.trial(trial.number)
        self._trials[trial.number] = (trial, job)
        known = read_record(place.record)
        if known is not None and known.outcome.state != "interrupted":
            self.close(known)
            return
        place.path.mkdir(parents=True, exist_ok=True)
        resumed = place.job.is_file()
        write_atomically(place.job, job.model_dump_json(indent=2))
        self.view.started(job, resumed)
        executor.start(job)

    def _genotypes(self, family: str, crop: int) -> Mapping[str, Genotype]:
        return genotypes_of(self.folder, plan_for(self.config, family, crop))

    def _give_up(self, trial: Trial, plan: CellPlan) -> None:
        """Close a trial whose cells could not be found: it has no candidate, so no record either."""
        reason = self.folder.cells(plan.id).failure.read_text(encoding="utf-8").strip()
        trial.set_user_attr("reason", f"the cell search {plan.id} failed: {reason}")
        trial.set_user_attr(GIVEN_UP, True)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _nothing_to_try(self) -> bool:
        """Whether every family's cells could not be found, so that no trial would have a candidate."""
        failed: dict[str, bool] = {plan.family: True for plan in plans(self.config)}
        for plan in plans(self.config):
            failed[plan.family] &= self.folder.cells(plan.id).failure.is_file()
        return not self._baseline_waits() and all(failed.get(family, False) for family in self.config.space.families)

    def _baseline_waits(self) -> bool:
        """Whether a fixed trial has not begun yet."""
        trials = self.study.get_trials(deepcopy=False)
        return any(t.state == TrialState.WAITING and FIXED in t.user_attrs for t in trials)

    def _begin_next(self, executor: Executor) -> bool:
        """Give an idle worker what comes next; False where there is nothing for it.

        Cell searches come first, because trials wait for them. But one worker trains the baselines meanwhile, before
        the cells if it is the only one: whenever the time is over, there is something to compare and to export.
        """
        plan = self.next_cells()
        if plan is not None and not (self._baseline_waits() and not self._trials):
            self.begin_cells(plan, executor)
        elif (trial := self.next_trial()) is not None:
            self.begin(trial, executor)
        elif plan is not None:
            self.begin_cells(plan, executor)
        else:
            return False
        return True

    def next_cells(self) -> CellPlan | None:
        """A cell search that has neither ended nor begun."""
        # Those that trials wait for may be none of the configuration's any more, when fewer trials are wanted now.
        for plan in dict.fromkeys((*plans(self.config), *(plan for _, plan in self._held))):
            place = self.folder.cells(plan.id)
            if plan.id not in self._cells and not place.findings.is_file() and not place.failure.is_file():
                return plan
        return None

    def begin_cells(self, plan: CellPlan, executor: Executor) -> None:
        """Hand a cell search to a worker."""
        self._cells[plan.id] = plan
        resumed = self.folder.cells(plan.id).checkpoints.is_dir()
        self.view.cells_started(plan, self.config.cell_search.steps, resumed)
        executor.start_cells(plan)

    def _lost_cells(self, identity: str, reason: str) -> None:
        """The worker of a cell search died: another takes it up from its checkpoint, unless that happens too often."""
        if self._given_up(self.folder.cells(identity), f"cell search {identity}", reason):
            self._close_cells(identity, "failed", f"{reason}, {self.config.study.attempts} times")
        else:
            self._cells.pop(identity)

    def _lost_trial(self, number: int, reason: str) -> None:
        """The same for a trial."""
        trial, job = self._trials[number]
        if self.stop.is_set():  # a signal may have reached the workers too; their checkpoints are good
            self.close(_record(job, Outcome(state="interrupted", reason=reason)))
        elif self._given_up(self.folder.trial(number), f"trial {number}", reason):
            times = f"{reason}, {self.config.study.attempts} times"
            self.close(_record(job, Outcome(state="failed", reason=times)))
        else:
            del self._trials[number]
            self._again.append(trial)

    def _given_up(self, place: TrialFolder | CellsFolder, what: str, reason: str) -> bool:
        """Count an attempt whose worker died, unless we are on the way out; whether there were too many."""
        if self.stop.is_set():
            return False
        place.path.mkdir(parents=True, exist_ok=True)  # it may have died before it made one
        append_line(place.attempts, {"reason": reason})
        failed = len(place.attempts.read_text(encoding="utf-8").splitlines())
        if failed >= self.config.study.attempts:
            return True
        self.view.note(f"{what}: {reason}; attempt {failed + 1} of {self.config.study.attempts} goes on from there")
        return False

    def _close_cells(self, identity: str, state: str, reason: str | None) -> None:
        """A cell search is over: what it left lies in its folder."""
        plan = self._cells.pop(identity)
        if state == "interrupted":
            self.halted = self.halted or reason
            return
        place = self.folder.cells(identity)
        if state == "failed":
            place.path.mkdir(parents=True, exist_ok=True)
            write_atomically(place.failure, f"{reason or 'unknown'}\n")
            self.view.note(f"the cell search {identity} failed: {reason}; without {place.failure} it is tried again")
        self.view.cells_ended(plan, read_findings(place))

    def next_trial(self) -> Trial | None:
        """What an idle worker should do: go on with what was left, try something new, or repeat a leader."""
        for number, (trial, plan) in enumerate(self._held):
            place = self.folder.cells(plan.id)
            if place.findings.is_file() or place.failure.is_file():
                del self._held[number]
                return trial
        if self._again:
            return self._again.pop(0)
        if len(self._held) > MOST_HELD:
            return None
        if count_candidates(self.study) < self.config.study.trials:
            return None if self._nothing_to_try() else ask(self.study, self.config)
        if self._held or any(job.repeats is None for _, job in self._trials.values()):
            return None  # who leads is known when all candidates are in
        leader = self._leader_to_repeat()
        if leader is None:
            return None
        enqueue_repeat(self.study, *leader)
        return ask(self.study, self.config)

    def has_work(self) -> bool:
        """Whether there is anything to train within the budget."""
        left = unfinished(self.study) or count_candidates(self.study) < self.config.study.trials
        return self.budget.over() is None and bool(left or self._leader_to_repeat())

    def _leader_to_repeat(self) -> tuple[int, int] | None:
        """Trial and seed index of the first leader with too few trainings; None when all have enough."""
        for row in self.board().rows[: self.config.study.leaders]:
            asked = sum(t.user_attrs.get(REPEATS) == row.trial for t in self.study.get_trials(deepcopy=False))
            if row.state == "complete" and asked < self.config.study.seeds - 1:
                return row.trial, asked + 1
        return None

    def close(self, record: Record) -> None:
        """Write down how a trial ended: first its own folder, then the study, then the leaderboard."""
        trial, job = self._trials.pop(record.job.trial)
        place = self.folder.trial(job.trial)
        self._ledger.add(record)
        if record.outcome.state != "interrupted":
            show_in_dashboard(self.study, trial, record, self.folder)
            shutil.rmtree(place.checkpoints, ignore_errors=True)
        tell(self.study, trial, record)
        board = self.board()
        self._ledger.drop_weights(self.config.study.kept_weights, self._trials.keys())
        self.budget.save(now=True)
        self.view.ended(record, board)
        self._diagnose(record, board)

    def _diagnose(self, record: Record, board: Leaderboard) -> None:
        """Halt where a trial says that no other will fare better, or where too many have failed."""
        state, share = record.outcome.state, self.config.study.failing_share
        if state == "interrupted":
            if not self._asked_to_leave and not self.stop.is_set():
                self.halted = record.outcome.reason
            return
        self._ended.append(state)
        ended, failed = len(self._ended), self._ended.count("failed")
        hopeless = self._ended.count("infeasible") == self._ended.maxlen
        if not hopeless and (ended < ENOUGH_ENDED or failed <= share * ended):
            return
        failed += self._ended.count("infeasible")
        reasons = Counter(row.reason for row in board.rows if row.state in ("failed", "infeasible"))
        common, count = reasons.most_common(1)[0]
        first = min(row.trial for row in board.rows if row.reason == common)
        self.halted = (
            f"{failed} of the last {ended} trials failed or did not fit into memory (study.failing_share = {share:g}); "
            f"most often ({count} x): {common}; see {self.folder.trial(first).log}"
        )

    def handle(self, event: Event, executor: Executor) -> None:
        if isinstance(event, Ready):
            self.budget.begin()
        elif isinstance(event, Progress):
            self.view.progress(event)
        elif isinstance(event, Scored):
            trial, job = self._trials[event.trial]
            trial.report(event.value, event.step)
            spared = job.baseline or job.repeats is not None
            answer = "stop" if not spared and trial.should_prune() else "go"
            executor.answer(event.trial, answer)
            self.view.scored(event, answer)
        elif isinstance(event, Finished):
            _, job = self._trials[event.trial]
            self.close(_record(job, event.outcome))
        elif isinstance(event, Searched):
            self._close_cells(event.cells, event.state, event.reason)
        elif isinstance(event, Died):
            if event.given_up:
                self.view.note(event.given_up)
            if event.work is None:
                return
            if isinstance(event.work, str):
                self._lost_cells(event.work, event.reason)
            else:
                self._lost_trial(event.work, event.reason)

    def run(self, executor: Executor) -> None:
        """Until the budget is used up and every worker is idle. Raises InputError where the search cannot go on."""
        self.budget.busy = executor.busy_seconds
        self._again = unfinished(self.study)
        finished = count_candidates(self.study) - len(self._again)
        self.view.plan(self.config.study.trials, finished, self.budget.minutes_left())
        for wanted in plans(self.config):  # `nas status` shows those that wait, too
            self.folder.cells(wanted.id).path.mkdir(parents=True, exist_ok=True)
        while True:
            if self.stop.is_set() or self.halted or self.budget.over():
                if not executor.running():
                    break
                self._ask_to_leave(executor)
            else:
                while executor.idle() and self._begin_next(executor):
                    pass
                if executor.any_ready() and not executor.running():
                    break
            event = executor.next_event(timeout=0.25)
            if event is not None:
                self.handle(event, executor)
            self.budget.save()
        self.budget.save(now=True)
        if self.halted:
            raise InputError(f"{self.halted}; when that is mended, the same command goes on")

    def _name_lost_records(self) -> None:
        """A trial that the study has closed is not trained again, so one without a record is missed in silence."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.is_finished() and GIVEN_UP not in trial.user_attrs and trial.number not in self._ledger:
                gone = self.folder.trial(trial.number).record
                self.view.note(f"trial {trial.number} has ended, but {gone} is gone: it is not ranked")

    def _ask_to_leave(self, executor: Executor) -> None:
        if self._asked_to_leave:
            return
        self._asked_to_leave = True
        for number in executor.running():
            executor.answer(number, "leave")
        over = self.budget.over()
        why, how = "stopping", "the same command"
        if not self.stop.is_set() and not self.halted and over is not None:
            why, _, more = over.partition("; ")
            how += f" {more}"
        self.view.note(f"{why}: running trials write a checkpoint and leave; {how} goes on with them")


def _record(job: Job, outcome: Outcome) -> Record:
    return Record(job=job, outcome=outcome, version=program_version())
