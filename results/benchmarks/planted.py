"""Planted: does confirmation find the best of designs whose order is known, and do its intervals hold?

    python results/benchmarks/planted.py TABLE.json [--step 100] [--repeats 100]    # its designs with ten seeds
    python results/benchmarks/planted.py --intervals [--cases 1000]                 # simulated cases

The designs of the table that were recorded with ten seeds are put into the race that confirms finalists
(`nas/study/race.py`), a repeat's seeds in an order of its own. It is right if what it leads with is, by the mean of all
ten seeds, within the margin of the best. The cost is the number of trainings, as a share of those of all seeds.

Simulated cases have two to eight designs of known quality, a level of every seed, and noise; the race spends two to six
seeds on them. The truth is inside if the leaderboard's interval over seeds holds the leader's quality, and if the 95 %
of the comparison (`results/leaderboard/comparison.py`) hold the difference of leader and default.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from learning_curves import TRUNK
from numpy.typing import NDArray

from nas.study.race import Finalist, Race
from results.leaderboard.comparison import Comparison, compare, interval

Array = NDArray[np.float64]
SEEDS, MARGIN, SURE = 10, 0.005, 0.95
SPREAD, LEVEL, NOISE = 0.04, 0.01, 0.02  # standard deviations of designs, seeds and trainings


def recorded(path: Path, step: int) -> tuple[list[str], Array]:
    """Names and surface dice of the designs with ten seeds, (designs, seeds)."""
    values = json.loads(path.read_text())
    found: dict[int, dict[int, float]] = {}
    for row in values["trainings"]:
        if row["schedule"] == TRUNK:
            for rung in row["rungs"]:
                if rung["step"] == step:
                    found.setdefault(row["design"], {})[row["seed"]] = rung["surface_dice"]
    whole = {design: scores for design, scores in found.items() if len(scores) >= SEEDS}
    names = [values["designs"][design]["name"] for design in whole]
    return names, np.array([[scores[seed] for seed in range(SEEDS)] for scores in whole.values()])


def race(scores: Array, most: int) -> tuple[list[dict[int, float]], Comparison, int]:
    """What a race over (designs, seeds) has seen at its end, what follows from it, and how many trainings it took."""
    known: list[dict[int, float]] = [{} for _ in scores]
    used = 0
    while (place := Race([Finalist(own) for own in known], MARGIN, SURE, most).next()) is not None:
        seed = len(known[place])
        known[place][seed] = float(scores[place, seed])
        used += 1
    return known, compare(known), used


def planted(scores: Array, repeats: int) -> Iterator[str]:
    """How often the race is right, and what it costs."""
    truth = scores.mean(axis=1)
    right, costs = 0, []
    for repeat in range(repeats):
        order = np.random.default_rng(repeat).permutation(SEEDS)
        _, compared, used = race(scores[:, order], SEEDS)
        leader = int(np.argmax(compared.best(MARGIN)))
        right += bool(truth[leader] >= truth.max() - MARGIN)
        costs.append(used / scores.size)
    yield f"right in {right} of {repeats} repeats, with {100 * np.mean(costs):.0f} % of all trainings on average"
    yield f"(at most {100 * np.max(costs):.0f} %; {np.mean(np.array(costs) <= 0.5):.2f} of the repeats within a half)"


def covered(cases: int) -> Iterator[str]:
    """The shares of cases in which the truth lies inside its interval."""
    inside: dict[str, list[bool]] = {"mean over seeds": [], "leader above default": []}
    for case in range(cases):
        rng = np.random.default_rng(case)
        designs, most = int(rng.integers(2, 9)), int(rng.integers(2, 7))
        quality = rng.normal(0.6, SPREAD, designs)
        scores = quality[:, None] + rng.normal(0, LEVEL, most) + rng.normal(0, NOISE, (designs, most))
        known, compared, _ = race(scores, most)
        leader = int(np.argmax(compared.means))
        if (bounds := interval(known, leader)) is not None:
            inside["mean over seeds"].append(bounds[0] <= quality[leader] <= bounds[1])
        if leader:  # the first one stands for the default
            gaps = np.quantile(compared.drawn[:, leader] - compared.drawn[:, 0], [0.025, 0.975])
            inside["leader above default"].append(bool(gaps[0] <= quality[leader] - quality[0] <= gaps[1]))
    for name, found in inside.items():
        yield f"{name}: the truth is inside in {100 * np.mean(found):.1f} % of {len(found)} cases"


def spreads(scores: Array) -> Mapping[str, float]:
    """How much designs, seeds and trainings differ, by the usual estimates of a two-way layout."""
    rows, columns = scores.mean(axis=1), scores.mean(axis=0)
    rest = scores - rows[:, None] - columns + scores.mean()
    noise = (rest**2).sum() / ((len(rows) - 1) * (len(columns) - 1))
    return {
        "designs": max(0.0, rows.var(ddof=1) - noise / len(columns)) ** 0.5,
        "seeds": max(0.0, columns.var(ddof=1) - noise / len(rows)) ** 0.5,
        "noise": noise**0.5,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, nargs="?")
    parser.add_argument("--step", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--intervals", action="store_true")
    parser.add_argument("--cases", type=int, default=1_000)
    arguments = parser.parse_args()
    if arguments.table is not None:
        names, scores = recorded(arguments.table, arguments.step)
        for name, own in zip(names, scores, strict=True):
            print(f"{own.mean():.3f} ± {own.std(ddof=1) / len(own) ** 0.5:.3f}  {name}")
        print(", ".join(f"{name} {value:.3f}" for name, value in spreads(scores).items()))
        print(*planted(scores, arguments.repeats), sep="\n")
    if arguments.intervals:
        print(*covered(arguments.cases), sep="\n")


if __name__ == "__main__":
    main()
