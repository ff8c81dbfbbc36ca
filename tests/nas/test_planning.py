"""A whole search under a time limit, simulated: what begins when, and what is there at the end."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from searches import complete, tiny_config

from nas.config.search_config import SearchConfig
from nas.jobs.measure import Costs, StepCost
from nas.jobs.task import MeasureTask, TrialTask
from nas.search.confirmation import with_each_kidney
from nas.search.decisions import Decisions
from nas.search.plan_rows import plan_lines, plan_rows
from nas.search.planning import Planner, is_planned
from nas.study.budget import Budget
from nas.study.buildable import find_buildable
from nas.study.plan import read_plan
from nas.study.study import open_study, tell
from results.leaderboard.ledger import Ledger
from results.record import Job, Outcome, Record
from results.run_folder import RunFolder, create
from search_spaces.errors import InputError
from trainers.atomic import write_atomically

FIXED = [
    {"name": name, "default": name == "usual", "candidate": {"encoder": "tu-resnet10t", "slices_in": 3}, "fit": {}}
    for name in ("other", "usual", "third", "fourth")
]


def settings(minutes: float, **study: object) -> SearchConfig:
    limits = {"trials": None, "minutes": minutes, "leaders": 2, "seeds": 3}
    how = {"promotion": "halving", "rungs": 1, "trial_sampler": "random"}
    parts = {"fit": {"steps": 300}, "retrain": {"steps": 20_000}, "fixed": FIXED}
    return tiny_config({"study": {**limits, **how, **study}, **parts})


POSSIBLE = find_buildable(settings(1.0))


class Simulated(Budget):
    """Time that passes when it is told to."""

    spent = 0.0  # wall-clock

    def seconds(self) -> float:
        return self.spent

    def busy_seconds(self) -> float:
        return self.spent


@dataclass
class Machine:
    """One worker on which steps and scores take what is said, and a factor more from some time on."""

    folder: RunFolder
    config: SearchConfig
    step: float = 0.15
    part: float = 1.0
    whole: float = 8.0
    slower: float = 1.0  # than measured
    kidneys: tuple[str, ...] = ("k",)
    ended: list[tuple[Job, Outcome, float]] = field(default_factory=list)  # and when

    def open(self) -> None:
        self.study = open_study(self.folder, self.config)
        self.budget = Simulated(self.config.study, self.study)
        self.config = with_each_kidney(self.config, self.kidneys)
        count = len(self.kidneys)
        self.planner = Planner(self.config, POSSIBLE, self.folder, self.study, self.budget, kidneys=count)
        self.planner.extend()
        self.ledger = Ledger(self.folder, "tiny", "k", self.config.score)
        self.decisions = Decisions(
            self.study, self.planner, self.folder, self.budget, self.ledger.board, kidneys=self.kidneys
        )

    def search(self, most: int = 10_000) -> "Machine":
        """Until nothing begins any more, or so many tasks have ended."""
        self.open()
        for _ in range(most):
            if self.decisions.over() or (task := self.decisions.next_step()) is None:
                break
            if isinstance(task, MeasureTask):
                costs = Costs(
                    device="CPU",
                    kinds=(StepCost(name="usual", seconds=self.step),),
                    part=self.part,
                    whole=self.whole,
                    seconds=10.0,
                )
                write_atomically(self.folder.costs, costs.model_dump_json())
                self.budget.spent += 10.0
                self.decisions.closed(task, Outcome(state="complete"))
                self.planner.begin()
                continue
            assert isinstance(task, TrialTask)
            self._train(task)
        return self

    def _train(self, task: TrialTask) -> None:
        job, quality = task.job, task.job.trial % 4
        task.prepare(self.folder)
        before = max((o.step for j, o, _ in self.ended if j.trial == job.trial), default=0)
        last = job.until or job.fit.steps
        steps = max(2, round(job.seconds / (self.step * self.slower))) if job.seconds else last
        took = (steps - 0.8 * before) * self.step * self.slower
        pauses = job.until is not None or job.pauses
        seconds = took + (self.part if pauses else self.whole) * self.slower
        self.budget.spent += seconds
        facts = {"step": steps, "seconds": seconds, "train_seconds": took, "score_seconds": seconds - took}
        if pauses:
            outcome = Outcome(state="paused", so_far=0.2 * quality, **facts)
        else:
            outcome = complete(quality).model_copy(update=facts)
        if job.seconds:
            job = job.settled(self.planner.steps_of(steps, job.pauses))
        record = Record(job=job, outcome=outcome, version="0")
        self.ledger.add(record)
        tell(self.study, self.decisions.trial(task.id), record)
        self.decisions.closed(task, outcome)
        self.planner.replan()
        self.ended.append((job, outcome, self.budget.spent))

    def jobs(self, state: str = "complete") -> list[Job]:
        return [job for job, outcome, _ in self.ended if outcome.state == state]

    @property
    def searched(self) -> list[Job]:
        return [job for job in self.jobs() if not job.baseline and job.repeats is None]

    @property
    def fresh(self) -> list[Job]:
        return [job for job in self.jobs() if job.repeats is not None]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("slower", [1.0, 2.0])
@pytest.mark.parametrize("minutes", [15.0, 60.0, 240.0])
def test_the_time_is_used_and_kept_to(folder: RunFolder, minutes: float, slower: float) -> None:
    machine = Machine(folder, settings(minutes), slower=slower).search()
    plan = machine.planner.plan
    assert plan is not None
    assert machine.budget.spent <= 60 * minutes
    assert 60 * minutes - machine.budget.spent <= 3 * plan.training * slower
    first, _, _ = machine.ended[0]
    assert (first.name, first.seconds, first.fit.steps) == ("usual", plan.seconds, round(plan.steps / slower))
    baselines = [outcome.seconds or 0.0 for job, outcome, _ in machine.ended if job.baseline and not job.default]
    assert sum(baselines) <= 0.25 * 60 * minutes + plan.training * slower
    assert len(machine.jobs("paused")) >= (12 if slower == 1 else 6)
    assert len(machine.searched) >= 2
    judged = {job.repeats for job in machine.fresh}
    assert first.trial in judged and len(judged) >= 2  # the default and a leader


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [8.0, 15.0, 240.0])
def test_after_a_third_of_the_time_there_is_a_searched_network(folder: RunFolder, minutes: float) -> None:
    machine = Machine(folder, settings(minutes)).search()
    when = [at for job, outcome, at in machine.ended if outcome.state == "complete" and not job.baseline]
    assert when[0] <= 60 * minutes / 3


def test_every_design_is_trained_for_the_same_time_the_default_too(folder: RunFolder) -> None:
    machine = Machine(folder, settings(15.0)).search()
    plan = machine.planner.plan
    assert plan is not None
    fixed = [job for job in machine.jobs() if job.baseline and job.repeats is None]
    assert sum(job.default for job in fixed) == 1 < len(fixed)
    assert all(job.seconds == plan.seconds for job in fixed)
    begun = [job for job in machine.jobs("paused") if job.pauses]
    assert all(job.seconds == plan.first_rung for job in begun)
    assert {job.fit.steps for job in begun} == {round(plan.first_rung / machine.step) * 3}


def test_more_time_trains_for_longer_and_tries_more(tmp_path: Path) -> None:
    plans = []
    for minutes in (8.0, 15.0, 60.0, 600.0, 10_000.0):
        machine = Machine(create(tmp_path / f"{minutes}"), settings(minutes)).search(most=1)
        assert machine.planner.plan is not None
        plans.append(machine.planner.plan)
    assert [plan.steps for plan in plans] == sorted(plan.steps for plan in plans)
    assert plans[0].steps < 300 < plans[2].steps < plans[3].steps
    assert all(plan.candidates >= 12 for plan in plans[1:])
    assert all(plan.planned <= plan.time for plan in plans)


def test_trials_limits_the_candidates_and_trainings_become_longer(folder: RunFolder) -> None:
    machine = Machine(folder, settings(60.0, trials=6)).search()
    plan = machine.planner.plan
    assert plan is not None and plan.candidates == 6 and plan.steps > 300
    assert len({job.trial for job in machine.jobs("paused")}) == 6


@pytest.mark.slow
def test_a_search_that_is_resumed_follows_its_plan(folder: RunFolder) -> None:
    whole = Machine(create(folder.path / "whole"), settings(15.0)).search()
    first = Machine(folder, settings(15.0)).search(most=9)
    second = Machine(folder, settings(15.0), step=0.3)  # would be measured now
    second.ended = first.ended
    Simulated.spent = first.budget.spent
    try:
        second.step = first.step
        second.search()
    finally:
        Simulated.spent = 0.0
    assert [job for job, _, _ in second.ended] == [job for job, _, _ in whole.ended]


@pytest.mark.slow
def test_more_minutes_try_more_with_trainings_of_the_same_length(folder: RunFolder) -> None:
    first = Machine(folder, settings(15.0)).search()
    before = read_plan(folder)
    more = Machine(folder, settings(30.0))
    more.ended = first.ended
    Simulated.spent = first.budget.spent
    try:
        more.search()
    finally:
        Simulated.spent = 0.0
    after = read_plan(folder)
    assert before is not None and after is not None
    assert (after.steps, after.rungs) == (before.steps, before.rungs)
    assert after.candidates > before.candidates
    assert len(more.fresh) > 2


@pytest.mark.slow
@pytest.mark.parametrize(("minutes", "kidneys"), [(2.0, 1), (30.0, 3), (600.0, 3)])
def test_as_many_kidneys_are_held_out_in_turn_as_two_finalists_have_time_to_meet(
    folder: RunFolder, minutes: float, kidneys: int
) -> None:
    machine = Machine(folder, settings(minutes), kidneys=("k", "b", "c")).search()
    plan = read_plan(folder)
    assert plan is not None and plan.kidneys == kidneys
    met: dict[int, list[str | None]] = {}
    for job in machine.fresh:
        met.setdefault(job.design, []).append(job.hold_out)
    assert len(met) >= 2
    assert all(held_out[:kidneys] == [None, "b", "c"][:kidneys] for held_out in met.values())
    assert any("confirm with 1 of 3 kidneys" in note for note in machine.planner.notes()) == (kidneys == 1)


def test_what_came_of_a_plan_stands_beside_it(folder: RunFolder) -> None:
    machine = Machine(folder, settings(15.0)).search()
    rows = plan_rows(machine.planner.plan, machine.study)
    assert [row.what for row in rows] == [
        "default and other fixed trials",
        "searched, to rung 1",
        "searched, to the end",
        "confirmation, fresh seeds",
    ]
    assert sum(row.came for row in rows) == len(machine.ended)
    assert sum(row.came_seconds for row in rows) == pytest.approx(machine.budget.spent - 10.0)
    assert [line.split()[:2] for line in plan_lines(rows)][1] == ["default", "and"]
    assert plan_lines([]) == []


def test_a_planned_search_without_a_limit_is_refused(folder: RunFolder) -> None:
    machine = Machine(folder, settings(1.0)).search()
    study = machine.config.study.model_copy(update={"minutes": None})
    free = machine.config.model_copy(update={"study": study})
    with pytest.raises(InputError, match=r"was planned for a time limit; give it one, as with --minutes"):
        Planner(free, POSSIBLE, folder, machine.study, machine.budget)


def test_a_search_without_a_limit_or_with_lengths_of_its_own_is_not_planned() -> None:
    assert is_planned(settings(15.0))
    assert not is_planned(settings(15.0).model_copy(update={"fixed": ()}))
    assert not is_planned(tiny_config({"fixed": FIXED}))
    own = tiny_config({"study": {"minutes": 3.0}, "space": {"fit": {"steps": [9, 18]}}})
    assert not is_planned(own)
