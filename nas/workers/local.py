"""Worker processes on this machine: one per GPU, or on the CPU one or several."""

import math
import os
import queue
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from nas.workers.launcher import Received
from nas.workers.process import take
from nas.workers.protocol import LOADER_DIED, Died, Open, Order, from_worker
from results.run_folder import RunFolder
from trainers.machine import available_cores, whole_memory

GIB_EACH = 4  # of memory, for a worker on the CPU


def devices(wanted: str) -> list[str]:
    """One device name per worker: every GPU, or the CPU if there is none or it was asked for."""
    if wanted == "cpu" or not torch.cuda.is_available():
        return ["cpu"]
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if wanted in ("auto", "cuda") else [wanted]


def workers_on_cpu() -> int:
    """How many workers train most in a given time on the CPU: about as many as each then has threads.

    One with all threads leaves cores idle in every small operation, and waits for the slowest of them where other
    programs run. docs/decisions/0015-several-workers-on-a-cpu.md has the figures.
    """
    cores = available_cores()
    fitting = int(whole_memory() / 2**30 / GIB_EACH)
    return max(1, min(math.ceil(math.sqrt(cores)), fitting))


class LocalWorker:
    """One process. Its messages arrive in `inbox`, with this object beside them."""

    def __init__(self, order: Open, inbox: "queue.Queue[Received]") -> None:
        self.device = order.device
        self.log = Path(order.log)
        self.task: str | None = None
        self.since = 0.0  # when it was given its task
        self.started = time.monotonic()
        self.ready = False
        self._order, self._inbox = order, inbox
        started = take()
        self.process = started.process
        self._thread = threading.Thread(target=self._read, args=(started.channel,), daemon=True)
        self._thread.start()

    def open(self) -> None:
        """Let it open the run."""
        self.send(self._order)

    def _read(self, channel: int) -> None:
        with os.fdopen(channel, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    self._inbox.put((self, from_worker.validate_json(line)))
                except ValidationError:  # half a line: it was killed while it wrote
                    self.process.kill()
        code = self.process.wait()
        self.close_input()
        self._inbox.put((self, Died(task=None, reason=_why(code))))

    def send(self, message: Order) -> None:
        """Send it a message; does nothing if it has just died."""
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):  # its reader reports the death
            self.process.stdin.write(message.model_dump_json() + "\n")

    def close_input(self) -> None:
        """Ask the process to end."""
        assert self.process.stdin is not None
        with suppress(OSError):  # the last message did not reach it
            self.process.stdin.close()

    def end(self, at_once: bool) -> None:
        """Wait for the process to end, and kill it after a while, or at once if it has begun nothing."""
        try:
            self.process.wait(timeout=0 if at_once else 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._thread.join()


@dataclass(frozen=True)
class LocalLauncher:
    """Starts workers on this machine."""

    folder: RunFolder
    device: str = "auto"

    def devices(self) -> list[str]:
        """One device name per worker."""
        return devices(self.device)

    def threads(self, workers: int) -> int:
        """CPU threads for each worker, if there are this many."""
        return max(1, available_cores() // workers)

    def start(self, device: str, threads: int, log: Path, inbox: "queue.Queue[Received]") -> LocalWorker:
        """Start a worker; its messages arrive in `inbox`."""
        order = Open(run=str(self.folder.path), device=device, threads=threads, log=str(log))
        return LocalWorker(order, inbox)

    def close(self) -> None:
        """Does nothing: there is nothing to release."""


def _why(code: int) -> str:
    if code == -9:
        return "the worker was killed (signal 9): most likely the machine ran out of memory"
    if code < 0:
        return f"the worker was killed by signal {-code}"
    if code == LOADER_DIED:
        return "a loader process of the worker was killed: most likely the machine, or its /dev/shm, ran out of memory"
    return f"the worker ended with code {code}"
