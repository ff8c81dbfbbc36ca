"""The leader, or any other candidate, trained in full and exported."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file

from nas.bundles.export import describe_trial, trial_record
from nas.bundles.requests import RetrainRequest, Side, Start
from nas.bundles.trunk import Trunk, continue_from, find_trunk
from nas.config.runs import read_run_to_train
from nas.config.search_config import SearchConfig
from nas.jobs.cell_search import draw_cells_of
from nas.jobs.failures import outcome_of
from nas.jobs.kidneys import check_same_data, open_fold
from nas.jobs.trial import Answer, Talk, run_job
from nas.workers.signals import stop_on_signal
from results.bundles.architecture import Architecture
from results.bundles.bundle import read_architecture, write_bundle
from results.bundles.reading import Reading, reading_of
from results.leaderboard.leaderboard import read_leaderboard
from results.record import Job, Outcome, Record, read_job
from results.run_folder import RunFolder, TrialFolder, read_seconds
from results.version import program_version
from search_spaces.errors import InputError
from trainers.atomic import write_atomically
from trainers.checkpoint import newest_step
from trainers.data.batches import loader_died
from trainers.data.folds import Fold
from trainers.inference.reader import InferenceConfig
from trainers.report import SILENT, Report
from trainers.schedule import SCHEDULES


@dataclass(frozen=True)
class Retraining:
    """What is to be trained in full."""

    name: str  # of the bundle's folder
    job: Job
    record: Record | None  # of the trial that is trained in full; None for a bundle
    known: Reading | None  # the reading of the search or of the bundle, with the score it reached
    # A training on all kidneys has no kidney left to find a threshold on. It takes over the reading of this bundle: the
    # same training with one kidney held out, or the target itself.
    twin: Path | None
    start: Start = "trunk"
    minutes: float | None = None  # how long it may take, with the score; None: as long as its steps take

    @property
    def length(self) -> str:
        """How long it is, in words."""
        return f"{self.job.fit.steps} steps" if self.minutes is None else f"{self.minutes:g} minutes"

    @property
    def before(self) -> float | None:
        """The ranking value that was known before this training."""
        return self.known.score.value if self.known and self.known.score else None


class BundleExists(InputError):
    """What was to be trained was trained before, and lies at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} already exists; move or delete it to train again")
        self.path = path


def find_retraining(
    folder: RunFolder,
    config: SearchConfig,
    target: str,
    best: int | None,
    request: RetrainRequest,
) -> Retraining:
    """What `target` (best, a trial's number, or a bundle's folder) asks to train.

    A seed other than the target's own makes a separate bundle beside the target's. Raises InputError for a target that
    does not exist, and for a time limit where the schedule must know its last step from the start.
    """
    steps, seed, minutes, record = request.steps, request.seed, request.minutes, None
    if steps is not None and minutes is not None:
        raise InputError("give --steps or --minutes, not both")
    if target == "best" and best is None:
        raise InputError(f"no trial is finished yet; let `nas search {folder.named}` finish one")
    if target == "best" or target.isdecimal():
        number = best if best is not None and target == "best" else int(target)
        record = trial_record(folder, number)
        name, job, given = f"trial-{number:04d}", record.job, None
        own = record.job.hold_out is None  # another kidney's thresholds and scores do not count here
        known = reading_of(record, config.score) if record.outcome.score and own else None
    elif Path(target).is_dir():
        given, architecture = Path(target), read_architecture(Path(target))
        name, known = given.resolve().name, architecture.reading
        job = Job(
            trial=architecture.provenance.trial,
            name=architecture.name,
            candidate=architecture.candidate,
            fit=architecture.fit,
            inference=_untuned(architecture.reading, config.inference),
            seed=architecture.provenance.seed,
        )
    else:
        raise InputError(
            f"cannot retrain {target!r}: give `best`, `topN` (as in top3), the number of a trial, or a bundle's folder"
        )
    rate = job.fit.learning_rate * config.retrain.learning_rate_factor
    fit = job.fit.model_copy(update={"steps": steps or config.retrain.steps, "learning_rate": rate})
    if seed is not None and seed != job.seed:
        name, job = f"{name.removesuffix(f'-seed-{job.seed}')}-seed-{seed}", job.model_copy(update={"seed": seed})
    job = job.model_copy(update={"fit": fit, "repeats": None, "until": None, "hold_out": None})
    if minutes is not None and not SCHEDULES[fit.schedule].branches:
        raise InputError(
            f"{job.name} is trained on the schedule {fit.schedule}, which must know its last step from the start: give "
            "--steps instead of --minutes"
        )
    other = folder.retrained / name
    twin = other if other.is_dir() and is_of(read_architecture(other), job, minutes is not None) else given
    return Retraining(name, job, record, known, twin, request.start, minutes)


def _untuned(reading: Reading, usual: InferenceConfig) -> InferenceConfig:
    """How a bundle was read before `nas tune` chose for its weights, on volumes that a new training is scored on."""
    if not reading.tuned_on:
        return reading.inference
    chosen = {"symmetries": usual.symmetries, "smallest_component": usual.smallest_component}
    return reading.inference.model_copy(update=chosen)


def retrain(
    training: Retraining,
    fold: Fold,
    config: SearchConfig,
    folder: RunFolder,
    on: Side,
    report: Report = SILENT,
    began: float | None = None,
) -> tuple[Path, Record]:
    """Train at full length, continuing an earlier call, and write a bundle; returns the bundle's path and a record.

    began: when the time for it began, on the monotonic clock; None: now.

    on: "train" trains on the training kidneys and scores the held-out one. "all" trains on the held-out kidney too, so
    nothing is left to score on (`reading_for_all`). Raises InputError if the loss becomes non-finite, if Ctrl-C stopped
    the training, if the bundle already exists or another process is training it, or if no threshold would be known.
    """
    began = time.monotonic() if began is None else began
    with _alone(folder, bundle_name(training.name, on)):
        if on == "all":
            fold = Fold((*fold.train, *(v for v in fold.held_out if v.label is not None)), ())
        name = bundle_name(training.name, on)
        path, work = folder.retrained / name, folder.retraining(name)
        if path.exists():
            raise BundleExists(path)
        refuse_other_work(work, training)
        taken = reading_for_all(training) if on == "all" else None
        job, left = _begin(training, folder, work, on, report), None
        if training.minutes is not None:
            left = 60 * training.minutes - (time.monotonic() - began) - read_seconds(work.seconds)
        outcome = _train(job, fold, config, work, report, left)
        job = job.model_copy(update={"fit": job.fit.model_copy(update={"steps": outcome.step})})
        record = Record(job=job, outcome=outcome, version=program_version())
        if not is_first_process():
            return path, record
        reading = taken or reading_of(record, config.score)
        write_bundle(path, describe_trial(record, config, fold, reading), load_file(work.weights))
        for picture in (work.overlay, work.curve):
            if picture.is_file():
                shutil.move(picture, path / picture.name)
        draw_cells_of(job, folder, config, path / work.genotype.name)
        shutil.rmtree(work.path)
        return path, record


def _train(
    job: Job, fold: Fold, config: SearchConfig, work: TrialFolder, report: Report, seconds: float | None
) -> Outcome:
    """Train and score until Ctrl-C. Raises InputError if that does not come to its end."""
    stop = threading.Event()

    def progress(phase: str, done: int, total: int, loss: float | None) -> Answer:
        report.progress(phase, done, total)
        if loss is not None:
            report.remark(f"loss {loss:.3f}")
        return "leave" if stop.is_set() else "go"

    talk = Talk(progress, lambda _step, _value: None)
    try:
        with stop_on_signal(stop):
            outcome = run_job(job, fold, config, work, config.device, talk, seconds=seconds)
    except (RuntimeError, MemoryError) as error:
        if loader_died(error):
            raise InputError("a loader process was killed; run the same command again to continue") from error
        ended, _ = outcome_of(error, _device(config.device))
        if ended.state != "infeasible":
            raise
        if newest_step(work.checkpoints) is not None:  # it has fitted before, so others take the memory now
            raise InputError(f"{ended.reason}; run the same command again to continue") from error
        if is_first_process():
            shutil.rmtree(work.path)
        raise InputError(f"{job.name}: {ended.reason}; train it on a machine with more") from error
    if outcome.state == "interrupted":
        raise InputError(f"stopped: {outcome.reason}; run the same command again to continue")
    if outcome.state == "failed":
        if is_first_process():
            shutil.rmtree(work.path)
        raise InputError(f"retraining stopped: {outcome.reason} (try --set retrain.learning_rate_factor=0.5)")
    return outcome


def _device(wanted: str) -> str:
    """The device that a training is on, for what torch says of its memory."""
    if wanted == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return "cuda" if wanted == "auto" else wanted


def _begin(training: Retraining, folder: RunFolder, work: TrialFolder, on: Side, report: Report) -> Job:
    """The job as it is done in `work`, where its first process writes it down: with the trunk that it goes on from."""
    if work.job.is_file():
        return read_job(work.job)
    job, trunk = training.job, _trunk(training, folder, on)
    if isinstance(trunk, Trunk):
        job = job.model_copy(update={"trunk": trunk.step})
        report.note(f"goes on from step {trunk.step}, where the search left it")
    elif trunk:
        report.note(f"begins anew: {trunk}")
    if is_first_process():
        work.path.mkdir(parents=True, exist_ok=True)
        if isinstance(trunk, Trunk):
            continue_from(trunk, work)
        write_atomically(work.job, job.model_dump_json(indent=2))
    return job


def _trunk(training: Retraining, folder: RunFolder, on: Side) -> Trunk | str:
    """What the training goes on from, or why it begins anew; empty if nobody would ask."""
    if training.record is None or training.start == "scratch":
        return ""
    if on == "all":
        return "the search has not trained on the held-out kidney"
    return find_trunk(folder, training.record, training.job, training.minutes is None)


def reading_for_all(training: Retraining) -> Reading:
    """How a training on all kidneys is read: as its twin is now, else as in the search; InputError without both."""
    known = read_architecture(training.twin).reading if training.twin else training.known
    if known is None:
        raise InputError(
            f"a training of {training.name} on all kidneys leaves none to find a threshold on, and no threshold is "
            "known: first train it with --on train"
        )
    return known.unscored()


@contextmanager
def _alone(folder: RunFolder, name: str) -> Iterator[None]:
    """Only one command trains a bundle at a time; the operating system releases the lock of one that was killed."""
    if not is_first_process():
        yield
        return
    folder.retrained.mkdir(exist_ok=True)
    lock = FileLock(folder.retraining_lock(name))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"another command is training {folder.retrained / name}; wait for it") from error
    try:
        yield
    finally:
        lock.release()


def is_of(architecture: Architecture, job: Job, any_length: bool = False) -> bool:
    """Whether a bundle comes from this training, on whichever kidneys. any_length: with however many steps."""
    fit = job.fit.model_copy(update={"steps": architecture.fit.steps}) if any_length else job.fit
    found = architecture.candidate, architecture.fit, architecture.provenance.seed
    return found == (job.candidate, fit, job.seed)


def refuse_other_work(work: TrialFolder, training: Retraining) -> None:
    """Raise InputError if an unfinished training with other settings is in the way."""
    if not work.job.is_file():
        return
    found = read_job(work.job)
    if found.model_copy(update={"trunk": None}) != training.job or (found.trunk and training.start == "scratch"):
        raise InputError(f"{work.path} holds an unfinished training with other settings; finish it, or delete it")


def bundle_name(name: str, on: Side) -> str:
    """The folder, below `retrained`, of a training on the training kidneys or on all."""
    return name + ("-all" if on == "all" else "")


def is_first_process() -> bool:
    """Whether this is the process that writes and prints: the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def retrain_in_run(
    request: RetrainRequest, report: Report = SILENT, began: float | None = None
) -> tuple[Path, Record, float | None]:
    """What `nas retrain` does; returns the bundle's folder, the record, and the ranking value that the search found.

    Kidneys and settings come from the run folder, even for a bundle from elsewhere. began: when the time for it began,
    on the monotonic clock; None: now.
    """
    began = time.monotonic() if began is None else began
    config, folder = read_run_to_train(request.run, request.overrides or ())
    best = read_leaderboard(folder.leaderboard_json).best if folder.leaderboard_json.is_file() else None
    training = find_retraining(folder, config, request.target, best, request)
    fold = open_fold(config, folder, report)
    check_same_data(folder, [fold])
    report.note(f"{training.job.name}: {training.length} on {', '.join(v.name for v in fold.train)}")
    if request.on == "all":
        report.note(
            f"the bundle will be read as {training.twin} is"
            if training.twin
            else "the bundle will be read at the threshold that the search found, because "
            f"{folder.retrained / training.name}, the same training with a kidney held out, does not exist"
        )
    path, record = retrain(training, fold, config, folder, request.on, report, began)
    return path, record, training.before
