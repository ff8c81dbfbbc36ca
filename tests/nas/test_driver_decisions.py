"""The driver's decisions, without a worker: what comes next, what comes again, what is stopped, and when it is over."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from searches import CELLS, complete, tiny_config, trial_task, write_findings

from nas.config.search_config import SearchConfig
from nas.config.study_config import GIVEN_UP
from nas.jobs.task import CellSearchTask, Task, TrialTask
from nas.search.decisions import MOST_HELD, Decisions, GiveUp, Recorded
from nas.search.diagnosis import diagnose
from nas.search.planning import Planner
from nas.study.budget import Budget
from nas.study.buildable import find_buildable
from nas.study.study import open_study, tell
from results.leaderboard.leaderboard import State
from results.leaderboard.ledger import Ledger
from results.leaderboard.ranking import rank
from results.record import Outcome, Record
from results.run_folder import RunFolder, create
from trainers.cell_search.run import CellPlan
from trainers.metrics.score import ScoreConfig

BOTH: dict[str, dict[str, Any]] = {**CELLS, "space": {**CELLS["space"], "families": ["unet", "cells"]}}
NO_BASELINE: dict[str, dict[str, Any]] = {"fixed": {}}
LEFT = Outcome(state="interrupted", reason="left at step 3 of 9")
FAILED = Outcome(state="failed", reason="the loss became nan")


@dataclass
class Search:
    """Decisions about a real study, and what a driver does about them."""

    folder: RunFolder
    config: SearchConfig
    decisions: Decisions = field(init=False)

    def __post_init__(self) -> None:
        possible = find_buildable(self.config)
        self.study = open_study(self.folder, self.config)
        self.ledger = Ledger(self.folder, "tiny", "k", self.config.score)
        budget = Budget(self.config.study, self.study)
        self.planner = Planner(self.config, possible, self.folder, self.study, budget)
        self.decisions = Decisions(self.study, self.planner, self.folder, budget, self.ledger.board)

    def begin(self) -> Task:
        """The next step, which is a task."""
        step = self.decisions.next_step()
        assert isinstance(step, TrialTask | CellSearchTask), step
        step.prepare(self.folder)
        return step

    def end(self, task: Task, outcome: Outcome) -> None:
        if isinstance(task, TrialTask):
            record = Record(job=task.job, outcome=outcome, version="0")
            self.ledger.add(record)
            tell(self.study, self.decisions.trial(task.id), record)
        self.decisions.closed(task, outcome)

    def searched(self, task: Task) -> None:
        """End a cell search as if it had found its cells."""
        assert isinstance(task, CellSearchTask)
        write_findings(self.folder, task.plan, self.config)
        self.end(task, Outcome(state="complete"))

    def failed(self, task: Task) -> None:
        """End a cell search as if it had found none."""
        assert isinstance(task, CellSearchTask)
        task.place(self.folder).failure.write_text("the loss became nan\n")
        self.end(task, FAILED)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create(tmp_path / "run")


def _job(task: Task) -> tuple[int, str, int | None, int]:
    assert isinstance(task, TrialTask)
    return task.job.trial, task.job.name, task.job.repeats, task.job.seed


def test_the_baseline_comes_first_then_new_candidates_then_the_leader_with_other_seeds(folder: RunFolder) -> None:
    search = Search(folder, tiny_config({"study": {"trials": 2, "leaders": 1, "seeds": 2}}))
    baseline, second, third = (search.begin() for _ in range(3))
    assert _job(baseline)[:2] == (0, "plain")
    assert [task.id for task in (second, third)] == ["trial-1", "trial-2"]
    search.end(second, complete(4))
    search.end(baseline, complete(0))
    assert search.decisions.next_step() is None  # who leads is known when all candidates are in
    search.end(third, complete(2))
    _, name, _, seed = _job(second)
    repeat = search.begin()
    assert _job(repeat) == (3, name, 1, seed + 1)
    search.end(repeat, complete(3))
    assert search.decisions.next_step() is None
    assert not search.decisions.has_work()


@pytest.mark.parametrize(("seeds", "expected"), [(1, []), (2, [(3, 1), (1, 1)])])
def test_finalists_are_trained_with_the_same_seeds(
    folder: RunFolder, seeds: int, expected: list[tuple[int, int]]
) -> None:
    search = Search(folder, tiny_config({"study": {"trials": 3, "leaders": 2, "seeds": seeds}}))
    for quality in (0, 3, 1, 4):
        search.end(search.begin(), complete(quality))
    asked = []
    for _ in expected:
        task = search.begin()
        _, _, repeats, seed = _job(task)
        asked.append((repeats, seed - search.config.study.seed))
        search.end(task, complete(4))
    assert asked == expected
    assert search.decisions.next_step() is None


def test_every_leader_is_repeated_starting_with_the_first(folder: RunFolder) -> None:
    search = Search(folder, tiny_config({"study": {"trials": 2, "leaders": 2, "seeds": 2}}))
    for quality in (3, 1, 4):
        search.end(search.begin(), complete(quality))
    assert [_job(search.begin())[2] for _ in range(2)] == [2, 0]
    assert search.decisions.next_step() is None


def test_cell_searches_come_first_and_meanwhile_trials_that_need_no_cells(folder: RunFolder) -> None:
    search = Search(folder, tiny_config(BOTH, NO_BASELINE, {"study": {"trials": 20}}))
    assert search.begin().id == "cells-16"
    task = search.begin()
    assert isinstance(task, TrialTask)
    assert task.job.candidate.family == "unet"


def test_one_worker_trains_the_baselines_first_while_others_search_cells(folder: RunFolder) -> None:
    search = Search(folder, tiny_config(BOTH))
    assert [search.begin().id for _ in range(2)] == ["trial-0", "cells-16"]


def test_trials_wait_for_their_cells_and_come_first_when_these_are_found(folder: RunFolder) -> None:
    search = Search(folder, tiny_config(CELLS, NO_BASELINE, {"study": {"trials": 5}}))
    cells = search.begin()
    assert search.decisions.next_step() is None
    search.searched(cells)
    found = [search.begin() for _ in range(5)]
    assert [task.id for task in found] == [f"trial-{number}" for number in range(5)]
    assert all(isinstance(task, TrialTask) and task.job.candidate.family == "cells" for task in found)


def test_only_so_many_trials_wait_for_cells(folder: RunFolder) -> None:
    search = Search(folder, tiny_config(CELLS, NO_BASELINE, {"study": {"trials": 40}}))
    search.begin()
    assert search.decisions.next_step() is None
    assert len(search.study.get_trials(states=(optuna.trial.TrialState.RUNNING,))) == MOST_HELD + 1


def test_a_trial_without_its_cells_is_given_up_and_nothing_else_is_tried(folder: RunFolder) -> None:
    search = Search(folder, tiny_config(CELLS, NO_BASELINE, {"study": {"trials": 2}}))
    cells = search.begin()
    assert search.decisions.next_step() is None
    search.failed(cells)
    for number in range(2):
        step = search.decisions.next_step()
        assert isinstance(step, GiveUp)
        assert (step.trial.number, step.reason) == (number, "the cell search cells-16 failed: the loss became nan")
        step.trial.set_user_attr(GIVEN_UP, True)
        search.study.tell(number, state=optuna.trial.TrialState.FAIL)
    assert search.decisions.next_step() is None  # though two candidates are wanted


def test_a_baseline_is_trained_though_no_cells_were_found(folder: RunFolder) -> None:
    config = tiny_config(CELLS)
    place = folder.cells("cells-16")
    place.path.mkdir(parents=True)
    place.failure.write_text("the loss became nan\n")
    search = Search(folder, config)
    assert search.begin().id == "trial-0"
    assert search.decisions.next_step() is None


def test_a_trial_whose_worker_died_comes_again_before_anything_new(folder: RunFolder) -> None:
    search = Search(folder, tiny_config())
    task = search.begin()
    assert search.decisions.lost(task, "killed", deaths=1) is None
    assert search.decisions.busy_trials() == set()
    assert search.begin() == task
    assert search.decisions.busy_trials() == {0}


def test_a_cell_search_whose_worker_died_comes_again(folder: RunFolder) -> None:
    search = Search(folder, tiny_config(BOTH, NO_BASELINE))
    task = search.begin()
    assert search.decisions.lost(task, "killed", deaths=1) is None
    assert search.begin() == task


@pytest.mark.parametrize("settings", [{}, BOTH], ids=["trial", "cell search"])
def test_a_task_whose_workers_died_too_often_has_failed(folder: RunFolder, settings: dict[str, Any]) -> None:
    search = Search(folder, tiny_config(settings, NO_BASELINE, {"study": {"attempts": 3}}))
    task = search.begin()
    assert search.decisions.lost(task, "killed", deaths=3) == Outcome(state="failed", reason="killed, 3 times")


def test_a_worker_that_dies_when_the_user_stops_leaves_its_task_interrupted(folder: RunFolder) -> None:
    search = Search(folder, tiny_config())
    task = search.begin()
    search.decisions.stop.set()
    assert search.decisions.lost(task, "killed", deaths=9) == Outcome(state="interrupted", reason="killed")


def test_what_an_earlier_driver_left_running_comes_first_and_is_the_same(folder: RunFolder) -> None:
    before = Search(folder, tiny_config())
    tasks = [before.begin() for _ in range(2)]
    before.end(tasks[0], LEFT)
    after = Search(folder, tiny_config())
    assert after.decisions.finished() == 0
    assert [after.begin() for _ in range(2)] == tasks
    assert after.begin().id == "trial-2"


def test_a_trial_that_ended_before_the_study_was_told_is_closed_with_its_record(folder: RunFolder) -> None:
    before = Search(folder, tiny_config())
    task = before.begin()
    assert isinstance(task, TrialTask)
    record = Record(job=task.job, outcome=complete(3), version="0")
    before.ledger.add(record)
    after = Search(folder, tiny_config())
    assert after.decisions.next_step() == Recorded(record)


HALVING: dict[str, dict[str, Any]] = {"study": {"promotion": "halving", "trials": 4, "reduction": 2, "leaders": 0}}


def _pause(search: Search, task: Task, so_far: float) -> None:
    assert isinstance(task, TrialTask) and task.job.until is not None
    search.end(task, Outcome(state="paused", reason="scored", so_far=so_far, step=task.job.until))


def test_the_better_half_of_the_paused_trials_go_on_and_the_baseline_does_not_pause(folder: RunFolder) -> None:
    search = Search(folder, tiny_config(HALVING))
    baseline = search.begin()
    assert isinstance(baseline, TrialTask) and baseline.job.until is None
    search.end(baseline, complete(1))
    begun = []
    for so_far in (0.3, 0.6, None, 0.5, 0.7, None):
        task = search.begin()
        assert isinstance(task, TrialTask)
        begun.append((task.job.trial, task.job.until))
        if so_far is None:
            search.end(task, complete(2))
        else:
            _pause(search, task, so_far)
    # Trial 3 is the second half of trial 2: the study needs a number of its own for it.
    assert begun == [(1, 4), (2, 4), (2, None), (4, 4), (5, 4), (5, None)]
    assert search.decisions.next_step() is None
    assert not search.decisions.has_work()


def test_a_promotion_whose_driver_died_goes_on_before_anything_else(folder: RunFolder) -> None:
    before = Search(folder, tiny_config(HALVING))
    before.end(before.begin(), complete(1))
    for so_far in (0.3, 0.6):
        _pause(before, before.begin(), so_far)
    promoted = before.begin()
    after = Search(folder, tiny_config(HALVING))
    assert after.begin() == promoted


def test_more_trials_promote_more_of_those_that_paused(folder: RunFolder) -> None:
    search = Search(folder, tiny_config(HALVING, {"study": {"trials": 2}}))
    search.end(search.begin(), complete(1))
    for so_far in (0.3, 0.6):
        _pause(search, search.begin(), so_far)
    search.end(search.begin(), complete(2))
    assert not search.decisions.has_work()
    more = Search(folder, tiny_config(HALVING, {"study": {"trials": 4}}))
    for so_far in (0.2, 0.1):
        _pause(more, more.begin(), so_far)
    assert _job(more.begin())[0] == 1  # 0.3 is now in the better half


def test_an_interruption_that_nobody_asked_for_halts_the_search(folder: RunFolder) -> None:
    full = Outcome(state="interrupted", reason="the disk is full")
    search = Search(folder, tiny_config())
    first, second = search.begin(), search.begin()
    assert not search.decisions.over()
    search.end(first, full)
    assert search.decisions.halted == "the disk is full"
    assert search.decisions.over()
    search.decisions.leaving = True
    search.end(second, LEFT)
    assert search.decisions.halted == "the disk is full"


def test_a_trial_that_leaves_when_asked_to_halts_nothing(folder: RunFolder) -> None:
    search = Search(folder, tiny_config())
    task = search.begin()
    search.decisions.leaving = True
    search.end(task, LEFT)
    assert search.decisions.halted is None


def test_trials_that_keep_failing_halt_the_search(folder: RunFolder) -> None:
    search = Search(folder, tiny_config({"study": {"trials": 9}}))
    for _ in range(4):
        search.end(search.begin(), FAILED)
    assert not search.decisions.over()
    search.end(search.begin(), FAILED)
    assert str(search.decisions.halted).startswith("5 of the last 5 trials failed")
    assert str(search.decisions.halted).endswith(f"most often (5 x): the loss became nan; see {folder.trial(0).log}")


@pytest.mark.parametrize(
    ("ended", "halts"),
    [
        (["failed"] * 4, False),  # too few to say anything
        (["failed"] * 3 + ["complete"] * 2, True),
        (["failed"] * 3 + ["complete"] * 3, False),  # half of them is the limit
        (["infeasible"] * 19, False),  # the sampler learns to avoid them
        (["infeasible"] * 20, True),
        (["paused"] * 20, False),
    ],
)
def test_failures_halt_a_search_and_so_do_20_trials_that_do_not_fit(
    folder: RunFolder, ended: list[State], halts: bool
) -> None:
    records = [
        Record(job=trial_task(number).job, outcome=Outcome(state=state, reason=state), version="0")
        for number, state in enumerate(ended)
    ]
    assert (diagnose(ended, 0.5, rank(records, "tiny", "k", ScoreConfig()), folder) is not None) == halts


def test_the_time_of_all_drivers_is_a_limit(folder: RunFolder) -> None:
    search = Search(folder, tiny_config({"study": {"minutes": 1.0}}))
    assert search.decisions.has_work()
    search.study.set_user_attr("seconds", 61.0)
    late = Search(folder, search.config)
    assert late.decisions.over()
    assert not late.decisions.has_work()


def test_a_cell_search_is_known_by_the_name_of_its_folder(folder: RunFolder) -> None:
    search = Search(folder, tiny_config(BOTH, NO_BASELINE))
    task = search.begin()
    assert search.decisions.task("cells-16") == task == CellSearchTask(plan=CellPlan(family="cells", crop=16))
