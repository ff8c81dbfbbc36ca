"""Worker and Launcher: what the executor needs from a worker process, and from what starts one."""

import queue
from pathlib import Path
from typing import Protocol

from nas.workers.protocol import Event, Order


class Worker(Protocol):
    """One process, here or elsewhere."""

    device: str
    log: Path
    task: str | None  # the id of what it is busy with
    since: float  # when it was given its task
    started: float
    ready: bool

    def open(self) -> None:
        """Let it open the run: its configuration and volumes will not change any more."""

    def send(self, message: Order) -> None:
        """Send it a message; does nothing if it has just died."""

    def close_input(self) -> None:
        """Ask it to end."""

    def end(self, at_once: bool) -> None:
        """Wait for it to end, and kill it after a while, or at once if it has begun nothing."""


Received = tuple[Worker, Event]  # a message, and the worker it came from


class Launcher(Protocol):
    """What starts workers: this machine, or a cluster."""

    def devices(self) -> list[str]:
        """One device name per worker."""

    def threads(self, workers: int) -> int:
        """CPU threads for each worker, if there are this many."""

    def start(self, device: str, threads: int, log: Path, inbox: "queue.Queue[Received]") -> Worker:
        """Start a worker; its messages arrive in `inbox`."""

    def close(self) -> None:
        """Release everything: no more workers are wanted."""
