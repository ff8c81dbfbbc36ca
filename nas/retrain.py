"""The leader, or any other candidate, trained in full and exported."""

import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from safetensors.torch import load_file

from nas.best import describe_trial, trial_record
from nas.config import SearchConfig, read_config
from nas.fold import open_fold
from nas.objective import Answer, Talk, run_job
from nas.runs import read_run, refuse_other_search
from nas.signals import stop_on_signal
from results.export import read_architecture, write_bundle
from results.leaderboard import Leaderboard
from results.record import Job, Record, read_record
from results.run_folder import RunFolder, TrialFolder
from results.version import program_version
from search_spaces.errors import InputError
from trainers.checkpoint import write_atomically
from trainers.data.folds import Fold

Side = Literal["train", "all"]


def job_to_retrain(folder: RunFolder, config: SearchConfig, target: str, best: int | None, steps: int | None) -> Job:
    """What `target` (best, a trial's number, or a bundle's folder) asks to train.

    Raises InputError for a target that does not exist.
    """
    steps = steps or config.retrain.steps
    if target == "best":
        if best is None:
            raise InputError(f"{folder.path} has no finished trial yet; let `nas search` finish one")
        job = trial_record(folder, best).job
    elif target.isdigit():
        job = trial_record(folder, int(target)).job
    elif Path(target).is_dir():
        architecture = read_architecture(Path(target))
        job = Job(
            trial=architecture.provenance.trial,
            name=architecture.name,
            candidate=architecture.candidate,
            fit=architecture.fit,
            seed=architecture.provenance.seed,
        )
    else:
        raise InputError(f"cannot retrain {target!r}: give `best`, the number of a trial, or the folder of a bundle")
    rate = job.fit.learning_rate * config.retrain.learning_rate_factor
    fit = job.fit.model_copy(update={"steps": steps, "learning_rate": rate})
    return job.model_copy(update={"fit": fit, "repeats": None})


def retrain(
    job: Job,
    fold: Fold,
    config: SearchConfig,
    path: Path,
    on: Side,
    threshold: float | None,
    on_progress: Callable[[str, int, int, float | None], None],
) -> Record:
    """Train a job at full length and write its bundle to `path`; goes on from what an earlier call left beside it.

    on: "train", the training kidneys; the held-out one is then scored. "all": the held-out kidney too, so nothing is
    left to score on, and `threshold`, which the search found, is the bundle's. Raises InputError if the loss becomes
    non-finite, when it was stopped by Ctrl-C, and where `path` is there already.
    """
    if on == "all":
        fold = Fold((*fold.train, *(v for v in fold.held_out if v.label is not None)), ())
    work = TrialFolder(path.with_name(f"{path.name}.work"))
    if path.exists():
        raise InputError(f"{path} is there already; move or delete it to train again")
    if work.job.is_file() and Job.model_validate_json(work.job.read_bytes()) != job:
        raise InputError(f"{work.path} holds an unfinished training with other settings; finish it, or delete it")
    work.path.mkdir(parents=True, exist_ok=True)
    write_atomically(work.job, job.model_dump_json(indent=2))
    stop = threading.Event()

    def progress(phase: str, done: int, total: int, loss: float | None) -> Answer:
        on_progress(phase, done, total, loss)
        return "leave" if stop.is_set() else "go"

    with stop_on_signal(stop):
        outcome = run_job(job, fold, config, work, config.device, Talk(progress, lambda _step, _value: "go"))
    if outcome.state == "interrupted":
        raise InputError(f"stopped at step {outcome.step} of {job.fit.steps}; the same command goes on from there")
    if outcome.state == "failed":
        raise InputError(f"retraining stopped: {outcome.reason} (--set retrain.learning_rate_factor=0.5)")
    record = Record(job=job, outcome=outcome, version=program_version())
    write_bundle(path, describe_trial(record, config, fold, threshold), load_file(work.weights))
    if work.overlay.is_file():
        shutil.move(work.overlay, path / work.overlay.name)
    shutil.rmtree(work.path)
    return record


def retrain_in_run(
    run: Path | None,
    target: str,
    on: Side,
    steps: int | None,
    overrides: Sequence[str],
    on_progress: Callable[[str, int, int, float | None], None],
    on_note: Callable[[str], None],
) -> tuple[Path, Record, float | None]:
    """What `nas retrain` does: the bundle's folder, the record, and the surface dice that the search had found.

    The run folder gives kidneys and settings, also for a bundle from elsewhere.
    """
    config, folder = read_run(run)
    if overrides:
        config = read_config(folder.config, overrides)
        refuse_other_search(folder, config)
    best = None
    if folder.leaderboard_json.is_file():
        best = Leaderboard.model_validate_json(folder.leaderboard_json.read_bytes()).best
    job = job_to_retrain(folder, config, target, best, steps)
    before = read_record(folder.trial(job.trial).record)
    known = before.outcome.score if before is not None else None
    fold = open_fold(config, folder, on_note)
    path = folder.retrained / (f"trial-{job.trial:04d}" + ("-all" if on == "all" else ""))
    path.parent.mkdir(exist_ok=True)
    on_note(f"{job.name}: {job.fit.steps} steps on {', '.join(v.name for v in fold.train)}")
    record = retrain(job, fold, config, path, on, known.threshold if known else None, on_progress)
    return path, record, known.surface_dice if known else None
