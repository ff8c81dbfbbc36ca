"""One trial: at a rung the end of a branch is scored, and the training goes on from where the branch began."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from kidneys import tube
from safetensors.torch import load_file

from nas.config.read import parse_config
from nas.jobs.trial import Answer, Talk, run_job
from results.pictures.curve import read_lines
from results.record import Job, Outcome
from results.run_folder import TrialFolder
from search_spaces.families.unet import UnetCandidate
from trainers.atomic import write_atomically
from trainers.checkpoint import newest_step
from trainers.data.folds import Fold
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.schedule import SCHEDULES

FOLD = Fold((tube("a"),), (tube("b", seed=1),))
CONFIG = parse_config({"score": {"slabs": 2, "resamples": 20}}, "test")
CANDIDATE = UnetCandidate(encoder="tu-mobilenetv3_small_100", decoder="PSPNet", slices_in=3)
FIT = FitConfig(
    steps=10,
    crop=32,
    batch_size=2,
    learning_rate=3e-3,
    augmentation="flips",
    schedule="warmup-stable-decay",
    warm_up_steps=2,
    cooldown=0.5,
)


class Visit:
    """What a trial told the driver, which tells it to leave at its n-th report."""

    def __init__(self, leave_at: int | None = None) -> None:
        self.reports = 0
        self.trained: list[int] = []
        self.scores: dict[int, float] = {}
        self._leave_at = leave_at

    def talk(self) -> Talk:
        return Talk(self._progress, self._scored)

    def _progress(self, phase: str, done: int, of: int, loss: float | None) -> Answer:
        if phase == "train":
            self.trained.append(done)
        return self._answer()

    def _scored(self, step: int, value: float) -> None:
        self.scores[step] = value

    def _answer(self) -> Answer:
        self.reports += 1
        return "go" if self._leave_at is None or self.reports < self._leave_at else "leave"


def run(
    place: Path, visit: Visit, fit: FitConfig = FIT, rungs: Sequence[int] = (2, 6), until: int | None = None
) -> Outcome:
    place.mkdir(exist_ok=True)
    reading = InferenceConfig(axes=(0,))
    job = Job(trial=0, name="a", candidate=CANDIDATE, fit=fit, inference=reading, seed=0, until=until)
    return run_job(job, FOLD, CONFIG, TrialFolder(place), "cpu", visit.talk(), rungs)


def weights(place: Path) -> dict[str, torch.Tensor]:
    return load_file(TrialFolder(place).weights)


@pytest.mark.slow
def test_each_rung_costs_a_branch_and_the_trunk_goes_on_from_where_it_began(tmp_path: Path) -> None:
    visit = Visit()
    assert run(tmp_path / "t", visit).state == "complete"
    # Branches of half the steps, from 1 to 2, from 3 to 6, and from 5 to 10.
    assert visit.trained == [1, 2, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8, 9, 10]
    assert [line["step"] for line in read_lines(TrialFolder(tmp_path / "t").scores)] == [2, 6]


@pytest.mark.slow
def test_what_a_rung_scores_is_what_a_training_of_that_length_would_score(tmp_path: Path) -> None:
    long, short = Visit(), Visit()
    run(tmp_path / "long", long)
    run(tmp_path / "short", short, FIT.model_copy(update={"steps": 9}))
    assert long.scores == short.scores


def test_rungs_change_nothing_in_what_comes_out(tmp_path: Path) -> None:
    run(tmp_path / "with", Visit())
    run(tmp_path / "without", Visit(), rungs=())
    found, wanted = weights(tmp_path / "with"), weights(tmp_path / "without")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_trial_that_pauses_at_its_rungs_goes_on_as_if_it_had_not(tmp_path: Path, schedule: str) -> None:
    fit = FIT.model_copy(update={"schedule": schedule})
    unbroken, visit, place = Visit(), Visit(), tmp_path / "paused"
    whole = run(tmp_path / "unbroken", unbroken, fit)
    for rung in (2, 6):
        found = run(place, visit, fit, until=rung)
        assert (found.state, found.step, found.so_far, found.score) == ("paused", rung, unbroken.scores[rung], None)
        assert TrialFolder(place).checkpoints.is_dir() and not TrialFolder(place).weights.exists()
    last = run(place, visit, fit)
    assert (last.state, last.score) == (whole.state, whole.score)
    assert visit.trained == unbroken.trained  # nothing was trained twice
    assert visit.scores == unbroken.scores


def test_a_paused_trial_that_is_asked_again_answers_at_once(tmp_path: Path) -> None:
    first, again = Visit(), Visit()
    found, repeated = run(tmp_path / "t", first, until=6), run(tmp_path / "t", again, until=6)
    assert (repeated.state, repeated.so_far, repeated.step) == (found.state, found.so_far, found.step)
    assert again.trained == []


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_trial_that_leaves_anywhere_goes_on_as_if_it_had_not(tmp_path: Path, schedule: str) -> None:
    fit = FIT.model_copy(update={"schedule": schedule})
    unbroken = Visit()
    run(tmp_path / "unbroken", unbroken, fit)
    wanted = weights(tmp_path / "unbroken")
    every = 1 if schedule == FIT.schedule else 3  # only the first has branches
    for report in range(1, unbroken.reports + 1, every):
        first, second = Visit(leave_at=report), Visit()
        place = tmp_path / str(report)
        assert run(place, first, fit).state == "interrupted"
        assert run(place, second, fit).state == "complete"
        assert first.scores | second.scores == unbroken.scores
        assert all(torch.equal(wanted[name], value) for name, value in weights(place).items())


@pytest.mark.slow
def test_the_trunk_is_kept_from_before_the_last_cool_down(tmp_path: Path) -> None:
    place = TrialFolder(tmp_path / "t")
    run(place.path, Visit())
    assert newest_step(place.trunk) == 5
    run(tmp_path / "other", Visit(), FIT.model_copy(update={"schedule": "one-cycle"}))
    assert not TrialFolder(tmp_path / "other").trunk.exists()


@pytest.mark.slow
def test_a_training_that_goes_on_from_the_trunk_ends_as_one_that_was_long_from_the_start(tmp_path: Path) -> None:
    longer = FIT.model_copy(update={"steps": 16})
    run(tmp_path / "short", Visit())
    run(tmp_path / "long", Visit(), longer, rungs=())
    visit, place = Visit(), TrialFolder(tmp_path / "on")
    place.path.mkdir()
    shutil.copytree(TrialFolder(tmp_path / "short").trunk, place.checkpoints)
    run(place.path, visit, longer, rungs=())
    assert visit.trained == list(range(6, 17))
    wanted, found = weights(tmp_path / "long"), weights(place.path)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def _timed(place: Path, visit: Visit, seconds: float) -> Outcome:
    place.mkdir(exist_ok=True)
    job = Job(trial=0, name="a", candidate=CANDIDATE, fit=FIT, inference=InferenceConfig(axes=(0,)), seed=0)
    return run_job(job, FOLD, CONFIG, TrialFolder(place), "cpu", visit.talk(), seconds=seconds)


@pytest.mark.slow
def test_a_training_with_a_time_limit_does_as_many_steps_as_fit_and_is_cooled_down(tmp_path: Path) -> None:
    few, many = _timed(tmp_path / "few", Visit(), 0.0), _timed(tmp_path / "many", Visit(), 6.0)
    assert few.state == many.state == "complete" and few.score is not None
    assert few.step == 2  # one step to know what steps cost, and one to cool down
    assert many.step > FIT.steps  # what the job says is no limit
    place = tmp_path / "fixed"
    run(place, Visit(), FIT.model_copy(update={"steps": many.step}), rungs=())
    wanted, found = weights(place), weights(tmp_path / "many")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.slow
def test_a_training_with_a_time_limit_that_left_in_its_cool_down_ends_where_it_was_going_to(tmp_path: Path) -> None:
    place = TrialFolder(tmp_path / "t")
    place.path.mkdir()
    run(place.path, Visit(leave_at=8), rungs=())  # in the cool-down from 5 to 10
    write_atomically(place.last_step, "10\n")
    visit = Visit()
    assert _timed(place.path, visit, 100.0).step == 10
    assert visit.trained == [9, 10]


@pytest.mark.slow
def test_a_first_rung_may_be_a_time_and_what_comes_after_it_is_counted_in_steps(tmp_path: Path) -> None:
    place = TrialFolder(tmp_path / "t")
    place.path.mkdir()
    job = Job(
        trial=0,
        name="a",
        candidate=CANDIDATE,
        fit=FIT,
        inference=InferenceConfig(axes=(0,)),
        seed=0,
        seconds=1.0,
        pauses=True,
    )
    first, again = Visit(), Visit()
    paused = run_job(job, FOLD, CONFIG, place, "cpu", first.talk())
    assert paused.state == "paused" and paused.step == first.trained[-1] > 2
    assert paused.train_seconds == pytest.approx(1.0, abs=0.5)
    repeated = run_job(job, FOLD, CONFIG, place, "cpu", again.talk())
    assert (repeated.step, repeated.so_far, again.trained) == (paused.step, paused.so_far, [])
    fit = FIT.model_copy(update={"steps": 2 * paused.step})
    unbroken = Visit()
    run(tmp_path / "unbroken", unbroken, fit, rungs=(paused.step,))
    assert unbroken.scores == {paused.step: paused.so_far}
    last = run_job(job.model_copy(update={"fit": fit, "seconds": None}), FOLD, CONFIG, place, "cpu", Visit().talk())
    assert last.step == fit.steps
    wanted, found = weights(tmp_path / "unbroken"), weights(place.path)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
