"""Ctrl-C and SIGTERM: the first asks to stop in good order, the second stops at once.

timeout(1) and batch systems signal a process and then its group, so what follows within ONE_ASKING is the same asking.
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
BEGINS_AGAIN = "stopped before the end; the same command begins again"


class _Stopped(KeyboardInterrupt):
    """Python ends with 130, whatever is made of it, where a plain KeyboardInterrupt once passed through an exec().

    Every dataclass has one while it is made, so an import can be its place.
    """


class _Asked:
    """When somebody asked, if anybody did."""

    def __init__(self, at: float | None = None) -> None:
        self.at = at

    def again(self) -> bool:
        """Note a signal; whether it is another asking than the last one's."""
        now = time.monotonic()
        if self.at is not None and now - self.at < ONE_ASKING:
            return False
        self.at = now
        return True


# Python drops what is raised inside a callback of its own (imports have such), so that a signal came is also noted.
_noted = _Asked()


@contextmanager
def stop_on_signal(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at the first SIGINT or SIGTERM; a second one does what it always did.

    Does nothing outside of the main thread (a notebook's, say), where Python allows no handlers.
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
        if not asked.again():  # noted before anything else: the next signal may come within this one's answer
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
def goes_on(message: str = "stopped; the same command goes on") -> Iterator[None]:
    """Around a command that takes long: a signal ends it in one line, wherever it is, and what it made is cleared away.

    While `stop_on_signal` is in force, that answers. Raises InputError with `message` for the signal.
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
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of the same asking; the command is over
        raise InputError(message) from error
    finally:
        _noted.at = None  # whatever this process does next was not asked to stop


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    _noted.again()
    raise _Stopped
