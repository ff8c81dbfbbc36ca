"""The study of a run: what is tried, in which order, and that a stop does not change it."""

from functools import cache
from pathlib import Path

import optuna
import pytest
from optuna.trial import Trial, TrialState

from nas.config.read import parse_config
from nas.config.search_config import SearchConfig
from nas.study.budget import seconds_used
from nas.study.buildable import Buildable, find_buildable
from nas.study.study import (
    ask,
    begin_fixed,
    count_candidates,
    go_on,
    job_of,
    open_study,
    paused,
    repeat,
    tell,
    unfinished,
)
from results.leaderboard.leaderboard import State
from results.record import Job, Outcome, Record
from results.run_folder import RunFolder, create
from trainers.metrics.score import Score, Slab, VolumeScore

VALUES = {
    "study": {"name": "s", "seed": 7, "trials": 8, "random_trials": 2, "rungs": 1, "promotion": "none"},
    "space": {
        "unet": {"encoder": ["tu-resnet10t"], "decoder": ["Unet"], "slices_in": [3, 5]},
        "fit": {
            "loss": ["dice", "bce", "tversky"],
            "crop": [32, 64],
            "batch_size": [2, 4],
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        },
    },
    "fit": {"steps": 9, "crop": 32, "batch_size": 2},
}
FIXED = [
    {"name": "first", "candidate": {"encoder": "tu-resnet10t", "slices_in": 3}, "fit": {"loss": "dice"}},
    {"name": "second", "candidate": {"encoder": "resnet18", "slices_in": 5}, "fit": {"loss": "bce"}},
]
SEARCHED = parse_config(VALUES, "test")
CONFIG = parse_config({**VALUES, "fixed": FIXED}, "test")


@cache
def possible() -> Buildable:
    """What of the space can be built; fixed trials have no part in it."""
    return find_buildable(SEARCHED)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create(tmp_path / "run")


def _trials(config: SearchConfig, count: int) -> SearchConfig:
    return config.model_copy(update={"study": config.study.model_copy(update={"trials": count})})


def _score(dice: float) -> Score:
    return Score(
        rank_by="surface_dice",
        values={"surface_dice": dice, "voxel_dice": dice / 2},
        ci_low=max(dice - 0.1, 0.0),
        ci_high=min(dice + 0.1, 1.0),
        threshold=0.5,
        best=dice,
        mean_over_thresholds=dice,
        volumes=(VolumeScore(volume="k", values={"surface_dice": dice, "voxel_dice": dice}),),
        slabs=(Slab(volume="k", threshold=0.5, parts={"surface_dice": (dice, 1.0)}),),
    )


def _record(job: Job, state: State = "complete", dice: float = 0.5) -> Record:
    outcome = Outcome(
        state=state,
        so_far=0.4 if state == "paused" else None,
        score=_score(dice) if state == "complete" else None,
        reason=None if state == "complete" else "because",
        step=9,
        parameters=5,
        train_seconds=1.5,
        device="CPU",
    )
    return Record(job=job, outcome=outcome, version="0")


def _next(study: optuna.Study, config: SearchConfig, dice: float = 0.5) -> Job:
    """The next job, trained."""
    trial = ask(study, config)
    job = job_of(trial, config, possible())
    tell(study, trial, _record(job, dice=dice))
    return job


def _begin_fixed(study: optuna.Study, place: int) -> Job:
    """The job of a fixed trial, trained."""
    trial = begin_fixed(study, CONFIG, possible(), place)
    job = job_of(trial, CONFIG, possible())
    tell(study, trial, _record(job))
    return job


def test_a_fixed_trial_is_as_the_configuration_states_it_and_counts_for_no_candidate(folder: RunFolder) -> None:
    study = open_study(folder, CONFIG)
    jobs = [_begin_fixed(study, place) for place in (1, 0)]
    assert [(job.trial, job.name, job.baseline) for job in jobs] == [(0, "second", True), (1, "first", True)]
    assert [(job.candidate.encoder, job.fit.loss) for job in jobs] == [("resnet18", "bce"), ("tu-resnet10t", "dice")]
    assert count_candidates(study) == 0
    assert not _next(study, CONFIG).baseline
    assert count_candidates(study) == 1


def test_a_fixed_trial_that_a_killed_driver_began_is_the_same_again(folder: RunFolder) -> None:
    study = open_study(folder, CONFIG)
    before = job_of(begin_fixed(study, CONFIG, possible(), 0), CONFIG, possible())
    (left,) = unfinished(open_study(folder, CONFIG))
    assert job_of(left, CONFIG, possible()) == before


def test_the_sampler_learns_from_fixed_trials(folder: RunFolder) -> None:
    study = open_study(folder, CONFIG)
    for place in range(2):
        _begin_fixed(study, place)
    inside, outside = study.trials
    assert {"unet.encoder", "fit.crop", "fit.loss", "unet.slices_in"} <= set(inside.params)
    assert "unet.encoder" not in outside.params


@pytest.mark.parametrize("config", [CONFIG, SEARCHED], ids=["fixed", "suggested"])
def test_a_trial_whose_driver_died_is_found_and_is_the_same_job(folder: RunFolder, config: SearchConfig) -> None:
    study = open_study(folder, config)
    job = job_of(ask(study, config), config, possible())
    reopened = open_study(folder, config)
    (left,) = unfinished(reopened)
    assert left.number == 0
    assert job_of(left, config, possible()) == job
    assert len(reopened.trials) == len(study.trials)


def test_a_driver_that_died_before_it_chose_loses_nothing(folder: RunFolder, tmp_path: Path) -> None:
    """Killed between asking for a trial and choosing its parameters: they are those of an unbroken search."""
    unbroken = open_study(create(tmp_path / "unbroken"), SEARCHED)
    expected = [_next(unbroken, SEARCHED, dice=0.1 * number) for number in range(5)]

    study = open_study(folder, SEARCHED)
    for number in range(4):
        _next(study, SEARCHED, dice=0.1 * number)
    ask(study, SEARCHED)
    (left,) = unfinished(open_study(folder, SEARCHED))
    assert job_of(left, SEARCHED, possible()) == expected[4]


def test_nothing_is_unfinished_in_a_new_study_or_when_all_have_ended(folder: RunFolder) -> None:
    study = open_study(folder, CONFIG)
    assert unfinished(study) == []  # fixed trials that wait have not begun
    _next(study, CONFIG)
    assert unfinished(study) == []


def test_a_study_reopened_suggests_what_an_unbroken_one_would(tmp_path: Path) -> None:
    dices = [0.3, 0.6, 0.2, 0.7, 0.5, 0.4]
    unbroken = open_study(create(tmp_path / "unbroken"), SEARCHED)
    expected = [_next(unbroken, SEARCHED, dice) for dice in dices]
    folder = create(tmp_path / "broken")
    found = []
    for part in (dices[:3], dices[3:]):
        study = open_study(folder, SEARCHED)
        found += [_next(study, SEARCHED, dice) for dice in part]
    assert found == expected
    assert len({job.fit.learning_rate for job in found}) == 6


def test_another_seed_suggests_something_else(tmp_path: Path) -> None:
    other = SEARCHED.model_copy(update={"study": SEARCHED.study.model_copy(update={"seed": 8})})
    one = _next(open_study(create(tmp_path / "one"), SEARCHED), SEARCHED)
    two = _next(open_study(create(tmp_path / "two"), other), other)
    assert one.fit.learning_rate != two.fit.learning_rate
    assert (one.seed, two.seed) == (7, 8)


@pytest.mark.parametrize("config", [CONFIG, SEARCHED], ids=["fixed", "suggested"])
def test_a_repeat_is_the_same_design_with_another_seed(folder: RunFolder, config: SearchConfig) -> None:
    study = open_study(folder, config)
    original, *_ = [_next(study, config) for _ in range(3)]
    trial = repeat(study, 0, seed_index=2)
    again = job_of(trial, config, possible())
    assert (again.trial, again.repeats, again.design, again.seed) == (3, 0, 0, original.seed + 2)
    assert (again.name, again.candidate, again.fit) == (original.name, original.candidate, original.fit)
    assert again.baseline == original.baseline
    assert trial.params == study.trials[0].params


def test_a_repeat_whose_driver_died_is_the_same_job(folder: RunFolder) -> None:
    study = open_study(folder, SEARCHED)
    _next(study, SEARCHED)
    job = job_of(repeat(study, 0, seed_index=1), SEARCHED, possible())
    (left,) = unfinished(open_study(folder, SEARCHED))
    assert job_of(left, SEARCHED, possible()) == job


HALVING = SEARCHED.model_copy(
    update={"study": SEARCHED.study.model_copy(update={"promotion": "halving", "rungs": 2, "reduction": 2})}
)


def _paused(study: optuna.Study, trial: Trial, so_far: float) -> Job:
    job = job_of(trial, HALVING, possible())
    outcome = Outcome(state="paused", reason="scored", so_far=so_far, step=job.until or 0)
    tell(study, trial, Record(job=job, outcome=outcome, version="0"))
    return job


def test_a_paused_trial_goes_on_under_its_own_number_to_the_next_rung(folder: RunFolder) -> None:
    study = open_study(folder, HALVING)
    jobs = [_paused(study, ask(study, HALVING), so_far) for so_far in (0.5, 0.7)]
    assert [(job.trial, job.until) for job in jobs] == [(0, 2), (1, 2)]  # of 9 steps: 2, 4, 9
    assert [(p.values, p.promoted) for p in paused(study, HALVING)] == [({0: 0.5, 1: 0.7}, set()), ({}, set())]
    second = _paused(study, go_on(study, 1, rung=1), 0.8)
    assert second == jobs[1].model_copy(update={"until": 4})
    assert [(p.values, p.promoted) for p in paused(study, HALVING)] == [({0: 0.5, 1: 0.7}, {1}), ({1: 0.8}, set())]
    last = job_of(go_on(study, 1, rung=2), HALVING, possible())
    assert last == jobs[1].model_copy(update={"until": None})
    assert paused(study, HALVING)[1].promoted == {1}
    assert count_candidates(study) == 2


def test_a_trial_that_waits_at_a_rung_that_the_search_has_no_more_does_not_wait(folder: RunFolder) -> None:
    study = open_study(folder, HALVING)
    _paused(study, ask(study, HALVING), 0.5)
    _paused(study, go_on(study, 0, rung=1), 0.7)
    fewer = HALVING.model_copy(update={"study": HALVING.study.model_copy(update={"rungs": 1})})
    assert [(p.values, p.promoted) for p in paused(study, fewer)] == [({0: 0.5}, {0})]


def test_a_trial_that_was_going_on_when_its_driver_died_is_the_same_job(folder: RunFolder) -> None:
    study = open_study(folder, HALVING)
    _paused(study, ask(study, HALVING), 0.5)
    job = job_of(go_on(study, 0, rung=1), HALVING, possible())
    (left,) = unfinished(open_study(folder, HALVING))
    assert job_of(left, HALVING, possible()) == job


def test_a_fixed_trial_and_a_training_with_a_fresh_seed_do_not_pause(folder: RunFolder) -> None:
    config = CONFIG.model_copy(update={"study": HALVING.study})
    study = open_study(folder, config)
    assert job_of(begin_fixed(study, config, possible(), 0), config, possible()).until is None
    study = open_study(create(folder.path / "other"), HALVING)
    _paused(study, ask(study, HALVING), 0.5)
    assert job_of(repeat(study, 0, seed_index=1), HALVING, possible()).until is None


def test_candidates_are_counted_without_repeats_and_without_those_waiting(folder: RunFolder) -> None:
    study = open_study(folder, CONFIG)
    assert count_candidates(study) == 0
    for _ in range(3):
        _next(study, CONFIG)
    assert count_candidates(study) == 3
    repeat(study, 2, seed_index=1)
    assert len(study.trials) == 4
    assert count_candidates(study) == 3
    ask(study, CONFIG)  # running counts: it uses up the budget
    assert count_candidates(study) == 4


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("complete", TrialState.COMPLETE),
        ("paused", TrialState.PRUNED),
        ("failed", TrialState.FAIL),
        ("interrupted", TrialState.RUNNING),
    ],
)
def test_every_end_of_a_training_is_a_state_of_its_trial(folder: RunFolder, state: State, expected: TrialState) -> None:
    study = open_study(folder, SEARCHED)
    trial = ask(study, SEARCHED)
    tell(study, trial, _record(job_of(trial, SEARCHED, possible()), state))
    assert open_study(folder, SEARCHED).trials[0].state == expected


def test_a_completed_trial_has_its_score_interval_and_cost(folder: RunFolder) -> None:
    study = open_study(folder, SEARCHED)
    job = _next(study, SEARCHED, dice=0.6)
    (trial,) = study.trials
    assert trial.value == 0.6
    assert trial.intermediate_values == {9: 0.6}
    assert trial.user_attrs["interval"] == pytest.approx([0.5, 0.7])
    assert trial.user_attrs["voxel_dice"] == 0.3
    assert (trial.user_attrs["parameters"], trial.user_attrs["train_seconds"]) == (5, 1.5)
    assert trial.user_attrs["network"] == job.name
    assert "reason" not in trial.user_attrs


def test_a_score_on_another_kidney_is_hidden_from_the_sampler(folder: RunFolder) -> None:
    study = open_study(folder, SEARCHED)
    _next(study, SEARCHED, dice=0.6)
    trial = repeat(study, 0, 1, hold_out="b")
    job = job_of(trial, SEARCHED, possible())
    assert (job.hold_out, job.rungs) == ("b", ())
    tell(study, trial, _record(job, dice=0.9))
    assert study.best_value == 0.6
    assert study.trials[1].state == TrialState.FAIL
    assert study.trials[1].user_attrs["score with b held out"] == 0.9


@pytest.mark.parametrize("state", ["paused", "failed"])
def test_a_trial_without_a_score_has_its_reason(folder: RunFolder, state: State) -> None:
    study = open_study(folder, SEARCHED)
    trial = ask(study, SEARCHED)
    tell(study, trial, _record(job_of(trial, SEARCHED, possible()), state))
    assert study.trials[0].user_attrs["reason"] == "because"


def test_the_end_of_an_interrupted_trial_can_be_reported_later(folder: RunFolder) -> None:
    study = open_study(folder, SEARCHED)
    trial = ask(study, SEARCHED)
    job = job_of(trial, SEARCHED, possible())
    tell(study, trial, _record(job, "interrupted"))
    reopened = open_study(folder, SEARCHED)
    (left,) = unfinished(reopened)
    assert isinstance(left, Trial)
    tell(reopened, left, _record(job, dice=0.4))
    assert reopened.trials[0].value == 0.4


def test_a_new_study_has_used_no_time(folder: RunFolder) -> None:
    study = open_study(folder, SEARCHED)
    assert seconds_used(study) == 0.0
    study.set_user_attr("seconds", 12.5)
    assert seconds_used(open_study(folder, SEARCHED)) == 12.5
