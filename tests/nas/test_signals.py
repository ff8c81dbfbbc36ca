"""Signals that come while nobody can answer them."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from nas.signals import goes_on, stop_on_signal
from search_spaces.errors import InputError


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_whose_exception_was_dropped_still_stops_what_comes_next() -> None:
    """Python drops what is raised inside its own callbacks, as those of imports."""
    stop = threading.Event()
    with goes_on():
        with suppress(KeyboardInterrupt):  # as such a callback does
            os.kill(os.getpid(), signal.SIGTERM)
        with stop_on_signal(stop):
            assert stop.is_set()


def test_a_signal_of_an_earlier_command_does_not_stop_the_next() -> None:
    with pytest.raises(InputError, match="stopped; the same command goes on"), goes_on():
        os.kill(os.getpid(), signal.SIGTERM)
    stop = threading.Event()
    with stop_on_signal(stop):  # of a program that calls it without `goes_on`
        assert not stop.is_set()


def test_a_process_and_its_group_are_signalled_at_once_for_one_asking() -> None:
    stop = threading.Event()
    with stop_on_signal(stop):
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()


def test_a_second_asking_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.signals.ONE_ASKING", 0.0)
    stop = threading.Event()
    with pytest.raises(InputError, match="stopped; the same command goes on"), goes_on(), stop_on_signal(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)


def test_two_signals_at_once_end_a_command_in_one_line() -> None:
    with pytest.raises(InputError, match="stopped; the same command goes on"), goes_on():
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # to the group, while the line is written: this process lives on
