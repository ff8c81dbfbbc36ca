"""Score: how well one set of weights segments the held-out kidney, in every metric; cross_fit.py computes it."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, NonNegativeFloat, PositiveInt, model_validator

from search_spaces.errors import unknown_name
from trainers.data.geometry import Axes, Micrometres
from trainers.metrics.table import METRICS, USUAL, title_of


def _known(name: str) -> str:
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return name


MetricName = Annotated[str, AfterValidator(_known)]
_ROUNDING = 1e-9  # by which a share may exceed 1: sums of areas
Share = Annotated[float, Field(ge=0, le=1 + _ROUNDING)]
Threshold = Annotated[float, Field(ge=0, le=1)]


class ScoreConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How the held-out kidney is cut into slabs, which metrics score it, and how scores are compared."""

    rank_by: MetricName = USUAL  # the metric that ranks; it also chooses thresholds if it has a value at all of them
    # Metrics to measure besides rank_by, each a column of the leaderboard; those computed from masks take longer.
    metrics: tuple[MetricName, ...] = Field(default_factory=lambda: tuple(METRICS))
    slabs: int = Field(default=8, ge=2)  # number of slabs per volume: the blocks of cross-fitting and bootstrap
    resamples: PositiveInt = 2_000  # number of bootstrap resamples for the interval
    # Slices of each volume that are scored before the end of a trial; None: all.
    rung_slices: int | None = Field(default=None, ge=4)
    # Axes along which slices are read before the end of a trial.
    rung_axes: Axes = (0,)
    # Voxel edge in micrometres of a second score, on the same kidney resampled; None: no second score.
    second_um: Micrometres | None = None
    margin: NonNegativeFloat = 0.005  # designs whose scores differ by no more than this are equally good
    sure: float = Field(default=0.95, gt=0.5, lt=1)  # probability at which one design counts as better than another

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that are measured, beginning with the one that ranks."""
        return tuple(dict.fromkeys((self.rank_by, *self.metrics)))

    def ranking_alone(self) -> "ScoreConfig":
        """The same, with only the metric that ranks."""
        return self.model_copy(update={"metrics": ()})


class Slab(BaseModel, frozen=True, extra="forbid"):
    """One block of the score, at the threshold that the other half of the blocks chose."""

    volume: str
    threshold: Threshold
    parts: dict[str, tuple[float, ...]]  # by metric: the parts that add up over slabs


class VolumeScore(BaseModel, frozen=True, extra="forbid"):
    """One held-out volume's own part of the score."""

    volume: str
    values: dict[str, Share]  # by metric


class SecondScore(BaseModel, frozen=True, extra="forbid"):
    """The same kidney as if scanned with other voxels: image and labels are resampled, and thresholds are kept."""

    voxel_size_um: Micrometres
    values: dict[str, Share]  # by metric


class Score(BaseModel, frozen=True, extra="forbid"):
    """The results of one set of weights on the held-out kidney; every value is 0.0 to 1.0.

    The thresholds of `values` were chosen on different slabs from those they are applied to. `best` uses the single
    threshold that suits all slabs best, so it is optimistic.
    """

    rank_by: str  # the metric of interval, best and mean
    values: dict[str, Share]  # by metric, beginning with the one that ranks
    ci_low: Share  # bounds of the 95 % bootstrap interval over slabs
    ci_high: Share
    threshold: Threshold  # for new kidneys: the best over all slabs
    best: Share
    mean_over_thresholds: Share | None  # None for a metric that has no value at all of them
    volumes: tuple[VolumeScore, ...]
    slabs: tuple[Slab, ...]
    second: SecondScore | None = None
    no_second: str | None = None  # why there is no second score although one was wanted

    @model_validator(mode="after")
    def _holds_what_ranks(self) -> "Score":
        measured: list[Mapping[str, object]] = [self.values, *(slab.parts for slab in self.slabs)]
        if any(self.rank_by not in found for found in measured):
            raise ValueError(f"the ranking metric {self.rank_by!r} was not measured everywhere")
        if self.ci_low > self.ci_high:
            raise ValueError(f"its interval ends before it begins: {self.ci_low} to {self.ci_high}")
        return self

    @property
    def value(self) -> float:
        """The value of the ranking metric."""
        return self.values[self.rank_by]

    @property
    def beside(self) -> dict[str, float]:
        """The values of the metrics that do not rank."""
        return {name: value for name, value in self.values.items() if name != self.rank_by}

    def text(self, in_search: float | None = None) -> str:
        """Text for people. in_search: the ranking value of the same design in the search."""
        compared = "" if in_search is None else f"; {in_search:.4f} in the search"
        interval = f"95 % interval {self.ci_low:.3f} – {self.ci_high:.3f}{compared}"
        others = f", {said(self.beside)}" if self.beside else ""
        second = f"; {self.second_text}" if self.second_text else ""
        return f"{title_of(self.rank_by)} {self.value:.4f} ({interval}){others}{second}"

    @property
    def second_text(self) -> str:
        """Text for people: the second score, or why there is none; empty if none was wanted."""
        if self.second is None:
            return f"no second score: {self.no_second}" if self.no_second else ""
        return f"resampled to {self.second.voxel_size_um:g} µm, at the same thresholds: {said(self.second.values)}"


def said(values: dict[str, float], digits: int = 4) -> str:
    """The values of metrics as text for people: "surface dice 0.8123, voxel dice 0.7510"."""
    return ", ".join(f"{title_of(name)} {value:.{digits}f}" for name, value in values.items())
