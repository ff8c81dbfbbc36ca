"""Ctrl-C and SIGTERM: the first asks to stop in good order, the second stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from search_spaces.errors import InputError


@contextmanager
def stop_on_signal(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at the first SIGINT or SIGTERM; a second one does what it always did.

    Does nothing outside of the main thread (a notebook's, say), where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _asked.is_set():
        stop.set()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


@contextmanager
def goes_on() -> Iterator[None]:
    """Around a command that goes on when it is given again: a signal ends it in one line, wherever it is.

    While `stop_on_signal` is in force, that answers. Raises InputError for the signal.
    """
    _asked.clear()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        raise InputError("stopped; the same command goes on") from error


# A signal came. Python drops what is raised inside a callback of its own (imports have such), so it is also noted.
_asked = threading.Event()


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    _asked.set()
    raise KeyboardInterrupt
