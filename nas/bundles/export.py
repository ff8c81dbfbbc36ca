"""From a trial of a run to a bundle."""

from safetensors.torch import load_file

from nas.config.search_config import SearchConfig
from results.bundles.architecture import Architecture, Provenance, architecture_of, library_versions
from results.bundles.bundle import read_architecture, write_bundle
from results.bundles.reading import Reading, reading_of
from results.record import Record, read_record
from results.run_folder import RunFolder
from search_spaces.errors import InputError
from trainers.data.folds import Fold


def trial_record(folder: RunFolder, trial: int) -> Record:
    """The record of a trial. Raises InputError if it has none yet."""
    record = read_record(folder.trial(trial).record)
    if record is None:
        known = [str(number) for number, _ in folder.trial_folders()]
        raise InputError(f"{folder.path} has no finished trial {trial}; its trials are: {', '.join(known) or 'none'}")
    return record


def describe_trial(record: Record, config: SearchConfig, fold: Fold, reading: Reading) -> Architecture:
    """The architecture of a trial's bundle."""
    provenance = Provenance(
        study=config.study.name,
        trial=record.job.trial,
        seed=record.job.seed,
        version=record.version,
        train_volumes={v.name: v.content_hash for v in fold.train},
        held_out_volumes={v.name: v.content_hash for v in fold.held_out},
        kidneys={v.name: v.kidney for v in (*fold.train, *fold.held_out)},
        teachers=tuple(v.soft.source for v in fold.train if v.soft and v.soft.source),
        libraries=library_versions(),
    )
    return architecture_of(record, fold, provenance, reading)


def export_best(folder: RunFolder, design: int, config: SearchConfig, fold: Fold) -> bool:
    """Write the leader's first training with kept weights as the bundle `best`; False if no weights were kept.

    Trainings that held out another kidney saw that of the search, so they do not count. A bundle that already holds
    this training stays as `nas tune` left it, with the files beside it.
    """
    for number, place in folder.trial_folders():
        record = read_record(place.record)
        if record is None or record.job.design != design or record.job.hold_out is not None:
            continue
        if not place.weights.is_file():
            continue
        architecture = describe_trial(record, config, fold, reading_of(record, config.score))
        if not folder.best.is_dir() or not _holds(read_architecture(folder.best), architecture):
            write_bundle(folder.best, architecture, load_file(folder.trial(number).weights))
        return True
    return False


def _holds(found: Architecture, wanted: Architecture) -> bool:
    """Whether a bundle is as it should be, apart from what `nas tune` changed and what only writing it settles."""
    provenance = wanted.provenance.model_copy(update={"libraries": found.provenance.libraries})
    reading = found.reading if found.reading.tuned_on else wanted.reading
    settled = {"provenance": provenance, "reading": reading, "weights_hash": found.weights_hash}
    return found == wanted.model_copy(update=settled)
