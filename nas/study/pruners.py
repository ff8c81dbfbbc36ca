"""PRUNERS: when a trial that lags behind is stopped; and the rungs, the steps at which it is scored for that.

`Decisions` of `nas.search.decisions` asks them after each score, and never stops baselines or repeats.
"""

from collections.abc import Callable

import optuna

from nas.config.study_config import StudyConfig
from search_spaces.errors import unknown_name


def _halving(config: StudyConfig, steps: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.SuccessiveHalvingPruner(
        min_resource=rungs(config, steps)[0], reduction_factor=config.reduction, min_early_stopping_rate=0
    )


def _never(config: StudyConfig, steps: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.NopPruner()


PRUNERS: dict[str, Callable[[StudyConfig, int], optuna.pruners.BasePruner]] = {
    "halving": _halving,
    "none": _never,
}


def make_pruner(config: StudyConfig, steps: int) -> optuna.pruners.BasePruner:
    """The pruner for trials of `steps` optimiser steps. Raises InputError for an unknown name."""
    if config.pruner not in PRUNERS:
        raise unknown_name("pruner", config.pruner, PRUNERS)
    return PRUNERS[config.pruner](config, steps)


def rungs(config: StudyConfig, steps: int) -> list[int]:
    """Steps at which a trial is scored, the last one included: each `reduction` times the one before."""
    first = max(1, steps // config.reduction**config.rungs)
    return [first * config.reduction**k for k in range(config.rungs) if first * config.reduction**k < steps] + [steps]
