"""Comparison: which of several designs is best, and how surely, from trainings with several seeds each.

A score is modelled as what the seed gives to every design, plus the design's quality, plus noise:

    score[design, seed] = level[seed] + quality[design] + noise,   quality ~ N(0, spread²),   noise ~ N(0, deviation²)

The seed decides which samples are drawn, so designs trained with the same seeds are compared within each seed (paired).
That qualities come from one distribution pulls the estimates together, the more the noisier they are. This is what
keeps the leader of many designs, which is partly ahead by luck, from being believed too early (Gelman et al., Bayesian
Data Analysis, third edition, chapter 5). Spread and deviation are unknown too: all of their values on a grid count,
weighted by how well they explain the scores. Few scores say little about the deviation, so it has a prior: what another
seed changed in the table of learning curves (`results/benchmarks/learning_curves_2cpu_2026-11.md`), give or take a
factor of four. Without it, two seeds that agree by chance would be believed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

DRAWS = 4_000
_GRID = 40  # values of the spread, and of the deviation
_DEVIATION, _WIDTH = 0.03, 0.7  # a priori: the median, and the standard deviation of the logarithm


@dataclass(frozen=True)
class Comparison:
    """What is known about the qualities of D designs, up to what they share.

    drawn: (DRAWS, D), samples of the posterior.
    """

    drawn: NDArray[np.float64]

    @property
    def means(self) -> NDArray[np.float64]:
        """The expected quality of each design, (D,); 0 is the mean of the distribution they come from."""
        mean: NDArray[np.float64] = self.drawn.mean(axis=0)
        return mean

    def best(self, margin: float = 0.0) -> NDArray[np.float64]:
        """The probability of each design that no other is better by more than the margin, (D,).

        With a margin above 0 several designs can be best at once, so the probabilities may add up to more than 1.
        """
        highest = self.drawn.max(axis=1, keepdims=True)
        share: NDArray[np.float64] = (self.drawn >= highest - margin).mean(axis=0)
        return share

    def better(self, one: int, other: int, margin: float = 0.0) -> float:
        """The probability that `one` is better than `other` by more than the margin."""
        return float((self.drawn[:, one] > self.drawn[:, other] + margin).mean())


def compare(scores: Sequence[Mapping[int, float]]) -> Comparison:
    """Compare designs by their scores, each by seed. Deterministic. A design without scores is as good as unknown."""
    seeds = sorted({seed for by_seed in scores for seed in by_seed})
    observed = [(d, seeds.index(seed), value) for d, by_seed in enumerate(scores) for seed, value in by_seed.items()]
    design_of = np.zeros((len(observed), len(scores)))
    seed_of = np.zeros((len(observed), len(seeds)))
    for row, (design, seed, _) in enumerate(observed):
        design_of[row, design] = 1.0
        seed_of[row, seed] = 1.0
    # What the levels of the seeds cannot explain: an orthonormal basis of it, in which the qualities' covariance is
    # diagonal, `found` the scores in this basis, and `reached` how each design enters.
    _, singular, rows = np.linalg.svd(seed_of.T, full_matrices=True)
    free = rows[int((singular > 1e-9).sum()) :]
    shares, basis = np.linalg.eigh(free @ design_of @ design_of.T @ free.T)
    shares = np.clip(shares, 0.0, None)
    found = basis.T @ free @ np.array([value for _, _, value in observed])
    reached = basis.T @ free @ design_of
    spreads, deviations, weights = _grid(found, shares)
    rng = np.random.default_rng(0)
    drawn = []
    for place, count in enumerate(rng.multinomial(DRAWS, weights)):
        if count:
            total = deviations[place] ** 2 + spreads[place] ** 2 * shares
            gain = spreads[place] ** 2 * reached.T / total  # (D, basis)
            covariance = spreads[place] ** 2 * (np.eye(len(scores)) - gain @ reached)
            values, vectors = np.linalg.eigh(covariance)
            root = vectors * np.sqrt(np.clip(values, 0.0, None))
            drawn.append(gain @ found + rng.standard_normal((count, len(scores))) @ root.T)
    return Comparison(np.concatenate(drawn))


def _grid(
    found: NDArray[np.float64], shares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Pairs of a spread and a deviation, and their probabilities. A priori the spread is uniform, and the deviation
    log-normal.
    """
    scale = max(float(np.sqrt((found**2).mean())) if len(found) else 0.0, 1e-6)
    spread, deviation = np.meshgrid(
        np.linspace(0.02, 4.0, _GRID) * scale, _DEVIATION * np.geomspace(0.1, 10.0, _GRID), indexing="ij"
    )
    total = deviation.ravel()[:, None] ** 2 + spread.ravel()[:, None] ** 2 * shares
    logs = -0.5 * (np.log(total) + found**2 / total).sum(axis=1)
    logs -= 0.5 * (np.log(deviation.ravel() / _DEVIATION) / _WIDTH) ** 2
    weights = np.exp(logs - logs.max())
    return spread.ravel(), deviation.ravel(), weights / weights.sum()


def interval(scores: Sequence[Mapping[int, float]], place: int, level: float = 0.95) -> tuple[float, float] | None:
    """The interval over seeds of a design's mean score, by Student's t; None if no design has two scores.

    The spread between seeds is pooled over all designs.
    """
    squares, degrees = 0.0, 0
    for by_seed in scores:
        values = np.array(list(by_seed.values()))
        if len(values):
            squares += float(((values - values.mean()) ** 2).sum())
            degrees += len(values) - 1
    own = np.array(list(scores[place].values()))
    if degrees == 0 or not len(own):
        return None
    reach = float(student.ppf(0.5 + level / 2, degrees)) * float(np.sqrt(squares / degrees / len(own)))
    return float(own.mean()) - reach, float(own.mean()) + reach
