"""StudyConfig: how many candidates, for how long, chosen how; and what the study calls what it keeps of them.

Without the rest of the configuration, which knows networks: `nas status` is to answer before torch is imported.
"""

import tomllib
from typing import Annotated

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from results.run_folder import RunFolder
from search_spaces.errors import InputError

FIXED, REPEATS, SEED_INDEX = "fixed", "repeats", "seed_index"  # user attributes that make a trial's job
FOUND = "found"  # user attribute: family and kind of genotype that a trial was queued for
GIVEN_UP = "given_up"  # user attribute: the trial had no candidate, because its cells could not be found
SECONDS, BUSY_SECONDS = "seconds", "busy_seconds"  # user attributes of the study: what its drivers have used


class StudyConfig(BaseModel, frozen=True, extra="forbid"):
    """How many candidates are tried, for how long, and how the next one is chosen."""

    # Of the study, and of its folder below results/runs.
    name: str = Field(default="search", pattern=r"^[^/\\.\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$")
    seed: int = 0  # of the sampler, of weights and of samples; leaders are trained again with the next ones
    trials: PositiveInt = 40  # candidates tried, the fixed ones included; leaders trained again are not counted
    storage: str | None = None  # URL of a database for the study, as in postgresql://user@host/name; None: a journal
    minutes: PositiveFloat | None = None  # of training and scoring in all; None: no limit
    gpu_hours: PositiveFloat | None = None  # of all devices added up (of CPU workers without a GPU); None: no limit
    attempts: PositiveInt = 3  # at a trial whose worker dies, before it is given up
    failing_share: float = Field(default=0.5, gt=0, le=1)  # of the trials that ended: more failures stop the search
    trial_sampler: str = "tpe"  # a name in SAMPLERS
    random_trials: NonNegativeInt = 10  # candidates drawn at random before the sampler learns from results
    pruner: str = "halving"  # a name in PRUNERS
    rungs: NonNegativeInt = 2  # scores before the last step, at which a trial that lies behind is stopped
    reduction: Annotated[int, Field(ge=2)] = 3  # from rung to rung: steps grow, and survivors shrink, by this factor
    leaders: NonNegativeInt = 3  # rows at the top that are trained with several seeds
    seeds: PositiveInt = 3  # trainings of each leader, the first included
    kept_weights: PositiveInt = 5  # rows at the top whose weights stay on disk
    checkpoint_seconds: NonNegativeFloat = 60.0  # between checkpoints: what a killed worker loses at most


def read_study_config(folder: RunFolder) -> StudyConfig:
    """The section `study` of a run. Raises InputError where it cannot be read."""
    try:
        return StudyConfig.model_validate(tomllib.loads(folder.config.read_text(encoding="utf-8")).get("study", {}))
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{folder.config} cannot be read as a configuration: {first}") from error


def hide_password(url: str) -> str:
    """A URL as it may be shown."""
    scheme, there, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{there}{user.partition(':')[0]}{at}{host}"
