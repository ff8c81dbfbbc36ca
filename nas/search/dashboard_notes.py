"""What the Optuna dashboard shows about a study and its trials."""

import optuna
from optuna.artifacts import upload_artifact
from optuna.trial import Trial

from nas.study.storage import pictures
from results.leaderboard.leaderboard import Leaderboard
from results.leaderboard.reading import reading
from results.record import Job, Record
from results.run_folder import RunFolder
from results.text import escape, millions, seconds
from search_spaces.candidate import Candidate
from trainers.metrics.score import Score, said
from trainers.metrics.table import title_of


def show_in_dashboard(study: optuna.Study, trial: Trial, record: Record, folder: RunFolder) -> None:
    """Attach a note, the learning curve and the overlay to a trial that is about to be closed."""
    from optuna_dashboard import save_note

    save_note(trial, note(record))
    place = folder.trial(record.job.trial)
    for picture in (place.curve, place.overlay, place.genotype):
        if picture.is_file():
            upload_artifact(artifact_store=pictures(folder), file_path=str(picture), study_or_trial=trial)


def show_reading(study: optuna.Study, board: Leaderboard) -> None:
    """Make what the leaderboard says in words the study's note."""
    from optuna_dashboard import save_note

    save_note(study, escape(reading(board)))


def note(record: Record) -> str:
    """A trial in a few lines of Markdown: result, interval, cost, or why there is none."""
    outcome, job = record.outcome, record.job
    paragraphs = [f"**{escape(job.name)}**" + (" (baseline)" if job.baseline else "")]
    if job.repeats is not None:
        other = "" if job.hold_out is None else f" and {job.hold_out} held out"
        paragraphs.append(f"Trial {job.repeats} trained again with seed {job.seed}{other}.")
    if job.hold_out is not None:
        paragraphs.append(
            "It counts on the leaderboard. The study lists it as failed, so that the sampler does not compare scores "
            "on different kidneys."
        )
    paragraphs.append(_settings(job))
    if outcome.score is not None:
        paragraphs += [_result(outcome.score), _volumes(outcome.score)]
    if outcome.reason:
        paragraphs.append(f"**{outcome.state}**: {escape(outcome.reason)}")
    paragraphs.append(
        f"{millions(outcome.parameters)} parameters, {seconds(outcome.train_seconds)} of training, "
        f"seed {job.seed}, {outcome.device or 'no device'}, version {record.version}."
    )
    return "\n\n".join(paragraphs)


def _settings(job: Job) -> str:
    """What was chosen, in words, because a fixed trial's values are not in the study if the space lacks them."""
    values = {**_candidate(job.candidate), **job.fit.model_dump(), **job.inference.model_dump()}
    return escape(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items()))


def _candidate(candidate: Candidate) -> dict[str, object]:
    """The fields that count for its family; a genotype is shown by its hash, because the picture shows the rest."""
    values = candidate.model_dump(exclude={"genotype"}, exclude_none=True)
    cells = candidate.decided_cells
    return values if cells is None else {**values, "genotype": cells.hash}


def _result(score: Score) -> str:
    best = said({score.rank_by: score.best})
    return escape(f"Score: {score.text()}. At the threshold that suits this kidney best: {best} (optimistic).")


def _volumes(score: Score) -> str:
    lines = [["held-out volume", *map(title_of, score.values)], ["---", *("---:" for _ in score.values)]]
    lines += [[escape(v.volume), *(f"{value:.4f}" for value in v.values.values())] for v in score.volumes]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
