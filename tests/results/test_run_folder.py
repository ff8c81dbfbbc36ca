"""The run folder: which run is the latest, and which trials it has."""

import os
from pathlib import Path

import pytest

from results.run_folder import RUNS, RunFolder, create, find, remember
from search_spaces.errors import InputError


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(path: Path) -> RunFolder:
    folder = create(path)
    folder.config.write_text("")
    remember(folder)
    return folder


def test_the_latest_run_is_the_one_made_last() -> None:
    _run(RUNS / "one")
    second = _run(RUNS / "two")
    assert find(None) == second
    first = _run(RUNS / "one")  # gone on with
    assert find(None) == first


def test_a_run_elsewhere_is_not_the_latest(tmp_path: Path) -> None:
    inside = _run(RUNS / "one")
    outside = _run(tmp_path / "elsewhere")
    assert find(None) == inside
    assert find(outside.path) == outside


def test_a_run_made_again_keeps_what_is_in_it() -> None:
    folder = _run(RUNS / "one")
    folder.trial(3).path.mkdir()
    assert create(RUNS / "one").trial_folders() == folder.trial_folders() != []


def test_a_folder_whose_search_never_began_is_not_the_latest() -> None:
    first = _run(RUNS / "one")
    create(RUNS / "two")
    assert find(None) == first


def test_nothing_is_left_behind_but_the_folder_and_the_pointer() -> None:
    remember(create(RUNS / "one"))
    assert sorted(p.name for p in RUNS.iterdir()) == ["latest", "one"]
    assert [p.name for p in (RUNS / "one").iterdir()] == ["trials"]


def test_without_any_run_the_command_that_starts_one_is_named() -> None:
    with pytest.raises(InputError, match=r"no run below .*`nas search`.*--run"):
        find(None)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"other is not a run folder: it has no config.toml"):
        find(tmp_path / "other")


def test_a_latest_run_that_was_deleted_is_named() -> None:
    _run(RUNS / "one").config.unlink()
    with pytest.raises(InputError, match=r"one is not a run folder"):
        find(None)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"run folder .*run cannot be written: Not a directory; .*--run"):
        create(tmp_path / "file" / "run")


def test_trials_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = create(tmp_path / "run")
    for number in (10_000, 2, 9999, 0):
        folder.trial(number).path.mkdir()
    assert folder.trial_folders() == [(number, folder.trial(number)) for number in (0, 2, 9999, 10_000)]


def test_what_is_no_trial_is_left_out(tmp_path: Path) -> None:
    folder = create(tmp_path / "run")
    folder.trial(1).path.mkdir()
    for name in ("notes", ".0002", "0003.old", "latest"):
        (folder.trials / name).mkdir()
    assert folder.trial_folders() == [(1, folder.trial(1))]


def test_a_run_without_a_folder_of_trials_has_none(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).trial_folders() == []


@pytest.mark.parametrize("place", ["trials/0000/checkpoint", "retrained", "best", "study.journal", "trials/0001"])
def test_a_link_that_leads_out_of_a_run_folder_is_refused(tmp_path: Path, place: str) -> None:
    folder = _run(tmp_path / "run")
    (tmp_path / "outside" / "months of work").mkdir(parents=True)
    link = folder.path / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "outside")
    for opened in (find, create):
        with pytest.raises(InputError, match=r"is a link that leads out of .*run; remove it"):
            opened(folder.path)
    assert (tmp_path / "outside" / "months of work").is_dir()


@pytest.mark.parametrize("name", [os.fsdecode(b"run-\xff"), "run\x1b[2J"])
def test_a_path_that_cannot_be_printed_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"its path is not readable text \(UTF-8\); choose another with --run"):
        create(tmp_path / name)


def test_a_run_folder_may_be_a_link_and_hold_links_to_itself(tmp_path: Path) -> None:
    folder = _run(tmp_path / "disk" / "run")
    (folder.path / "newest").symlink_to(folder.path / "trials")
    (folder.path / "study.journal.lock").symlink_to(folder.path / "study.journal")  # as Optuna's lock of its journal
    (tmp_path / "run").symlink_to(folder.path)
    assert find(tmp_path / "run").path == tmp_path / "run"


def test_the_next_command_names_a_run_that_is_not_the_latest(tmp_path: Path) -> None:
    first = RunFolder(RUNS / "first")
    assert first.option == f" --run {RUNS / 'first'}"  # nothing is the latest yet
    _run(RUNS / "first")
    assert first.option == ""
    assert RunFolder(first.path.absolute()).option == ""
    assert RunFolder(RUNS / "the second").option == f" --run '{RUNS / 'the second'}'"
    assert _run(tmp_path / "elsewhere").option == f" --run {tmp_path / 'elsewhere'}"


@pytest.mark.parametrize("kind", ["folder", "broken link", "loop", "pipe"])
def test_a_pointer_to_the_latest_run_that_is_no_file_is_named(kind: str, tmp_path: Path) -> None:
    _run(RUNS / "one")
    pointer = RUNS / "latest"
    pointer.unlink()
    if kind == "folder":
        pointer.mkdir()
    elif kind == "pipe":
        os.mkfifo(pointer)
    else:
        pointer.symlink_to("nowhere" if kind == "broken link" else "latest")
    with pytest.raises(InputError, match=r"latest is not a file that names the latest run: .* name the run with --run"):
        find(None)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b", b"\x1b[2J", b"gone", b"x" * 5000])
def test_a_pointer_to_the_latest_run_that_names_none_is_named(content: bytes, tmp_path: Path) -> None:
    _run(RUNS / "one")
    (RUNS / "latest").write_bytes(content)
    with pytest.raises(InputError, match=r"latest does not name a folder below .*; name one with --run"):
        find(None)
