"""Race: which finalist is trained next with a fresh seed, and when it is known well enough which one is best.

The leader and its closest rival take turns (top-two sampling: Russo, arXiv 1602.08448; the rival is the one that the
scores separate least from the leader, as in Jourdan et al., arXiv 2206.05979), so no seeds are spent on clear losers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from results.leaderboard.comparison import compare

BEATEN = 0.02  # a finalist less likely than this to be better than the leader gets no more seeds


@dataclass(frozen=True)
class Finalist:
    """A design and its trainings that judge it: those whose scores did not make it a finalist."""

    scores: dict[int, float]  # by seed
    waiting: int = 0  # trainings that were asked for and have not ended
    failed: int = 0  # trainings that gave no score

    @property
    def asked(self) -> int:
        """Trainings asked for, whatever came of them: the next one takes the seed after theirs."""
        return len(self.scores) + self.waiting + self.failed


@dataclass(frozen=True)
class Race:
    """Finalists, the most promising first.

    margin: differences up to it do not matter. sure: probability at which the leader is best. most, least: trainings of
    each, at most and before anything is decided.
    """

    finalists: Sequence[Finalist]
    margin: float
    sure: float
    most: int
    least: int = 1

    def next(self) -> int | None:
        """The place of the finalist to train with its next seed; None if nobody needs another one now."""
        unknown = [place for place, finalist in enumerate(self.finalists) if len(finalist.scores) < self.least]
        unknown.sort(key=lambda place: self.finalists[place].asked)
        for place in unknown:
            if not self.finalists[place].waiting and self.finalists[place].asked < self.most:
                return place
        if any(self.finalists[place].waiting for place in unknown):
            return None  # who leads is known when everybody has a score
        known = [place for place, finalist in enumerate(self.finalists) if finalist.scores]
        pair = self._pair([self.finalists[place] for place in known])
        return None if pair is None else known[pair]

    def _pair(self, finalists: Sequence[Finalist]) -> int | None:
        """Of the leader and its closest rival, the place of the one with fewer trainings; all have scores."""
        if len(finalists) < 2:
            return None
        compared = compare([finalist.scores for finalist in finalists])
        chances = compared.best(self.margin)
        leader = int(np.argmax(chances))
        if chances[leader] >= self.sure:
            return None
        ahead = [compared.better(place, leader, self.margin) for place in range(len(finalists))]
        for rival in sorted((place for place in range(len(ahead)) if place != leader), key=lambda p: -ahead[p]):
            fewer = min(rival, leader, key=lambda place: (finalists[place].asked, place))
            if ahead[rival] > BEATEN and finalists[fewer].asked < self.most:
                return fewer
        return None
