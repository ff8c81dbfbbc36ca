"""One trial from start to end, as a worker runs it: train, score at the rungs, score the whole held-out kidney."""

import gc
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from accelerate import Accelerator

from nas.config.search_config import SearchConfig
from nas.jobs.clock import Clock, Timer
from nas.jobs.part import Part
from results.leaderboard.leaderboard import State
from results.pictures.curve import LossCurve, append_line, draw_curve, read_lines
from results.pictures.overlay import draw_overlay
from results.record import Job, Outcome
from results.run_folder import TrialFolder
from search_spaces.errors import InputError
from search_spaces.network import build_network
from trainers.atomic import write_atomically
from trainers.checkpoint import save_tensors
from trainers.data.folds import Fold
from trainers.data.patches import PatchSampler
from trainers.estimate import check_memory
from trainers.fit import Fit, make_accelerator
from trainers.inference.reader import Reader, make_reader
from trainers.metrics.evaluate import evaluate
from trainers.metrics.score import Score, said
from trainers.report import SILENT, Report
from trainers.step import NonFiniteLoss

Answer = Literal["go", "leave"]
_FOREVER = 2**62  # steps
OnStep = Callable[[int, float], bool]  # step, loss; whether to go on


@dataclass(frozen=True)
class Talk:
    """Where a training or a cell search sends its reports."""

    # Phase, done, of, loss; answered by "go", or by "leave": write a checkpoint and end.
    progress: Callable[[str, int, int, float | None], Answer]
    scored: Callable[[int, float], None]  # step, value so far of the metric that ranks


class _Ended(Exception):
    """The trial is over before its last score."""

    def __init__(self, state: State, reason: str) -> None:
        self.state, self.reason = state, reason


def run_job(
    job: Job,
    fold: Fold,
    config: SearchConfig,
    folder: TrialFolder,
    device: str,
    talk: Talk,
    rungs: Sequence[int] = (),
    seconds: float | None = None,
) -> Outcome:
    """Train and score one candidate; resumes from the folder's checkpoint, leaves one when told to leave.

    rungs: steps before the last at which a part of the held-out kidney is scored; it pauses at that which the job names
    as its end. seconds: how long training and scoring may take from now on; as many steps are trained as fit into that,
    whatever the job says, for which the schedule must have branches. Without held-out volumes nothing is scored. A
    non-finite loss is an outcome with its reason. Anything else that goes wrong is raised.
    """
    accelerator = make_accelerator(job.fit.precision, device)
    _forget_peak_memory(accelerator)
    training = make_fit(job, fold, accelerator)
    attempt = _Attempt(job, fold, config, folder, talk, accelerator, training, seconds)
    outcome = _run(attempt, rungs)
    facts = {
        "step": outcome.step or training.step,
        "parameters": sum(p.numel() for p in training.averaged.parameters()),
        "scored": attempt.scored(),
        "train_seconds": attempt.clock.seconds,
        "score_seconds": attempt.score_seconds,
        "peak_memory_gib": _peak_memory_gib(accelerator),
        "device": torch.cuda.get_device_name() if accelerator.device.type == "cuda" else "CPU",
    }
    return outcome.model_copy(update=facts)


def make_fit(job: Job, fold: Fold, accelerator: Accelerator) -> Fit:
    """The training of a job, at its first step. Raises MemoryError if this machine cannot have enough for it."""
    if accelerator.device.type == "cpu":
        check_memory(job.candidate, job.fit)
    torch.manual_seed(job.seed)
    network = build_network(job.candidate, job.fit.crop)
    sampler = PatchSampler(
        fold.train,
        slices_in=job.candidate.slices_in,
        slices_out=job.candidate.slices_out,
        crop=job.fit.crop,
        vessel_share=job.fit.vessel_share,
        seed=job.seed,
        boxes=job.candidate.boxes,
        spacing_um=job.fit.sampled_um,
    )
    return Fit(network, sampler, job.fit, job.seed, accelerator)


@dataclass
class _Attempt:
    """What the parts of one run_job share."""

    job: Job
    fold: Fold
    config: SearchConfig
    folder: TrialFolder
    talk: Talk
    accelerator: Accelerator
    training: Fit
    seconds: float | None = None  # that are left for it; None: as long as its steps take
    steps: int = field(init=False)  # at the end of which it is complete
    score_seconds: float | None = None  # the last score
    clock: Clock = field(init=False)
    curve: LossCurve = field(init=False)
    saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.steps = self.job.fit.steps
        self.clock = Clock(self.folder.seconds)
        self.curve = LossCurve(self.folder.losses, self.job.fit.steps)

    @property
    def timed(self) -> bool:
        """Whether its steps follow from its time."""
        return self.seconds is not None or self.job.seconds is not None

    def scored(self) -> dict[int, float]:
        """The scores at rungs so far, by step."""
        metric = self.config.score.rank_by
        return {int(line["step"]): float(line[metric]) for line in read_lines(self.folder.scores, metric)}

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Note how long a score takes."""
        began = time.monotonic()
        yield
        self.score_seconds = time.monotonic() - began

    def save(self) -> None:
        """Write a checkpoint, and the time it took to get here; only the first of several processes writes."""
        if not self.accelerator.is_main_process:
            return
        self.clock.mark()
        self.training.save(self.folder.checkpoints)
        self.saved = time.monotonic()

    def left(self) -> _Ended:
        of = "" if self.timed else f" of {self.steps}"
        return _Ended("interrupted", f"left at step {self.training.step}{of}")


def _run(attempt: _Attempt, rungs: Sequence[int]) -> Outcome:
    try:
        paused = _train(attempt, rungs)
        return paused or Outcome(state="complete", score=_finish(attempt))
    except _Ended as end:
        return Outcome(state=end.state, reason=end.reason)
    finally:
        if attempt.accelerator.is_main_process:
            shutil.rmtree(attempt.folder.scratch, ignore_errors=True)


def _train(attempt: _Attempt, rungs: Sequence[int]) -> Outcome | None:
    """All steps up to the end that the job names, with a score at each rung; what came of it if it pauses there.

    What is scored at a rung is the end of a branch, if the schedule has branches; the training then goes on from where
    the branch began.
    """
    training = attempt.training
    training.resume(attempt.folder.checkpoints)
    end = attempt.job.until
    if attempt.timed:
        last = _last_step_in_time(attempt)
        attempt.steps, end = (_FOREVER, last) if attempt.job.pauses else (last, None)
    steps = attempt.steps
    for rung in sorted(rung for rung in {*rungs, end or steps} if rung <= (end or steps)):
        begin = training.branches_at(rung)
        if training.step > begin and rung != end and rung < steps:
            continue
        _advance(attempt, training.run, begin, saving=True)
        if rung == steps:
            _keep_trunk(attempt, begin)
            _advance(attempt, training.cool_down, steps, saving=True)
            return None
        value = _value_at(attempt, rung)
        if rung == end:
            metric = attempt.config.score.rank_by
            reason = f"scored at step {rung}: {said({metric: value}, digits=3)} so far"
            return Outcome(state="paused", reason=reason, so_far=value, step=rung)
        if training.step > begin:
            training.resume(attempt.folder.checkpoints)
    return None


def _last_step_in_time(attempt: _Attempt) -> int:
    """Train the trunk until a cool-down would take the rest of the time; the step at which that ends.

    What steps cost is measured on the way: if other work slows them down, there are fewer, and the time is kept.
    """
    training, folder = attempt.training, attempt.folder
    if folder.last_step.is_file():
        try:
            return int(folder.last_step.read_bytes())
        except ValueError as error:
            raise InputError(f"{folder.last_step} holds no step; delete it") from error
    left = (attempt.job.seconds or 0.0) - attempt.clock.seconds
    if attempt.seconds is not None:
        began = time.monotonic()
        _, scoring = _part(attempt).seconds_to_score()
        left = attempt.seconds - scoring - (time.monotonic() - began)
    timer = Timer(left, training.branches_at)
    _advance(attempt, training.run, _FOREVER, saving=True, timer=timer)
    last = training.cooled_after(training.step)
    if attempt.accelerator.is_main_process:
        write_atomically(folder.last_step, f"{last}\n")
    return last


def _keep_trunk(attempt: _Attempt, begin: int) -> None:
    """Keep what comes before the last cool-down, so that a longer training can go on from there."""
    if attempt.training.step == begin < attempt.steps and attempt.accelerator.is_main_process:
        attempt.training.save(attempt.folder.trunk)


def _advance(
    attempt: _Attempt,
    train: Callable[[int, OnStep], bool],
    until: int,
    saving: bool,
    timer: Timer | None = None,
) -> None:
    """Train up to a step, or until a timer says that it is time to cool down, with checkpoints if `saving`."""
    training = attempt.training
    left = timer is None

    def on_step(step: int, loss: float) -> bool:
        nonlocal left
        total = timer.last_step(step) if timer else until if attempt.steps == _FOREVER else attempt.steps
        going = attempt.talk.progress("train", step, total, loss) == "go"
        if attempt.accelerator.is_main_process:
            attempt.curve.add(step, loss)
            if saving and time.monotonic() - attempt.saved > attempt.config.study.checkpoint_seconds:
                attempt.save()
        left = not going
        return going and not (timer and timer.is_time(step))

    before = training.step
    try:
        with attempt.clock:
            finished = train(until, on_step)
    except NonFiniteLoss as error:
        raise _Ended("failed", f"{error} at step {training.step + 1}; a lower learning rate may help") from error
    # Otherwise the checkpoint is there already; a branch from the very start needs one to come back to.
    if saving and (training.step > before or not attempt.folder.checkpoints.is_dir()):
        attempt.save()
    if not finished and not training.agreed(not left):
        raise attempt.left()


def _value_at(attempt: _Attempt, rung: int) -> float:
    """What the network as trained up to a rung scores on a part of the held-out kidney.

    A branch is trained without checkpoints: it is short, and those of its trunk are still needed. A score that an
    interrupted attempt had already found is sent again, because it may never have arrived.
    """
    config = attempt.config.score
    known = attempt.scored()
    if rung not in known:
        _advance(attempt, attempt.training.cool_down, rung, saving=False)
        with attempt.scoring():
            known[rung] = _part(attempt, _report(attempt)).score()
        append_line(attempt.folder.scores, {"step": rung, config.rank_by: known[rung]})
    attempt.talk.scored(rung, known[rung])
    return known[rung]


def _finish(attempt: _Attempt) -> Score | None:
    """Weights, pictures, and the score of the whole held-out kidney if there is one; only the first process writes."""
    if not attempt.accelerator.is_main_process:
        return None
    folder, job, held_out = attempt.folder, attempt.job, attempt.fold.held_out
    job.candidate.fold(attempt.training.averaged)  # so that what is scored is what is exported
    save_tensors(attempt.training.averaged.state_dict(), folder.weights)
    draw_curve(folder.curve, folder.losses, folder.scores, job.name, attempt.config.score.rank_by)
    if not held_out:
        return None
    with attempt.scoring():
        predictions, result = evaluate(
            _reader(attempt),
            held_out,
            job.inference,
            attempt.config.score,
            attempt.accelerator,
            scratch=folder.scratch,
            report=_report(attempt),
        )
    draw_overlay(folder.overlay, held_out, predictions, result, job.name)
    return result


def _reader(attempt: _Attempt) -> Reader:
    return make_reader(attempt.training.averaged, attempt.job.candidate, attempt.job.fit)


def _part(attempt: _Attempt, report: Report = SILENT) -> Part:
    job, held_out, score = attempt.job, attempt.fold.held_out, attempt.config.score
    return Part(_reader(attempt), held_out, job.inference, score, attempt.accelerator, attempt.folder.scratch, report)


def _report(attempt: _Attempt) -> Report:
    """Reports how far a prediction is; leaves when told to."""

    def progress(_: str, done: int, of: int) -> None:
        if attempt.talk.progress("score", done, of, None) == "leave":
            raise attempt.left()  # the checkpoint is from before the prediction, which is done again

    return Report(progress=progress)


def _forget_peak_memory(accelerator: Accelerator) -> None:
    """Reset the peak to this trial's own: an earlier trial in the same worker may have used more."""
    gc.collect()
    if accelerator.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_memory_gib(accelerator: Accelerator) -> float:
    """The peak on the GPU in this trial; on a CPU, that of the worker process so far, libraries included."""
    if accelerator.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
