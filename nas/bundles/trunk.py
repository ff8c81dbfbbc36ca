"""Trunk: where a trial stood before its last cool-down, for a full training to go on from."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from results.record import Job, Record
from results.run_folder import RunFolder, TrialFolder
from trainers.atomic import whole_folder
from trainers.checkpoint import newest_step
from trainers.schedule import SCHEDULES, branch_begins


@dataclass(frozen=True)
class Trunk:
    """A checkpoint that a full training goes on from, and the steps that are in it."""

    path: Path
    step: int


def find_trunk(folder: RunFolder, record: Record, job: Job, ends: bool = True) -> Trunk | str:
    """The trunk of a trial that its full training `job` can go on from, or why there is none.

    ends: whether the training ends at the step that the job names.
    """
    own, place = record.job, folder.trial(record.job.trial)
    if not SCHEDULES[own.fit.schedule].branches:
        return f"schedule {own.fit.schedule} has no trunk"
    if own.hold_out is not None:
        return f"the trial held out {own.hold_out}, and was trained on what is now held out"
    if job.seed != own.seed:
        return "another seed begins anew"
    fields = [name for name in type(own.fit).model_fields if name != "steps"]
    if changed := [name for name in fields if getattr(own.fit, name) != getattr(job.fit, name)]:
        return f"{', '.join(changed)} differs from the trial's"
    step = newest_step(place.trunk)
    if step is None:
        return f"{place.trunk} was not kept"
    if ends and step > branch_begins(job.fit, job.fit.steps):
        return f"the trial was trained for {own.fit.steps} steps, {job.fit.steps} are wanted"
    return Trunk(place.trunk, step)


def continue_from(trunk: Trunk, work: TrialFolder) -> None:
    """Let the training in `work` begin where the trunk ends, unless it has begun already."""
    if work.checkpoints.is_dir():
        return
    with whole_folder(work.checkpoints) as part:
        shutil.copytree(trunk.path, part, dirs_exist_ok=True)
