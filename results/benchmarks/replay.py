"""Replay: search strategies, run hundreds of times on the table of learning curves, at equal cost.

    python results/benchmarks/replay.py TABLE.json [--repeats 400] [--pictures FOLDER]    # prints Markdown

A repeat draws 40 of the table's designs, the default among them. The score of a training is the design's mean curve
over seeds, plus what one of its trainings differed from that by, with a random sign: so a design can be trained with
any number of seeds. A result is judged by the mean curve, which no strategy sees. Costs are the
table's CPU seconds, trunk, branches and scores; the unit is the training of the median design.

A strategy is a sampler, a rule for stopping, and what is done at the end:

- samplers: random; tpe (Optuna's, as the program sets it, whose suggestion becomes the nearest design that is left);
  joint (a Gaussian process over the values of all families and all rungs, largest expected improvement). `+prior`: a
  third of the designs are drawn near the default, half of these near the best so far
- stopping: none; short (trainings of a third, and as many more); halving with one or two rungs, as the program does
- at the end: best (the highest score); confirmed (the program's race over two leaders and the default with fresh seeds,
  for a fifth of the budget, and its rule of what is exported)

All but `alone` begin with the default design. `knows` is the bound of what stopping can give: candidates are never
trained, and their true score costs a first rung. Regret is that against the best design of a repeat; ± is what the
number of repeats leaves open, not what other designs would have given. The default is the second best of the table, so
little can be won here: a strategy that finds nothing is nearly right.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
from learning_curves import TRUNK
from matplotlib.figure import Figure
from replay_samplers import DEFAULT, SAMPLERS, Array, Points, Seen
from scipy.stats import spearmanr

from nas.config.study_config import StudyConfig
from nas.study.promotion import Paused, promote
from nas.study.race import Finalist, Race
from results.leaderboard.comparison import compare
from results.leaderboard.verdict import exported

POOL = 40  # designs of a repeat
BUDGETS = (2, 3, 4, 6, 8, 12, 16, 24)  # trainings of the median design
CONFIRMING = 0.2  # share of the budget
LEADERS, SEEDS, MARGIN, SURE = 2, 3, 0.005, 0.95
PART = 0.4  # of a whole score's cost, for that at a rung
BRANCH = 0.2  # share of a rung's steps that are trained once more by a training that goes on


class Table:
    """The recorded curves of the schedule that is used: D designs, S seeds, R rungs; NaN where nothing is recorded."""

    def __init__(self, path: Path) -> None:
        values = json.loads(path.read_text())
        self.steps = np.array(values["rungs"], float)
        shape = (len(values["designs"]), 3, len(self.steps))
        self.whole, self.part, seconds = (np.full(shape, np.nan) for _ in range(3))
        score = np.full(shape, np.nan)
        for row in values["trainings"]:
            if row["schedule"] != TRUNK or len(row["rungs"]) < len(self.steps):
                continue
            place = row["design"], row["seed"]
            self.whole[place] = [rung["surface_dice"] for rung in row["rungs"]]
            self.part[place] = [rung["part"] for rung in row["rungs"]]
            seconds[place] = [rung["trunk_seconds"] + rung["branch_seconds"] for rung in row["rungs"]]
            score[place] = [rung["score_seconds"] for rung in row["rungs"]]
        self.seeds = np.isfinite(self.whole[:, :, 0]).sum(axis=1)
        self.seconds, self.score = np.nanmean(seconds, axis=1), np.nanmean(score, axis=(1, 2))
        self.twice = np.flatnonzero(self.seeds > 1)
        self.means = np.nanmean(self.whole, axis=1), np.nanmean(self.part, axis=1)

    def at(self, curve: Array, step: float) -> float:
        """A curve's value at a step, between rungs on a logarithmic scale."""
        return float(np.interp(np.log(step), np.log(self.steps), curve))

    def cost(self, design: int, step: float) -> float:
        """CPU seconds of a training up to a step."""
        return float(np.interp(step, self.steps, self.seconds[design]))


@dataclass
class World:
    """One repeat: the designs that there are, and what every training scores."""

    table: Table
    rng: np.random.Generator
    length: float  # steps of a whole training
    truth: Array  # of each design
    pool: Sequence[int] = field(init=False)
    _seen: dict[tuple[int, int], tuple[Array, Array]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        others = np.delete(np.arange(len(self.truth)), DEFAULT)
        self.pool = [int(d) for d in self.rng.permutation(others)[: POOL - 1]]

    def score(self, design: int, seed: int, step: float, part: bool = False) -> float:
        """What a training scores at a step."""
        if (design, seed) not in self._seen:
            self._seen[design, seed] = self._training(design)
        return self.table.at(self._seen[design, seed][part], step)

    def _training(self, design: int) -> tuple[Array, Array]:
        """The curves of one training: another design's noise where the design's own is unknown."""
        table = self.table
        source = design if table.seeds[design] > 1 else int(self.rng.choice(table.twice))
        seed = self.rng.choice(np.flatnonzero(np.isfinite(table.whole[source, :, 0])))
        count = table.seeds[source]
        factor = self.rng.choice([-1.0, 1.0]) * (count / (count - 1)) ** 0.5
        noise = [recorded[source, seed] - mean[source] for recorded, mean in _both(table)]
        whole, part = (mean[design] + factor * off for off, (_, mean) in zip(noise, _both(table), strict=True))
        return whole, part


def _both(table: Table) -> list[tuple[Array, Array]]:
    return [(table.whole, table.means[0]), (table.part, table.means[1])]


STOPPING = {"none": 0, "short": 0, "halving-1": 1, "halving-2": 2}  # rungs before the end


@dataclass(frozen=True)
class Strategy:
    """How a budget is spent."""

    sampler: str = "random"
    stopping: str = "none"
    confirmed: bool = False
    alone: bool = False  # without the default design
    knows: bool = False  # the true score of every candidate, for the price of a first rung

    @property
    def name(self) -> str:
        """As in the tables."""
        end = "confirmed" if self.confirmed else "best"
        marks = [mark for mark in ("alone", "knows") if getattr(self, mark)]
        return ", ".join([self.sampler, self.stopping, end, *marks])


@dataclass
class Run:
    """One strategy in one world, with one budget of CPU seconds."""

    strategy: Strategy
    points: Points
    world: World
    budget: float
    rng: np.random.Generator
    spent: float = 0.0
    seen: Seen = field(default_factory=list)
    ended: dict[int, float] = field(default_factory=dict)  # scores of whole trainings, by design
    history: list[tuple[float, int | None]] = field(default_factory=list)  # what would be exported, by cost

    def __post_init__(self) -> None:
        rungs = STOPPING[self.strategy.stopping]
        length = self.world.length / (3 if self.strategy.stopping == "short" else 1)
        self.steps = [length / 3 ** (rungs - rung) for rung in range(rungs + 1)]
        self.config = StudyConfig(promotion="halving" if rungs else "none", rungs=rungs, reduction=3)

    def run(self) -> list[tuple[float, int | None]]:
        """Spend the budget; what would be exported after each cost."""
        last, left = len(self.steps) - 1, list(self.world.pool)
        values: list[dict[int, float]] = [{} for _ in range(last)]
        gone: list[set[int]] = [set() for _ in range(last)]
        if not self.strategy.alone:
            for rung in range(last + 1):
                self.seen.append((DEFAULT, rung, self._score(DEFAULT, 0, rung)))
            self._end(DEFAULT, 0)
            if self.strategy.knows:
                self.ended[DEFAULT] = float(self.world.truth[DEFAULT])
        until = self.budget * (1 - CONFIRMING if self.strategy.confirmed else 1)
        while self.spent < until:
            paused = [Paused(own, frozenset(them)) for own, them in zip(values, gone, strict=True)]
            more = bool(left) and self._begins(until)
            promoted = promote(self.config, paused, more)
            if promoted is not None:
                design, rung = promoted[0], promoted[1] + 1
                gone[rung - 1].add(design)
            elif more:
                design, rung = SAMPLERS[self.strategy.sampler](self.points, self.seen, left, last, self.rng), 0
                left.remove(design)
            else:
                break
            self._train(design, rung, values)
        if self.strategy.confirmed:
            self.history.append((self.budget, self._confirmed()))
        return self.history

    def _begins(self, until: float) -> bool:
        """Whether there is time for another candidate; some is kept to train a first one to its end."""
        table, whole = self.world.table, len(self.ended) < 2 - self.strategy.alone
        steps = {self.steps[0], self.steps[-1]} if whole else {self.steps[0]}
        costs = (float(np.median([table.cost(d, step) for d in self.world.pool])) for step in steps)
        return self.spent + sum(costs) < until

    def _train(self, design: int, rung: int, values: list[dict[int, float]]) -> None:
        """From the rung before to this one; what it takes longer than the budget comes to nothing."""
        table, last = self.world.table, len(self.steps) - 1
        if self.strategy.knows:
            self.spent += table.cost(design, self.world.length / 9) + PART * table.score[design]
            if self.spent <= self.budget:
                self.ended[design] = self.world.truth[design]
                self._note()
            return
        before = (1 - BRANCH) * table.cost(design, self.steps[rung - 1]) if rung else 0.0
        share = 1.0 if rung == last else PART
        self.spent += table.cost(design, self.steps[rung]) - before + share * table.score[design]
        if self.spent > self.budget:
            return
        score = self._score(design, 0, rung)
        self.seen.append((design, rung, score))
        if rung < last:
            values[rung][design] = score
        else:
            self.ended[design] = score
            self._note()

    def _note(self) -> None:
        self.history.append((self.spent, max(self.ended, key=lambda design: self.ended[design])))

    def _score(self, design: int, seed: int, rung: int) -> float:
        return self.world.score(design, seed, self.steps[rung], part=rung < len(self.steps) - 1)

    def _end(self, design: int, seed: int) -> float | None:
        """A whole training; None if it takes longer than the budget. The default is there in any case."""
        table = self.world.table
        self.spent += table.cost(design, self.steps[-1]) + table.score[design]
        score = self._score(design, seed, len(self.steps) - 1)
        if seed == 0:
            self.ended[design] = score
            self._note()
        return score if seed == 0 or self.spent <= self.budget else None

    def _confirmed(self) -> int | None:
        """What is exported after the race of the leaders and the default; the default if there is no time for one."""
        leaders = sorted((d for d in self.ended if d != DEFAULT), key=lambda design: -self.ended[design])[:LEADERS]
        finalists = [*leaders, DEFAULT]
        scores: list[dict[int, float]] = [{} for _ in finalists]
        while self.spent < self.budget:
            place = Race([Finalist(own) for own in scores], MARGIN, SURE, SEEDS - 1).next()
            if place is None:
                break
            seed = len(scores[place]) + 1
            if (score := self._end(finalists[place], seed)) is not None:
                scores[place][seed] = score
        if not all(scores):
            return DEFAULT
        costs = [self.world.table.cost(design, self.steps[-1]) for design in finalists]
        return finalists[exported(compare(scores), costs, len(leaders), MARGIN, SURE)]


def replay(
    table: Table, points: Points, strategies: Sequence[Strategy], length: float, repeats: int
) -> dict[Strategy, tuple[Array, Array]]:
    """Regret of what each strategy exports, against the best design of the repeat, and how far it is above the default.

    Both (repeats, budgets). What exports nothing has a score of 0.
    """
    truth = np.array([table.at(curve, table.steps[-1]) for curve in table.means[0]])
    unit = unit_of(table, length)
    shape = (repeats, len(BUDGETS))
    found = {strategy: (np.zeros(shape), np.zeros(shape)) for strategy in strategies}
    for strategy, (regret, gain) in found.items():
        for repeat in range(repeats):
            for place, budget in enumerate(BUDGETS):
                world = World(table, np.random.default_rng(repeat), length, truth)
                run = Run(strategy, points, world, budget * unit, np.random.default_rng(10_000 + repeat))
                history = run.run()
                chosen = history[-1][1] if history else None
                value = 0.0 if chosen is None else truth[chosen]
                regret[repeat, place] = truth[[*world.pool, DEFAULT]].max() - value
                gain[repeat, place] = value - truth[DEFAULT]
    return found


def unit_of(table: Table, length: float) -> float:
    """CPU seconds of the median design's training."""
    return float(np.median([table.cost(d, length) + table.score[d] for d in range(len(table.seeds))]))


def crossed() -> list[Strategy]:
    """Every sampler with every rule of stopping and both ends; the plain search, and the bound."""
    every = [Strategy(s, stop, end) for s in SAMPLERS for stop in STOPPING for end in (False, True)]
    return [Strategy(alone=True), *every, Strategy(knows=True)]


def report(table: Table, length: float, found: dict[Strategy, tuple[Array, Array]]) -> Iterator[str]:
    """Regret by budget, and at the largest budget what it is above the default and how often it is worse than that."""
    cost = unit_of(table, length)
    yield f"Trainings of {length:.0f} steps, judged at {table.steps[-1]:.0f}; one costs {cost:.0f} s.\n"
    yield f"| strategy | {' | '.join(map(str, BUDGETS))} | above the default | worse than it |"
    yield f"|---|{'---:|' * (len(BUDGETS) + 2)}"
    for strategy, (regret, gain) in found.items():
        reach = 1.96 * regret.std(axis=0) / len(regret) ** 0.5
        cells = [f"{mean:.3f} ± {half:.3f}" for mean, half in zip(regret.mean(axis=0), reach, strict=True)]
        worse = (gain[:, -1] < -MARGIN).mean()
        yield f"| {strategy.name} | {' | '.join(cells)} | {gain[:, -1].mean():+.3f} | {100 * worse:.0f} % |"


def correlations(table: Table) -> Iterator[str]:
    """Spearman of the mean score at each rung with that at the end."""
    known = table.seeds > 0
    whole = table.means[0][known]
    values = [spearmanr(whole[:, rung], whole[:, -1]).statistic for rung in range(len(table.steps) - 1)]
    said = ", ".join(f"{step:.0f}: {value:.2f}" for step, value in zip(table.steps, values, strict=False))
    yield f"Spearman of the mean over seeds with that at {table.steps[-1]:.0f} steps: {said} ({known.sum()} designs)."


def draw(found: dict[Strategy, tuple[Array, Array]], path: Path) -> None:
    """Regret against cost: what the program does with each sampler, the plain search, and the bound."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for strategy, (regret, _) in found.items():
        if strategy.alone or strategy.knows or (strategy.confirmed and strategy.stopping == "halving-2"):
            mean, reach = regret.mean(axis=0), 1.96 * regret.std(axis=0) / len(regret) ** 0.5
            (line,) = axes.plot(BUDGETS, mean, marker="o", markersize=3, label=strategy.name)
            axes.fill_between(BUDGETS, mean - reach, mean + reach, alpha=0.15, color=line.get_color(), linewidth=0)
    axes.set(xscale="log", xlabel="cost, trainings of the median design", ylabel="regret, surface dice")
    axes.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS])
    axes.set_ylim(bottom=0.0, top=0.25)
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--lengths", type=float, nargs="+", default=[300.0, 900.0], help="steps of a whole training")
    parser.add_argument("--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each length")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table, points = Table(arguments.table), Points()
    strategies = [strategy for strategy in crossed() if strategy.sampler in arguments.samplers]
    print(*correlations(table), sep="\n")
    for length in arguments.lengths:
        found = replay(table, points, strategies, length, arguments.repeats)
        print("", *report(table, length, found), sep="\n", flush=True)
        if arguments.pictures is not None:
            draw(found, arguments.pictures / f"replay_{length:.0f}.png")


if __name__ == "__main__":
    main()
