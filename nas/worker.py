"""The worker process: trains what the driver sends, one candidate after the other, in a warm interpreter.

`python -m nas.worker RUN_FOLDER DEVICE` talks JSON lines (nas/protocol.py) on its standard input and output. It knows
nothing of Optuna. When the driver is gone, its input closes and it ends at once: the last checkpoint stands.
"""

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nas.config import read_config
from nas.fold import open_fold
from nas.objective import Answer as Reply
from nas.objective import Talk, run_job
from nas.protocol import Answer, Finished, Progress, Ready, Scored, Start, from_driver
from nas.samplers import rungs
from results.record import Job, Outcome
from results.run_folder import RunFolder, TrialFolder
from search_spaces.errors import InputError
from trainers.data.folds import Fold

PROGRESS_SECONDS = 0.5


def main(run: str, device: str) -> None:
    """Serve jobs until the driver closes our input."""
    speech = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print must not end up between our messages
    folder = RunFolder(Path(run))
    config = read_config(folder.config)
    fold = open_fold(config, folder)
    ears = _listen(sys.stdin)
    speech.write(Ready(device=device).model_dump_json() + "\n")
    while True:
        message = ears.get()
        if isinstance(message, Start):
            job = message.job
            with _log_to(folder.trial(job.trial)):
                outcome = _attempt(job, fold, config_device=device, folder=folder, speech=speech, ears=ears)
            speech.write(Finished(trial=job.trial, outcome=outcome).model_dump_json() + "\n")


def _attempt(
    job: Job,
    fold: Fold,
    config_device: str,
    folder: RunFolder,
    speech: IO[str],
    ears: "queue.Queue[Start | Answer]",
) -> Outcome:
    """Run one job; an exception becomes a failed outcome, its traceback goes to the trial's log."""
    started = time.monotonic()
    try:
        config = read_config(folder.config)
        steps = rungs(config.study, job.fit.steps)[:-1]
        talk = _talk(job, speech, ears)
        outcome = run_job(job, fold, config, folder.trial(job.trial), config_device, talk, steps)
    except Exception as error:
        traceback.print_exc()
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        outcome = Outcome(state="failed", reason=reason.splitlines()[0][:300] if reason else "unknown")
    return outcome.model_copy(update={"seconds": time.monotonic() - started})


def _talk(job: Job, speech: IO[str], ears: "queue.Queue[Start | Answer]") -> Talk:
    last = 0.0
    leaving = False

    def progress(phase: str, done: int, total: int, loss: float | None) -> Reply:
        nonlocal last, leaving
        now = time.monotonic()
        if now - last > PROGRESS_SECONDS:
            last = now
            speech.write(
                Progress(trial=job.trial, phase=phase, done=done, total=total, loss=loss).model_dump_json() + "\n"
            )
        while not ears.empty():
            message = ears.get()
            leaving |= isinstance(message, Answer) and message.trial == job.trial and message.answer == "leave"
        return "leave" if leaving else "go"

    def scored(step: int, value: float) -> Reply:
        speech.write(Scored(trial=job.trial, step=step, surface_dice=value).model_dump_json() + "\n")
        while True:
            message = ears.get()
            if isinstance(message, Answer) and message.trial == job.trial:
                return "leave" if leaving else message.answer

    return Talk(progress, scored)


def _listen(stream: IO[str]) -> "queue.Queue[Start | Answer]":
    """The driver's messages as they come; the end of the stream ends the process."""
    heard: queue.Queue[Start | Answer] = queue.Queue()

    def read() -> None:
        for line in stream:
            heard.put(from_driver.validate_json(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return heard


@contextmanager
def _log_to(folder: TrialFolder) -> Iterator[None]:
    """Send everything printed, also by compiled code, to the trial's log."""
    folder.path.mkdir(parents=True, exist_ok=True)
    kept = [os.dup(1), os.dup(2)]
    log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for handle, number in zip(kept, (1, 2), strict=True):
            os.dup2(handle, number)
            os.close(handle)
        os.close(log)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
