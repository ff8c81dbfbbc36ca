"""SAMPLERS: how the next candidate is chosen."""

import hashlib
import warnings
from collections.abc import Callable

import optuna

from nas.config.study_config import StudyConfig
from search_spaces.errors import unknown_name


def _tpe(config: StudyConfig, seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        # `group` has been experimental for years.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            n_startup_trials=config.random_trials,
            multivariate=True,
            group=True,  # models parameters that only some encoders have jointly with the others
            constant_liar=True,  # keeps parallel workers apart
            seed=seed,
        )


def _random(config: StudyConfig, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: dict[str, Callable[[StudyConfig, int], optuna.samplers.BaseSampler]] = {
    "tpe": _tpe,
    "random": _random,
}


def make_sampler(config: StudyConfig, trial: int, part: str = "") -> optuna.samplers.BaseSampler:
    """The trial sampler for one trial. If it is asked in several parts, each has a name; else it would draw the same.

    Its seed depends only on the study's seed, the trial's number and the part, so a resumed study suggests what an
    unbroken one would have, and two workers never get the same suggestion. Raises InputError for an unknown name.
    """
    if config.trial_sampler not in SAMPLERS:
        raise unknown_name("trial sampler", config.trial_sampler, SAMPLERS)
    digest = hashlib.sha256(f"{config.seed}/{trial}{part}".encode()).digest()
    return SAMPLERS[config.trial_sampler](config, int.from_bytes(digest[:4], "big"))
