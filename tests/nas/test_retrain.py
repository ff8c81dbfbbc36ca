"""Training in full: what is to be trained, and what a training leaves."""

import shutil
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from kidneys import tube
from safetensors.torch import load_file
from searches import complete, tiny_config, trial_task

from nas.bundles.requests import RetrainRequest
from nas.bundles.retrain import Retraining, find_retraining, reading_for_all, retrain
from nas.bundles.trunk import Trunk, find_trunk
from nas.jobs.trial import Talk, run_job
from results.bundles.bundle import read_bundle
from results.record import Outcome, Record
from results.run_folder import RunFolder, create
from search_spaces.errors import InputError
from trainers.atomic import write_atomically
from trainers.checkpoint import save_checkpoint
from trainers.data.folds import Fold
from trainers.report import Report

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
    return find_retraining(folder, CONFIG, target, best, RetrainRequest(seed=seed))


def test_a_trial_is_trained_longer_at_its_share_of_the_learning_rate(folder: RunFolder) -> None:
    found = _found(folder)
    assert (found.name, found.job.fit.steps, found.job.fit.learning_rate) == ("trial-0002", 3, 5e-4)
    assert found.before == complete(3).score.value  # type: ignore[union-attr]
    assert _found(folder, "best") == found
    assert find_retraining(folder, CONFIG, "2", None, RetrainRequest(steps=7)).job.fit.steps == 7


def test_another_seed_is_another_bundle_and_its_own_is_the_same(folder: RunFolder) -> None:
    other = _found(folder, seed=9)
    assert (other.name, other.job.seed) == ("trial-0002-seed-9", 9)
    assert _found(folder, seed=1) == _found(folder)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("best", "no trial is finished yet; let `nas search --run "),
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
    unknown = Retraining("trial-0002", _found(folder).job, record=None, known=None, twin=None)
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


def test_a_trial_that_claims_a_batch_beyond_memory_is_one_line(folder: RunFolder) -> None:
    """Nothing is allocated, and nothing is left that another command would stumble over."""
    record = Record.model_validate_json(folder.trial(2).record.read_bytes())
    fit = record.job.fit.model_copy(update={"batch_size": 10**9})
    huge = record.model_copy(update={"job": record.job.model_copy(update={"fit": fit})})
    write_atomically(folder.trial(2).record, huge.model_dump_json())
    with pytest.raises(InputError, match=r"out of memory: needs [\d.]+ GiB of [\d.]+ GiB; train it on a machine with"):
        retrain(_found(folder), FOLD, CONFIG, folder, "train")
    assert not folder.retraining("trial-0002").path.exists()


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("Tried to allocate 2.00 GiB")])
def test_a_training_that_has_fitted_before_is_kept_when_memory_runs_out(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Others may have taken the memory: days of training must not go with it."""
    work, found = folder.retraining("trial-0002"), _found(folder)
    kept = save_checkpoint(work.checkpoints, 900, {"a": torch.ones(1)}, {})
    write_atomically(work.job, found.job.model_dump_json())

    def runs_out(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("nas.bundles.retrain.run_job", runs_out)
    with pytest.raises(InputError, match=r"memory: needs .*; run the same command again to continue"):
        retrain(found, FOLD, CONFIG, folder, "train")
    assert list(kept.iterdir())


def test_two_commands_do_not_train_one_bundle(folder: RunFolder) -> None:
    folder.retrained.mkdir(exist_ok=True)
    with FileLock(folder.retraining_lock("trial-0002")), pytest.raises(InputError, match="another command is training"):
        retrain(_found(folder), FOLD, CONFIG, folder, "train")


def _with_trunk(folder: RunFolder) -> Record:
    """A trial that left its trunk at step 2."""
    job = trial_task(4, steps=3, schedule="warmup-stable-decay", cooldown=0.3).job
    place = folder.trial(4)
    place.path.mkdir(parents=True)
    run_job(job, FOLD, CONFIG, place, "cpu", Talk(lambda *_: "go", lambda *_: None))
    record = Record(job=job, outcome=complete(3), version="0")
    write_atomically(place.record, record.model_dump_json())
    return record


SAME_RATE = CONFIG.model_copy(update={"retrain": CONFIG.retrain.model_copy(update={"learning_rate_factor": 1.0})})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (RetrainRequest(steps=8), None),
        (RetrainRequest(steps=8, seed=5), "another seed begins anew"),
        (RetrainRequest(steps=2), "the trial was trained for 3 steps, 2 are wanted"),
    ],
)
def test_a_full_training_goes_on_from_the_trunk_of_the_trial(
    folder: RunFolder, request_: RetrainRequest, reason: str | None
) -> None:
    record = _with_trunk(folder)
    training = find_retraining(folder, SAME_RATE, "4", None, request_)
    found = find_trunk(folder, record, training.job)
    assert found == (reason or Trunk(folder.trial(4).trunk, 2))


@pytest.mark.slow
def test_why_a_full_training_begins_anew(folder: RunFolder) -> None:
    record = _with_trunk(folder)
    job = find_retraining(folder, CONFIG, "4", None, RetrainRequest(steps=8)).job
    assert find_trunk(folder, record, job) == "learning_rate differs from the trial's"
    shutil.rmtree(folder.trial(4).trunk)
    assert find_trunk(folder, record, record.job) == f"{folder.trial(4).trunk} was not kept"
    cycle = record.job.model_copy(update={"fit": record.job.fit.model_copy(update={"schedule": "one-cycle"})})
    assert find_trunk(folder, record.model_copy(update={"job": cycle}), cycle) == "schedule one-cycle has no trunk"


@pytest.mark.slow
def test_a_training_that_held_out_another_kidney_begins_anew_on_the_fold_of_the_search(folder: RunFolder) -> None:
    record = _with_trunk(folder)
    other = record.model_copy(update={"job": record.job.model_copy(update={"hold_out": "b"})})
    write_atomically(folder.trial(4).record, other.model_dump_json())
    training = find_retraining(folder, SAME_RATE, "4", None, RetrainRequest(steps=8))
    assert training.job.hold_out is None
    assert training.known is None  # its threshold and its score are those of another kidney
    assert find_trunk(folder, other, training.job) == "the trial held out b, and was trained on what is now held out"


@pytest.mark.slow
def test_a_bundle_of_a_training_that_went_on_says_so_and_has_the_weights_of_one_that_did_not(folder: RunFolder) -> None:
    _with_trunk(folder)
    notes: list[str] = []
    both = []
    for start in ("trunk", "scratch"):
        training = find_retraining(folder, SAME_RATE, "4", None, RetrainRequest(steps=8, start=start))
        path, record = retrain(training, FOLD, SAME_RATE, folder, "train", Report(notes.append))
        both.append(load_file(path / "weights.safetensors"))
        assert record.job.trunk == (2 if start == "trunk" else None)
        shutil.rmtree(path)
    assert notes == ["goes on from step 2, where the search left it"]
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])


@pytest.mark.slow
def test_a_training_with_a_time_limit_keeps_to_it_and_its_bundle_says_how_many_steps_it_had(folder: RunFolder) -> None:
    _with_trunk(folder)
    training = find_retraining(folder, SAME_RATE, "4", None, RetrainRequest(minutes=0.2))
    began = time.monotonic()
    path, record = retrain(training, FOLD, SAME_RATE, folder, "train")
    assert 8 < time.monotonic() - began < 16
    assert read_bundle(path).architecture.fit.steps == record.outcome.step > 3


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (RetrainRequest(minutes=1.0, steps=5), "give --steps or --minutes, not both"),
        (RetrainRequest(minutes=1.0), "give --steps instead of --minutes"),
    ],
)
def test_a_length_that_cannot_be_kept_to_is_one_line(folder: RunFolder, request_: RetrainRequest, message: str) -> None:
    job = trial_task(2, schedule="one-cycle").job
    record = Record(job=job, outcome=complete(3), version="0")
    write_atomically(folder.trial(2).record, record.model_dump_json())
    with pytest.raises(InputError, match=message):
        find_retraining(folder, CONFIG, "2", None, request_)


@pytest.mark.parametrize(("wanted", "device"), [("cpu", "cpu"), ("auto", "cuda"), ("cuda:1", "cuda:1")])
def test_the_memory_that_is_named_is_that_of_the_device_in_use(
    wanted: str, device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")

    def outcome(error: Exception, device: str) -> tuple[Outcome, bool]:
        asked.append(device)
        return Outcome(state="infeasible", reason="out of memory"), False

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("nas.bundles.retrain.run_job", fail)
    monkeypatch.setattr("nas.bundles.retrain.outcome_of", outcome)
    training = Retraining("x", trial_task(0).job, None, None, None)
    config = CONFIG.model_copy(update={"device": wanted})
    with pytest.raises(InputError, match="out of memory; train it on a machine with more"):
        retrain(training, FOLD, config, create(tmp_path / "run"), "train")
    assert asked == [device]
