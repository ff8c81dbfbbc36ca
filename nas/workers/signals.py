"""Ctrl-C and SIGTERM: the first asks to stop in good order, the second stops at once.

timeout(1) and batch systems signal a process and then its group, so signals within ONE_ASKING are one request.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from search_spaces.errors import InputError

ONE_ASKING = 0.5  # seconds
BEGINS_AGAIN = "stopped before the end; the same command starts over"


class _Stopped(KeyboardInterrupt):
    """Raised in place of a plain KeyboardInterrupt: once that has passed through an exec(), Python ends with 130.

    It does so even if the exception is caught. Making a dataclass calls exec(), so this can happen in an import.
    """


class _Asked:
    """When a stop was last requested, if it was."""

    def __init__(self, at: float | None = None) -> None:
        self.at = at

    def again(self) -> bool:
        """Note a signal; returns whether it is a new request."""
        now = time.monotonic()
        if self.at is not None and now - self.at < ONE_ASKING:
            return False
        self.at = now
        return True


# Python drops what is raised inside its own callbacks, such as those of imports, so every signal is also noted here.
_noted = _Asked()


@contextmanager
def stop_on_signal(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at the first SIGINT or SIGTERM; a second one has its usual effect.

    Does nothing outside the main thread (a notebook's, say), where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = _Asked(_noted.at)
    if asked.at is not None:
        stop.set()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, _frame: FrameType | None) -> None:
        first = asked.at is None
        if not asked.again():  # noted before anything else: the next signal may come while this one is handled
            return
        if first:
            stop.set()
        else:
            restore()
            os.kill(os.getpid(), number)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


@contextmanager
def goes_on(message: str = "stopped; run the same command again to continue") -> Iterator[None]:
    """For a command that takes long: a signal ends it with one line, wherever it is, and its temporary files go.

    While `stop_on_signal` is in force, that handles signals instead. Raises InputError with `message` on a signal.
    """
    _noted.at = None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, or a program's own
            signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # part of the same request; the command is over
        raise InputError(message) from error
    finally:
        _noted.at = None  # nobody asked what this process does next to stop


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    _noted.again()
    raise _Stopped
