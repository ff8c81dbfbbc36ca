"""The leaderboard: what is known about every candidate, ranked, as scripts read it; made by ranking.py."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from results.leaderboard.agreement import Agreement
from search_spaces.errors import InputError

# How a training ended; one that is paused was scored at a rung and goes on if it is promoted.
State = Literal["complete", "paused", "failed", "infeasible", "interrupted"]
SCRATCH = "scratch"  # the start of a network without pretrained weights


def _one_of(field: str, name: str) -> Callable[[dict[str, Any]], float | None]:
    """A metric's value as a key of its own."""
    return lambda row: row[field].get(name)


class Row(BaseModel, frozen=True, extra="forbid"):
    """One candidate with its recipe, over all seeds it was trained with; unknown values are None."""

    rank: int | None
    trial: int
    family: str
    name: str
    metrics: dict[str, float] = {}  # by name; means over the seeds
    ci_low: float | None  # of the metric that ranks, over slabs
    ci_high: float | None
    threshold: float | None
    seeds: int
    parameters: int | None
    train_seconds: float | None
    peak_memory_gib: float | None
    tied_with_best: bool | None
    state: State
    baseline: bool
    default: bool = False  # the baseline that is exported unless another design is surely better
    seed_scores: tuple[float, ...] = ()  # in the metric that ranks; the first is that of the search
    # The rest of a verdict needs trainings with fresh seeds, and is empty without.
    judged: dict[int, float] = {}  # values of these trainings, by seed; metrics are their means
    probability_best: float | None = None  # that no other design is better by more than the margin
    probability_above_default: float | None = None
    kidneys: dict[str, float] = {}  # the mean score with each kidney held out, if there were several; metrics are means
    kidneys_low: float | None = None  # 95 % interval of the mean over kidneys like these
    kidneys_high: float | None = None
    seeds_low: float | None = None  # 95 % interval of the mean over seeds
    seeds_high: float | None = None
    reason: str | None = None
    supernet: str | None = None  # the cell search that found its cells
    second_metrics: dict[str, float] = {}  # on the same kidney at voxels of the leaderboard's second_um
    start: str | None = None  # of its weights: scratch, or those of the encoder (imagenet, a file's name)
    # Values of the two tables above, repeated under the keys that scripts rely on.
    surface_dice: float | None = Field(default_factory=_one_of("metrics", "surface_dice"))
    voxel_dice: float | None = Field(default_factory=_one_of("metrics", "voxel_dice"))
    second_surface_dice: float | None = Field(default_factory=_one_of("second_metrics", "surface_dice"))


class Leaderboard(BaseModel, frozen=True, extra="forbid"):
    """The ranking of one study."""

    study: str
    held_out: str
    metric: str  # the one that ranks and how it is measured, for people
    rank_by: str  # its name
    titles: dict[str, str]  # of all metrics by name, in the order of their columns: the one that ranks first
    best: int | None  # the trial to export
    seed_deviation: float | None  # standard deviation of one training, from candidates trained more than once
    rows: tuple[Row, ...]
    agreements: tuple[Agreement, ...] = ()  # between scores at rungs and at the end, and between seeds
    margin: float = 0.0  # differences up to it do not count
    sure: float = 1.0  # probability at which a design counts as better than the default
    second_um: float | None = None  # voxel size of the second score; None if no row has one

    @property
    def kidneys(self) -> list[str]:
        """Those that were held out in turn, in the order in which designs met them; empty for one kidney alone."""
        return list(dict.fromkeys(kidney for row in self.rows for kidney in row.kidneys))

    @property
    def scored_on(self) -> str:
        """What stands above the scores: the kidney held out, or that they are means over several."""
        return f"{', '.join(self.kidneys)} in turn (mean over kidneys)" if self.kidneys else self.held_out

    def value(self, row: Row) -> float | None:
        """What a row is ranked by."""
        return row.metrics.get(self.rank_by)

    @property
    def chosen(self) -> Row | None:
        """The row of the design to export."""
        return next((row for row in self.rows if row.trial == self.best), None)

    def in_order(self, row: Row) -> dict[str, float]:
        """A row's metrics by name, in the order of their columns."""
        return {name: row.metrics[name] for name in self.titles if name in row.metrics}

    @model_validator(mode="after")
    def _has_the_column_that_ranks(self) -> "Leaderboard":
        if self.rank_by not in self.titles:
            raise ValueError(f"{self.rank_by!r} ranks but has no title")
        return self


def read_leaderboard(path: Path) -> Leaderboard:
    """The ranking in a leaderboard.json. Raises InputError if it is missing or damaged."""
    try:
        return Leaderboard.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path.parent} has no leaderboard yet: no trial has ended") from error
    except ValueError as error:
        again = f"nas search --run {shlex.quote(str(path.parent))}"
        raise InputError(f"{path} is damaged, or of another version; `{again}` writes it again") from error
