"""Executor: starts worker processes, one a device, and turns what they say into events."""

import os
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch
from pydantic import ValidationError

from nas.environment import ENVIRONMENT
from nas.protocol import (
    Answer,
    Died,
    Event,
    Finished,
    Order,
    Ready,
    Searched,
    Start,
    StartCells,
    Work,
    from_worker,
)
from results.record import Job
from results.run_folder import RunFolder
from search_spaces.errors import InputError
from trainers.cell_run import CellPlan

FAILED_STARTS = 3  # in a row, before a device is given up


def devices(wanted: str) -> list[str]:
    """One name a worker: every GPU, or the CPU where there is none or it was asked for."""
    if wanted == "cpu" or not torch.cuda.is_available():
        return ["cpu"]
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if wanted in ("auto", "cuda") else [wanted]


class _Worker:
    """One process. What it says arrives in `heard`, with this object beside it."""

    def __init__(self, device: str, threads: int, folder: RunFolder, log: Path, heard: "queue.Queue[_Heard]") -> None:
        self.device = device
        self.log = log
        self.work: Work | None = None
        self.since = 0.0  # when it was given its work
        self.ready = False
        self._heard = heard
        ears, mouth = os.pipe()  # a channel of its own: libraries print to standard output as they like
        with log.open("ab") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nas.worker", str(folder.path), device, str(mouth)],
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=printed,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), **ENVIRONMENT},
                pass_fds=(mouth,),
                text=True,
                bufsize=1,
                start_new_session=True,  # Ctrl-C is the driver's to answer
            )
        os.close(mouth)
        self._thread = threading.Thread(target=self._read, args=(ears,), daemon=True)
        self._thread.start()

    def _read(self, ears: int) -> None:
        with os.fdopen(ears, encoding="utf-8") as said:
            for line in said:
                try:
                    self._heard.put((self, from_worker.validate_json(line)))
                except ValidationError:  # half a line: it was killed while it spoke
                    self.process.kill()
        code = self.process.wait()
        self.close_input()
        self._heard.put((self, Died(work=None, reason=_why(code))))

    def say(self, message: Order) -> None:
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):  # it has just died; its reader says so
            self.process.stdin.write(message.model_dump_json() + "\n")

    def close_input(self) -> None:
        """Ask the process to end."""
        assert self.process.stdin is not None
        with suppress(OSError):  # what it was told last did not reach it
            self.process.stdin.close()

    def end(self) -> None:
        """Wait for the process to end, and make it after a while."""
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._thread.join()


_Heard = tuple[_Worker, Event]


class Executor:
    """The workers of one machine. Use as a context: leaving it ends them."""

    def __init__(self, folder: RunFolder, device: str = "auto", workers: int | None = None) -> None:
        self._folder = folder
        self._heard: queue.Queue[_Heard] = queue.Queue()
        names = devices(device)
        if workers is not None:
            names = [names[i % len(names)] for i in range(workers)]
        self._threads = max(1, len(os.sched_getaffinity(0)) // len(names))
        self._failed_starts: dict[Path, int] = {}
        self._busy = 0.0
        self._workers = [self._start(name, folder.worker_log(i)) for i, name in enumerate(names)]

    def _start(self, device: str, log: Path) -> _Worker:
        return _Worker(device, self._threads, self._folder, log, self._heard)

    def __enter__(self) -> "Executor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.close_input()
        for worker in self._workers:
            worker.end()

    def idle(self) -> int:
        """How many workers could take a job now."""
        return sum(worker.ready and worker.work is None for worker in self._workers)

    def all_ready(self) -> bool:
        """Whether every worker has opened the volumes."""
        return all(worker.ready for worker in self._workers)

    def running(self) -> list[Work]:
        """What the workers are busy with."""
        return [worker.work for worker in self._workers if worker.work is not None]

    def start(self, job: Job) -> None:
        """Give a job to an idle worker."""
        self._give(job.trial, Start(job=job))

    def start_cells(self, plan: CellPlan) -> None:
        """Give a cell search to an idle worker."""
        self._give(plan.id, StartCells(plan=plan))

    def _give(self, work: Work, order: Order) -> None:
        worker = next(w for w in self._workers if w.ready and w.work is None)
        worker.work, worker.since = work, time.monotonic()
        worker.say(order)

    def busy_seconds(self) -> float:
        """How long the workers have worked so far, added up."""
        now = time.monotonic()
        return self._busy + sum(now - worker.since for worker in self._workers if worker.work is not None)

    def _done(self, worker: _Worker) -> None:
        if worker.work is not None:
            self._busy += time.monotonic() - worker.since

    def answer(self, work: Work, answer: str) -> None:
        """Tell the worker that is busy with this to go on, to stop or to leave."""
        for worker in self._workers:
            if worker.work == work:
                worker.say(Answer.model_validate({"work": work, "answer": answer}))

    def next_event(self, timeout: float) -> Event | None:
        """What a worker said, or None if none spoke in `timeout` seconds. A worker that died is started again.

        Raises InputError when the last worker cannot be started.
        """
        try:
            worker, event = self._heard.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(event, Ready):
            worker.ready = True
            self._failed_starts.pop(worker.log, None)
        elif isinstance(event, Finished | Searched):
            self._done(worker)
            worker.work = None
        elif isinstance(event, Died):
            # What it was busy with is known here alone: the order may have been given while it was dying.
            event = event.model_copy(update={"work": worker.work})
            self._done(worker)
            self._replace(worker, event)
        return event

    def _replace(self, worker: _Worker, death: Died) -> None:
        """Start a worker again; give its device up if it dies before it is ready for the third time in a row."""
        self._workers.remove(worker)
        if not worker.ready:
            self._failed_starts[worker.log] = self._failed_starts.get(worker.log, 0) + 1
        if self._failed_starts.get(worker.log, 0) < FAILED_STARTS:
            self._workers.append(self._start(worker.device, worker.log))
        elif not self._workers:
            last = worker.log.read_text(errors="replace").strip().splitlines()[-1:] or ["it printed nothing"]
            raise InputError(
                f"no worker can be started on {worker.device} ({death.reason}): {last[0]}; see {worker.log}"
            )


def _why(code: int) -> str:
    if code == -9:
        return "the worker was killed (signal 9): most likely the machine ran out of memory"
    if code < 0:
        return f"the worker was killed by signal {-code}"
    return f"the worker ended with code {code}"
