"""The Optuna study of a run: open it, ask it for the next job, tell it the outcome of one.

Only the driver calls this. What a trial was and how it ended is also kept in the trial's folder, so that everything but
the sampler works without Optuna.
"""

import re
import warnings
from collections import defaultdict
from typing import Any
from uuid import uuid4

import optuna
from optuna.trial import Trial, TrialState, create_trial

from nas.config.search_config import SearchConfig, design_of
from nas.config.study_config import (
    CONTINUES,
    FIXED,
    FOUND,
    GIVEN_UP,
    HOLD_OUT,
    REPEATS,
    RUNG,
    SCORING,
    SEED_INDEX,
    SPENT,
    STEPS,
)
from nas.jobs.cell_search import plan_for, plans
from nas.study.attributes import PAUSED, check_attributes
from nas.study.buildable import Buildable
from nas.study.plan import Plan
from nas.study.promotion import Paused, pauses_at, rungs
from nas.study.samplers import make_sampler
from nas.study.storage import open_storage
from nas.study.suggest import (
    Genotypes,
    cells_wanted,
    genotype_parameters,
    known_parameters,
    no_genotypes,
    origin_of,
    register,
    suggest,
)
from results.record import Job, Record, describe
from results.run_folder import RunFolder
from search_spaces.errors import InputError
from trainers.atomic import write_atomically
from trainers.cell_search.run import CellPlan, genotype_names
from trainers.metrics.table import title_of
from trainers.schedule import SCHEDULES

# Of Optuna's errors that have no class of their own.
_ENDED, _GONE = re.compile(r"Cannot tell a \w+ trial"), "Record does not exist"
_OWNER = "owner"  # user attribute of the study: the mark of its run folder
_ATTRIBUTES = ("parameters", "train_seconds", "peak_memory_gib", "device")  # of an outcome, shown by the dashboard


def open_study(folder: RunFolder, config: SearchConfig) -> optuna.Study:
    """The study of a run, for the holder of its folder's lock.

    Raises InputError if a database server has a study of this name that another run folder began, or if something else
    wrote into it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=config.study.name,
        storage=open_storage(folder, config.study.storage, is_driver=True),
        direction="maximize",
        pruner=optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    check_attributes(study, len(config.fixed))
    _check_owner(study, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([title_of(config.score.rank_by)])
    _enqueue_found(study, config, again=True)
    return study


def changed_by_others(error: Exception) -> str | None:
    """What somebody else did to the study if that is why Optuna raised this error; None if it is another error."""
    said = str(error)
    if isinstance(error, optuna.exceptions.UpdateFinishedTrialError) or _ENDED.match(said):
        return "one of its trials was ended in the study"
    if isinstance(error, KeyError | ValueError) and _GONE in said:
        return "its study was deleted"
    return None


def _check_owner(study: optuna.Study, folder: RunFolder) -> None:
    """A study belongs to the run folder that began it: a server knows studies by their names alone."""
    mark = folder.mark
    if not mark.is_file():
        write_atomically(mark, uuid4().hex + "\n")
    own, known = mark.read_text(encoding="utf-8", errors="replace").strip(), study.user_attrs.get(_OWNER)
    if known is None:
        study.set_user_attr(_OWNER, own)
    elif known != own:
        raise InputError(
            f"the storage has a study {study.study_name!r} of another run folder; choose another name "
            "(--set study.name=NAME), or name that folder with --run"
        )


def _enqueue_found(study: optuna.Study, config: SearchConfig, again: bool) -> None:
    """Queue one trial for every kind of genotype to be found, in each family, as far as the budget reaches.

    Everything else about such a trial, including its crop, is the sampler's choice. The families take turns. again:
    those that were given up, instead of those that were never queued.
    """
    families = tuple(dict.fromkeys(plan.family for plan in plans(config)))
    if not families:
        return
    trials = study.get_trials(deepcopy=False)
    queued = {t.user_attrs[FOUND] for t in trials if FOUND in t.user_attrs}
    alive = {t.user_attrs[FOUND] for t in trials if FOUND in t.user_attrs and GIVEN_UP not in t.user_attrs}
    pairs = [(family, name) for name in genotype_names(config.cell_search) for family in families]
    for family, name in pairs[: config.study.candidates]:
        if f"{family}/{name}" in (queued - alive if again else {f"{family}/{name}"} - queued):
            known = genotype_parameters(config, family, name)
            study.enqueue_trial(known, user_attrs={FOUND: f"{family}/{name}"})


def unfinished(study: optuna.Study) -> list[Trial]:
    """Trials that an earlier driver left running, to be resumed under their own numbers."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [Trial(study, frozen._trial_id) for frozen in running]


def count_candidates(study: optuna.Study) -> int:
    """Candidates begun so far, without fixed ones and those that were given up."""
    trials = study.get_trials(deepcopy=False)
    uncounted = {FIXED, REPEATS, CONTINUES, GIVEN_UP}
    return sum(not uncounted & t.user_attrs.keys() and t.state != TrialState.WAITING for t in trials)


def ask(study: optuna.Study, config: SearchConfig) -> Trial:
    """The next trial: the first that is waiting, or a new one."""
    _enqueue_found(study, config, again=False)
    trials = study.get_trials(deepcopy=False)
    number = next((t.number for t in trials if t.state == TrialState.WAITING), len(trials))
    study.sampler = make_sampler(config.study, number)
    return study.ask()


def begin_fixed(study: optuna.Study, config: SearchConfig, possible: Buildable, place: int) -> Trial:
    """The trial of a fixed design. It passes by those that wait."""
    fixed = config.fixed[place]
    known = known_parameters(config, possible, design_of(config, fixed))
    return _begin(study, user_attrs={FIXED: place, "name": fixed.name}, system_attrs={"fixed_params": known})


def repeat(study: optuna.Study, trial: int, seed_index: int, hold_out: str | None = None) -> Trial:
    """Another training of a finished trial's candidate, with another seed.

    hold_out: what is held out instead of what the search ranks on.
    """
    other = {} if hold_out is None else {HOLD_OUT: hold_out}
    return _again(study, trial, {REPEATS: trial, SEED_INDEX: seed_index, **other})


def go_on(study: optuna.Study, trial: int, rung: int) -> Trial:
    """The way of a paused trial to a later rung. The study closes trials for good, so it is one of its own there."""
    return _again(study, trial, {CONTINUES: trial, RUNG: rung})


def _again(study: optuna.Study, trial: int, attributes: dict[str, Any]) -> Trial:
    """A running trial with the parameters of another."""
    original = study.get_trials(deepcopy=False)[trial]
    attributes |= {key: original.user_attrs[key] for key in (FIXED, "name", STEPS) if key in original.user_attrs}
    return _begin(study, params=original.params, distributions=original.distributions, user_attrs=attributes)


def _begin(study: optuna.Study, **facts: Any) -> Trial:
    """A trial that is running from now on. Only the driver adds trials, so it is the last one."""
    study.add_trial(create_trial(state=TrialState.RUNNING, **facts))
    return Trial(study, study.get_trials(deepcopy=False)[-1]._trial_id)


def paused(study: optuna.Study, config: SearchConfig) -> list[Paused]:
    """The candidates that were scored at each rung before the last step, and those that went on from there."""
    values, promoted = defaultdict[int, dict[int, float]](dict), defaultdict[int, set[int]](set)
    for trial in study.get_trials(deepcopy=False):
        number, rung = trial.user_attrs.get(CONTINUES, trial.number), trial.user_attrs.get(RUNG, 0)
        if rung:
            promoted[rung - 1].add(number)
        if trial.state == TrialState.PRUNED and PAUSED in trial.user_attrs:
            values[rung][number] = trial.user_attrs[PAUSED]
    return [Paused(values[rung], frozenset(promoted[rung])) for rung in range(config.study.rungs)]


def cells_needed(trial: Trial, config: SearchConfig, possible: Buildable) -> CellPlan | None:
    """The cell search whose genotypes a trial is going to choose from; None if it needs none."""
    _as_then(trial, config, "/family")
    wanted = None if FIXED in trial.user_attrs else cells_wanted(trial, config, possible)
    return None if wanted is None else plan_for(config, *wanted)


def _as_then(trial: Trial, config: SearchConfig, part: str = "") -> None:
    """Set the sampler so that what a killed driver had not yet drawn is drawn as it would have been then."""
    trial.study.sampler = make_sampler(config.study, trial.number, part)


def job_of(
    trial: Trial,
    config: SearchConfig,
    possible: Buildable,
    genotypes: Genotypes = no_genotypes,
    plan: Plan | None = None,
) -> Job:
    """What a trial is to train; the same when asked again after a stop.

    plan: how long trainings are. With one, the steps of every design follow from the time they take.
    """
    _as_then(trial, config)
    attributes = trial.user_attrs
    seed = config.study.seed + int(attributes.get(SEED_INDEX, 0))
    repeats = attributes.get(REPEATS)
    if FIXED in attributes:
        fixed = config.fixed[attributes[FIXED]]
        design, name, default = design_of(config, fixed), fixed.name, fixed.default
        register(trial, config, possible, design)
    else:
        design, default = suggest(trial, config, possible, genotypes), False
        name = describe(design.candidate, design.fit, origin_of(trial, design.candidate.family))
    spared = FIXED in attributes or repeats is not None
    fit = design.fit.model_copy(update={"steps": attributes.get(STEPS, design.fit.steps)})
    if STEPS in attributes or not SCHEDULES[fit.schedule].branches:
        plan = None
    until = None if spared or plan else pauses_at(config.study, fit.steps, attributes.get(RUNG, 0))
    pauses = plan is not None and not spared and plan.rungs > 0
    return Job(
        trial=attributes.get(CONTINUES, trial.number),
        name=name,
        candidate=design.candidate,
        fit=fit,
        inference=design.inference,
        seed=seed,
        baseline=FIXED in attributes,
        default=default,
        until=until,
        rungs=() if plan or repeats is not None else tuple(rungs(config.study, fit.steps)[:-1]),
        seconds=None if plan is None else plan.first_rung if pauses else plan.seconds,
        pauses=pauses,
        repeats=repeats,
        hold_out=attributes.get(HOLD_OUT),
    )


def default_place(config: SearchConfig) -> int:
    """The place of the default among the fixed trials: the first one, if none is said to be it."""
    return next((place for place, fixed in enumerate(config.fixed) if fixed.default), 0)


def tell(study: optuna.Study, trial: Trial, record: Record) -> None:
    """Close a trial. An interrupted one stays open, to be resumed."""
    outcome = record.outcome
    if outcome.state == "interrupted":
        return
    for key in _ATTRIBUTES:
        if (value := getattr(outcome, key)) is not None:
            trial.set_user_attr(key, value)
    trial.set_user_attr("network", record.job.name)
    if outcome.seconds is not None:
        trial.set_user_attr(SPENT, outcome.seconds)
    if outcome.score_seconds is not None:
        trial.set_user_attr(SCORING, outcome.score_seconds)
    if record.job.seconds is not None and outcome.step:
        trial.set_user_attr(STEPS, record.job.fit.steps)
    if outcome.reason:
        trial.set_user_attr("reason", outcome.reason)
    if outcome.state == "complete" and outcome.score is not None and record.job.hold_out is not None:
        # The sampler must not take a score on another kidney for one on that of the search, and sees no failed trial.
        trial.set_user_attr(f"score with {record.job.hold_out} held out", outcome.score.value)
        study.tell(trial.number, state=TrialState.FAIL)
    elif outcome.state == "complete" and outcome.score is not None:
        trial.set_user_attr("interval", [outcome.score.ci_low, outcome.score.ci_high])
        for name, value in outcome.score.beside.items():
            trial.set_user_attr(name, value)
        _report(trial, outcome.score.value, outcome.step)  # the end of the learning curve
        study.tell(trial.number, outcome.score.value)
    elif outcome.state == "infeasible":
        # A failed trial is invisible to the sampler, which would propose similar ones again.
        trial.set_constraint("memory", outcome.memory_excess_gib or 0.001)
        study.tell(trial.number, state=TrialState.PRUNED)
    elif outcome.state == "paused" and outcome.so_far is not None:
        trial.set_user_attr(PAUSED, outcome.so_far)
        _report(trial, outcome.so_far, outcome.step)
        study.tell(trial.number, state=TrialState.PRUNED)  # what the sampler takes for scored but not finished
    else:
        study.tell(trial.number, state=TrialState.FAIL)


def _report(trial: Trial, value: float, step: int) -> None:
    """Enter a value into the trial's learning curve, unless the score at a rung was entered when it came."""
    if step not in trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
        trial.report(value, step)
