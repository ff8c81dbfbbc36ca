"""The command `nas`: in this process, or in one of its own, as a user starts it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from nas.commands.main import main
from nas.workers.process import _dismiss


def nas(
    *arguments: str | Path, cache: Path | None = None, expect: int = 0, cwd: Path | None = None
) -> CompletedProcess[str]:
    """Run it in this process, which has imported torch already, and check how it ends."""
    command, out, err = ["nas", *map(str, arguments)], StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, _left_as_by_a_process():
        patch.setattr(sys, "argv", command)
        if cache is not None:
            patch.setenv("NAS_CACHE", str(cache))
        if cwd is not None:
            patch.chdir(cwd)
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    done = CompletedProcess(command, int(ended.value.code or 0), out.getvalue(), err.getvalue())
    return _checked(done, expect)


def nas_process(
    *arguments: str | Path, cache: Path | None = None, expect: int = 0, cwd: Path | None = None
) -> CompletedProcess[str]:
    """Run it in a process of its own, where starting one or ending it is what is tested, and check how it ends."""
    command = [sys.executable, "-m", "nas", *map(str, arguments)]
    environment = {**os.environ, **({} if cache is None else {"NAS_CACHE": str(cache)})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=cwd, env=environment)
    return _checked(done, expect)


def _checked(done: CompletedProcess[str], expect: int) -> CompletedProcess[str]:
    assert done.returncode == expect, done.stdout + done.stderr
    return done


@contextmanager
def _left_as_by_a_process() -> Iterator[None]:
    """Without handlers of signals, and without a worker that was started early and nobody took."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        _dismiss()
        for number, handler in before.items():
            signal.signal(number, handler)
