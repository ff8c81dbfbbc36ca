"""Time that a training takes: how much it has used, and when its last cool-down must begin to end in time."""

import time
from collections.abc import Callable
from pathlib import Path

from results.run_folder import read_seconds
from trainers.atomic import write_atomically


class Clock:
    """Seconds spent in optimiser steps up to the last checkpoint, over all attempts at a trial."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._start: float | None = None
        self.seconds = read_seconds(file)

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._add()
        self._start = None

    def mark(self) -> None:
        """Write down the time so far."""
        self._add()
        write_atomically(self._file, f"{self.seconds:.3f}\n")

    def _add(self) -> None:
        if self._start is not None:
            now = time.monotonic()
            self.seconds += now - self._start
            self._start = now


class Timer:
    """Finds the last step of a training that has `seconds` from now on; what a step costs is measured on the way.

    branches_at: the step at which the last cool-down begins, by the last step.
    """

    def __init__(self, seconds: float, branches_at: Callable[[int], int]) -> None:
        self._end = time.monotonic() + seconds
        self._branches_at = branches_at
        self._first: tuple[int, float] | None = None  # the first step, which warms up, and when it had been done

    def last_step(self, step: int) -> int:
        """The step at which the time will be used up if the next ones cost what those so far did; called after each.

        At least one step more; a thousand after the first one, when nothing is known yet.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = (step, now)
        first, since = self._first
        if step == first:
            return step + (1000 if now < self._end else 1)
        return step + max(1, int((self._end - now) / (now - since) * (step - first)))

    def is_time(self, step: int) -> bool:
        """Whether the last cool-down is to begin after this step."""
        return step >= self._branches_at(self.last_step(step))
