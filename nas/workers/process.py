"""The worker's process: started as early as possible, because its imports take seconds.

Imports nothing heavy, so that a command can start one before it imports anything itself.
"""

import atexit
import os
import subprocess
import sys
from dataclasses import dataclass

from nas.config.environment import ENVIRONMENT

_warm: list["WorkerProcess"] = []  # started, but not taken yet


@dataclass(frozen=True)
class WorkerProcess:
    """A process that waits for its first message; it prints to our standard error until it has a log."""

    process: "subprocess.Popen[str]"
    channel: int  # file descriptor that its messages are read from


def start_process() -> WorkerProcess:
    """Start a worker process."""
    channel, written = os.pipe()  # not its standard output: libraries print there as they like
    process = subprocess.Popen(
        [sys.executable, "-m", "nas.workers.worker", str(written)],
        stdin=subprocess.PIPE,
        stdout=_printed(),
        stderr=_printed(),
        env={**os.environ, **ENVIRONMENT},
        pass_fds=(written,),
        text=True,
        bufsize=1,
        start_new_session=True,  # the driver answers Ctrl-C
    )
    os.close(written)
    return WorkerProcess(process, channel)


def _printed() -> int:
    """Our standard error, or nowhere if that is closed."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2


def warm_up() -> None:
    """Start a process that `take` will find; a search needs at least one, whatever its settings are."""
    _warm.append(start_process())
    atexit.register(_dismiss)


def take() -> WorkerProcess:
    """A process that was started before, or a new one."""
    return _warm.pop() if _warm else start_process()


def _dismiss() -> None:
    """End the processes that nobody took; they have begun nothing."""
    while _warm:
        left = _warm.pop()
        with left.process:
            left.process.kill()
        os.close(left.channel)
