"""Links, pipes and devices in a folder that somebody else made."""

import os
import re
from pathlib import Path

import pytest
from optuna.storages.journal import JournalFileSymlinkLock

from nas.search.doctor import examine
from results.bundles.bundle import ARCHITECTURE, WEIGHTS, read_architecture
from results.links import refuse_links
from results.run_folder import create, find
from search_spaces.errors import InputError


def test_a_folder_that_does_not_exist_holds_no_link(tmp_path: Path) -> None:
    refuse_links(tmp_path / "nowhere")


def test_links_inside_of_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path / "c")  # nothing is there
    (tmp_path / "loop").symlink_to(tmp_path)
    refuse_links(tmp_path)


@pytest.mark.parametrize("target", ["..", "/dev/zero", "../folder-of-another", "a/../../x"])
def test_a_link_out_of_the_folder_is_named(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "folder"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "link").symlink_to(target if target.startswith("/") else folder / target)
    with pytest.raises(InputError, match=r"folder/a/link is a link that leads out of .*/folder; remove it, or copy"):
        refuse_links(folder)


def test_a_pipe_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "record.json")
    with pytest.raises(InputError, match=r"record.json is not a file but a pipe or a device; remove it"):
        refuse_links(tmp_path)


@pytest.mark.parametrize("name", ["study.journal", "record.json", "failure.txt", "seconds"])
def test_a_text_larger_than_any_of_ours_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "weights.safetensors").touch()
    for place in (tmp_path / "weights.safetensors", tmp_path / name):
        refuse_links(tmp_path)
        with place.open("wb") as file:
            file.truncate(2**40)  # it takes no room on the disk
    with pytest.raises(InputError, match=rf"{name} has 1,024 GiB, far more than this program writes; remove it"):
        refuse_links(tmp_path)


@pytest.mark.parametrize("name", ["study.journal", "study.journal.torn", "worker-0.log", "scores.jsonl", "log.txt"])
def test_a_file_that_grows_must_have_no_other_name(tmp_path: Path, name: str) -> None:
    run = create(tmp_path / "run")
    run.config.write_text("")
    (tmp_path / "own.txt").write_text("months of work")
    place = run.trial(0).path / name
    place.parent.mkdir(parents=True)
    os.link(tmp_path / "own.txt", place)
    assert find(run.path) == run  # to read, as in a copy of hard links
    message = rf"{name} is also another file \(a hard link\), which would change with it; work in a copy of .*run"
    with pytest.raises(InputError, match=message):
        find(run.path, writes=True)
    with pytest.raises(InputError, match=message):
        create(run.path)
    assert any(found.level == "problem" and re.search(message, found.what) for found in examine(run.path))
    assert (tmp_path / "own.txt").read_text() == "months of work"


def test_a_file_that_is_replaced_may_have_other_names(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    run.config.write_text("")
    os.link(run.config, tmp_path / "backup.toml")
    assert create(run.path) == run


def test_a_link_to_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match=r"/[ab] is a link that leads to itself; remove it"):
        refuse_links(tmp_path)


def test_hundreds_of_folders_in_each_other_are_refused_by_the_first(tmp_path: Path) -> None:
    place = tmp_path / "best"
    for _ in range(200):
        place = place / "x"
    place.mkdir(parents=True)
    with pytest.raises(InputError, match=r"/best holds more than 64 folders in each other; remove it"):
        refuse_links(tmp_path)


@pytest.mark.parametrize(
    ("name", "target", "is_lock"),
    [
        ("study.journal.lock", "../runs/x/study.journal", True),
        ("study.journal.lock", "/gone/since/study.journal", True),
        ("study.journal.lock5d1e.rename", "../runs/x/study.journal", True),  # as it is removed
        ("study.journal.lock", "/etc/passwd", False),
        ("study.journal", "../runs/x/study.journal", False),
        ("driver.lock", "../runs/x/driver", False),
        ("trials/study.journal.lock", "../../../runs/x/study.journal", False),
    ],
)
def test_the_lock_of_the_journal_is_a_link_that_nobody_follows(
    tmp_path: Path, name: str, target: str, is_lock: bool
) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / name).symlink_to(target)
    if is_lock:
        refuse_links(tmp_path, journal="study.journal")
    else:
        with pytest.raises(InputError, match="leads out of"):
            refuse_links(tmp_path, journal="study.journal")
    with pytest.raises(InputError, match="leads out of"):  # a bundle has no journal
        refuse_links(tmp_path)


def test_a_lock_is_as_optuna_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("here", "runs/x"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    lock = JournalFileSymlinkLock("../runs/x/study.journal")
    lock.acquire()
    refuse_links(Path("../runs/x"), journal="study.journal")
    lock.release()
    assert list((tmp_path / "runs/x").iterdir()) == []


def test_links_in_the_guarded_folder_are_left_to_the_caller(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "link").symlink_to("/etc/hostname")
    refuse_links(tmp_path, guarded="artifacts")
    with pytest.raises(InputError):
        refuse_links(tmp_path)


@pytest.mark.parametrize("name", [ARCHITECTURE, WEIGHTS, "model.onnx"])
def test_a_bundle_with_a_link_is_not_read(tmp_path: Path, name: str) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / ARCHITECTURE).write_text("{}")
    (bundle / name).unlink(missing_ok=True)
    (tmp_path / "mine").write_text("{}")
    (bundle / name).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=f"{name} is a link that leads out of"):
        read_architecture(bundle)
    assert (tmp_path / "mine").read_text() == "{}"


def test_a_bundle_whose_description_is_a_pipe_ends_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ARCHITECTURE)
    with pytest.raises(InputError, match="is not a file but a pipe"):
        read_architecture(tmp_path)
