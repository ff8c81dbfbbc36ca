"""What the Optuna dashboard shows of a trial, and the server that shows it."""

from collections.abc import Callable

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import Trial

from results.leaderboard import interval, millions, rank, seconds
from results.record import Record
from results.run_folder import RunFolder

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def show_in_dashboard(study: optuna.Study, trial: Trial, record: Record, folder: RunFolder) -> None:
    """Attach a note and the overlay picture to a trial that is about to be closed."""
    from optuna_dashboard import save_note

    save_note(trial, note(record))
    overlay = folder.trial(trial.number).overlay
    if overlay.is_file():
        upload_artifact(artifact_store=_store(folder), file_path=str(overlay), study_or_trial=trial)


def note(record: Record) -> str:
    """A trial in a few lines of Markdown: result, interval, cost, or why there is none."""
    outcome, job = record.outcome, record.job
    lines = [f"**{escape(job.name)}**" + (" (baseline)" if job.baseline else "")]
    if job.repeats is not None:
        lines.append(f"Trial {job.repeats} trained again with seed {job.seed}.")
    if outcome.score is not None:
        row = rank([record], "", "").rows[0]
        lines += [
            f"Surface dice **{outcome.score.surface_dice:.4f}** (95 % interval {interval(row)}), "
            f"voxel dice {outcome.score.voxel_dice:.4f}, at the best threshold {outcome.score.best_surface_dice:.4f} "
            "(optimistic).",
            "",
            "| held-out volume | surface dice | voxel dice |",
            "|---|---:|---:|",
            *(f"| {escape(v.volume)} | {v.surface_dice:.4f} | {v.voxel_dice:.4f} |" for v in outcome.score.volumes),
            "",
        ]
    if outcome.reason:
        lines.append(f"**{outcome.state}**: {escape(outcome.reason)}")
    lines.append(
        f"{millions(outcome.parameters)} parameters, {seconds(outcome.train_seconds)} of training, "
        f"seed {job.seed}, {outcome.device or 'no device'}, version {record.version}."
    )
    return "\n\n".join("\n".join(lines).split("\n\n"))


def escape(text: str) -> str:
    """Text for a Markdown page, in which nothing is markup."""
    for character in "\\`*_{}[]<>|#":
        text = text.replace(character, f"&#{ord(character)};")
    return text


def serve(folder: RunFolder, host: str, port: int, on_start: Callable[[str], None]) -> None:
    """Serve the dashboard until interrupted; `on_start` gets its address."""
    from optuna_dashboard import run_server

    from nas.study import open_storage

    on_start(f"http://{host}:{port}/dashboard/")
    run_server(open_storage(folder), host=host, port=port, artifact_store=_store(folder))


def _store(folder: RunFolder) -> FileSystemArtifactStore:
    folder.artifacts.mkdir(exist_ok=True)
    return FileSystemArtifactStore(base_path=str(folder.artifacts))
