"""The best designs of a run, each trained in full, and the ensemble that they make."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from nas.bundles.mean_score import score_mean
from nas.bundles.predictor import Predictor, mean_of
from nas.bundles.requests import RetrainRequest, Side
from nas.bundles.retrain import (
    Retraining,
    bundle_name,
    find_retraining,
    is_of,
    reading_for_all,
    refuse_other_work,
    retrain,
)
from nas.config.runs import read_run_to_train
from nas.config.search_config import SearchConfig
from nas.jobs.kidneys import check_same_data, open_fold
from results.bundles.bundle import read_architecture, read_bundle, rewrite_description
from results.bundles.ensemble import Ensemble, check_members, member_of, read_ensemble, write_ensemble
from results.bundles.reading import KeptReading, Reading
from results.leaderboard.leaderboard import read_leaderboard
from results.run_folder import RunFolder, TrialFolder
from results.version import program_version
from search_spaces.errors import InputError
from trainers.data.folds import Fold
from trainers.metrics.score import Score
from trainers.report import SILENT, Report


class Trained(BaseModel, frozen=True, extra="forbid"):
    """One member of an ensemble, as `nas retrain` reports it."""

    bundle: Path
    trial: int
    kept: bool  # whether the bundle already existed
    score: Score | None
    before: float | None  # the ranking metric's value in the search


class TopTrained(BaseModel, frozen=True, extra="forbid"):
    """What `nas retrain topN` did."""

    ensemble: Path
    members: tuple[Trained, ...]
    reading: KeptReading  # of the mean of probabilities

    def text(self) -> str:
        """For people: each member, and their mean."""
        score = self.reading.score
        lines = [f"trial {m.trial}, {_reached(m.score)}: {m.bundle}" for m in self.members]
        taken = "" if score else " (taken from the same designs trained without the held-out kidney)"
        ensemble = f"mean of {len(self.members)}, {_reached(score)}, threshold {self.reading.threshold:.3f}{taken}"
        return "\n".join([*lines, f"{ensemble}: {self.ensemble}", *self._better_alone()])

    def _better_alone(self) -> list[str]:
        """A line if the mean scores lower than one of its members."""
        scored = [m for m in self.members if m.score is not None]
        if self.reading.score is None or not scored:
            return []
        best = max(scored, key=lambda m: m.score.value if m.score else 0.0)
        if best.score is None or best.score.value <= self.reading.score.value:
            return []
        return [f"trial {best.trial} alone is better than the mean on this kidney"]


def _reached(score: Score | None) -> str:
    return score.text() if score else "no held-out score"


def top_count(target: str) -> int | None:
    """N for "topN", None for other targets. Raises InputError for fewer than two."""
    found = re.fullmatch(r"top(\d{1,4})", target)
    if found is None:
        return None
    if int(found[1]) < 2:
        raise InputError(f"{target}: an ensemble needs at least two members; `nas retrain best` trains the leader")
    return int(found[1])


def retrain_top(request: RetrainRequest, count: int, report: Report = SILENT) -> TopTrained:
    """Train the `count` best designs one after another, each into a bundle of its own, and write their ensemble.

    The ensemble's threshold is found on the held-out kidney with the mean of their probabilities. on="all" leaves no
    kidney for that, so it takes the reading of the same designs trained on="train". When called again after a stop, it
    keeps the bundles that are complete and continues with the rest. Raises InputError if there are fewer designs, if
    something else is in the way, in several processes, and for a seed.
    """
    if request.seed is not None:
        raise InputError(f"--seed is for one training, but {request.target} trains several: give a trial's number")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "several processes can train only one network at a time: run torchrun once for each trial's number"
        )
    on = request.on
    config, folder = read_run_to_train(request.run, request.overrides or ())
    trials = _best_trials(folder, count)
    path = folder.retrained / bundle_name(f"top{count}", on)
    if path.exists():
        raise InputError(f"{path} already exists; move or delete it to make it again")
    known = _known_ensemble(folder, count, trials) if on == "all" else None
    fold = open_fold(config, folder, report)
    check_same_data(folder, [fold])
    trainings = [find_retraining(folder, config, str(trial), None, request) for trial in trials]
    # Anything in the way of the last training is reported before the first begins.
    kept = [_is_kept(training, folder, on) for training in trainings]
    members = []
    for index, training in enumerate(trainings):
        job = training.job
        report.note(f"{index + 1} of {count}: trial {job.trial}, {job.name}, {training.length}")
        members.append(_train(training, kept[index], fold, config, folder, on, report))
    if known:
        reading = known.reading.unscored()
    else:
        bundles = tuple(read_bundle(member.bundle) for member in members)
        mean = mean_of(f"the {count} best", bundles)
        reading = _find_reading(mean, fold, config, folder.retraining(path.name), report.of("ensemble"))
    if reading.tuned_on and reading.score:
        report.note(
            f"symmetries and components of members were chosen on {', '.join(reading.tuned_on)}: the ensemble's score "
            "profits from the choice"
        )
    ensemble = Ensemble(
        name=f"the {count} best of {config.study.name}",
        members=tuple(member_of(path, member.bundle, member.trial) for member in members),
        reading=reading,
        study=config.study.name,
        version=program_version(),
        held_out_volumes={} if known else {v.name: v.content_hash for v in fold.held_out},
    )
    write_ensemble(path, ensemble)
    return TopTrained(ensemble=path, members=tuple(members), reading=reading)


def _best_trials(folder: RunFolder, count: int) -> list[int]:
    """The trials that stand for the best designs, the best first."""
    ranked = [row.trial for row in read_leaderboard(folder.leaderboard_json).rows if row.rank is not None]
    if len(ranked) < count:
        raise InputError(
            f"{folder.path} has {len(ranked)} ranked designs, fewer than {count}; continue its search first"
        )
    return ranked[:count]


def _known_ensemble(folder: RunFolder, count: int, trials: Sequence[int]) -> Ensemble:
    """The ensemble of the same designs trained without the held-out kidney, for its reading."""
    path = folder.retrained / f"top{count}"
    if not path.is_dir():
        raise InputError(
            f"--on all leaves no kidney to find the ensemble's threshold on: first run "
            f"`nas retrain top{count}{folder.option}`, which keeps it in {path}"
        )
    ensemble = read_ensemble(path)
    if [member.trial for member in ensemble.members] != list(trials):
        raise InputError(
            f"the members of {path} are not the {count} best any more; move it away and make it again first"
        )
    check_members(path, ensemble)
    return ensemble


def _is_kept(training: Retraining, folder: RunFolder, on: Side) -> bool:
    """Whether the bundle of this training already exists; InputError if something else is in its place."""
    name = bundle_name(training.name, on)
    path = folder.retrained / name
    if not path.is_dir():
        refuse_other_work(folder.retraining(name), training)
        return False
    if not is_of(read_architecture(path), training.job, training.minutes is not None):
        raise InputError(f"{path} already exists, from a training with other settings; move or delete it")
    return True


def _train(
    training: Retraining, kept: bool, fold: Fold, config: SearchConfig, folder: RunFolder, on: Side, report: Report
) -> Trained:
    """Train one member, or keep the bundle of the same training that is there."""
    path, trial = folder.retrained / bundle_name(training.name, on), training.job.trial
    if kept:
        report.note(f"{path} already exists, from the same training; kept")
        found = read_architecture(path)
        if on == "all" and training.twin and (reading := reading_for_all(training)) != found.reading:
            rewrite_description(path, found.model_copy(update={"reading": reading}))
            report.note(f"{path} is now read as {training.twin} is")
    else:
        path, _ = retrain(training, fold, config, folder, on, report.of(f"trial {trial}"))
    result = read_architecture(path).reading.score
    return Trained(bundle=path, trial=trial, kept=kept, score=result, before=training.before)


def _find_reading(mean: Predictor, fold: Fold, config: SearchConfig, work: TrialFolder, report: Report) -> Reading:
    """What `score_mean` finds on the held-out kidney; its working files are removed."""
    try:
        return score_mean(mean, fold.held_out, config.device, work.scratch, report)
    finally:
        shutil.rmtree(work.path, ignore_errors=True)
