"""What a search shows while it runs."""

from io import StringIO

import pytest
from rich.console import Console
from searches import complete, trial_task

from nas.commands.live_view import LiveView
from nas.jobs.task import CellSearchTask
from nas.workers.protocol import Progress, Scored
from results.leaderboard.ranking import rank
from results.record import Outcome, Record
from trainers.cell_search.run import CellPlan
from trainers.metrics.score import ScoreConfig

SEARCH = CellSearchTask(plan=CellPlan(family="cells", crop=16))


@pytest.fixture
def view() -> LiveView:
    return LiveView(Console(file=StringIO(), width=150))


def _shown(view: LiveView) -> str:
    """The table as it is now, and what was printed above it."""
    view._console.print(view._render())
    assert isinstance(view._console.file, StringIO)
    return view._console.file.getvalue()


def test_the_live_table_shows_trials_and_cell_searches_with_their_progress(view: LiveView) -> None:
    task = trial_task(3)
    view.plan(candidates=9, finished=2, minutes_left=None)
    view.started(task, "resnet10t", resumed=False)
    view.started(SEARCH, "12 steps", resumed=True)
    view.progress(Progress(task=task.id, phase="train", done=3, total=6, loss=0.125))
    view.scored(task, Scored(task=task.id, step=2, value=0.75))
    view.progress(Progress(task=SEARCH.id, phase="search", done=1, total=12, loss=None))
    shown = _shown(view)
    for words in ("trial 3", "resnet10t", "train 3/6", "0.125", "0.750", "cell search cells-16", "search 1/12"):
        assert words in shown
    assert "2 of 9 candidates (none ended yet)" in shown


def test_the_progress_of_a_trial_goes_only_forward(view: LiveView) -> None:
    task = trial_task(3)
    view.started(task, "resnet10t", resumed=False)
    # A branch from step 3 to 6 is scored, then the trunk goes on from step 3.
    reports = [("train", 3, 10), ("train", 6, 10), ("score", 1, 4), ("train", 4, 10), ("train", 7, 10)]
    for (phase, done, total), words in zip(
        reports, ("train 3/10", "train 6/10", "score", "train 6/10", "train 7/10"), strict=True
    ):
        view.progress(Progress(task=task.id, phase=phase, done=done, total=total, loss=None))
        shown = _shown(view)
        assert words in shown[shown.rindex("running") :]
    view.started(task, "resnet10t", resumed=True)  # by another worker, from the last checkpoint
    view.progress(Progress(task=task.id, phase="train", done=2, total=10, loss=None))
    shown = _shown(view)
    assert "train 2/10" in shown[shown.rindex("running") :]


def test_tasks_that_have_ended_leave_the_live_table_and_candidates_are_counted(view: LiveView) -> None:
    again = trial_task(2)
    again = again.model_copy(update={"job": again.job.model_copy(update={"repeats": 0})})
    view.plan(candidates=3, finished=0, minutes_left=None)
    for task, outcome in (
        (trial_task(0), complete(3)),
        (trial_task(1), Outcome(state="infeasible", reason="out of memory")),
        (again, Outcome(state="failed", reason="the loss became nan")),
    ):
        view.started(task, "network", resumed=False)
        board = rank([Record(job=task.job, outcome=outcome, version="0")], "tiny", "k", ScoreConfig())
        view.ended(task, outcome, board)
    view.started(SEARCH, "12 steps", resumed=False)
    view.ended(SEARCH, Outcome(state="complete", seconds=3.0), None)
    shown = _shown(view)
    assert "running" not in shown
    assert "2 of 3 candidates (1 complete, 1 infeasible)" in shown
    assert "note: trial 2 failed: the loss became nan" in shown
    assert "note: cell search cells-16: complete, 3 s" in shown
