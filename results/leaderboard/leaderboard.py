"""The leaderboard: what is known about every candidate, ranked, as scripts read it; made by ranking.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from search_spaces.errors import InputError

State = Literal["complete", "pruned", "failed", "infeasible", "interrupted"]  # how a training ended
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
    ci_low: float | None  # of the metric that ranks
    ci_high: float | None
    threshold: float | None
    seeds: int
    parameters: int | None
    train_seconds: float | None
    peak_memory_gib: float | None
    tied_with_best: bool | None
    state: State
    baseline: bool
    seed_scores: tuple[float, ...] = ()  # in the metric that ranks
    reason: str | None = None
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
    best: int | None  # the leader's trial
    seed_deviation: float | None  # standard deviation of one training, from candidates trained more than once
    rows: tuple[Row, ...]
    second_um: float | None = None  # voxel size of the second score; None if no row has one

    def value(self, row: Row) -> float | None:
        """What a row is ranked by."""
        return row.metrics.get(self.rank_by)

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
        raise InputError(
            f"{path} is damaged, or of another version; `nas search --run {path.parent}` writes it again"
        ) from error


def reading(board: Leaderboard) -> str:
    """How to read the ranking, in a few sentences."""
    if board.best is None:
        return "No candidate was trained to its end and scored, so there is nothing to rank yet."
    tied = [r for r in board.rows if r.tied_with_best and r.trial != board.best]
    spread = (
        f"Training again with another seed changes a score by {board.seed_deviation:.3f} (standard deviation)."
        if board.seed_deviation is not None
        else "No candidate was trained with two seeds, so ties do not include the unknown spread between trainings."
    )
    ties = (
        f"{len(tied)} other row(s) cannot be told apart from the best: prefer the cheapest of them."
        if tied
        else "Every other row can be told apart from the best."
        if sum(row.rank is not None for row in board.rows) > 1
        else "There is only one row, so there is nothing to compare it with."
    )
    second = (
        ""
        if board.second_um is None
        else f" Values at {board.second_um:.0f} µm (shown if the terminal is wide enough) are from the same kidney, "
        "resampled, at the same thresholds. They show how well a network copes with another voxel size; they do not "
        "affect the ranking."
    )
    return (
        f"{ties} {spread}{_starts(board)} The interval shows how the score depends on which part of this kidney is "
        "scored. One kidney cannot show how much kidneys differ, and the leader was chosen on it, so expect a somewhat "
        f"lower score on the next.{second}"
    )


def _starts(board: Leaderboard) -> str:
    """A warning that rows of different starts compare unfairly, if there are both kinds; begins with a space."""
    ranked = [row for row in board.rows if row.rank is not None and row.start is not None]
    scratch = sum(row.start == SCRATCH for row in ranked)
    if not 0 < scratch < len(ranked):
        return ""
    return (
        f" {scratch} of {len(ranked)} ranked row(s) started from random weights (start: scratch) and the others from "
        "pretrained ones: between the two kinds, a difference in score mixes start and network."
    )
