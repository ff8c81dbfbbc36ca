"""Verdict: which design is exported, and how surely it is best, from trainings with fresh seeds.

The seed of the search chooses the finalists, so their scores with it are partly luck. Other seeds judge them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from results.leaderboard.comparison import Comparison, compare, interval
from results.record import Record
from trainers.metrics.score import Score


@dataclass(frozen=True)
class Contender:
    """The complete trainings of one candidate and recipe, that of the search first."""

    records: list[Record]

    @property
    def trial(self) -> int:
        return self.records[0].job.design

    @property
    def default(self) -> bool:
        return self.records[0].job.default

    @cached_property
    def scores(self) -> list[Score]:
        return [r.outcome.score for r in self.records if r.outcome.score is not None]

    @cached_property
    def judging(self) -> list[Score]:
        """The scores it counts by: those of fresh seeds if there are any."""
        fresh = [r.outcome.score for r in self.records if r.job.repeats is not None and r.outcome.score is not None]
        return fresh or self.scores

    @cached_property
    def judged(self) -> dict[int, float]:
        """Values of the trainings with fresh seeds, by seed."""
        fresh = (r for r in self.records if r.job.repeats is not None)
        return {r.job.seed: r.outcome.score.value for r in fresh if r.outcome.score is not None}

    @property
    def mean(self) -> float:
        return float(np.mean([s.value for s in self.judging]))

    @property
    def cost(self) -> tuple[float, int, int]:
        """Orders designs by what training them takes; unknown costs come last."""
        first = self.records[0].outcome
        seconds = first.train_seconds if first.train_seconds is not None else np.inf
        return seconds, first.parameters or 0, self.trial


@dataclass(frozen=True)
class Verdict:
    """What the trainings with fresh seeds say about the designs that have any."""

    judged: list[Contender]
    margin: float  # differences up to it do not count
    sure: float  # probability at which a design counts as better than the default

    @cached_property
    def comparison(self) -> Comparison:
        return compare([design.judged for design in self.judged])

    @cached_property
    def best(self) -> dict[int, float]:
        """By trial: the probability that no design is better by more than the margin."""
        chances = self.comparison.best(self.margin)
        return {design.trial: float(chance) for design, chance in zip(self.judged, chances, strict=True)}

    @cached_property
    def above_default(self) -> dict[int, float]:
        """By trial: the probability of being better than the default; empty if that is not judged."""
        default = next((place for place, design in enumerate(self.judged) if design.default), None)
        if default is None:
            return {}
        better = self.comparison.better
        return {d.trial: better(place, default) for place, d in enumerate(self.judged) if place != default}

    @cached_property
    def tied(self) -> set[int]:
        """Trials that more likely than not are as good as the best: the leader, and all that come close."""
        return {self.judged[self._leader].trial} | {trial for trial, chance in self.best.items() if chance >= 0.5}

    @property
    def exported(self) -> int:
        """The cheapest of the tied designs, unless it is not surely better than the default."""
        chosen = min((design for design in self.judged if design.trial in self.tied), key=lambda design: design.cost)
        if self.above_default.get(chosen.trial, 1.0) < self.sure:
            return next(design.trial for design in self.judged if design.default)
        return chosen.trial

    @property
    def _leader(self) -> int:
        return int(np.argmax(self.comparison.means))

    def seeds(self, design: Contender) -> tuple[float, float] | None:
        """The interval of a design's mean over seeds."""
        return interval(
            [other.judged for other in self.judged], [other.trial for other in self.judged].index(design.trial)
        )
