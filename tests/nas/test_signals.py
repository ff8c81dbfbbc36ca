"""Signals that arrive while nothing can handle them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nas.workers.signals import goes_on, stop_on_signal
from search_spaces.errors import InputError


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_whose_exception_was_dropped_still_stops_what_comes_next() -> None:
    """Python drops what is raised inside its own callbacks, such as those of imports."""
    stop = threading.Event()
    with goes_on():
        with suppress(KeyboardInterrupt):  # as such a callback does
            os.kill(os.getpid(), signal.SIGTERM)
        with stop_on_signal(stop):
            assert stop.is_set()


def test_a_signal_of_an_earlier_command_does_not_stop_the_next() -> None:
    with pytest.raises(InputError, match="stopped; run the same command again to continue"), goes_on():
        os.kill(os.getpid(), signal.SIGTERM)
    stop = threading.Event()
    with stop_on_signal(stop):  # of a program that calls it without `goes_on`
        assert not stop.is_set()


def test_signals_to_a_process_and_then_its_group_are_one_request() -> None:
    stop = threading.Event()
    with stop_on_signal(stop):
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()


def test_a_second_request_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.workers.signals.ONE_ASKING", 0.0)
    stop = threading.Event()
    with (
        pytest.raises(InputError, match="stopped; run the same command again to continue"),
        goes_on(),
        stop_on_signal(stop),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)


def test_two_signals_at_once_end_a_command_in_one_line() -> None:
    with pytest.raises(InputError, match="stopped; run the same command again to continue"), goes_on():
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # to the group, while the line is written: this process lives on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_dataclass_is_made_ends_with_1(number: signal.Signals, tmp_path: Path) -> None:
    """Dataclasses are made by exec(); after a KeyboardInterrupt in one, Python ends the process with 130."""
    code = f"""
import os, signal, sys
from nas.workers.signals import goes_on
from search_spaces.errors import InputError
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background turns off
try:
    with goes_on():
        exec("os.kill(os.getpid(), {int(number)})")
except InputError as error:
    print(error)
    sys.exit(1)
"""
    (tmp_path / "signalled.py").write_text(code)
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    command = [sys.executable, "-m", "signalled"]  # with -c it would not look
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "stopped; run the same command again to continue\n")
