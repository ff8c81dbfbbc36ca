"""Verdict: which design is exported, and how surely it is best, from trainings with fresh seeds.

The seed of the search chooses the finalists, so their scores with it are partly luck. Other seeds judge them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from results.leaderboard.comparison import Comparison, compare, interval
from results.record import Record
from trainers.metrics.score import Score


def tied(comparison: Comparison, margin: float) -> set[int]:
    """Places of the designs that more likely than not are as good as the best: the leader, and all that come close."""
    leader = int(np.argmax(comparison.means))
    return {leader, *(int(place) for place in np.flatnonzero(comparison.best(margin) >= 0.5))}


def exported(comparison: Comparison, costs: Sequence[Any], default: int | None, margin: float, sure: float) -> int:
    """The place of the design to export: the cheapest of the tied ones, or the default if it is not surely better.

    costs: in any order that puts the cheapest first. default: its place; None if it was not compared.
    """
    chosen = min(tied(comparison, margin), key=lambda place: costs[place])
    if default is None or chosen == default or comparison.better(chosen, default) >= sure:
        return chosen
    return default


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

    @property
    def of_the_search(self) -> list[Score]:
        """The scores on what the search ranks on, that of the search first."""
        return [r.outcome.score for r in self.records if r.outcome.score is not None and r.job.hold_out is None]

    @cached_property
    def judged(self) -> dict[int, float]:
        """Values of the trainings with fresh seeds, by seed."""
        fresh = (r for r in self.records if r.job.repeats is not None)
        return {r.job.seed: r.outcome.score.value for r in fresh if r.outcome.score is not None}

    @cached_property
    def kidneys(self) -> dict[str | None, list[Score]]:
        """The scores it counts by, by what was held out; None: what the search ranks on."""
        found: dict[str | None, list[Score]] = {}
        fresh = [r for r in self.records if r.job.repeats is not None and r.outcome.score is not None]
        for record in fresh or self.records:
            if record.outcome.score is not None:
                found.setdefault(record.job.hold_out, []).append(record.outcome.score)
        return found

    @property
    def by_kidney(self) -> dict[str | None, float]:
        """The mean of its scores by what was held out."""
        return {kidney: float(np.mean([s.value for s in scores])) for kidney, scores in self.kidneys.items()}

    @property
    def mean(self) -> float:
        """Over kidneys, which count alike however many seeds met them."""
        return float(np.mean(list(self.by_kidney.values())))

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
        """Of scores by seed; where other kidneys were held out, too, of means by kidney."""
        if not self.over_kidneys:
            return compare([design.judged for design in self.judged])
        places = {kidney: place for place, kidney in enumerate(sorted(self.kidneys, key=str))}
        return compare([{places[k]: value for k, value in d.by_kidney.items()} for d in self.judged])

    @cached_property
    def best(self) -> dict[int, float]:
        """By trial: the probability that no design is better by more than the margin."""
        chances = self.comparison.best(self.margin)
        return {design.trial: float(chance) for design, chance in zip(self.judged, chances, strict=True)}

    @cached_property
    def above_default(self) -> dict[int, float]:
        """By trial: the probability of being better than the default; empty if that is not judged."""
        default, better = self._default, self.comparison.better
        if default is None:
            return {}
        return {d.trial: better(place, default) for place, d in enumerate(self.judged) if place != default}

    @cached_property
    def tied(self) -> set[int]:
        """Trials that more likely than not are as good as the best: the leader, and all that come close."""
        return {self.judged[place].trial for place in tied(self.comparison, self.margin)}

    @property
    def exported(self) -> int:
        """The trial of the design to export."""
        costs = [design.cost for design in self.judged]
        return self.judged[exported(self.comparison, costs, self._default, self.margin, self.sure)].trial

    @property
    def _default(self) -> int | None:
        return next((place for place, design in enumerate(self.judged) if design.default), None)

    @property
    def kidneys(self) -> set[str | None]:
        """What was held out to judge them; None: what the search ranks on."""
        return {kidney for design in self.judged for kidney in design.kidneys}

    @property
    def over_kidneys(self) -> bool:
        """Whether anything but what the search ranks on was held out."""
        return self.kidneys != {None}

    def quality(self, design: Contender) -> float:
        """What orders a judged design: its mean, or if some designs lack a kidney, what the model expects of it."""
        if all(other.kidneys.keys() == self.kidneys for other in self.judged):
            return design.mean
        return float(self.comparison.means[self._place(design)])

    def seeds(self, design: Contender) -> tuple[float, float] | None:
        """The interval of a design's mean over seeds; None if other kidneys were held out, too."""
        if self.over_kidneys:
            return None
        return interval([other.judged for other in self.judged], self._place(design))

    def _place(self, design: Contender) -> int:
        return [other.trial for other in self.judged].index(design.trial)
