"""From a trial of a run to a bundle."""

from pathlib import Path

from safetensors.torch import load_file

from nas.config import SearchConfig
from results.export import Architecture, Provenance, architecture_of, library_versions, write_bundle
from results.record import Record, read_record
from results.run_folder import RunFolder
from search_spaces.errors import InputError
from trainers.data.folds import Fold


def trial_record(folder: RunFolder, trial: int) -> Record:
    """The record of a trial. Raises InputError where it has none yet."""
    record = read_record(folder.trial(trial).record)
    if record is None:
        known = [str(number) for number, _ in folder.trial_folders()]
        raise InputError(f"{folder.path} has no finished trial {trial}; its trials are: {', '.join(known) or 'none'}")
    return record


def describe_trial(record: Record, config: SearchConfig, fold: Fold, threshold: float | None = None) -> Architecture:
    """The architecture of a trial's bundle; `threshold` stands in where the record has no score."""
    provenance = Provenance(
        study=config.study.name,
        trial=record.job.trial,
        seed=record.job.seed,
        version=record.version,
        train_volumes={v.name: v.content_hash for v in fold.train},
        held_out_volumes={v.name: v.content_hash for v in fold.held_out},
        libraries=library_versions(),
    )
    spacings = tuple(v.spacing_um for v in fold.train)
    return architecture_of(record, config.inference, config.score, spacings, provenance, threshold)


def export_trial(folder: RunFolder, trial: int, config: SearchConfig, fold: Fold, path: Path) -> Path:
    """Write a trial's network as a bundle. Raises InputError where its weights were not kept."""
    record = trial_record(folder, trial)
    weights = folder.trial(trial).weights
    if not weights.is_file():
        raise InputError(
            f"the weights of trial {trial} were not kept (study.kept_weights = {config.study.kept_weights}); "
            f"`nas retrain {trial}` trains it again"
        )
    return write_bundle(path, describe_trial(record, config, fold), load_file(weights))
