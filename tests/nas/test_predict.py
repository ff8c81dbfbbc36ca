"""Bundles to masks, submissions and scores, with networks whose answers are known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from bundles import bundle, scan
from parameters import first_is_quick

from nas.bundles.predict import Prediction, predict_paths
from nas.bundles.requests import PredictRequest
from search_spaces.errors import InputError
from trainers.data import scratch
from trainers.data.masks import mask_slices, read_mask
from trainers.data.rle import decode, read_rles
from trainers.inference.reader import InferenceConfig
from trainers.report import Report


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))


def predict(*paths: Path, out: Path, notes: list[str] | None = None, **options: object) -> Prediction:
    request = PredictRequest(list(paths), out=out, **{"device": "cpu", **options})  # type: ignore[arg-type]
    return predict_paths(request, Report((notes if notes is not None else []).append))


def _test_folder(tmp_path: Path) -> Path:
    scan(tmp_path / "test", "kidney_5", first=0)
    scan(tmp_path / "test", "kidney_6", (6, 40, 32), first=0, seed=1)
    return tmp_path / "test"


def test_a_submission_of_a_folder_and_of_its_volumes_one_by_one_decodes_to_their_masks(tmp_path: Path) -> None:
    network, test = bundle(tmp_path / "b"), _test_folder(tmp_path)
    whole = predict(network, test, out=tmp_path / "m", submission=tmp_path / "whole.csv")
    predict(network, *sorted(test.iterdir()), out=tmp_path / "n", submission=tmp_path / "single.csv")
    assert (tmp_path / "whole.csv").read_text() == (tmp_path / "single.csv").read_text()
    assert whole.submission_rows == 14
    rows = read_rles(tmp_path / "whole.csv")
    found = 0
    for name, shape in (("kidney_5", (8, 32, 40)), ("kidney_6", (6, 40, 32))):
        mask = read_mask(tmp_path / "m" / name)
        assert mask.shape == shape
        decoded = np.stack([decode(rows[name][z].rle, *shape[1:]) for z in range(shape[0])])
        np.testing.assert_array_equal(decoded, mask)
        found += int(mask.sum())
    assert found > 0


def test_ids_are_the_volume_and_the_four_digits_of_the_slices_file(tmp_path: Path) -> None:
    network = bundle(tmp_path / "b", probability=0.9)
    kidney = scan(tmp_path, "kidney_5", (3, 32, 32), first=496)
    predict(network, kidney, out=tmp_path / "m", submission=tmp_path / "s.csv")
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines == ["id,rle", "kidney_5_0496,1 1024", "kidney_5_0497,1 1024", "kidney_5_0498,1 1024"]


def test_a_slice_without_vessels_is_1_0(tmp_path: Path) -> None:
    network = bundle(tmp_path / "b", probability=0.1)
    kidney = scan(tmp_path, "kidney_5", (3, 32, 32))
    predict(network, kidney, out=tmp_path / "m", submission=tmp_path / "s.csv")
    assert [line.split(",")[1] for line in (tmp_path / "s.csv").read_text().splitlines()[1:]] == ["1 0"] * 3


def test_finished_masks_are_kept_by_the_same_bundle_and_the_rest_is_predicted(tmp_path: Path) -> None:
    network, test = bundle(tmp_path / "b"), _test_folder(tmp_path)
    predict(network, test, out=tmp_path / "m", submission=tmp_path / "whole.csv")
    shutil.rmtree(tmp_path / "m" / "kidney_6")  # as if stopped before it was written
    notes: list[str] = []
    again = predict(network, test, out=tmp_path / "m", submission=tmp_path / "again.csv", notes=notes)
    assert again.kept == ("kidney_5",)
    assert any("kidney_5: its mask already exists" in note for note in notes)
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "whole.csv").read_text()


@pytest.mark.parametrize("change", first_is_quick(["threshold", "weights", "voxels"]))
def test_masks_made_in_another_way_are_not_kept(tmp_path: Path, change: str) -> None:
    network, test = bundle(tmp_path / "b"), _test_folder(tmp_path)
    predict(network, test, out=tmp_path / "m")
    if change == "weights":
        bundle(network, seed=1)
    elif change == "voxels":
        shutil.rmtree(test / "kidney_5")
        scan(test, "kidney_5", seed=7)
    threshold = 0.6 if change == "threshold" else None
    for _ in range(2):  # also when it is tried again
        with pytest.raises(InputError, match=r"kidney_5: already exists"):
            predict(network, test, out=tmp_path / "m", threshold=threshold)


def test_a_mask_that_was_cut_short_is_not_kept_and_is_reported_before_the_work(tmp_path: Path) -> None:
    network, test = bundle(tmp_path / "b"), _test_folder(tmp_path)
    predict(network, test, out=tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "kidney_5")
    slices = sorted((tmp_path / "m" / "kidney_6").iterdir())
    slices[2].write_bytes(slices[2].read_bytes()[:40])
    with pytest.raises(InputError, match="kidney_6: already exists"):
        predict(network, test, out=tmp_path / "m")
    assert not (tmp_path / "m" / "kidney_5").exists()


@pytest.mark.slow
def test_a_mask_that_lost_a_slice_is_not_kept_and_one_that_lost_all_is_made_again(tmp_path: Path) -> None:
    network, test = bundle(tmp_path / "b"), _test_folder(tmp_path)
    predict(network, test, out=tmp_path / "m", submission=tmp_path / "whole.csv")
    slices = sorted((tmp_path / "m" / "kidney_6").iterdir())
    slices[-1].unlink()
    with pytest.raises(InputError, match="kidney_6: already exists"):
        predict(network, test, out=tmp_path / "m", submission=tmp_path / "again.csv")
    for one in slices[:-1]:
        one.unlink()
    again = predict(network, test, out=tmp_path / "m", submission=tmp_path / "again.csv")
    assert again.kept == ("kidney_5",)
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "whole.csv").read_text()


@pytest.mark.slow
def test_a_mask_that_another_call_wrote_is_not_taken_for_this_bundles(tmp_path: Path) -> None:
    first, second, test = bundle(tmp_path / "a"), bundle(tmp_path / "b", seed=1), _test_folder(tmp_path)
    predict(first, test, out=tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "kidney_5")  # and not the hidden note beside it
    predict(second, test / "kidney_5", out=tmp_path / "m" / "kidney_5")
    with pytest.raises(InputError, match="kidney_5: already exists"):
        predict(first, test, out=tmp_path / "m")


@pytest.mark.slow
def test_a_mask_at_another_voxel_spacing_is_not_kept(tmp_path: Path) -> None:
    network, test = bundle(tmp_path / "b"), _test_folder(tmp_path)
    predict(network, test, out=tmp_path / "m")
    (tmp_path / "dataset.toml").write_text("[volumes.kidney_5]\nvoxel_spacing_um = 40.0\n")
    with pytest.raises(InputError, match="kidney_5: already exists"):
        predict(network, test, out=tmp_path / "m")


def test_masks_of_several_volumes_do_not_fit_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("")
    with pytest.raises(InputError, match="m is a file, and 2 volumes need a folder for their masks"):
        predict(bundle(tmp_path / "b"), _test_folder(tmp_path), out=tmp_path / "m")


@pytest.mark.slow
def test_scores_of_masks_in_files_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = bundle(tmp_path / "b", inference=InferenceConfig(axes=(0,), smallest_component=20))
    test = _test_folder(tmp_path)
    in_memory = predict(network, test, out=tmp_path / "m", score=True)
    monkeypatch.setattr(scratch, "_IN_MEMORY_BYTES", 1000)
    in_files = predict(network, test, out=tmp_path / "n", score=True)
    assert in_files.score == in_memory.score and in_files.mask_values == in_memory.mask_values


def test_a_csv_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    network, test = bundle(tmp_path / "b"), _test_folder(tmp_path)
    shutil.rmtree(test / "kidney_6" / "labels")
    (test / "kidney_6" / "images" / "0003.tif").write_bytes(b"II*\0")  # is found out when its turn comes
    with pytest.raises(InputError):
        predict(network, test, out=tmp_path / "m", submission=tmp_path / "s.csv")
    assert not [path for path in tmp_path.iterdir() if "s.csv" in path.name or "scratch" in path.name]


@pytest.mark.slow
def test_the_mean_of_two_constant_networks_is_cut_at_the_threshold_that_was_asked_for(tmp_path: Path) -> None:
    low, high = bundle(tmp_path / "low", 0.2, threshold=0.1), bundle(tmp_path / "high", 0.6, threshold=0.5)
    kidney = scan(tmp_path, "kidney_5", (3, 32, 32))
    for threshold, share in ((0.39, 1.0), (0.41, 0.0)):  # their mean is 0.4
        out = tmp_path / f"{threshold}.npy"
        predict(low, high, kidney, out=out, threshold=threshold)
        assert read_mask(out).mean() == share


def test_bundles_with_thresholds_of_their_own_need_one(tmp_path: Path) -> None:
    low, high = bundle(tmp_path / "low", 0.2, threshold=0.1), bundle(tmp_path / "high", 0.6, threshold=0.5)
    with pytest.raises(InputError, match=r"different thresholds \(0.100, 0.500\).*give --threshold"):
        predict(low, high, scan(tmp_path, "kidney_5"), out=tmp_path / "m")


def test_a_threshold_that_members_share_is_that_of_their_mean(tmp_path: Path) -> None:
    first, second = bundle(tmp_path / "a", 0.6, threshold=0.5), bundle(tmp_path / "b", 0.7, threshold=0.501)
    found = predict(first, second, scan(tmp_path, "kidney_5"), out=tmp_path / "m.npy")
    assert found.threshold == 0.5
    assert read_mask(tmp_path / "m.npy").all()


def test_members_that_remove_components_of_different_sizes_are_refused(tmp_path: Path) -> None:
    other = InferenceConfig(axes=(0,), smallest_component=9)
    first, second = bundle(tmp_path / "a"), bundle(tmp_path / "b", inference=other)
    with pytest.raises(InputError, match="different sizes"):
        predict(first, second, scan(tmp_path, "kidney_5"), out=tmp_path / "m")


@pytest.mark.slow
def test_members_read_with_settings_of_their_own(tmp_path: Path) -> None:
    kidney = scan(tmp_path, "kidney_5", (32, 32, 32))
    along_z, along_x = (bundle(tmp_path / n, inference=InferenceConfig(axes=(a,))) for n, a in (("z", 0), ("x", 2)))
    both = bundle(tmp_path / "zx", inference=InferenceConfig(axes=(0, 2)))
    cut = 0.5
    predict(along_z, along_x, kidney, out=tmp_path / "mean.npy", threshold=cut)
    predict(both, kidney, out=tmp_path / "axes.npy", threshold=cut)
    differ = read_mask(tmp_path / "mean.npy") != read_mask(tmp_path / "axes.npy")
    assert differ.mean() < 0.05  # each member's steps of 1/255 are rounded before the mean


def test_the_score_is_that_of_the_written_mask_without_its_small_components(tmp_path: Path) -> None:
    inference = InferenceConfig(axes=(0,), smallest_component=50)
    network, kidney = bundle(tmp_path / "b", threshold=0.5, inference=inference), scan(tmp_path, "kidney_5")
    found = predict(network, kidney, out=tmp_path / "m.npy", score=True)
    assert found.score is not None
    at_best = predict(
        network, kidney, out=tmp_path / "best.npy", threshold=found.score.threshold, score=True
    ).mask_values["surface_dice"]
    assert at_best == pytest.approx(found.score.best, abs=1e-12)
    from nas.bundles.score_masks import score_masks

    for name, value in (("m.npy", found.mask_values["surface_dice"]), ("best.npy", at_best)):
        alone = score_masks(tmp_path / name, kidney / "labels", "50", 0.0)["surface_dice"]
        assert alone == pytest.approx(value, abs=1e-12)


@pytest.mark.slow
def test_the_held_out_volumes_of_members_must_agree(tmp_path: Path) -> None:
    first, second = bundle(tmp_path / "a", held_out={"k": "1"}), bundle(tmp_path / "b", held_out={"j": "1"})
    with pytest.raises(InputError, match="do not hold out the same volumes"):
        predict(first, second, scan(tmp_path, "kidney_5"), out=tmp_path / "m", held_out=True)


def test_a_member_that_was_trained_on_a_scored_volume_is_named(tmp_path: Path) -> None:
    kidney = scan(tmp_path, "kidney_5")
    clean, seen = bundle(tmp_path / "clean"), bundle(tmp_path / "seen", seed=1)
    from trainers.data.prepare import default_cache, prepare
    from trainers.data.sources import scan_one

    file = seen / "architecture.json"
    values = json.loads(file.read_text())
    values["provenance"]["train_volumes"] = {"k": prepare(scan_one(kidney), default_cache()).content_hash}
    file.write_text(json.dumps(values))
    notes: list[str] = []
    predict(clean, seen, kidney, out=tmp_path / "m", score=True, notes=notes)
    assert [note for note in notes if "trained on kidney_5" in note] == [
        f"{seen} was trained on kidney_5: the score says nothing about new kidneys"
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["kidney_5"], "kidney_5 is not a bundle"),
        (["b"], "no volume after"),
        (["b", "b", "kidney_5"], "is given twice"),
        (["b", "missing", "kidney_5"], "missing: there is no such file or folder"),
    ],
)
def test_what_is_missing_among_the_paths_is_named(tmp_path: Path, names: list[str], message: str) -> None:
    bundle(tmp_path / "b")
    scan(tmp_path, "kidney_5")
    with pytest.raises(InputError, match=message):
        predict(*(tmp_path / name for name in names), out=tmp_path / "m")


def test_a_masks_slices_come_back_one_by_one(tmp_path: Path) -> None:
    network, kidney = bundle(tmp_path / "b"), scan(tmp_path, "kidney_5")
    predict(network, kidney, out=tmp_path / "m")
    np.testing.assert_array_equal(np.stack(list(mask_slices(tmp_path / "m"))), read_mask(tmp_path / "m"))


def test_a_volume_that_cannot_be_read_is_reported_before_any_is_predicted(tmp_path: Path) -> None:
    network, test = bundle(tmp_path / "b"), _test_folder(tmp_path)
    scan(test, "kidney_9", (2, 3, 3))
    with pytest.raises(InputError, match=r"kidney_9 of \(2, 3, 3\) voxels is too small to be read with crops of 32"):
        predict(network, test, out=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_volume_that_cannot_be_scored_is_reported_before_it_is_predicted(tmp_path: Path) -> None:
    network, flat = bundle(tmp_path / "b"), scan(tmp_path, "kidney_5", (1, 32, 32))
    with pytest.raises(InputError, match="kidney_5 has too few slices to choose a threshold on one half"):
        predict(network, flat, out=tmp_path / "m", score=True)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("submission", ["m", "m/kidney_5"])
def test_a_submission_where_a_mask_goes_is_refused(tmp_path: Path, submission: str) -> None:
    network, test = bundle(tmp_path / "b"), _test_folder(tmp_path)
    with pytest.raises(InputError, match="is also where a mask goes"):
        predict(network, test, out=tmp_path / "m", submission=tmp_path / submission)


@pytest.mark.parametrize(
    ("threshold", "says"),
    [
        (0.0, "the mask of kidney_5, at threshold 0: 100% of its voxels are vessel: is it inverted, or of the whole"),
        (0.9, "the mask of kidney_5, at threshold 0.9: no vessel is in it"),
    ],
)
def test_a_mask_that_no_organ_has_is_told(tmp_path: Path, threshold: float, says: str) -> None:
    notes: list[str] = []
    predict(
        bundle(tmp_path / "b", 0.6), scan(tmp_path, "kidney_5"), out=tmp_path / "m", threshold=threshold, notes=notes
    )
    assert any(note.startswith(says) for note in notes)


def test_a_score_without_a_labelled_vessel_is_explained(tmp_path: Path) -> None:
    network, kidney = bundle(tmp_path / "b"), scan(tmp_path, "kidney_5")
    for file in (kidney / "labels").iterdir():
        tifffile.imwrite(file, np.zeros((32, 40), np.uint8))
    notes: list[str] = []
    predict(network, kidney, out=tmp_path / "m", score=True, notes=notes)
    assert any(note.startswith("no vessel is labelled: the score only says") for note in notes)
