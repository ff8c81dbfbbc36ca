"""The leader, or any other candidate, trained in full and exported."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch

from nas.best import describe_trial, trial_record
from nas.config import SearchConfig, read_config
from nas.fold import open_fold
from nas.objective import CHECKPOINT_SECONDS
from nas.runs import read_run, refuse_other_search
from results.export import read_architecture, write_bundle
from results.leaderboard import Leaderboard
from results.overlay import draw_overlay
from results.record import Job, Outcome, Record, read_record
from results.run_folder import RunFolder
from results.version import program_version
from search_spaces.errors import InputError
from search_spaces.network import build_network
from trainers.data.folds import Fold
from trainers.data.patches import PatchSampler
from trainers.evaluate import predict_all, score
from trainers.fit import Fit, make_accelerator
from trainers.inference import make_reader
from trainers.step import NonFiniteLoss

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
    """Train a job at full length and write its bundle to `path`; resumes from a checkpoint beside it.

    on: "train", the training kidneys; the held-out one is then scored. "all": the held-out kidney too, so nothing is
    left to score on, and `threshold`, which the search found, is the bundle's. Raises InputError if the loss becomes
    non-finite.
    """
    accelerator = make_accelerator(job.fit.precision, config.device)
    torch.manual_seed(job.seed)
    network = build_network(job.candidate, job.fit.crop)
    volumes = fold.train if on == "train" else (*fold.train, *(v for v in fold.held_out if v.label is not None))
    sampler = PatchSampler(
        volumes,
        slices_in=job.candidate.slices_in,
        slices_out=job.candidate.slices_out,
        crop=job.fit.crop,
        vessel_share=job.fit.vessel_share,
        seed=job.seed,
    )
    training = Fit(network, sampler, job.fit, job.seed, accelerator)
    checkpoints = path.with_name(f"{path.name}.checkpoint")
    training.resume(checkpoints)
    began = saved = time.monotonic()

    def on_step(step: int, loss: float) -> bool:
        nonlocal saved
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            training.save(checkpoints)
            saved = time.monotonic()
        on_progress("train", step, job.fit.steps, loss)
        return True

    try:
        training.run(job.fit.steps, on_step)
    except NonFiniteLoss as error:
        raise InputError(
            f"retraining stopped: {error} at step {training.step + 1}; try --set retrain.learning_rate_factor=0.5"
        ) from error
    except KeyboardInterrupt:
        training.save(checkpoints)
        raise
    training.save(checkpoints)
    seconds = time.monotonic() - began
    result = None
    if on == "train":
        reader = make_reader(training.averaged, job.candidate, job.fit.crop)
        scratch = path.with_name(f"{path.name}.scratch")
        predictions = predict_all(
            reader,
            fold.held_out,
            config.inference,
            accelerator,
            scratch=scratch,
            on_progress=lambda done, of: on_progress("score", done, of, None),
        )
        result = score(predictions, fold.held_out, config.score)
    outcome = Outcome(
        state="complete",
        score=result,
        step=training.step,
        parameters=sum(p.numel() for p in network.parameters()),
        train_seconds=seconds,
    )
    record = Record(job=job, outcome=outcome, version=program_version())
    trained_on = fold if on == "train" else Fold(volumes, ())
    architecture = describe_trial(record, config, trained_on, threshold)
    write_bundle(path, architecture, training.averaged.state_dict())
    if result is not None:
        draw_overlay(path / "overlay.png", fold.held_out, predictions, result, job.name)
        shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(checkpoints, ignore_errors=True)
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
