"""The driver without processes: an executor plays what workers would report; everything else is real."""

from collections import deque
from collections.abc import Callable, Iterable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console
from searches import CELLS, complete, tiny_config, write_findings

from nas.commands.live_view import PlainView
from nas.config.search_config import SearchConfig
from nas.jobs.task import CellSearchTask, Task, TrialTask
from nas.search.driver import Driver
from nas.study.buildable import find_buildable
from nas.study.study import open_study
from nas.workers.protocol import Died, Ended, Event, Progress, Ready, Scored
from results.record import Outcome, Record, read_record
from results.run_folder import RunFolder, create
from search_spaces.errors import InputError

Play = Callable[[Task], Iterable[Event]]  # what the worker of a task reports, if nobody asks it to leave
LEFT = Outcome(state="interrupted", reason="left at step 3 of 9")


class Played:
    """An executor whose workers are ready at once and report what is played; told to leave, they leave."""

    def __init__(self, play: Play, workers: int, hours: float) -> None:
        self.started: list[Task] = []
        self.left: list[str] = []  # tasks that were told to leave
        self._play, self._workers, self._hours = play, workers, hours
        self._events: deque[Event] = deque([Ready(device="cpu")])
        self._ready = False
        self._running: list[str] = []

    @property
    def size(self) -> int:
        return self._workers

    def any_ready(self) -> bool:
        return self._ready

    def idle(self) -> int:
        return self._workers - len(self._running) if self._ready else 0

    def running(self) -> list[str]:
        return list(self._running)

    def busy_seconds(self) -> float:
        return 3600 * self._hours if self.started else 0.0

    def start(self, task: Task) -> None:
        assert self.idle() and task.id not in self._running
        self.started.append(task)
        self._running.append(task.id)
        self._events.extend(self._play(task))

    def leave(self, task: str) -> None:
        self.left.append(task)
        self._events.append(Ended(task=task, outcome=LEFT))

    def next_event(self, timeout: float) -> Event | None:
        event = self._events.popleft() if self._events else None
        if isinstance(event, Ready):
            self._ready = True
        elif isinstance(event, Ended | Died) and event.task is not None:
            self._running.remove(event.task)
        return event


class Search:
    """A driver of a run folder, and what it printed."""

    def __init__(self, folder: RunFolder, config: SearchConfig) -> None:
        self._out = StringIO()
        self.folder = folder
        possible = find_buildable(config)
        self.study = open_study(folder, config)
        view = PlainView(Console(file=self._out, width=200))
        self.driver = Driver(self.study, config, folder, ("k",), view, possible)

    def run(self, play: Play, workers: int = 1, hours: float = 0.0) -> Played:
        executor = Played(play, workers, hours)
        self.driver.run(executor)  # type: ignore[arg-type]
        return executor

    @property
    def printed(self) -> str:
        return self._out.getvalue()

    def states(self) -> list[str]:
        """The states of the trials in the study."""
        return [trial.state.name for trial in self.study.trials]

    def record(self, trial: int) -> Record:
        record = read_record(self.folder.trial(trial).record)
        assert record is not None
        return record


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create(tmp_path / "run")


def _config(*changes: dict[str, dict[str, Any]]) -> SearchConfig:
    return tiny_config({"study": {"trials": 1, "leaders": 0}}, *changes)


def _trains(task: Task) -> list[Event]:
    """Every training completes; later ones score better."""
    assert isinstance(task, TrialTask)
    return [Ended(task=task.id, outcome=complete(1 + task.job.trial))]


def _dies(task: Task) -> list[Event]:
    return [Died(task=task.id, reason="killed")]


def _stays(task: Task) -> list[Event]:
    return [Progress(task=task.id, phase="train", done=1, total=9, loss=0.5)]


def test_a_search_trains_records_ranks_and_repeats_the_leader(folder: RunFolder) -> None:
    search = Search(folder, _config({"study": {"leaders": 1, "seeds": 2}}))
    executor = search.run(_trains)
    assert [task.id for task in executor.started] == ["trial-0", "trial-1", "trial-2"]
    assert search.states() == ["COMPLETE"] * 3
    assert [row.trial for row in search.driver.board().rows] == [1, 0]
    assert search.driver.board().rows[0].seeds == 2
    assert search.record(2).job.repeats == 1
    assert folder.leaderboard_json.is_file()
    assert [line.split(":")[0] for line in search.printed.splitlines()[1:]] == [
        f"trial {number}" for number in (0, 0, 1, 1, 2, 2)
    ]
    assert not Search(folder, _config({"study": {"leaders": 1, "seeds": 2}})).driver.has_work()


def test_every_trial_has_its_job_written_down_before_it_begins(folder: RunFolder) -> None:
    def play(task: Task) -> list[Event]:
        assert isinstance(task, TrialTask)
        assert folder.trial(task.job.trial).job.read_text() == task.job.model_dump_json(indent=2)
        return _trains(task)

    Search(folder, _config()).run(play)


def test_the_study_learns_a_score_at_a_rung(folder: RunFolder) -> None:
    def play(task: Task) -> list[Event]:
        return [Scored(task=task.id, step=3, value=0.25), *_trains(task)]

    search = Search(folder, _config())
    search.run(play)
    assert search.study.trials[0].intermediate_values[3] == 0.25
    assert "trial 0: score 0.250 at step 3\n" in search.printed


def test_a_dead_worker_costs_an_attempt_and_the_trial_goes_on(folder: RunFolder) -> None:
    deaths = iter([True])

    def play(task: Task) -> list[Event]:
        return _dies(task) if next(deaths, False) else _trains(task)

    search = Search(folder, _config())
    executor = search.run(play)
    assert [task.id for task in executor.started] == ["trial-0", "trial-0", "trial-1"]
    assert folder.trial(0).attempts.read_text() == '{"reason": "killed"}\n'
    assert "note: trial 0: killed; attempt 2 of 3 resumes it\ntrial 0: plain, resumed\n" in search.printed
    assert search.states() == ["COMPLETE"] * 2


def test_a_trial_whose_workers_die_again_and_again_has_failed(folder: RunFolder) -> None:
    search = Search(folder, _config({"study": {"trials": 0, "attempts": 2}}))
    executor = search.run(_dies)
    assert len(executor.started) == 2
    assert search.record(0).outcome == Outcome(state="failed", reason="killed, 2 times")
    assert search.states() == ["FAIL"]


def test_attempts_of_an_earlier_driver_count(folder: RunFolder) -> None:
    config = _config({"study": {"trials": 0, "attempts": 3}})
    first = Search(folder, config)
    played = iter([_dies, _stays])

    def play(task: Task) -> list[Event]:
        events = next(played)(task)
        if len(events) and isinstance(events[0], Progress):
            first.driver.stop.set()
        return events

    first.run(play)
    assert first.states() == ["RUNNING"]
    second = Search(folder, config)
    assert len(second.run(_dies).started) == 2
    assert second.record(0).outcome.reason == "killed, 3 times"


def test_a_stopped_driver_lets_the_workers_leave_and_another_driver_continues(folder: RunFolder) -> None:
    search = Search(folder, _config())

    def play(task: Task) -> list[Event]:
        if task.id == "trial-1":
            search.driver.stop.set()
        return _stays(task)

    executor = search.run(play, workers=2)
    assert sorted(executor.left) == ["trial-0", "trial-1"]
    assert "running trials write a checkpoint and leave; the same command continues them" in search.printed
    assert search.states() == ["RUNNING"] * 2
    assert search.record(0).outcome == LEFT
    again = Search(folder, _config())
    assert again.run(_trains).started == executor.started
    assert again.states() == ["COMPLETE"] * 2
    assert "trial 1: " in again.printed and ", resumed" in again.printed


def test_a_worker_that_dies_while_it_is_stopped_costs_no_attempt(folder: RunFolder) -> None:
    search = Search(folder, _config())

    def play(task: Task) -> list[Event]:
        search.driver.stop.set()
        return _dies(task)

    search.run(play)
    assert not folder.trial(0).attempts.exists()
    assert search.record(0).outcome == Outcome(state="interrupted", reason="killed")
    assert search.states() == ["RUNNING"]


def test_a_trial_that_was_recorded_but_not_reported_to_the_study_is_not_trained_again(folder: RunFolder) -> None:
    search = Search(folder, _config({"study": {"trials": 0}}))

    def play(task: Task) -> list[Event]:
        search.driver.stop.set()
        return _stays(task)

    (task,) = search.run(play).started
    assert isinstance(task, TrialTask)
    done = Record(job=task.job, outcome=complete(3), version="of before")
    folder.trial(0).record.write_text(done.model_dump_json())
    again = Search(folder, _config({"study": {"trials": 0}}))
    assert again.run(_trains).started == []
    assert again.states() == ["COMPLETE"]
    assert again.record(0) == done


def test_checkpoints_go_when_a_trial_is_over_and_stay_when_it_was_interrupted(folder: RunFolder) -> None:
    search = Search(folder, _config())

    def play(task: Task) -> list[Event]:
        task.place(folder).checkpoints.mkdir()
        if task.id == "trial-0":
            return _trains(task)
        search.driver.stop.set()
        return _stays(task)

    search.run(play)
    assert [folder.trial(number).checkpoints.exists() for number in (0, 1)] == [False, True]


def test_a_full_disk_ends_the_search_with_its_reason(folder: RunFolder) -> None:
    def play(task: Task) -> list[Event]:
        full = Outcome(state="interrupted", reason="the disk is full")
        return [Ended(task=task.id, outcome=full)] if task.id == "trial-1" else _stays(task)

    search = Search(folder, _config())
    with pytest.raises(
        InputError, match=r"^the disk is full; once that is fixed, run the same command again to continue$"
    ):
        search.run(play, workers=2)
    assert search.states() == ["RUNNING"] * 2


def test_a_budget_that_is_used_up_is_named_with_how_to_continue(folder: RunFolder) -> None:
    search = Search(folder, _config({"study": {"gpu_hours": 1.0}}))
    executor = search.run(_stays, hours=1.5)
    assert executor.left == ["measure"]  # which comes first, to make a plan
    assert "note: 1 GPU hours are used up: running trials" in search.printed
    assert "leave; the same command with a larger study.gpu_hours continues them" in search.printed
    assert not Search(folder, _config({"study": {"gpu_hours": 1.0}})).driver.has_work()
    assert Search(folder, _config({"study": {"gpu_hours": 2.0}})).driver.has_work()


def test_a_worker_that_is_not_started_again_is_named(folder: RunFolder) -> None:
    def play(task: Task) -> list[Event]:
        return [Died(task=None, reason="killed", given_up="no worker can be started on cuda:1"), *_trains(task)]

    search = Search(folder, _config())
    search.run(play)
    assert "note: no worker can be started on cuda:1\n" in search.printed
    assert search.states() == ["COMPLETE"] * 2


def test_cells_are_searched_and_then_trained(folder: RunFolder) -> None:
    config = _config(CELLS, {"fixed": {}, "study": {"trials": 2}})

    def play(task: Task) -> list[Event]:
        if isinstance(task, CellSearchTask):
            write_findings(folder, task.plan, config)
            return [Ended(task=task.id, outcome=Outcome(state="complete", seconds=3.0))]
        return _trains(task)

    search = Search(folder, config)
    executor = search.run(play)
    assert [task.id for task in executor.started] == ["cells-16", "trial-0", "trial-1"]
    assert "cell search cells-16: 5 steps, then " in search.printed
    assert "cell search cells-16: complete, 3 s\n" in search.printed
    assert {row.family for row in search.driver.board().rows} == {"cells"}


@pytest.mark.parametrize("state", ["failed", "infeasible"])
def test_a_cell_search_that_fails_gives_up_its_trials_with_the_reason(folder: RunFolder, state: str) -> None:
    config = _config(CELLS, {"fixed": {}, "study": {"trials": 2}})

    def play(task: Task) -> list[Event]:
        outcome = Outcome.model_validate({"state": state, "reason": "the loss became nan"})
        return [Ended(task=task.id, outcome=outcome)]

    search = Search(folder, config)
    search.run(play, workers=2)  # the second asks for trials, which wait for the cells
    assert folder.cells("cells-16").failure.read_text() == "the loss became nan\n"
    assert f"cell search cells-16: {state}, the loss became nan" in search.printed
    assert f"delete {folder.cells('cells-16').failure} to try the cell search cells-16 again\n" in search.printed
    assert search.states() == ["FAIL"] * 2
    assert {trial.user_attrs["reason"] for trial in search.study.trials} == {
        "the cell search cells-16 failed: the loss became nan"
    }
    assert search.driver.board().rows == ()


def test_a_cell_search_whose_workers_die_again_and_again_has_failed(folder: RunFolder) -> None:
    search = Search(folder, _config(CELLS, {"fixed": {}}, {"study": {"attempts": 2}}))
    executor = search.run(_dies)
    assert [task.id for task in executor.started] == ["cells-16"] * 2
    assert len(folder.cells("cells-16").attempts.read_text().splitlines()) == 2
    assert folder.cells("cells-16").failure.read_text() == "killed, 2 times\n"


def test_a_cell_search_told_to_leave_is_neither_found_nor_failed(folder: RunFolder) -> None:
    search = Search(folder, _config(CELLS, {"fixed": {}, "study": {"trials": 2}}))

    def play(task: Task) -> list[Event]:
        search.driver.stop.set()
        return _stays(task)

    executor = search.run(play)
    assert executor.left == ["cells-16"]
    assert not folder.cells("cells-16").failure.exists()
    assert "cell search cells-16: interrupted, left at step 3 of 9" in search.printed


def test_a_record_that_is_gone_is_named(folder: RunFolder) -> None:
    Search(folder, _config()).run(_trains)
    folder.trial(1).record.unlink()
    gone = Search(folder, _config())
    assert f"note: trial 1 has ended, but {folder.trial(1).record} is gone: it is not ranked" in gone.printed
    assert [trial.state for trial in gone.study.trials] == [TrialState.COMPLETE] * 2


def test_a_score_at_a_rung_is_said_once_although_a_trial_that_goes_on_reports_it_again(folder: RunFolder) -> None:
    def pauses(task: Task) -> list[Event]:
        assert isinstance(task, TrialTask)
        scored, job = Scored(task=task.id, step=3, value=0.25), task.job
        paused = Outcome(state="paused", so_far=0.25, step=3)
        return [scored, Ended(task=task.id, outcome=paused)] if job.until else [scored, *_trains(task)]

    search = Search(folder, _config({"study": {"promotion": "halving", "rungs": 1}}))
    search.run(pauses)
    assert search.states() == ["COMPLETE", "PRUNED", "COMPLETE"]  # the fixed one, the candidate, and its way on
    assert search.printed.count("score 0.250 at step 3") == 2
