"""Executor: starts worker processes, one a device, and turns what they say into events."""

import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil
import torch

from nas.environment import ENVIRONMENT
from nas.protocol import Answer, Died, Finished, Progress, Ready, Scored, Start, from_worker
from results.record import Job
from results.run_folder import RunFolder

Event = Ready | Progress | Scored | Finished | Died


def devices(wanted: str) -> list[str]:
    """One name a worker: every GPU, or the CPU where there is none or it was asked for."""
    if wanted == "cpu" or not torch.cuda.is_available():
        return ["cpu"]
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if wanted in ("auto", "cuda") else [wanted]


class _Worker:
    def __init__(
        self, index: int, device: str, threads: int, folder: RunFolder, heard: "queue.Queue[tuple[int, Event]]"
    ):
        self.index = index
        self.device = device
        self.trial: int | None = None
        self.ready = False
        log = (folder.path / f"worker-{index}.log").open("ab")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            **ENVIRONMENT,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nas.worker", str(folder.path), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C is the driver's to answer
        )
        log.close()
        self._heard = heard
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._heard.put((self.index, from_worker.validate_json(line)))
        code = self.process.wait()
        self._heard.put((self.index, Died(trial=self.trial, reason=_why(code))))

    def say(self, message: Start | Answer) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # it has just died; its reader says so
            self.process.stdin.write(message.model_dump_json() + "\n")


class Executor:
    """The workers of one machine. Use as a context: leaving it ends them."""

    def __init__(self, folder: RunFolder, device: str = "auto", workers: int | None = None) -> None:
        self._folder = folder
        self._heard: queue.Queue[tuple[int, Event]] = queue.Queue()
        names = devices(device)
        if workers is not None:
            names = [names[i % len(names)] for i in range(workers)]
        self._devices = names
        cores = psutil.cpu_count(logical=True) or 1
        self._threads = max(1, cores // len(names))
        self._workers = [self._start(i) for i in range(len(names))]

    def _start(self, index: int) -> _Worker:
        return _Worker(index, self._devices[index], self._threads, self._folder, self._heard)

    def __enter__(self) -> "Executor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            if worker.process.stdin is not None:
                worker.process.stdin.close()
        for worker in self._workers:
            try:
                worker.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                worker.process.kill()

    def idle(self) -> int:
        """How many workers could take a job now."""
        return sum(worker.ready and worker.trial is None for worker in self._workers)

    def all_ready(self) -> bool:
        """Whether every worker has opened the volumes."""
        return all(worker.ready for worker in self._workers)

    def running(self) -> list[int]:
        """The trials being trained."""
        return [worker.trial for worker in self._workers if worker.trial is not None]

    def start(self, job: Job) -> None:
        """Give a job to an idle worker."""
        worker = next(w for w in self._workers if w.ready and w.trial is None)
        worker.trial = job.trial
        worker.say(Start(job=job))

    def answer(self, trial: int, answer: str) -> None:
        """Tell the worker of a trial to go on, to stop or to leave."""
        for worker in self._workers:
            if worker.trial == trial:
                worker.say(Answer.model_validate({"trial": trial, "answer": answer}))

    def next_event(self, timeout: float) -> Event | None:
        """What a worker said, or None if none spoke in `timeout` seconds. A worker that died is started again."""
        try:
            index, event = self._heard.get(timeout=timeout)
        except queue.Empty:
            return None
        worker = self._workers[index]
        if isinstance(event, Ready):
            worker.ready = True
        elif isinstance(event, Finished):
            worker.trial = None
        elif isinstance(event, Died):
            if not worker.ready:
                raise RuntimeError(
                    f"a worker could not start ({event.reason}); see {self._folder.path / f'worker-{index}.log'}"
                )
            self._workers[index] = self._start(index)
        return event


def _why(code: int) -> str:
    if code == -9:
        return "the worker was killed (signal 9): most likely the machine ran out of memory"
    if code < 0:
        return f"the worker was killed by signal {-code}"
    return f"the worker ended with code {code}"


def worker_logs(folder: Path) -> list[Path]:
    """The logs of the worker processes, for `nas doctor`."""
    return sorted(folder.glob("worker-*.log"))
