"""The samplers that replay.py compares: given what was scored so far, the next of the designs that are left."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from learning_curves import CONFIG, designs
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState, create_trial
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.stats import norm

from nas.config.study_config import StudyConfig
from nas.study.buildable import find_buildable
from nas.study.samplers import make_sampler
from nas.study.suggest import known_distributions, suggest

Array = NDArray[np.float64]
DEFAULT = 1  # the place of the default among the designs
Seen = list[tuple[int, int, float]]  # design, rung, score
Pick = Callable[["Points", Seen, list[int], int, np.random.Generator], int]


class Points:
    """The designs as points of the padded space: a value for every field of every family, or none."""

    def __init__(self) -> None:
        possible = find_buildable(CONFIG)
        self.known = [known_distributions(CONFIG, possible, design) for _, design in designs()]
        self.possible = possible
        self.values = [self._values(known) for known in self.known]
        self.apart = np.array([[self._apart(a, b) for b in self.values] for a in self.values])  # (D, D, 2)

    def _values(self, known: dict[str, tuple[BaseDistribution, Any]]) -> dict[str, Any]:
        """Values by field, numbers on 0 to 1; a field means the same in every family."""
        found: dict[str, Any] = {}
        for name, (kind, value) in known.items():
            short = name.partition(" of ")[0].rpartition(".")[2]
            if not isinstance(kind, CategoricalDistribution):
                low, high = kind.low, kind.high  # type: ignore[attr-defined]
                if kind.log:  # type: ignore[attr-defined]
                    low, high, value = np.log([low, high, value])
                value = float((value - low) / (high - low))
            found[short] = value
        if found.get("family") in ("cells", "hybrid"):
            found.setdefault("genotype", "random")
        return found

    def _apart(self, one: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
        """Squared distance in choices and in numbers; a field that only one of the two has counts as a difference."""
        choices = numbers = 0.0
        for name in one.keys() | other.keys():
            a, b = one.get(name), other.get(name)
            if isinstance(a, float) and isinstance(b, float):
                numbers += (a - b) ** 2
            else:
                choices += a != b
        return choices, numbers

    def nearest(self, known: dict[str, tuple[BaseDistribution, Any]], left: list[int]) -> int:
        """Of the designs that are left, the one nearest to a suggestion."""
        wanted = self._values(known)
        return min(left, key=lambda design: sum(self._apart(wanted, self.values[design])))


def _random(points: Points, seen: Seen, left: list[int], top: int, rng: np.random.Generator) -> int:
    return int(rng.choice(left))


def _tpe(points: Points, seen: Seen, left: list[int], top: int, rng: np.random.Generator) -> int:
    """Optuna's sampler as the program sets it, told what it would be told."""
    study = optuna.create_study(direction="maximize")
    for design, rung, value in seen:  # a trial for every rung, as the program has
        ended = rung == top
        params = {name: value for name, (_, value) in points.known[design].items()}
        kinds = {name: kind for name, (kind, _) in points.known[design].items()}
        trial = create_trial(
            params=params,
            distributions=kinds,
            state=TrialState.COMPLETE if ended else TrialState.PRUNED,
            value=value if ended else None,
            intermediate_values={3**rung: value},
        )
        study.add_trial(trial)
    config = StudyConfig(random_trials=8, seed=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.sampler = make_sampler(config, len(seen))
    trial = study.ask()
    design = suggest(trial, CONFIG, points.possible)
    return points.nearest(known_distributions(CONFIG, points.possible, design), left)


def _joint(points: Points, seen: Seen, left: list[int], top: int, rng: np.random.Generator) -> int:
    """A Gaussian process over all designs and rungs; the largest expected improvement at the last rung.

    A score is the level of its rung, plus a function of the design that changes a little from rung to rung, plus noise.
    """
    if len({design for design, _, _ in seen}) < 5:
        return int(rng.choice(left))
    known = np.array([design for design, _, _ in seen])
    rung = np.array([rung for _, rung, _ in seen])
    values = np.array([value for _, _, value in seen])
    values = (values - values.mean()) / max(values.std(), 1e-9)
    level = 25.0 * (rung[:, None] == rung)
    prior = np.array([0.0, -1.2, 0.0, 1.5, -1.5])  # of the logarithms and of the logit below; 1 wide

    def covariance(at: Array, one: Any, other: Any, gap: Any) -> Array:
        apart = points.apart[np.ix_(one, other)]
        found: Array = np.exp(at[0] - apart @ np.exp(at[1:3])) * (1 / (1 + np.exp(-at[3]))) ** gap
        return found

    def surprise(at: Array) -> float:
        whole = covariance(at, known, known, abs(rung[:, None] - rung)) + level + np.exp(at[4]) * np.eye(len(known))
        try:
            root = np.linalg.cholesky(whole)
        except np.linalg.LinAlgError:
            return 1e6
        return float(
            0.5 * (np.linalg.solve(root, values) ** 2).sum()
            + np.log(np.diag(root)).sum()
            + 0.5 * ((at - prior) ** 2).sum()
        )

    at = minimize(surprise, prior, method="L-BFGS-B", options={"maxiter": 20}).x
    whole = covariance(at, known, known, abs(rung[:, None] - rung)) + level + np.exp(at[4]) * np.eye(len(known))
    factor = cho_factor(whole, lower=True)
    places = np.array([*left, *dict.fromkeys(known.tolist())])
    toward = covariance(at, places, known, abs(top - rung)) + 25.0 * (rung == top)
    mean = toward @ cho_solve(factor, values)
    spread = covariance(at, places, places, 0.0) + 25.0 - toward @ cho_solve(factor, toward.T)
    best = len(left) + int(np.argmax(mean[len(left) :]))
    own = slice(None, len(left))
    deviation = np.sqrt(np.maximum(np.diag(spread)[own] + spread[best, best] - 2 * spread[own, best], 1e-9))
    ahead = (mean[own] - mean[best]) / deviation
    return left[int(np.argmax(deviation * (ahead * norm.cdf(ahead) + norm.pdf(ahead))))]


def _near(pick: Pick) -> Pick:
    """With a third of the designs drawn near the default or near the best so far."""

    def drawn(points: Points, seen: Seen, left: list[int], top: int, rng: np.random.Generator) -> int:
        if rng.random() > 1 / 3:
            return pick(points, seen, left, top, rng)
        reached = max(rung for _, rung, _ in seen)
        best = max((one for one in seen if one[1] == reached), key=lambda one: one[2])[0]
        near = np.exp(-points.apart[best if rng.random() < 0.5 else DEFAULT][left].sum(axis=1) / 2.5)
        return int(rng.choice(left, p=near / near.sum()))

    return drawn


SAMPLERS: dict[str, Pick] = {
    "random": _random,
    "tpe": _tpe,
    "joint": _joint,
    "random+prior": _near(_random),
    "tpe+prior": _near(_tpe),
    "joint+prior": _near(_joint),
}
