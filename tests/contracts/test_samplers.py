import optuna
import pytest

from nas.config.study_config import StudyConfig
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


def test_an_unknown_name_is_an_error_with_the_near_one() -> None:
    with pytest.raises(InputError, match="did you mean 'tpe'"):
        make_sampler(StudyConfig(trial_sampler="tpee"), 0)
