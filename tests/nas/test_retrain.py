"""Training in full: what is to be trained, and what a training leaves."""

from pathlib import Path

import pytest
from filelock import FileLock
from kidneys import tube
from searches import complete, tiny_config, trial_task

from nas.bundles.retrain import Retraining, find_retraining, reading_for_all, retrain
from results.bundles.bundle import read_bundle
from results.record import Record
from results.run_folder import RunFolder, create
from search_spaces.errors import InputError
from trainers.checkpoint import write_atomically
from trainers.data.folds import Fold

CONFIG = tiny_config({"retrain": {"steps": 3, "learning_rate_factor": 0.5}, "score": {"slabs": 2, "resamples": 10}})
FOLD = Fold((tube("t"),), (tube("k", seed=1),))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run with trial 2, which was scored."""
    folder = create(tmp_path / "run")
    record = Record(job=trial_task(2, learning_rate=1e-3).job, outcome=complete(3), version="0")
    folder.trial(2).path.mkdir(parents=True)
    write_atomically(folder.trial(2).record, record.model_dump_json())
    return folder


def _found(folder: RunFolder, target: str = "2", best: int | None = 2, seed: int | None = None) -> Retraining:
    return find_retraining(folder, CONFIG, target, best, None, seed)


def test_a_trial_is_trained_longer_at_its_share_of_the_learning_rate(folder: RunFolder) -> None:
    found = _found(folder)
    assert (found.name, found.job.fit.steps, found.job.fit.learning_rate) == ("trial-0002", 3, 5e-4)
    assert found.before == complete(3).score.value  # type: ignore[union-attr]
    assert _found(folder, "best") == found
    assert find_retraining(folder, CONFIG, "2", None, 7).job.fit.steps == 7


def test_another_seed_is_another_bundle_and_its_own_is_the_same(folder: RunFolder) -> None:
    other = _found(folder, seed=9)
    assert (other.name, other.job.seed) == ("trial-0002-seed-9", 9)
    assert _found(folder, seed=1) == _found(folder)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("best", "has no finished trial yet; let `nas search` finish one"),
        ("top", "cannot retrain 'top': give `best`, `topN` (as in top3), the number of a trial, or a bundle's folder"),
        ("3", "trial 3"),
    ],
)
def test_a_target_that_does_not_exist_is_one_line(folder: RunFolder, target: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        _found(folder, target, best=None)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_threshold_nothing_is_trained_on_all_kidneys(folder: RunFolder) -> None:
    unknown = Retraining("trial-0002", _found(folder).job, known=None, twin=None)
    with pytest.raises(InputError, match="no threshold is known: first train it with --on train"):
        reading_for_all(unknown)
    with pytest.raises(InputError, match="first train it with --on train"):
        retrain(unknown, FOLD, CONFIG, folder, "all")
    assert not folder.retraining("trial-0002-all").path.exists()


@pytest.mark.slow
def test_a_bundle_is_written_once_and_is_read_by_the_training_on_all_kidneys(folder: RunFolder) -> None:
    path, record = retrain(_found(folder), FOLD, CONFIG, folder, "train")
    bundle = read_bundle(path).architecture
    assert (path.name, record.outcome.state, bundle.provenance.seed) == ("trial-0002", "complete", 1)
    assert bundle.reading.score == record.outcome.score
    assert set(bundle.provenance.train_volumes) == {"t"}
    assert not folder.retraining("trial-0002").path.exists()  # what it worked in
    with pytest.raises(InputError, match="trial-0002 already exists; move or delete it to train again"):
        retrain(_found(folder), FOLD, CONFIG, folder, "train")
    every, _ = retrain(_found(folder), FOLD, CONFIG, folder, "all")
    both = read_bundle(every).architecture
    assert set(both.provenance.train_volumes) == {"t", "k"}
    assert both.reading == bundle.reading.unscored()


def test_an_unfinished_training_with_other_settings_is_not_continued(folder: RunFolder) -> None:
    found = _found(folder)
    work = folder.retraining("trial-0002")
    work.path.mkdir(parents=True)
    write_atomically(work.job, found.job.model_copy(update={"seed": 5}).model_dump_json())
    with pytest.raises(InputError, match="holds an unfinished training with other settings; finish it, or delete it"):
        retrain(found, FOLD, CONFIG, folder, "train")
    assert work.job.is_file()


def test_two_commands_do_not_train_one_bundle(folder: RunFolder) -> None:
    folder.retrained.mkdir(exist_ok=True)
    with FileLock(folder.retraining_lock("trial-0002")), pytest.raises(InputError, match="another command is training"):
        retrain(_found(folder), FOLD, CONFIG, folder, "train")
