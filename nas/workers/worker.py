"""The worker process: does the tasks that the driver sends, one after another, in a warm interpreter.

`python -m nas.workers.worker CHANNEL` reads messages (nas/workers/protocol.py) from its standard input and writes its
own to the file descriptor CHANNEL. It knows nothing of Optuna. When the driver is gone, its input closes and it ends
at once: the last checkpoint remains.
"""

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

import torch
from pydantic import BaseModel, ValidationError

from nas.config.read import read_config
from nas.config.search_config import SearchConfig
from nas.jobs import trial
from nas.jobs.cell_search import draw_cells_of, search_cells
from nas.jobs.failures import outcome_of
from nas.jobs.kidneys import OtherData, check_fold, open_fold
from nas.jobs.measure import measure_costs
from nas.jobs.task import CellSearchTask, MeasureTask, Task, TrialTask
from nas.workers.protocol import (
    LOADER_DIED,
    Ended,
    Leave,
    Open,
    Order,
    Progress,
    Ready,
    Refused,
    Scored,
    Start,
    from_driver,
)
from results.record import Job, Outcome
from results.run_folder import RunFolder
from search_spaces.errors import InputError
from trainers.data.batches import loader_died
from trainers.data.folds import Fold

PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class _Channel:
    """Messages to the driver, and those that came from it."""

    out: IO[str]
    inbox: "queue.Queue[Order]"

    def send(self, message: BaseModel) -> None:
        self.out.write(message.model_dump_json() + "\n")


@dataclass(frozen=True)
class _Worker:
    """What stays open between tasks."""

    folder: RunFolder
    device: str
    config: SearchConfig
    fold: Fold
    channel: _Channel
    others: dict[str, Fold] = field(default_factory=dict)  # by what they hold out instead

    def fold_of(self, job: Job) -> Fold:
        """The fold on which a job trains and is scored."""
        if job.hold_out is None:
            return self.fold
        if job.hold_out not in self.others:
            other = open_fold(self.config, self.folder, hold_out=job.hold_out)
            check_fold(self.folder, other, ranks=False)
            self.others[job.hold_out] = other
        return self.others[job.hold_out]


def main(descriptor: int) -> None:
    """Do one task after another until the driver closes our input."""
    # A terminal or a batch system signals every process; it is the driver that decides what to do.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    channel = _Channel(os.fdopen(descriptor, "w", encoding="utf-8", buffering=1), _receive(sys.stdin))
    order = channel.inbox.get()
    assert isinstance(order, Open)
    folder = RunFolder(Path(order.run))
    torch.set_num_threads(order.threads)
    try:  # a worker that is started again may find other labels than those that the search began with, or no scans
        _print_to(Path(order.log))
        config = read_config(folder.config)
        fold = open_fold(config, folder)
        check_fold(folder, fold, ranks=True)
    except InputError as error:
        _refuse(error, channel)
    worker = _Worker(folder, order.device, config, fold, channel)
    channel.send(Ready(device=order.device))
    while True:
        message = channel.inbox.get()
        if isinstance(message, Start):  # a request to leave that comes now is for a task that has ended
            try:
                ended = _do(message.task, worker)
            except InputError as error:
                _refuse(error, channel)
            channel.send(ended)
            if ended.last:
                sys.exit(0)


def _refuse(error: InputError, channel: _Channel) -> NoReturn:
    """End the search: what is wrong with its data is wrong for every task and every worker."""
    channel.send(Refused(reason=str(error)))
    sys.exit(1)


def _do(task: Task, worker: _Worker) -> Ended:
    """Do one task; an exception becomes an outcome, and its traceback goes to the task's log.

    It is this process's last task if an error may have left its GPU unusable. Raises InputError for labels that changed
    and for a log that cannot be written.
    """
    began = time.monotonic()
    healthy = True
    reports = _Reports(task.id, worker.channel)
    with _log_to(task.place(worker.folder).log):
        try:
            outcome = WORK[task.kind](task, worker, trial.Talk(reports.progress, reports.scored))
        except OtherData:
            raise
        except Exception as error:
            traceback.print_exc()
            if loader_died(error):  # a part of this worker was killed: the task is tried again as after its own death
                sys.stderr.flush()
                os._exit(LOADER_DIED)
            outcome, healthy = outcome_of(error, worker.device)
    outcome = outcome.model_copy(update={"seconds": time.monotonic() - began})
    return Ended(task=task.id, outcome=outcome, last=not healthy)


def _train(task: TrialTask, worker: _Worker, talk: trial.Talk) -> Outcome:
    place, config = task.place(worker.folder), worker.config
    fold = worker.fold_of(task.job)
    outcome = trial.run_job(task.job, fold, config, place, worker.device, talk, task.job.rungs)
    if outcome.state == "complete":
        draw_cells_of(task.job, worker.folder, config, place.genotype)
    return outcome


def _search(task: CellSearchTask, worker: _Worker, talk: trial.Talk) -> Outcome:
    return search_cells(task.plan, worker.fold, worker.config, task.place(worker.folder), worker.device, talk)


def _measure(task: MeasureTask, worker: _Worker, talk: trial.Talk) -> Outcome:
    folder, place = worker.folder, task.place(worker.folder)
    return measure_costs(
        task.jobs, task.searches, worker.fold, worker.config, folder, place, worker.device, talk, task.most_seconds
    )


WORK: dict[str, Callable[[Any, _Worker, trial.Talk], Outcome]] = {
    "trial": _train,
    "cell_search": _search,
    "measure": _measure,
}


@dataclass
class _Reports:
    """Reports how far one task is, and whether the driver wants it to leave."""

    task: str
    channel: _Channel
    reported: float = 0.0  # when progress was last sent
    leaving: bool = False

    def progress(self, phase: str, done: int, total: int, loss: float | None) -> trial.Answer:
        now = time.monotonic()
        if now - self.reported > PROGRESS_SECONDS:
            self.reported = now
            self.channel.send(Progress(task=self.task, phase=phase, done=done, total=total, loss=loss))
        while not self.channel.inbox.empty():
            message = self.channel.inbox.get()
            self.leaving |= isinstance(message, Leave) and message.task == self.task
        return "leave" if self.leaving else "go"

    def scored(self, step: int, value: float) -> None:
        self.channel.send(Scored(task=self.task, step=step, value=value))


def _receive(stream: IO[str]) -> "queue.Queue[Order]":
    """The driver's messages as they come; the end of the stream ends the process, and so does a damaged message."""
    inbox: queue.Queue[Order] = queue.Queue()

    def read() -> None:
        code = 1
        try:
            for line in stream:
                inbox.put(from_driver.validate_json(line))
            code = 0
        except ValidationError:
            traceback.print_exc()  # a worker that waited forever would make the driver wait, too
        finally:
            sys.stderr.flush()
            os._exit(code)

    threading.Thread(target=read, daemon=True).start()
    return inbox


def _print_to(file: Path) -> None:
    """Send everything printed, including by compiled code, to a log from now on; not to where a link leads."""
    try:
        log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror}); if it is a link, remove it") from error
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


@contextmanager
def _log_to(file: Path) -> Iterator[None]:
    """Send everything printed inside the block, including by compiled code, to a log."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = [os.dup(1), os.dup(2)]
    try:
        _print_to(file)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for handle, number in zip(kept, (1, 2), strict=True):
            os.dup2(handle, number)
            os.close(handle)


if __name__ == "__main__":
    main(int(sys.argv[1]))
