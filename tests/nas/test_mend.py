"""What a kill leaves in a run folder is mended, and nothing that was whole is lost."""

import json
import os
from pathlib import Path

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nas.search.doctor import examine
from nas.search.mend import mend
from results.run_folder import RunFolder, create
from search_spaces.errors import InputError
from trainers.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(autouse=True)
def _a_lock_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.study.journal_lock.GONE", 0.5)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run with a study of five trials."""
    folder = create(tmp_path / "run")
    study = optuna.create_study(study_name="s", storage=_storage(folder), direction="maximize")
    for number in range(5):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, number / 10)
    return folder


def _storage(folder: RunFolder) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(folder.journal)))


def _study(folder: RunFolder) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=_storage(folder))


def test_a_whole_run_is_left_as_it_is(folder: RunFolder) -> None:
    before = folder.journal.read_bytes()
    assert mend(folder) == []
    assert folder.journal.read_bytes() == before


@pytest.mark.parametrize("tail", [b'{"op_code":6,"tri', b'{"op_code":6,"tri\n', b"\0\0\0\0", b'{"op_code": 6}', b"\n"])
def test_a_torn_end_is_cut_off_and_kept_beside(folder: RunFolder, tail: bytes) -> None:
    whole = folder.journal.read_bytes()
    folder.journal.write_bytes(whole + tail)
    (said,) = mend(folder)
    assert said == f"study.journal: cut off {len(tail)} torn bytes (study.journal.torn keeps them)"
    assert folder.journal.read_bytes() == whole
    assert folder.journal.with_name("study.journal.torn").read_bytes() == tail
    study = _study(folder)
    study.tell(study.ask(), 1.0)  # and it can be written
    assert len(_study(folder).trials) == 6


def test_a_journal_cut_anywhere_can_be_continued(folder: RunFolder) -> None:
    whole = folder.journal.read_bytes()
    first_trial = whole.index(b'"op_code":4')
    for length in range(first_trial, len(whole), 37):
        folder.journal.write_bytes(whole[:length])
        mend(folder)
        study = _study(folder)
        count = len(study.trials)
        study.tell(study.ask(), 1.0)
        assert len(_study(folder).trials) == count + 1


def test_a_line_that_was_added_after_a_torn_one_is_kept(folder: RunFolder) -> None:
    whole = folder.journal.read_bytes()
    folder.journal.write_bytes(whole + b'{"op_code":6,"trial_id":4,"va')
    backend = JournalFileBackend(str(folder.journal))
    backend.append_logs([{"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"note": "of a dashboard"}}])
    (said,) = mend(folder)
    assert said.startswith("study.journal: cut off 29 torn bytes")
    assert folder.journal.read_bytes().startswith(whole)
    assert _study(folder).user_attrs == {"note": "of a dashboard"}
    assert mend(folder) == []


def test_half_written_files_are_removed_wherever_they_are(folder: RunFolder) -> None:
    asides = [
        folder.path / ".leaderboard.json.77",
        folder.path / ".phantoms.77" / "dataset.toml",
        folder.cells("c").path / "genotypes" / ".a.json.78",
    ]
    old, new = folder.retrained / ".best.79" / "weights", folder.retrained / ".best.80" / "weights"
    for path in (*asides, old, new):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    os.utime(old.parent, (0, 0))
    mend(folder)
    assert not any(path.exists() for path in (*asides, old))
    assert new.exists()  # of a retraining that may be running


def test_damage_before_whole_lines_is_named_and_left_alone(folder: RunFolder) -> None:
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:5] + b"\n"
    folder.journal.write_bytes(b"".join(lines))
    before = folder.journal.read_bytes()
    with pytest.raises(InputError, match="is damaged in line 4, before lines that are whole: restore it from a copy"):
        mend(folder)
    assert folder.journal.read_bytes() == before


@pytest.mark.parametrize("made_for", ["/gone/study.journal", "study.journal"])
def test_the_lock_of_a_process_that_is_gone_is_removed(folder: RunFolder, made_for: str) -> None:
    lock = folder.journal.with_name("study.journal.lock")
    lock.symlink_to(made_for)
    assert mend(folder) == ["study.journal: removed the lock of a process that is gone"]
    assert not lock.is_symlink()


def test_half_written_files_and_damaged_checkpoints_are_removed(folder: RunFolder) -> None:
    place = folder.trial(0)
    save_checkpoint(place.checkpoints, 5, {"a": torch.ones(2)}, {})
    save_checkpoint(place.checkpoints, 9, {"a": torch.zeros(2)}, {})
    newest = place.checkpoints / "step-00000009" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    (place.checkpoints / ".step-00000012.77").mkdir()
    (place.path / ".candidate.json.77").write_text("{")
    assert mend(folder) == [
        "trial 0: removed 2 half-written file(s) or checkpoint(s)",
        "trial 0: removed a damaged checkpoint (step-00000009); the one before it counts",
    ]
    loaded = load_checkpoint(place.checkpoints)
    assert loaded is not None and loaded[1]["step"] == 5
    assert mend(folder) == []


def test_scratch_files_are_removed_when_their_trial_has_ended(folder: RunFolder) -> None:
    for number in (0, 1):
        folder.trial(number).scratch.mkdir(parents=True)
    folder.trial(1).record.write_text("{}")
    assert mend(folder) == ["trial 1: removed scratch files of an ended trial"]
    assert folder.trial(0).scratch.is_dir()


def test_the_doctor_says_what_it_mended_and_leaves_a_running_search_alone(folder: RunFolder) -> None:
    from filelock import FileLock

    folder.config.write_text("[study]\nname = 's'\n")
    with folder.journal.open("ab") as file:
        file.write(b"{")
    with FileLock(folder.lock):
        assert "a search is running here: its files are left alone" in [f.what for f in examine(folder.path)]
    found = {finding.level: finding.what for finding in examine(folder.path)}
    assert "cut off 1 torn bytes" in found["repaired"]
    assert json.loads(folder.journal.read_text().splitlines()[-1])


def test_what_is_not_ours_is_left_alone(folder: RunFolder, tmp_path: Path) -> None:
    own, link = folder.path / ".env.2024", folder.trial(0).path / ".x.1"
    own.mkdir()
    link.parent.mkdir()
    (tmp_path / "kept").mkdir()
    link.symlink_to(tmp_path / "kept")
    mend(folder)
    assert own.is_dir()
    assert not link.is_symlink()
    assert (tmp_path / "kept").is_dir()


def test_a_bundle_that_was_to_be_replaced_is_put_back(folder: RunFolder) -> None:
    old = folder.retrained / ".mine.old"
    old.mkdir(parents=True)
    assert mend(folder) == ["put mine back, which was to be replaced"]
    assert (folder.retrained / "mine").is_dir()


def test_a_line_that_does_not_belong_in_a_journal_is_damage(folder: RunFolder) -> None:
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    folder.journal.write_bytes(b"".join([*lines[:3], b'{"a": 1}\n', *lines[3:]]))
    with pytest.raises(InputError, match="damaged in line 4"):
        mend(folder)
