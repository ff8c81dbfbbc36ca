"""Signals that come while nobody can answer them."""

import os
import signal
import threading
from contextlib import suppress

import pytest

from nas.signals import goes_on, stop_on_signal
from search_spaces.errors import InputError


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
    with goes_on(), stop_on_signal(stop):
        assert not stop.is_set()
