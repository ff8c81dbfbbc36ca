import optuna
import pytest

from nas.config.study_config import StudyConfig
from nas.study.pruners import PRUNERS, make_pruner, rungs
from nas.study.samplers import SAMPLERS, make_sampler
from search_spaces.errors import InputError


def _draw(name: str, seed: int, trial: int) -> tuple[float, str]:
    config = StudyConfig(trial_sampler=name, seed=seed, random_trials=2)
    study = optuna.create_study(direction="maximize")
    for number in range(trial + 1):
        study.sampler = make_sampler(config, number)
        asked = study.ask()
        values = asked.suggest_float("x", 0, 1), asked.suggest_categorical("c", ["a", "b", "c"])
        study.tell(asked, values[0])
    return values


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_suggestion_depends_only_on_seed_and_trial(name: str) -> None:
    assert _draw(name, 0, 4) == _draw(name, 0, 4)
    assert _draw(name, 0, 4) != _draw(name, 1, 4)


@pytest.mark.parametrize("name", SAMPLERS)
def test_two_trials_asked_at_once_are_not_the_same(name: str) -> None:
    config = StudyConfig(trial_sampler=name)
    study = optuna.create_study()
    points = []
    for number in range(2):
        study.sampler = make_sampler(config, number)
        points.append(study.ask().suggest_float("x", 0, 1))
    assert points[0] != points[1]


@pytest.mark.parametrize("name", PRUNERS)
def test_a_trial_far_ahead_is_never_stopped(name: str) -> None:
    config = StudyConfig(pruner=name, rungs=1, reduction=2)
    study = optuna.create_study(direction="maximize", pruner=make_pruner(config, 100))
    for value in (0.1, 0.2, 0.3, 0.9):
        trial = study.ask()
        trial.report(value, 50)
        stopped = trial.should_prune()
        study.tell(trial, value)
    assert not stopped


def test_halving_stops_a_trial_far_behind_and_none_does_not() -> None:
    for name, expected in (("halving", True), ("none", False)):
        config = StudyConfig(pruner=name, rungs=1, reduction=2)
        study = optuna.create_study(direction="maximize", pruner=make_pruner(config, 100))
        for value in (0.7, 0.8, 0.9, 0.1):
            trial = study.ask()
            trial.report(value, 50)
            stopped = trial.should_prune()
            study.tell(trial, value)
        assert stopped == expected


def test_rungs_grow_by_the_reduction_and_end_at_the_last_step() -> None:
    assert rungs(StudyConfig(rungs=2, reduction=3), 900) == [100, 300, 900]
    assert rungs(StudyConfig(rungs=0), 900) == [900]
    assert rungs(StudyConfig(rungs=2, reduction=3), 10) == [1, 3, 10]


def test_every_rung_is_one_that_halving_decides_at() -> None:
    """The pruner knows its first rung and multiplies; a score reported elsewhere would decide nothing."""
    config = StudyConfig(rungs=2, reduction=3)
    for steps in (10, 100, 1000, 12_345):
        first, *rest = rungs(config, steps)[:-1]
        assert all(step == first * 3 ** (k + 1) for k, step in enumerate(rest))


@pytest.mark.parametrize(("field", "name", "near"), [("trial_sampler", "tpee", "tpe"), ("pruner", "halvin", "halving")])
def test_an_unknown_name_is_an_error_with_the_near_one(field: str, name: str, near: str) -> None:
    config = StudyConfig.model_validate({field: name})
    with pytest.raises(InputError, match=f"did you mean '{near}'"):
        make_sampler(config, 0)
        make_pruner(config, 10)
