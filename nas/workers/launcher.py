"""Worker and Launcher: what the executor needs of a worker process, and of whoever starts one."""

import queue
from pathlib import Path
from typing import Protocol

from nas.workers.protocol import Event, Order


class Worker(Protocol):
    """One process, here or elsewhere."""

    device: str
    log: Path
    task: str | None  # the id of what it is busy with
    since: float  # when it was given that
    started: float
    ready: bool

    def open(self) -> None:
        """Let it open the run: its configuration and volumes are as they will stay."""

    def send(self, message: Order) -> None:
        """Send it a message; does nothing where it has just died."""

    def close_input(self) -> None:
        """Ask it to end."""

    def end(self, at_once: bool) -> None:
        """Wait for it to end, and kill it after a while, or at once where it has begun nothing."""


Received = tuple[Worker, Event]  # a message, and the worker it came from


class Launcher(Protocol):
    """What starts workers: this machine, or a cluster."""

    def devices(self) -> list[str]:
        """One name a worker."""

    def threads(self, workers: int) -> int:
        """CPU threads for each of so many workers."""

    def start(self, device: str, threads: int, log: Path, inbox: "queue.Queue[Received]") -> Worker:
        """Start a worker; its messages arrive in `inbox`."""

    def close(self) -> None:
        """No more workers are wanted."""
