"""The worker process itself, spoken to over its pipe as a driver does."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from searches import phantom_run, trial_task

from nas.config.read import read_config
from nas.jobs.kidneys import check_same_data, open_fold
from nas.jobs.task import CellSearchTask
from nas.workers.process import WorkerProcess, start_process
from nas.workers.protocol import Ended, Event, Leave, Open, Order, Progress, Ready, Refused, Scored, Start, from_worker
from results.run_folder import RunFolder
from trainers.cell_search.run import CellPlan

pytestmark = pytest.mark.slow

Kind = TypeVar("Kind", Ended, Progress, Ready, Refused, Scored)


class Spoken:
    """One worker, and everything it has said so far."""

    def __init__(self, started: WorkerProcess) -> None:
        self.process: subprocess.Popen[str] = started.process
        self.said: list[Event] = []
        self._lines = os.fdopen(started.channel, encoding="utf-8")

    def send(self, message: Order) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(message.model_dump_json() + "\n")

    def until(self, kind: type[Kind]) -> Kind:
        """The next message of a kind."""
        for line in self._lines:
            self.said.append(from_worker.validate_json(line))
            if isinstance(self.said[-1], kind):
                return self.said[-1]
            assert not isinstance(self.said[-1], Ended), self.said[-1]
        raise AssertionError(f"the worker ended with {self.process.wait()} before any {kind.__name__}")

    def close(self) -> int:
        """Close its input; its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(timeout=60)
        self._lines.close()
        return code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return phantom_run(tmp_path_factory.mktemp("worker"))


@pytest.fixture(scope="module")
def worker(folder: RunFolder) -> Iterator[Spoken]:
    """A worker that has opened its run; it does the tasks of one test after another, as in a search."""
    worker = Spoken(start_process())
    worker.send(Open(run=str(folder.path), device="cpu", threads=1, log=str(folder.worker_log(0))))
    assert worker.until(Ready) == Ready(device="cpu")
    yield worker
    if worker.process.poll() is None:
        worker.process.kill()
        worker.close()


def test_it_trains_scores_and_reports_how_it_ended(worker: Spoken, folder: RunFolder) -> None:
    task = trial_task(1)
    task = task.model_copy(update={"job": task.job.model_copy(update={"rungs": (2,)})})
    worker.send(Start(task=task))
    scored = worker.until(Scored)
    assert (scored.task, scored.step) == ("trial-1", 2)
    ended = worker.until(Ended)
    assert (ended.task, ended.last, ended.outcome.state, ended.outcome.step) == ("trial-1", False, "complete", 6)
    assert ended.outcome.score is not None
    assert ended.outcome.seconds is not None
    assert {event.task for event in worker.said if isinstance(event, Progress)} == {"trial-1"}
    assert task.place(folder).overlay.is_file()


def test_a_task_that_fails_is_an_outcome_with_its_reason_and_its_log_has_the_traceback(
    worker: Spoken, folder: RunFolder
) -> None:
    task = trial_task(2, crop=33)
    worker.send(Start(task=task))
    outcome = worker.until(Ended).outcome
    assert outcome.state == "failed" and str(outcome.reason).endswith("set the crop to 32 or 64")
    assert "Traceback" in task.place(folder).log.read_text()


def test_a_cell_search_that_fails_ends_the_same_way(worker: Spoken, folder: RunFolder) -> None:
    task = CellSearchTask(plan=CellPlan(family="cells", crop=17))
    worker.send(Start(task=task))
    ended = worker.until(Ended)
    assert (ended.task, ended.outcome.state) == ("cells-17", "failed")
    assert str(ended.outcome.reason).startswith("crop 17 of family 'cells' must be a multiple of")
    assert "Traceback" in task.place(folder).log.read_text()


def test_a_cell_search_leaves_when_told_to(worker: Spoken) -> None:
    worker.send(Start(task=CellSearchTask(plan=CellPlan(family="cells", crop=16))))
    assert worker.until(Progress).task == "cells-16"
    worker.send(Leave(task="cells-16"))
    assert worker.until(Ended).outcome.state == "interrupted"


def test_a_recipe_with_another_precision_runs_in_the_same_worker_and_pauses_at_its_rung(
    worker: Spoken, folder: RunFolder
) -> None:
    task = trial_task(3, precision="bfloat16")
    task = task.model_copy(update={"job": task.job.model_copy(update={"until": 2})})
    worker.send(Start(task=task))
    score = worker.until(Scored)
    outcome = worker.until(Ended).outcome
    assert (outcome.state, outcome.step, outcome.so_far) == ("paused", 2, score.value)
    assert str(outcome.reason).startswith("scored at step 2: surface dice ")
    assert list(task.place(folder).checkpoints.iterdir())


def test_a_trial_told_to_leave_writes_a_checkpoint(worker: Spoken, folder: RunFolder) -> None:
    task = trial_task(4, steps=300)
    worker.send(Start(task=task))
    worker.until(Progress)
    worker.send(Leave(task="trial-3"))  # another task
    worker.until(Progress)
    worker.send(Leave(task="trial-4"))
    outcome = worker.until(Ended).outcome
    assert outcome.state == "interrupted"
    assert 0 < outcome.step < 300
    assert len(list(task.place(folder).checkpoints.iterdir())) == 1


def test_it_ends_when_its_input_is_closed_even_in_the_middle_of_a_task(worker: Spoken, folder: RunFolder) -> None:
    worker.send(Start(task=trial_task(5, steps=100_000)))
    worker.until(Progress)
    assert worker.close() == 0
    assert not Path(trial_task(5).place(folder).record).exists()


def test_a_worker_that_finds_other_data_than_the_search_began_with_says_so_and_ends(tmp_path: Path) -> None:
    folder = phantom_run(tmp_path)
    known = {"train": {}, "held_out": {"phantom_3": "of another time"}}
    folder.identity.write_text(json.dumps({"data": known, "version": "0"}))
    worker = Spoken(start_process())
    worker.send(Open(run=str(folder.path), device="cpu", threads=1, log=str(tmp_path / "log")))
    assert "holds a search on other data" in worker.until(Refused).reason
    worker.close()


def test_a_worker_that_finds_no_scans_says_so_and_ends(tmp_path: Path) -> None:
    folder = phantom_run(tmp_path)
    text = folder.config.read_text()
    folder.config.write_text(text.replace("[data]", f'[data]\nroot = "{tmp_path}/gone"', 1))
    worker = Spoken(start_process())
    worker.send(Open(run=str(folder.path), device="cpu", threads=1, log=str(tmp_path / "log")))
    assert f"{tmp_path}/gone: there is no such file or folder" in worker.until(Refused).reason
    worker.close()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_labels_of_another_fold_that_changed_end_the_search_and_not_the_trial(tmp_path: Path) -> None:
    folder = phantom_run(tmp_path)
    config = read_config(folder.config)
    check_same_data(folder, [open_fold(config, folder), open_fold(config, folder, hold_out="phantom_1")])
    known = json.loads(folder.identity.read_text())
    known["data"]["phantom_1 held out: held-out"]["phantom_1"] = "of another time"
    folder.identity.write_text(json.dumps(known))
    worker = Spoken(start_process())
    worker.send(Open(run=str(folder.path), device="cpu", threads=1, log=str(tmp_path / "log")))
    worker.until(Ready)
    task = trial_task(1)
    worker.send(Start(task=task.model_copy(update={"job": task.job.model_copy(update={"hold_out": "phantom_1"})})))
    assert "phantom_1 held out: held-out volume phantom_1 has changed" in worker.until(Refused).reason
    worker.close()


def test_a_log_is_not_written_where_a_link_leads(tmp_path: Path) -> None:
    folder = phantom_run(tmp_path / "run")
    (tmp_path / "mine").write_text("mine")
    task = trial_task(1)
    task.place(folder).path.mkdir()
    task.place(folder).log.symlink_to(tmp_path / "mine")
    worker = Spoken(start_process())
    worker.send(Open(run=str(folder.path), device="cpu", threads=1, log=str(tmp_path / "log")))
    worker.until(Ready)
    worker.send(Start(task=task))
    assert "log.txt cannot be written" in worker.until(Refused).reason
    worker.close()
    assert (tmp_path / "mine").read_text() == "mine"
