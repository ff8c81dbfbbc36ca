"""The executor: messages, worker processes that are given tasks, and those that die."""

import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError
from searches import phantom_run, trial_task

from nas.jobs.task import CellSearchTask
from nas.workers.executor import Event, Executor
from nas.workers.launcher import Received
from nas.workers.local import LocalLauncher, LocalWorker, _why, devices, workers_on_cpu
from nas.workers.process import WorkerProcess
from nas.workers.protocol import (
    Died,
    Ended,
    Leave,
    Open,
    Progress,
    Ready,
    Scored,
    Start,
    from_driver,
    from_worker,
)
from results.record import Outcome
from results.run_folder import create
from search_spaces.errors import InputError
from trainers.cell_search.run import CellPlan

SECONDS = 120.0  # until a message comes, on a machine that is busy
SEARCH = CellSearchTask(plan=CellPlan(family="hybrid", crop=64))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "killed (signal 9): most likely the machine ran out of memory"),
        (-11, "the worker was killed by signal 11"),
        (1, "the worker ended with code 1"),
        (0, "the worker ended with code 0"),
    ],
)
def test_the_end_of_a_worker_is_put_in_words(code: int, words: str) -> None:
    assert _why(code).endswith(words)


@pytest.mark.parametrize(
    "message",
    [
        Ready(device="cuda:1"),
        Progress(task="trial-3", phase="train", done=1, total=9, loss=0.25),
        Progress(task="cells-16", phase="search", done=1, total=9, loss=None),
        Scored(task="trial-3", step=5, value=0.5),
        Ended(task="trial-3", outcome=Outcome(state="failed", reason="two\nlines · and µm")),
        Died(task=None, reason="gone"),
        Died(task="trial-4", reason="gone"),
    ],
    ids=lambda message: message.kind,
)
def test_a_message_of_a_worker_is_one_line_that_holds_all_of_it(message: BaseModel) -> None:
    line = message.model_dump_json()
    assert "\n" not in line
    assert from_worker.validate_json(line) == message


@pytest.mark.parametrize(
    "message",
    [
        Open(run="r", device="cpu", threads=1, log="l"),
        Start(task=trial_task(3)),
        Start(task=SEARCH),
        Leave(task="trial-1"),
    ],
)
def test_a_message_of_the_driver_is_one_line_that_holds_all_of_it(message: BaseModel) -> None:
    line = message.model_dump_json()
    assert "\n" not in line
    assert from_driver.validate_json(line) == message


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "leave"}',
        '{"kind": "leave", "task": "trial-1", "why": "x"}',
        '{"kind": "start", "task": {"kind": "walk"}}',
        '{"kind": "ready", "device": "cpu"}',
        '{"task": "trial-1"}',
    ],
)
def test_anything_that_is_not_a_message_is_an_error(line: str) -> None:
    with pytest.raises(ValidationError):
        from_driver.validate_json(line)


def test_a_worker_that_sends_no_text_is_killed_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channel, written = os.pipe()
    broken = "import os, sys; os.write(int(sys.argv[1]), bytes([255, 10])); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", broken, str(written)], stdin=subprocess.PIPE, pass_fds=(written,), text=True
    )
    os.close(written)
    monkeypatch.setattr("nas.workers.local.take", lambda: WorkerProcess(process, channel))
    inbox: queue.Queue[Received] = queue.Queue()
    worker = LocalWorker(Open(run="", device="cpu", threads=1, log=str(tmp_path / "log")), inbox)
    died = inbox.get(timeout=SECONDS)[1]
    assert isinstance(died, Died)
    assert "signal 9" in died.reason
    worker.end(at_once=True)


def test_the_cpu_is_one_worker() -> None:
    assert devices("cpu") == ["cpu"]


@pytest.mark.parametrize(
    ("cores", "gibibytes", "expected"), [(1, 64, 1), (2, 24, 2), (2, 6, 1), (8, 64, 3), (64, 256, 8), (64, 16, 4)]
)
def test_a_hurried_cpu_has_about_as_many_workers_as_each_has_threads(
    monkeypatch: pytest.MonkeyPatch, cores: int, gibibytes: int, expected: int
) -> None:
    monkeypatch.setattr("nas.workers.local.available_cores", lambda: cores)
    monkeypatch.setattr("nas.workers.local.whole_memory", lambda: gibibytes * 2**30)
    assert workers_on_cpu() == expected


def test_tasks_are_known_by_ids_that_no_two_share() -> None:
    assert (trial_task(7).id, trial_task(64).id, SEARCH.id) == ("trial-7", "trial-64", "hybrid-64")


def _until(executor: Executor, kind: type[Event]) -> Event:
    """The next event of a kind."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        event = executor.next_event(timeout=0.5)
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__} within {SECONDS} seconds")


@pytest.mark.slow
def test_a_worker_that_cannot_open_its_run_says_why_and_does_not_hang(tmp_path: Path) -> None:
    folder = create(tmp_path / "run")
    folder.config.write_text("[study]\ntrails = 3\n")
    with (
        Executor(LocalLauncher(folder, "cpu"), folder.worker_log, workers=1) as executor,
        pytest.raises(InputError, match=r"config\.toml: unknown key 'study\.trails'; did you mean 'study\.trials'"),
    ):
        executor.open()
        _until(executor, Ready)


@pytest.mark.slow
def test_a_worker_touches_nothing_before_it_is_told_to_and_can_be_dismissed(tmp_path: Path) -> None:
    folder = create(tmp_path / "run")  # without a configuration, which the worker would miss
    with Executor(LocalLauncher(folder, "cpu"), folder.worker_log, workers=1) as executor:
        assert executor.next_event(timeout=1.0) is None
        (worker,) = executor._workers
        began = time.monotonic()
    assert worker.process.returncode == -9
    assert time.monotonic() - began < 8.0  # not the time that a worker is given to finish what it does
    assert not folder.worker_log(0).exists()


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    """One worker, ready; the tests below use it one after the other, as a search does."""
    folder = phantom_run(tmp_path_factory.mktemp("executor"))
    with Executor(LocalLauncher(folder, "cpu"), folder.worker_log, workers=1) as executor:
        executor.open()
        assert executor.idle() == 0
        assert not executor.any_ready()
        assert _until(executor, Ready) == Ready(device="cpu")
        yield executor
    (worker,) = executor._workers
    assert worker.process.returncode == 0  # it left when its input was closed, and was not killed


@pytest.mark.slow
def test_a_worker_is_busy_until_its_task_has_ended(executor: Executor) -> None:
    executor.start(trial_task(0, crop=33))
    assert (executor.running(), executor.idle()) == (["trial-0"], 0)
    ended = _until(executor, Ended)
    assert isinstance(ended, Ended)
    assert (ended.task, ended.outcome.state) == ("trial-0", "failed")
    assert (executor.running(), executor.idle()) == ([], 1)
    assert executor.busy_seconds() > 0


@pytest.mark.slow
def test_a_request_to_leave_reaches_the_worker_that_is_busy_with_the_task(executor: Executor) -> None:
    executor.start(trial_task(1, steps=100_000))
    _until(executor, Progress)
    executor.leave("trial-0")
    executor.leave("trial-1")
    ended = _until(executor, Ended)
    assert isinstance(ended, Ended)
    assert (ended.task, ended.outcome.state) == ("trial-1", "interrupted")


@pytest.mark.slow
def test_a_worker_that_dies_is_reported_with_its_task_and_started_again(executor: Executor) -> None:
    executor.start(trial_task(2, steps=100_000))
    _until(executor, Progress)
    executor._workers[0].process.kill()
    assert _until(executor, Died) == Died(task="trial-2", reason=_why(-9))
    assert _until(executor, Ready) == Ready(device="cpu")
    assert executor.running() == []
