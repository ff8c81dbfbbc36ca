"""Reading: how a trained network is read, the threshold found for that, and the score it reached."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel

from results.record import Record
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import Score, ScoreConfig, Threshold


class Reading(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How probabilities are found and become a mask.

    One value, because the parts belong together: another inference has another threshold and another score.
    """

    inference: InferenceConfig
    # Probability from which a voxel is vessel; None: not known, as for a mean never scored.
    threshold: Threshold | None
    score_config: ScoreConfig  # how it is scored
    score: Score | None = None  # on the held-out kidney; None if nothing was scored
    tuned_on: dict[str, str] = {}  # volumes that chose symmetries and smallest component; name -> content hash

    def unscored(self) -> "Reading":
        """The reading of weights that know the held-out kidney too: the same, without the score."""
        return self.model_copy(update={"score": None})


def _with_threshold(reading: Reading) -> Reading:
    if reading.threshold is None:
        raise ValueError("threshold is missing")
    return reading


# A reading that is kept on disk: its threshold is known.
KeptReading = Annotated[Reading, AfterValidator(_with_threshold)]


def reading_of(record: Record, score_config: ScoreConfig) -> Reading:
    """How a trial was read and scored. Raises ValueError if it never was: no threshold is known then."""
    job, score = record.job, record.outcome.score
    if score is None:
        raise ValueError(f"trial {job.trial} was never scored, so no threshold is known")
    return Reading(inference=job.inference, threshold=score.threshold, score_config=score_config, score=score)
