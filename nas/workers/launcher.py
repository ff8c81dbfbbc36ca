"""Worker and Launcher: what the executor needs of a worker process, and of whoever starts one."""

import queue
from pathlib import Path
from typing import Protocol

from nas.workers.protocol import Event, Order, Work


class Worker(Protocol):
    """One process, here or elsewhere."""

    device: str
    log: Path
    work: Work | None
    since: float
    started: float
    ready: bool

    def open(self) -> None:
        """Let it open the run: its configuration and volumes are as they will stay."""

    def say(self, message: Order) -> None:
        """Tell it something; one that has just died does not mind."""

    def close_input(self) -> None:
        """Ask it to end."""

    def end(self, at_once: bool) -> None:
        """Wait for it to end, and make it after a while, or at once where it has begun nothing."""


Heard = tuple[Worker, Event]  # a worker, and what it said


class Launcher(Protocol):
    """What starts workers: this machine, or a cluster."""

    def devices(self) -> list[str]:
        """One name a worker."""

    def threads(self, workers: int) -> int:
        """CPU threads for each of so many workers."""

    def start(self, device: str, threads: int, log: Path, heard: "queue.Queue[Heard]") -> Worker:
        """Start a worker; what it says arrives in `heard`."""

    def close(self) -> None:
        """No more workers are wanted."""
