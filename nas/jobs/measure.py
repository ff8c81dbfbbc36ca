"""What trainings cost on this machine, measured before the first trial by a few steps of each kind."""

import shutil
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise

import torch
from accelerate import Accelerator
from pydantic import BaseModel, NonNegativeFloat, PositiveFloat

from nas.config.search_config import SearchConfig
from nas.jobs.cell_search import search_settings
from nas.jobs.part import Part
from nas.jobs.trial import Talk, make_fit
from results.record import Job, Outcome
from results.run_folder import RunFolder, TrialFolder
from search_spaces.errors import InputError
from trainers.atomic import write_atomically
from trainers.cell_search.price import seconds_to_search
from trainers.cell_search.run import CellPlan
from trainers.data.folds import Fold
from trainers.fit import Fit, make_accelerator
from trainers.inference.reader import make_reader
from trainers.step import NonFiniteLoss

STEPS = 4  # that are timed, after one that warms up; their median counts


class StepCost(BaseModel, frozen=True, extra="forbid"):
    """What one optimiser step of a kind of network takes."""

    name: str
    seconds: PositiveFloat


class Costs(BaseModel, frozen=True, extra="forbid"):
    """What was measured. The scores are those of the first kind."""

    device: str
    kinds: tuple[StepCost, ...]
    part: NonNegativeFloat  # seconds to score a part of the held-out kidney
    whole: NonNegativeFloat  # seconds to score all of it
    cells: dict[str, NonNegativeFloat] = {}  # seconds of a cell search, by its id
    seconds: NonNegativeFloat  # that measuring took


def read_costs(folder: RunFolder) -> Costs | None:
    """The costs that were measured in a run, or None if none were. Raises InputError if the file is damaged."""
    if not folder.costs.is_file():
        return None
    try:
        return Costs.model_validate_json(folder.costs.read_bytes())
    except ValueError as error:
        raise InputError(f"{folder.costs} is damaged, or of another version; delete it to measure again") from error


def measure_costs(
    jobs: Sequence[Job],
    searches: Sequence[CellPlan],
    fold: Fold,
    config: SearchConfig,
    folder: RunFolder,
    place: TrialFolder,
    device: str,
    talk: Talk,
    most_seconds: float,
) -> Outcome:
    """Time a few steps of the first job and its scores, of cell searches, and of the other jobs; write them down.

    After `most_seconds`, the rest is left out, and so is what cannot be trained, as for want of memory; for the first
    job, the error is raised.
    """
    began = time.monotonic()
    todo: list[Job | CellPlan] = [*jobs[:1], *searches, *jobs[1:]]
    kinds, cells, scores = list[StepCost](), dict[str, float](), (0.0, 0.0)
    for number, one in enumerate(todo):
        if talk.progress("measure", number, len(todo), None) == "leave":
            return Outcome(state="interrupted", reason="left while measuring")
        if number and time.monotonic() - began > most_seconds:
            break
        precision = one.fit.precision if isinstance(one, Job) else config.fit.precision
        accelerator = make_accelerator(precision, device)
        try:
            if isinstance(one, CellPlan):
                seed, settings = config.study.seed, search_settings(config)
                cells[one.id] = seconds_to_search(one, fold.train, config.cell_space, settings, seed, accelerator)
                continue
            training = make_fit(one, fold, accelerator)
            kinds.append(StepCost(name=one.name, seconds=_seconds_of_a_step(training, accelerator)))
        except (torch.OutOfMemoryError, NonFiniteLoss) as error:
            if number == 0:
                raise
            print(f"{one.name if isinstance(one, Job) else one.id} is not measured: {error}")
            continue
        if number == 0:
            reader = make_reader(training.averaged, one.candidate, one.fit)
            part = Part(reader, fold.held_out, one.inference, config.score, accelerator, place.scratch)
            scores = part.seconds_to_score()
            shutil.rmtree(place.scratch, ignore_errors=True)
    costs = Costs(
        device=torch.cuda.get_device_name() if accelerator.device.type == "cuda" else "CPU",
        kinds=tuple(kinds),
        part=scores[0],
        whole=scores[1],
        cells=cells,
        seconds=time.monotonic() - began,
    )
    write_atomically(folder.costs, costs.model_dump_json(indent=1) + "\n")
    return Outcome(state="complete")


def _seconds_of_a_step(training: Fit, accelerator: Accelerator) -> float:
    ends: list[float] = []

    def on_step(step: int, loss: float) -> bool:
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.monotonic())
        return True

    training.run(STEPS + 1, on_step)
    return statistics.median(after - before for before, after in pairwise(ends))
