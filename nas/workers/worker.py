"""The worker process: trains what the driver sends, one candidate after the other, in a warm interpreter.

`python -m nas.workers.worker CHANNEL` reads JSON lines (nas/workers/protocol.py) from its standard input and writes
them to the file descriptor CHANNEL. It knows nothing of Optuna. When the driver is gone, its input closes and it ends
at once: the last checkpoint stands.
"""

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from pydantic import BaseModel

from nas.config.read import read_config
from nas.config.search_config import SearchConfig
from nas.jobs.cell_search import draw_cells_of, search_cells
from nas.jobs.failures import outcome_of
from nas.jobs.kidneys import open_fold
from nas.jobs.trial import Answer as Reply
from nas.jobs.trial import Talk, run_job
from nas.study.samplers import rungs
from nas.workers.protocol import (
    Answer,
    Finished,
    Open,
    Order,
    Progress,
    Ready,
    Scored,
    Searched,
    Start,
    StartCells,
    Work,
    from_driver,
)
from results.record import Job, Outcome
from results.run_folder import RunFolder
from trainers.cell_search.run import CellPlan
from trainers.data.folds import Fold

PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class _Worker:
    """What stays open between jobs."""

    folder: RunFolder
    device: str
    config: SearchConfig
    fold: Fold
    speech: IO[str]
    ears: "queue.Queue[Order]"

    def say(self, message: BaseModel) -> None:
        self.speech.write(message.model_dump_json() + "\n")


def main(channel: int) -> None:
    """Serve jobs until the driver closes our input."""
    # A terminal or a batch system signals every process; it is the driver that says what to do.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    speech = os.fdopen(channel, "w", encoding="utf-8", buffering=1)
    ears = _listen(sys.stdin)
    order = ears.get()
    assert isinstance(order, Open)
    _print_to(Path(order.log))
    torch.set_num_threads(order.threads)
    folder, device = RunFolder(Path(order.run)), order.device
    config = read_config(folder.config)
    worker = _Worker(folder, device, config, open_fold(config, folder), speech, ears)
    worker.say(Ready(device=device))
    while True:
        message = worker.ears.get()
        healthy = True
        if isinstance(message, Start):
            with _log_to(folder.trial(message.job.trial).log):
                outcome, healthy = _attempt(message.job, worker)
            worker.say(Finished(trial=message.job.trial, outcome=outcome, last=not healthy))
        elif isinstance(message, StartCells):
            with _log_to(folder.cells(message.plan.id).log):
                answer, healthy = _attempt_cells(message.plan, worker)
            worker.say(answer.model_copy(update={"last": not healthy}))
        if not healthy:
            sys.exit(0)


def _attempt(job: Job, worker: _Worker) -> tuple[Outcome, bool]:
    """Run one job; an exception becomes a failed outcome, its traceback goes to the trial's log.

    Also whether this process can be trusted with another job: an error on a GPU can leave it unusable.
    """
    started = time.monotonic()
    healthy = True
    try:
        steps = rungs(worker.config.study, job.fit.steps)[:-1]
        place = worker.folder.trial(job.trial)
        outcome = run_job(job, worker.fold, worker.config, place, worker.device, _talk(job.trial, worker), steps)
        if outcome.state == "complete":
            draw_cells_of(job, worker.folder, worker.config, place.genotype)
    except Exception as error:
        traceback.print_exc()
        outcome, healthy = outcome_of(error, worker.device)
    return outcome.model_copy(update={"seconds": time.monotonic() - started}), healthy


def _attempt_cells(plan: CellPlan, worker: _Worker) -> tuple[Searched, bool]:
    """The same for a cell search."""
    place = worker.folder.cells(plan.id)
    try:
        state = search_cells(plan, worker.fold, worker.config, place, worker.device, _talk(plan.id, worker))
    except Exception as error:
        traceback.print_exc()
        outcome, healthy = outcome_of(error, worker.device)
        full = outcome.state == "interrupted"
        return Searched(cells=plan.id, state="interrupted" if full else "failed", reason=outcome.reason), healthy
    return Searched(cells=plan.id, state=state), True


def _talk(work: Work, worker: _Worker) -> Talk:
    last = 0.0
    leaving = False

    def progress(phase: str, done: int, total: int, loss: float | None) -> Reply:
        nonlocal last, leaving
        now = time.monotonic()
        if now - last > PROGRESS_SECONDS:
            last = now
            worker.say(Progress(work=work, phase=phase, done=done, total=total, loss=loss))
        while not worker.ears.empty():
            message = worker.ears.get()
            leaving |= isinstance(message, Answer) and message.work == work and message.answer == "leave"
        return "leave" if leaving else "go"

    def scored(step: int, value: float) -> Reply:
        nonlocal leaving
        assert isinstance(work, int)  # a cell search has no score
        worker.say(Scored(trial=work, step=step, value=value))
        while True:  # to the answer to this score, whatever else comes before
            message = worker.ears.get()
            if not isinstance(message, Answer) or message.work != work:
                continue
            if message.answer == "leave":
                leaving = True
            elif message.answer == "stop":
                return "stop"
            else:
                return "leave" if leaving else "go"

    return Talk(progress, scored)


def _listen(stream: IO[str]) -> "queue.Queue[Order]":
    """The driver's messages as they come; the end of the stream ends the process."""
    heard: queue.Queue[Order] = queue.Queue()

    def read() -> None:
        for line in stream:
            heard.put(from_driver.validate_json(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return heard


def _print_to(file: Path) -> None:
    """Send everything printed, also by compiled code, to a log from now on."""
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


@contextmanager
def _log_to(file: Path) -> Iterator[None]:
    """Send everything printed, also by compiled code, to a log."""
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
