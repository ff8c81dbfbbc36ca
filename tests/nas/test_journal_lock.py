"""A journal that a dead process locked can be written again, wherever its folder lies; a driver that lives keeps it."""

import shutil
import threading
from pathlib import Path

import optuna
import pytest
from filelock import FileLock

from nas.study.storage import open_storage
from results.run_folder import RunFolder, create

PATIENCE = 60.0  # seconds, much more than any of this takes on a busy machine


@pytest.fixture(autouse=True)
def _a_lock_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.study.journal_lock.GONE", 0.5)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A copy of a run whose driver was killed while it wrote; the original goes on."""
    original = create(tmp_path / "original")
    optuna.create_study(study_name="s", storage=open_storage(original, None))
    _lock(original).symlink_to(original.journal)
    shutil.copytree(original.path, tmp_path / "copy", symlinks=True)
    return RunFolder(tmp_path / "copy")


def _lock(folder: RunFolder) -> Path:
    return folder.journal.with_name("study.journal.lock")


def _write(folder: RunFolder, is_driver: bool = False) -> threading.Thread:
    """Write to the study as a dashboard or a driver does."""

    def work() -> None:
        study = optuna.load_study(study_name="s", storage=open_storage(folder, None, is_driver))
        study.set_user_attr("note", "written")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _note(folder: RunFolder) -> object:
    return optuna.load_study(study_name="s", storage=open_storage(folder, None)).user_attrs.get("note")


@pytest.mark.parametrize("original", ["lives", "is gone"])
def test_a_copy_can_be_written_and_its_original_keeps_its_lock(
    folder: RunFolder, original: str, capfd: pytest.CaptureFixture[str]
) -> None:
    first = RunFolder(folder.path.with_name("original"))
    if original == "is gone":
        shutil.rmtree(first.path)
    thread = _write(folder)
    thread.join(PATIENCE)
    assert _note(folder) == "written"
    assert not _lock(folder).is_symlink()
    assert _lock(first).is_symlink() == (original == "lives")
    assert "nas: note: study.journal: removed the lock of a process that is gone" in capfd.readouterr().err


def test_a_driver_that_lives_keeps_its_lock_however_long_it_holds_it(folder: RunFolder) -> None:
    with FileLock(folder.lock):
        thread = _write(folder)
        thread.join(2.0)  # four times what a dead one is given
        assert thread.is_alive() and _lock(folder).is_symlink() and _note(folder) is None
        _lock(folder).unlink()
        thread.join(PATIENCE)
        assert _note(folder) == "written"


def test_a_driver_takes_the_lock_of_a_dashboard_that_is_gone(folder: RunFolder) -> None:
    with FileLock(folder.lock):
        _write(folder, is_driver=True).join(PATIENCE)
        assert _note(folder) == "written"
