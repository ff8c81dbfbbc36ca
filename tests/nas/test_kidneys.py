"""From a configuration to kidneys: found or made once, and told apart by their voxels."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from nas.config.read import parse_config
from nas.config.search_config import SearchConfig
from nas.jobs.kidneys import check_fold, check_same_data, data_root, fingerprint, open_fold, open_folds
from results.run_folder import RunFolder, create
from search_spaces.errors import InputError
from trainers.data.phantom import PhantomConfig, write_phantoms
from trainers.report import Report

PHANTOM = PhantomConfig(kidneys=3, shape=(16, 32, 32))


def _config(cache: Path, **data: object) -> SearchConfig:
    return parse_config(
        {"phantom": PHANTOM.model_dump(), "data": {"hold_out": "phantom_3", "cache": str(cache), **data}}, "test"
    )


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create(tmp_path / "run")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    root = tmp_path / "scans"
    write_phantoms(root, PHANTOM, seed=5)
    return root


def test_phantoms_are_made_once(folder: RunFolder, tmp_path: Path) -> None:
    config = _config(tmp_path / "cache")
    seen: list[str] = []
    first = open_fold(config, folder, Report(progress=lambda what, done, of: seen.append(what)))
    assert "making phantom kidneys" in seen
    assert "converting phantom_3" in seen
    made = {p: p.stat().st_mtime_ns for p in folder.phantoms.rglob("*.tif")}
    seen.clear()
    folder.config.write_text("")  # as a search that has begun leaves one
    again = open_fold(config, folder, Report(progress=lambda what, done, of: seen.append(what)))
    assert "making phantom kidneys" not in seen
    assert {p: p.stat().st_mtime_ns for p in folder.phantoms.rglob("*.tif")} == made
    assert fingerprint(again) == fingerprint(first)
    assert ([v.name for v in first.train], [v.name for v in first.held_out]) == (
        ["phantom_1", "phantom_2"],
        ["phantom_3"],
    )
    assert all(v.shape == (16, 32, 32) for v in (*first.train, *first.held_out))


def test_a_folder_that_only_has_the_name_of_phantoms_is_not_replaced(folder: RunFolder, tmp_path: Path) -> None:
    """A run folder may be any folder, as long as no search has begun in it."""
    folder.phantoms.mkdir()
    (folder.phantoms / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match=r"phantoms: is there already, .*; choose another --run"):
        data_root(_config(tmp_path / "cache"), folder)
    assert (folder.phantoms / "thesis.txt").read_text() == "years"
    (folder.phantoms / "thesis.txt").unlink()
    write_phantoms(folder.phantoms, PHANTOM, seed=9)  # as by a search that never began
    before = (folder.phantoms / "dataset.toml").read_text()
    data_root(_config(tmp_path / "cache"), folder)
    assert (folder.phantoms / "dataset.toml").read_text() != before


def test_another_seed_makes_other_phantoms(tmp_path: Path) -> None:
    prints = []
    for seed in (0, 1):
        config = _config(tmp_path / "cache")
        config = config.model_copy(update={"study": config.study.model_copy(update={"seed": seed})})
        prints.append(fingerprint(open_fold(config, create(tmp_path / f"run{seed}"))))
    one, other = (set(p["train"].values()) | set(p["held_out"].values()) for p in prints)
    assert not one & other


def test_scans_that_are_given_are_used_and_no_phantoms_made(folder: RunFolder, scans: Path, tmp_path: Path) -> None:
    config = _config(tmp_path / "cache", root=str(scans))
    assert data_root(config, folder) == scans
    fold = open_fold(config, folder)
    assert not folder.phantoms.exists()
    (held_out,) = fold.held_out
    slice_0 = tifffile.imread(scans / "train" / "phantom_3" / "images" / "0000.tif")
    np.testing.assert_array_equal(held_out.image[0], slice_0)


def test_a_voxel_that_changed_changes_the_fingerprint_of_its_volume_alone(
    folder: RunFolder, scans: Path, tmp_path: Path
) -> None:
    config = _config(tmp_path / "cache", root=str(scans))
    before = fingerprint(open_fold(config, folder))
    path = scans / "train" / "phantom_1" / "images" / "0007.tif"
    grey = tifffile.imread(path)
    grey[3, 4] += 1
    tifffile.imwrite(path, grey)
    after = fingerprint(open_fold(config, folder))
    assert after["train"]["phantom_1"] != before["train"]["phantom_1"]
    assert after["train"]["phantom_2"] == before["train"]["phantom_2"]
    assert after["held_out"] == before["held_out"]


def test_the_two_sides_share_no_volume(folder: RunFolder, tmp_path: Path) -> None:
    found = fingerprint(open_fold(_config(tmp_path / "cache"), folder))
    assert set(found) == {"train", "held_out"}
    assert not set(found["train"].values()) & set(found["held_out"].values())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"hold_out": "phantom_9"}, "unknown kidney or volume in hold_out, 'phantom_9'; did you mean 'phantom_"),
        (
            {"hold_out": ""},
            "name the kidney to hold out (--hold-out, or hold_out of [data]), or 'each' for all in turn; the "
            "labelled kidneys are: phantom_1, phantom_2",
        ),
        ({"exclude": ["phantom_1", "phantom_2"]}, "there is only one kidney, phantom_3"),
        ({"root": "no_scans"}, "no_scans: there is no such file or folder"),
    ],
)
def test_what_is_wrong_with_the_data_is_one_line(
    folder: RunFolder, tmp_path: Path, data: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        open_fold(_config(tmp_path / "cache", **data), folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_same_tissue_on_both_sides_is_refused(folder: RunFolder, scans: Path, tmp_path: Path) -> None:
    for number in range(16):
        name = f"images/{number:04d}.tif"
        copy = (scans / "train" / "phantom_3" / name).read_bytes()
        (scans / "train" / "phantom_1" / name).write_bytes(copy)
    with pytest.raises(InputError, match=r"phantom_1 is trained on and phantom_3 is held out"):
        open_fold(_config(tmp_path / "cache", root=str(scans)), folder)


def _splits(config: SearchConfig, folder: RunFolder, folds: int | None = None) -> list[tuple[str, list[str]]]:
    config = config.model_copy(update={"study": config.study.model_copy(update={"folds": folds})})
    return [(fold.kidney, [volume.name for volume in fold.train]) for fold in open_folds(config, folder)]


def test_each_kidney_is_held_out_once(folder: RunFolder, tmp_path: Path) -> None:
    one, two, three = (f"phantom_{number}" for number in (1, 2, 3))
    every = [(one, [two, three]), (two, [one, three]), (three, [one, two])]
    assert _splits(_config(tmp_path / "cache", hold_out="each"), folder) == every
    config = _config(tmp_path / "cache")
    assert _splits(config, folder) == every[2:]
    assert _splits(config, folder, 2) == [every[2], every[0]]
    assert _splits(_config(tmp_path / "cache", hold_out="each", exclude=[two]), folder) == [
        (one, [three]),
        (three, [one]),
    ]
    # What is named to be trained on is not trained on where it is held out.
    assert _splits(_config(tmp_path / "cache", train=[one, two]), folder, 2) == [every[2], (one, [two])]


def test_a_search_on_each_kidney_ranks_on_the_first(folder: RunFolder, tmp_path: Path) -> None:
    assert open_fold(_config(tmp_path / "cache", hold_out="each"), folder).kidney == "phantom_1"
    assert open_fold(_config(tmp_path / "cache"), folder, hold_out="phantom_2").kidney == "phantom_2"


def test_more_kidneys_than_there_are_cannot_be_held_out(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"4 kidneys are to be held out in turn, but .*: phantom_1, phantom_2, phant"):
        _splits(_config(tmp_path / "cache"), folder, 4)
    alone = _config(tmp_path / "cache", hold_out="each", exclude=["phantom_2", "phantom_3"])
    with pytest.raises(InputError, match=r"2 kidneys are to be held out in turn, but .*: none; label more, or"):
        _splits(alone, folder)


def test_a_kidney_unlike_all_others_is_not_held_out_nor_its_zoom_scored(
    folder: RunFolder, scans: Path, tmp_path: Path
) -> None:
    manifest = scans / "dataset.toml"
    text = manifest.read_text()
    before, name, after = text.partition("[volumes.phantom_2]")
    zoom = after.replace("voxel_spacing_um = 50.0", "voxel_spacing_um = 5.2", 1)
    manifest.write_text(before + name + zoom)
    each = _config(tmp_path / "cache", root=str(scans), hold_out="each")
    assert _splits(each, folder) == [("phantom_1", ["phantom_3"]), ("phantom_3", ["phantom_1"])]
    manifest.write_text(before + name + zoom.replace('kidney = "phantom_2"', 'kidney = "phantom_1"', 1))
    said: list[str] = []
    (fold, _) = open_folds(each, folder, Report(note=said.append))
    assert [volume.name for volume in fold.held_out] == ["phantom_1"]
    assert any(
        "phantom_2 of the held-out phantom_1 is not scored: its voxel spacing 5.2 µm is unlike" in s for s in said
    )


def test_only_complete_labels_of_people_score(folder: RunFolder, scans: Path, tmp_path: Path) -> None:
    manifest = scans / "dataset.toml"
    before, name, after = manifest.read_text().partition("[volumes.phantom_2]")
    manifest.write_text(before + name + after.replace("annotated = 1.0", "annotated = 0.65", 1))
    config = _config(tmp_path / "cache", root=str(scans), hold_out="each")
    assert [kidney for kidney, _ in _splits(config, folder)] == ["phantom_1", "phantom_3"]


def test_every_split_is_guarded(folder: RunFolder, scans: Path, tmp_path: Path) -> None:
    for number in range(16):
        name = f"images/{number:04d}.tif"
        copy = (scans / "train" / "phantom_2" / name).read_bytes()
        (scans / "train" / "phantom_1" / name).write_bytes(copy)
    config = _config(tmp_path / "cache", root=str(scans))
    assert _splits(config, folder) == [("phantom_3", ["phantom_1", "phantom_2"])]  # both on the same side
    with pytest.raises(InputError, match=r"phantom_2 is trained on and phantom_1 is held out"):
        _splits(config, folder, 2)


def test_a_volume_that_only_another_split_uses_must_not_change_either(
    folder: RunFolder, scans: Path, tmp_path: Path
) -> None:
    config = _config(tmp_path / "cache", root=str(scans), train=["phantom_2"])
    config = config.model_copy(update={"study": config.study.model_copy(update={"folds": 2})})
    check_same_data(folder, open_folds(config, folder))
    check_same_data(folder, open_folds(config, folder))
    path = scans / "train" / "phantom_1" / "labels" / "0007.tif"  # scored by the second fold alone
    tifffile.imwrite(path, np.zeros_like(tifffile.imread(path)))
    with pytest.raises(InputError, match="phantom_1 held out: held-out volume phantom_1 has changed"):
        check_same_data(folder, open_folds(config, folder))


def test_scans_that_moved_or_are_linked_are_the_same(folder: RunFolder, scans: Path, tmp_path: Path) -> None:
    config = _config(tmp_path / "cache", root=str(scans))
    check_same_data(folder, open_folds(config, folder))
    (tmp_path / "link").symlink_to(scans)
    for other in (tmp_path / "link", scans.rename(tmp_path / "moved")):
        if other.exists():
            check_same_data(folder, open_folds(_config(tmp_path / "cache", root=str(other)), folder))
    folder.config.write_text("")
    with pytest.raises(InputError, match=r"if the scans were moved: nas search --run .*run --data THEIR_NEW_PLACE"):
        data_root(config, folder)


@pytest.mark.parametrize("text", ["", "[" * 5_000, "[]", '{"data": []}', '{"data": {"train": "x"}}'])
def test_a_damaged_memory_of_the_data_is_one_line(folder: RunFolder, tmp_path: Path, text: str) -> None:
    fold = open_fold(_config(tmp_path / "cache"), folder)
    folder.identity.write_text(text)
    with pytest.raises(InputError, match=r"identity\.json is damaged; without it the data are taken to be"):
        check_fold(folder, fold, ranks=True)


def test_labels_that_change_are_told_whoever_opens_them(folder: RunFolder, scans: Path, tmp_path: Path) -> None:
    config = _config(tmp_path / "cache", root=str(scans))
    check_same_data(folder, open_folds(config, folder))
    check_fold(folder, open_fold(config, folder), ranks=True)
    for file in (scans / "train" / "phantom_3" / "labels").iterdir():
        tifffile.imwrite(file, np.roll(tifffile.imread(file), 3, axis=1))
    with pytest.raises(InputError, match="holds a search on other data: held-out volume phantom_3 has changed"):
        check_fold(folder, open_fold(config, folder), ranks=True)
