"""One trial, start to end, as a worker runs it: train, score at the rungs, score the whole held-out kidney."""

import json
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from accelerate import Accelerator

from nas.config import SearchConfig
from results.curve import LossCurve, draw_curve, read_lines
from results.overlay import draw_overlay
from results.record import Job, Outcome
from results.run_folder import TrialFolder
from search_spaces.network import build_network
from trainers.checkpoint import save_tensors
from trainers.data.folds import Fold
from trainers.data.patches import PatchSampler
from trainers.data.volume import Volume
from trainers.evaluate import predict_all, score
from trainers.fit import Fit, make_accelerator
from trainers.inference import Reader, make_reader
from trainers.step import NonFiniteLoss

Answer = Literal["go", "stop", "leave"]
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Talk:
    """What a trial says to whoever decides, and what it is told.

    Both return the answer: go on, stop because others are ahead, or write a checkpoint and leave.
    """

    progress: Callable[[str, int, int, float | None], Answer]  # phase, done, of, loss
    scored: Callable[[int, float], Answer]  # step, surface dice so far


def run_job(
    job: Job, fold: Fold, config: SearchConfig, folder: TrialFolder, device: str, talk: Talk, rungs: Sequence[int] = ()
) -> Outcome:
    """Train and score one candidate; resumes from the folder's checkpoint, leaves one when told to leave.

    rungs: steps before the last at which a part of the held-out kidney is scored. Without held-out volumes nothing is
    scored. A non-finite loss is an outcome with its reason. Whatever else goes wrong is raised.
    """
    accelerator = make_accelerator(job.fit.precision, device)
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # else the largest trial of this worker so far would count
    torch.manual_seed(job.seed)
    network = build_network(job.candidate, job.fit.crop)
    clock = _Clock(folder)
    sampler = PatchSampler(
        fold.train,
        slices_in=job.candidate.slices_in,
        slices_out=job.candidate.slices_out,
        crop=job.fit.crop,
        vessel_share=job.fit.vessel_share,
        seed=job.seed,
    )
    training = Fit(network, sampler, job.fit, job.seed, accelerator)
    training.resume(folder.checkpoints)

    def ended(state: Literal["complete", "pruned", "failed", "interrupted"], reason: str | None = None) -> Outcome:
        return Outcome(
            state=state,
            reason=reason,
            step=training.step,
            parameters=sum(p.numel() for p in network.parameters()),
            train_seconds=clock.seconds,
            peak_memory_gib=_peak_memory_gib(accelerator),
            device=_device_name(accelerator),
        )

    saved = time.monotonic()
    curve = LossCurve(folder.losses, job.fit.steps)

    def on_step(step: int, loss: float) -> bool:
        nonlocal saved
        curve.add(step, loss)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            training.save(folder.checkpoints)
            saved = time.monotonic()
        return talk.progress("train", step, job.fit.steps, loss) == "go"

    reader = make_reader(training.averaged, job.candidate, job.fit.crop)
    for rung in (*rungs, job.fit.steps):
        if rung < training.step:
            continue
        try:
            with clock:
                finished = training.run(rung, on_step)
        except NonFiniteLoss as error:
            return ended("failed", f"{error} at step {training.step + 1}; a lower learning rate may do")
        training.save(folder.checkpoints)
        if not finished:
            return ended("interrupted", f"left at step {training.step} of {job.fit.steps}")
        if rung < job.fit.steps and rung not in _reported(folder):
            value = _score_so_far(reader, fold, config, accelerator, folder, talk)
            _note_score(folder, rung, value)
            answer = talk.scored(rung, value)
            if answer == "stop":
                return ended("pruned", f"behind the others at step {rung}: surface dice {value:.3f} so far")
            if answer == "leave":
                return ended("interrupted", f"left at step {training.step} of {job.fit.steps}")

    save_tensors(training.averaged.state_dict(), folder.weights)
    draw_curve(folder.curve, folder.losses, folder.scores, job.name)
    if not fold.held_out:
        return ended("complete")
    predictions = predict_all(
        reader,
        fold.held_out,
        config.inference,
        accelerator,
        scratch=folder.scratch,
        on_progress=lambda done, of: _report(talk, "score", done, of),
    )
    result = score(predictions, fold.held_out, config.score)
    draw_overlay(folder.overlay, fold.held_out, predictions, result, job.name)
    shutil.rmtree(folder.scratch, ignore_errors=True)
    return ended("complete").model_copy(update={"score": result})


def _score_so_far(
    reader: Reader, fold: Fold, config: SearchConfig, accelerator: Accelerator, folder: TrialFolder, talk: Talk
) -> float:
    """Surface dice on a part of the held-out kidney, along fewer axes: cheap, and equal for all trials."""
    parts = [middle_part(volume, config.score.rung_slices) for volume in fold.held_out]
    inference = config.inference.model_copy(update={"axes": config.score.rung_axes})
    predictions = predict_all(
        reader,
        parts,
        inference,
        accelerator,
        scratch=folder.scratch,
        on_progress=lambda done, of: _report(talk, "score", done, of),
    )
    value = score(predictions, parts, config.score).surface_dice
    shutil.rmtree(folder.scratch, ignore_errors=True)
    return value


def middle_part(volume: Volume, slices: int | None) -> Volume:
    """The `slices` slices around the median vessel voxel; the whole volume if it has no more, or for None."""
    depth, height, width = volume.shape
    if slices is None or depth <= slices or volume.label is None:
        return volume
    vessels = volume.vessel_voxels
    centre = int(
        sorted(vessels[:: max(1, len(vessels) // 10_000)])[len(vessels[:: max(1, len(vessels) // 10_000)]) // 2]
    )
    middle = centre // (height * width) if len(vessels) else depth // 2
    first = min(max(0, middle - slices // 2), depth - slices)
    return replace(volume, image=volume.image[first : first + slices], label=volume.label[first : first + slices])


def _report(talk: Talk, phase: str, done: int, of: int) -> None:
    # A score is short beside a training, so an answer to leave waits for its end.
    talk.progress(phase, done, of, None)


class _Clock:
    """Seconds spent in optimiser steps, over all attempts at a trial."""

    def __init__(self, folder: TrialFolder) -> None:
        self._file = folder.seconds
        self.seconds = float(self._file.read_text()) if self._file.is_file() else 0.0

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self._start
        self._file.write_text(f"{self.seconds:.3f}\n")


def _reported(folder: TrialFolder) -> set[int]:
    return {line["step"] for line in read_lines(folder.scores)}


def _note_score(folder: TrialFolder, step: int, value: float) -> None:
    with folder.scores.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "surface_dice": value}) + "\n")


def _peak_memory_gib(accelerator: Accelerator) -> float:
    if accelerator.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _device_name(accelerator: Accelerator) -> str:
    return torch.cuda.get_device_name() if accelerator.device.type == "cuda" else "CPU"
