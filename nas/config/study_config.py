"""StudyConfig: how many candidates are tried, for how long, and how they are chosen; the study's user attributes.

It stands apart from the rest of the configuration, which imports networks, so that `nas status` answers without torch.
"""

from typing import Annotated

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from results.run_folder import RunFolder
from search_spaces.errors import InputError
from search_spaces.toml import read_toml

FIXED, REPEATS, SEED_INDEX = "fixed", "repeats", "seed_index"  # user attributes that make a trial's job
CONTINUES, RUNG = "continues", "rung"  # user attributes: the trial that goes on, and the rung that it goes to
STEPS = "steps"  # user attribute: how many steps its time came to
SPENT, SCORING = "seconds", "score_seconds"  # user attributes: seconds that it took, and those of them for its score
FOUND = "found"  # user attribute: the family and kind of genotype that a trial was queued for
HOLD_OUT = "hold_out"  # user attribute: what is held out instead of what the search ranks on
GIVEN_UP = "given_up"  # user attribute: the trial had no candidate, because its cells could not be found
SECONDS, BUSY_SECONDS = "seconds", "busy_seconds"  # user attributes of the study: time its drivers used

USUAL_TRIALS = 40  # candidates of a search that names no number and has no time limit


class StudyConfig(BaseModel, frozen=True, extra="forbid"):
    """How many candidates are tried, for how long, and how the next one is chosen."""

    # Name of the study, and of its folder below results/runs.
    name: str = Field(default="search", pattern=r"^[^/\\.\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$")
    # Seed of the sampler, weights and samples; trainings with fresh seeds take the next ones.
    seed: int = Field(default=0, ge=0, lt=2**31)
    # Candidates to try, besides the fixed ones; None: as many as the time allows, or 40 without a time limit.
    trials: NonNegativeInt | None = None
    storage: str | None = None  # database URL, as in postgresql://user@host/name; None: a file in the run folder
    minutes: PositiveFloat | None = None  # time limit of training and scoring in total; None: no limit
    gpu_hours: PositiveFloat | None = None  # time limit summed over GPUs, or over CPU workers; None: no limit
    attempts: PositiveInt = 3  # attempts at a trial whose workers die, before it is given up
    failing_share: float = Field(default=0.5, gt=0, le=1)  # a larger share of failed recent trials stops the search
    trial_sampler: str = "tpe"  # how candidates are proposed: a name in SAMPLERS
    random_trials: NonNegativeInt = 10  # candidates drawn at random before the sampler learns from results
    promotion: str = "halving"  # which trials go on after a rung: a name in PROMOTIONS
    rungs: int = Field(default=2, ge=0, le=20)  # scores before the last step, at each of which a trial pauses
    reduction: Annotated[int, Field(ge=2)] = 3  # from rung to rung, steps grow and trials shrink by this factor
    leaders: NonNegativeInt = 3  # number of top rows that are trained with fresh seeds, besides the default
    seeds: PositiveInt = 3  # trainings of each of them at most, including the first
    # Kidneys that these trainings hold out in turn, each at least once, whatever seeds says; None: that of the search
    # alone, or with data.hold_out "each" all.
    folds: PositiveInt | None = None
    kept_weights: PositiveInt = 5  # number of top rows whose weights stay on disk
    checkpoint_seconds: NonNegativeFloat = 60.0  # time between checkpoints; a killed worker loses at most this much

    @property
    def candidates(self) -> int:
        """How many candidates are tried, besides the fixed ones."""
        return USUAL_TRIALS if self.trials is None else self.trials


def read_study_config(folder: RunFolder) -> StudyConfig:
    """The section `study` of a run. Raises InputError if it cannot be read."""
    try:
        return StudyConfig.model_validate(read_toml(folder.config).get("study", {}))
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{folder.config} cannot be read as a configuration: {first}") from error
