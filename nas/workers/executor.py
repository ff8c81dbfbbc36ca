"""Executor: keeps workers alive wherever they run, gives them tasks, and passes on their messages."""

import queue
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from nas.jobs.task import Task
from nas.workers.launcher import Launcher, Received, Worker
from nas.workers.protocol import Died, Ended, Event, Leave, Ready, Refused, Start
from search_spaces.errors import InputError

LOG_END = 2**16  # bytes of a log that are looked at
LATE_SECONDS = 180.0  # before the user is told about a worker that has not started
FAILED_STARTS = 3  # in a row, before a device is given up


class Executor:
    """All workers of a search. Use as a context: leaving it ends them.

    logs: where worker number n prints. workers: how many, if not one per device. They start at once, which takes
    seconds, and touch nothing before `open`.
    """

    def __init__(self, launcher: Launcher, logs: Callable[[int], Path], workers: int | None = None) -> None:
        self._launcher = launcher
        self._inbox: queue.Queue[Received] = queue.Queue()
        names = launcher.devices()
        if workers is not None:
            names = [names[i % len(names)] for i in range(workers)]
        self._threads = launcher.threads(len(names))
        self._failed_starts: dict[Path, int] = {}
        self._busy = 0.0
        self._opened = False
        self._late: list[Worker] = []  # those that the user was told about
        self._workers = [self._start(name, logs(i)) for i, name in enumerate(names)]

    def _start(self, device: str, log: Path) -> Worker:
        worker = self._launcher.start(device, self._threads, log, self._inbox)
        if self._opened:
            worker.open()
        return worker

    def open(self) -> None:
        """Let the workers open the run: its configuration and volumes will not change any more."""
        self._opened = True
        for worker in self._workers:
            worker.open()

    def __enter__(self) -> "Executor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.close_input()
        for worker in self._workers:
            worker.end(at_once=not self._opened)
        self._launcher.close()

    @property
    def size(self) -> int:
        """How many workers there are, those that start included."""
        return len(self._workers)

    def idle(self) -> int:
        """How many workers could take a task now."""
        return sum(worker.ready and worker.task is None for worker in self._workers)

    def any_ready(self) -> bool:
        """Whether a worker has opened the volumes."""
        return any(worker.ready for worker in self._workers)

    def running(self) -> list[str]:
        """The tasks that workers are busy with, by id."""
        return [worker.task for worker in self._workers if worker.task is not None]

    def start(self, task: Task) -> None:
        """Give a task to an idle worker."""
        worker = next(w for w in self._workers if w.ready and w.task is None)
        worker.task, worker.since = task.id, time.monotonic()
        worker.send(Start(task=task))

    def busy_seconds(self) -> float:
        """How long the workers have worked so far, added up."""
        now = time.monotonic()
        return self._busy + sum(now - worker.since for worker in self._workers if worker.task is not None)

    def _done(self, worker: Worker) -> None:
        if worker.task is not None:
            self._busy += time.monotonic() - worker.since

    def leave(self, task: str) -> None:
        """Tell the worker that is busy with this task to write a checkpoint and end it."""
        for worker in self._workers:
            if worker.task == task:
                worker.send(Leave(task=task))

    def next_event(self, timeout: float) -> Event | None:
        """The next message of a worker, or None if none came in `timeout` seconds. A worker that died is started again.

        Raises InputError when the last worker cannot be started, and when one refuses what it opened.
        """
        try:
            worker, event = self._inbox.get(timeout=timeout)
        except queue.Empty:
            return self._late_worker()
        if isinstance(event, Refused):
            raise InputError(event.reason)
        if isinstance(event, Ready):
            worker.ready = True
            self._failed_starts.pop(worker.log, None)
        elif isinstance(event, Ended):
            self._done(worker)
            worker.task = None
            worker.ready = worker.ready and not event.last
        elif isinstance(event, Died):
            # Only the executor knows its task, which may have been given to it while it was dying.
            event = event.model_copy(update={"task": worker.task})
            self._done(worker)
            event = event.model_copy(update={"given_up": self._replace(worker, event)})
        return event

    def _late_worker(self) -> Died | None:
        """A note on a worker that has not started after minutes, as on a cluster without room for it."""
        for worker in self._workers:
            late = self._opened and not worker.ready and time.monotonic() - worker.started > LATE_SECONDS
            if late and worker not in self._late:
                self._late.append(worker)
                what = f"a worker on {worker.device} has not started after {LATE_SECONDS / 60:g} minutes"
                return Died(
                    task=None, reason="", given_up=f"{what}: it may be waiting for a free place; see {worker.log}"
                )
        return None

    def _replace(self, worker: Worker, death: Died) -> str | None:
        """Start a worker again; if it died three times before it was ready, give its device up and return a note."""
        self._workers.remove(worker)
        if not worker.ready:
            self._failed_starts[worker.log] = self._failed_starts.get(worker.log, 0) + 1
        if self._failed_starts.get(worker.log, 0) < FAILED_STARTS:
            self._workers.append(self._start(worker.device, worker.log))
            return None
        last = _last_line(worker.log) or "it printed nothing"
        lost = f"no worker can be started on {worker.device} ({death.reason}): {last}; see {worker.log}"
        if not self._workers:
            raise InputError(lost)
        return f"{lost}; the search continues without it"


def _last_line(log: Path) -> str | None:
    """What a worker printed last; its log may be one of weeks."""
    if not log.is_file():
        return None
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_END))
        lines = file.read(LOG_END).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else None
