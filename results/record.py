"""Job and Record: what a trial was asked to do, and how it ended."""

from pathlib import Path

from pydantic import BaseModel, NonNegativeInt, PositiveFloat, PositiveInt

from results.leaderboard.leaderboard import SCRATCH, State
from search_spaces.any_candidate import AnyCandidate
from search_spaces.candidate import Candidate
from search_spaces.errors import InputError
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import Score


class Job(BaseModel, frozen=True, extra="forbid"):
    """One training to be done: everything a worker must know about a trial."""

    trial: NonNegativeInt
    name: str  # for people: "resnet18 · Unet · dice · 64"
    candidate: AnyCandidate
    fit: FitConfig
    inference: InferenceConfig  # how it reads volumes
    seed: int
    baseline: bool = False  # a fixed recipe to compare with; never stopped early
    default: bool = False  # the baseline that is exported unless another design is surely better
    until: PositiveInt | None = None  # the step at which it is scored and pauses; None: its last
    trunk: PositiveInt | None = None  # steps that it takes over from the trial in the search; None: it begins anew
    # How long its training may take, from which its steps follow; None: the recipe says how many there are.
    seconds: PositiveFloat | None = None
    rungs: tuple[PositiveInt, ...] = ()  # steps before the last at which it is scored on a part
    pauses: bool = False  # whether it is scored on a part and pauses when these seconds are over
    repeats: NonNegativeInt | None = None  # the trial whose candidate this one trains again with another seed
    supernet: str | None = None  # the cell search that found its cells; None: none did
    supernet_loss: float | None = None  # of its cells with the weights of that search
    hold_out: str | None = None  # what is held out instead of what the search ranks on

    def settled(self, steps: int) -> "Job":
        """With the number of steps that its time came to."""
        return self.model_copy(update={"fit": self.fit.model_copy(update={"steps": steps})})

    @property
    def design(self) -> int:
        """The trial that stands for this candidate and recipe, whatever the seed."""
        return self.trial if self.repeats is None else self.repeats


class Outcome(BaseModel, frozen=True, extra="forbid"):
    """How a training ended. `score` is that of the whole held-out kidney, or None if it was not reached."""

    state: State
    score: Score | None = None
    reason: str | None = None  # why it is not complete, in one line
    so_far: float | None = None  # of a paused one: what ranks, on a part of the held-out kidney
    scored: dict[int, float] = {}  # what ranks, on a part of the held-out kidney, by step
    step: NonNegativeInt = 0  # where it ended
    parameters: PositiveInt | None = None
    train_seconds: float | None = None  # optimiser steps alone
    score_seconds: float | None = None  # the last score, on a part or on the whole held-out kidney
    seconds: float | None = None  # scoring included
    memory_excess_gib: float | None = None  # of an infeasible one: how much more memory it needs than there is
    peak_memory_gib: float | None = None  # of the GPU, or of the worker if there is none
    device: str | None = None


class Record(BaseModel, frozen=True, extra="forbid"):
    """What is kept of one trial."""

    job: Job
    outcome: Outcome
    version: str  # of this program, with the commit if known


def read_job(path: Path) -> Job:
    """The job in a file that exists. Raises InputError where it cannot be understood."""
    try:
        return Job.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is damaged, or of another version: restore it from a copy") from error


def read_record(path: Path) -> Record | None:
    """The record in a file, or None if there is no file. Raises InputError if it cannot be understood."""
    if not path.is_file():
        return None
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise InputError(
            f"{path} is damaged, or of another version: restore it from a copy; without it the trial is not ranked"
        ) from error


def describe(candidate: Candidate, fit: FitConfig, origin: str | None = None) -> str:
    """A short name for a row: the network, loss, slices and crop, and what is unusual about the recipe.

    origin: how its cells were found.
    """
    return f"{candidate.title(origin)} · {fit.loss} · {candidate.slices_in}x{fit.crop}{_changed(fit)}"


def _changed(fit: FitConfig) -> str:
    """Augmentation and voxel size, if they are not the usual ones."""
    usual = FitConfig.model_fields["augmentation"].default
    size = "" if fit.voxel_size_um is None else f" · {fit.voxel_size_um:g} µm"
    return size + ("" if fit.augmentation == usual else f" · {fit.augmentation}")


def start_of(candidate: Candidate) -> str:
    """What the weights were at the start: scratch, or the name of the pretrained ones."""
    return candidate.start or SCRATCH
