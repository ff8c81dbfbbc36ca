"""Label sets: several beside the images, soft ones with levels, and which kidneys their maker has seen."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kidneys import tube
from stacks import a_volume, write_kaggle, write_slices

from nas.jobs.kidneys import fingerprint
from search_spaces.errors import InputError
from trainers.data.augment import Augmentation
from trainers.data.batches import Batches
from trainers.data.check import check
from trainers.data.folds import DataConfig, Fold, choose
from trainers.data.leaks import guard, leaks
from trainers.data.patches import PatchSampler
from trainers.data.place import VolumeSource
from trainers.data.prepare import prepare, statistics_of
from trainers.data.resample import resample_volume
from trainers.data.soft_labels import LabelSource, SoftLabels, origin_leak, read_source
from trainers.data.sources import scan, scan_one
from trainers.metrics.cross_fit import score
from trainers.metrics.score import ScoreConfig
from trainers.report import Report

SEEN_1 = LabelSource(kidneys=("kidney_1",), volumes={"kidney_1_dense": "hash-1"})


def levels_of(label: np.ndarray) -> np.ndarray:
    """Levels beside a label: 255 inside, 0 to 199 outside."""
    ramp = np.arange(label.size).reshape(label.shape) % 200
    return np.where(label > 0, 255, ramp).astype(np.uint8)


def write_soft(root: Path, name: str, levels: np.ndarray, source: LabelSource | None = SEEN_1) -> Path:
    folder = write_slices(root / "train" / name / "labels_pseudo", levels)
    if source is not None:
        (folder / "SOURCE.json").write_text(source.model_dump_json())
    return folder


def say(root: Path, **volumes: str) -> None:
    """Write dataset.toml."""
    text = "".join(f"[volumes.{name}]\n{facts}\n" for name, facts in volumes.items())
    (root / "dataset.toml").write_text(text)


USES_SOFT = 'labels = "labels_pseudo"\nsoft = true\nannotated = 1.0'


@pytest.fixture
def soft(tmp_path: Path) -> VolumeSource:
    """kidney_2 with hand-made labels and soft ones beside them, which dataset.toml names."""
    _, label = write_kaggle(tmp_path, "kidney_2")
    write_soft(tmp_path, "kidney_2", levels_of(label))
    say(tmp_path, kidney_2=USES_SOFT)
    return scan(tmp_path)[0]


def test_soft_levels_come_through_conversion_as_they_are(soft: VolumeSource, tmp_path: Path) -> None:
    volume = prepare(soft, tmp_path / "cache")
    levels = levels_of(a_volume()[1])
    np.testing.assert_array_equal(volume.label, levels)
    np.testing.assert_array_equal(volume.vessel_voxels, np.flatnonzero(levels >= 128))
    assert statistics_of(soft, tmp_path / "cache").vessel_share == np.mean(levels >= 128)
    assert (soft.annotated, soft.label_set, soft.soft.source) == (1.0, "labels_pseudo", SEEN_1)


def test_a_training_sees_soft_levels_as_shares_of_255(soft: VolumeSource, tmp_path: Path) -> None:
    volume = prepare(soft, tmp_path / "cache")
    sampler = PatchSampler([volume], 6, 6, 16, 1.0, seed=0, boxes=True)
    _, targets = next(iter(Batches(sampler, Augmentation("none"), 2, sparse_margin=1)))
    z, y, x = sampler.location(0).start
    cut = volume.label[z : z + 6, y : y + 16, x : x + 16]
    if sampler.location(0).axis == 0:
        np.testing.assert_array_equal(targets[0].numpy(), cut.astype(np.float32) / np.float32(255))
    assert {round(float(t) * 255, 3) for t in targets.unique()} <= {float(level) for level in np.unique(volume.label)}


@pytest.mark.parametrize("name", ["none", "flips", "standard", "strong"])
def test_augmentation_leaves_soft_targets_between_0_and_their_highest(name: str) -> None:
    volume = replace(tube("a"), soft=SoftLabels("s", Path("SOURCE.json"), SEEN_1))
    volume = replace(volume, label=(volume.label * np.uint8(200)))
    sampler = PatchSampler([volume], 3, 3, 32, 1.0, seed=0)
    _, targets = next(iter(Batches(sampler, Augmentation(name), 8)))
    assert targets.min() == 0
    assert targets.max() == pytest.approx(200 / 255)


def test_where_a_grid_is_moved_soft_levels_are_blended_and_not_cut() -> None:
    volume = replace(tube("a"), soft=SoftLabels("s", Path("SOURCE.json"), SEEN_1))
    volume = replace(volume, label=(volume.label * np.uint8(200)))
    _, target = PatchSampler([volume], 1, 1, 32, 1.0, seed=0, spacing_um=40.0).sample(0)
    assert ((target > 0.01) & (target < 0.7)).any()


def test_a_volume_at_another_voxel_size_keeps_soft_levels() -> None:
    volume = replace(tube("a"), soft=SoftLabels("s", Path("SOURCE.json"), SEEN_1))
    volume = replace(volume, label=(volume.label * np.uint8(200)))
    seen = resample_volume(volume, 40.0)
    assert seen.label.max() == 200
    np.testing.assert_array_equal(seen.vessel_voxels, np.flatnonzero(seen.label >= 128))


def test_label_sets_are_converted_beside_each_other(soft: VolumeSource, tmp_path: Path) -> None:
    say(tmp_path, kidney_2="annotated = 0.65")
    hard = scan(tmp_path)[0]
    assert (hard.label_set, hard.soft, hard.annotated) == ("labels", None, 0.65)
    assert hard.key != soft.key
    assert prepare(hard, tmp_path / "cache").label.max() == 1
    assert prepare(soft, tmp_path / "cache").label.max() == 255


def test_what_was_converted_before_label_sets_keeps_its_key(tmp_path: Path) -> None:
    write_kaggle(tmp_path, "kidney_2")
    before = scan(tmp_path)[0].key
    say(tmp_path, kidney_2="annotated = 0.5")
    assert scan(tmp_path)[0].key == before


def test_a_changed_level_is_different_data_even_if_all_vessels_stay(soft: VolumeSource, tmp_path: Path) -> None:
    def prints() -> str:
        fold = Fold((prepare(scan(tmp_path)[0], tmp_path / "cache"),), ())
        return fingerprint(fold)["train"]["kidney_2"]

    before = prints()
    changed = levels_of(a_volume()[1])
    changed[changed == 7] = 8
    for path in (tmp_path / "train" / "kidney_2" / "labels_pseudo").iterdir():
        path.unlink()
    (tmp_path / "train" / "kidney_2" / "labels_pseudo").rmdir()
    write_soft(tmp_path, "kidney_2", changed)
    assert prints() != before


def test_a_hard_label_set_of_another_name_is_taken_too(tmp_path: Path) -> None:
    _, label = write_kaggle(tmp_path, "kidney_2")
    second = np.roll(label, 3, axis=2)
    write_slices(tmp_path / "train" / "kidney_2" / "labels_second", second * np.uint8(255))
    say(tmp_path, kidney_2='labels = "labels_second"')
    np.testing.assert_array_equal(prepare(scan(tmp_path)[0], tmp_path / "cache").label, second)
    np.testing.assert_array_equal(prepare(scan_one(tmp_path / "train" / "kidney_2"), tmp_path / "c").label, second)


def test_levels_are_never_guessed_from_values(tmp_path: Path) -> None:
    _, label = write_kaggle(tmp_path, "kidney_2")
    write_soft(tmp_path, "kidney_2", levels_of(label))
    say(tmp_path, kidney_2='labels = "labels_pseudo"')
    with pytest.raises(InputError, match=r"label values 0, 1, 2, .*soft = true allows levels"):
        prepare(scan(tmp_path)[0], tmp_path / "cache")


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ('labels = "labels_psuedo"', r"no label set 'labels_psuedo' .*the sets there: labels, labels_pseudo"),
        ('labels = "images"', r"no label set 'images'"),
        ('labels = "../kidney_2/labels"', r"no label set"),
        ("soft = 1", r"volumes\.kidney_2\.soft = 1"),
        ('labels = ""', r"volumes\.kidney_2\.labels = ''"),
    ],
)
def test_a_missing_label_set_is_refused_in_one_line(tmp_path: Path, facts: str, says: str) -> None:
    _, label = write_kaggle(tmp_path, "kidney_2")
    write_soft(tmp_path, "kidney_2", levels_of(label))
    say(tmp_path, kidney_2=facts)
    with pytest.raises(InputError, match=says) as caught:
        scan(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_label_set_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    _, label = write_kaggle(tmp_path, "kidney_2")
    write_soft(tmp_path, "kidney_2", levels_of(label)[:, :10])
    say(tmp_path, kidney_2=USES_SOFT)
    with pytest.raises(InputError, match=r"labels_pseudo does not lie on .*images: it has 6 x 10 x 24 voxels"):
        scan(tmp_path)


def test_soft_labels_of_16_bits_are_refused_because_their_scale_is_unknown(tmp_path: Path) -> None:
    _, label = write_kaggle(tmp_path, "kidney_2")
    write_soft(tmp_path, "kidney_2", levels_of(label).astype(np.uint16))
    say(tmp_path, kidney_2=USES_SOFT)
    with pytest.raises(InputError, match=r"soft labels of type uint16; write them as uint8"):
        prepare(scan(tmp_path)[0], tmp_path / "cache")


def test_soft_labels_of_a_volume_without_labels_are_refused(tmp_path: Path) -> None:
    write_kaggle(tmp_path, "kidney_5", "test")
    say(tmp_path, kidney_5="soft = true")
    with pytest.raises(InputError, match=r"kidney_5: dataset.toml says soft = true, but it has no label slices"):
        scan(tmp_path)


def test_a_label_set_needs_a_folder_to_lie_in(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", a_volume()[0])
    say(tmp_path, scan=USES_SOFT)
    with pytest.raises(InputError, match=r"the sets there: none; they are called scan_labels or the like"):
        scan(tmp_path)


def test_a_broken_source_is_named_in_one_line(soft: VolumeSource, tmp_path: Path) -> None:
    soft.soft.place.write_text('{"kidneys": "kidney_1"}')
    with pytest.raises(InputError, match=r"SOURCE.json: does not say where soft labels come from: kidneys") as caught:
        scan(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_check_shows_the_set_in_use_and_reports_its_missing_source(soft: VolumeSource, tmp_path: Path) -> None:
    soft.soft.place.unlink()
    (row,) = check(tmp_path, tmp_path / "out", tmp_path / "cache")
    assert (row.label_set, row.soft, row.annotated, row.error) == ("labels_pseudo", True, 1.0, None)
    assert any("without SOURCE.json" in note for note in row.notes)
    assert row.picture.is_file()


def three_kidneys(root: Path, source: LabelSource | None) -> list[VolumeSource]:
    """kidney_1, and kidney_2 with soft labels of this source, and kidney_3."""
    for seed, name in enumerate(("kidney_1_dense", "kidney_2", "kidney_3_sparse")):
        _, label = write_kaggle(root, name, seed=seed)
        if name == "kidney_2":
            write_soft(root, name, levels_of(label), source)
    say(root, kidney_1_dense="", kidney_2=USES_SOFT, kidney_3_sparse="annotated = 1.0")
    return scan(root)


def test_labels_of_a_network_that_has_seen_the_held_out_kidney_are_refused_before_conversion(tmp_path: Path) -> None:
    sources = three_kidneys(tmp_path, SEEN_1)
    with pytest.raises(
        InputError, match=r"kidney_2's soft labels .* network that has seen kidney_1, which is held out"
    ):
        choose(sources, DataConfig(hold_out="kidney_1"))
    train, _ = choose(sources, DataConfig(hold_out="kidney_3"))
    assert [source.name for source in train] == ["kidney_1_dense", "kidney_2"]
    excluded = DataConfig(hold_out="kidney_1", exclude=("kidney_2",))
    assert [source.name for source in choose(sources, excluded)[0]] == ["kidney_3_sparse"]


def test_soft_labels_of_unknown_origin_do_not_train(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'have no SOURCE.json.*write \{"kidneys": \[...\]\} into .*SOURCE.json'):
        choose(three_kidneys(tmp_path, None), DataConfig(hold_out="kidney_3"))


def test_the_minimal_source_that_the_message_asks_for_is_enough(tmp_path: Path) -> None:
    three_kidneys(tmp_path, None)
    (tmp_path / "train" / "kidney_2" / "labels_pseudo" / "SOURCE.json").write_text('{"kidneys": ["kidney_1"]}')
    choose(scan(tmp_path), DataConfig(hold_out="kidney_3"))


def test_the_held_out_kidney_is_never_scored_on_soft_labels(tmp_path: Path) -> None:
    sources = three_kidneys(tmp_path, SEEN_1)
    with pytest.raises(
        InputError, match=r"kidney_2 has no volume with complete, human-made labels to score on; hold out another"
    ):
        choose(sources, DataConfig(hold_out="kidney_2"))
    named = [replace(sources[1], kidney="k"), *sources[::2]]
    with pytest.raises(InputError, match=r"kidney_2 has soft labels .* cannot be scored on"):
        choose(named, DataConfig(hold_out="kidney_2"))


def test_a_soft_volume_of_a_held_out_kidney_is_skipped_with_a_note(tmp_path: Path) -> None:
    sources = three_kidneys(tmp_path, SEEN_1)
    notes: list[str] = []
    sources[2] = replace(sources[2], kidney="kidney_2")
    _, held_out = choose(sources, DataConfig(hold_out="kidney_2"), Report(notes.append))
    assert [source.name for source in held_out] == ["kidney_3_sparse"]
    assert notes == ["kidney_2 of the held-out kidney_2 is not scored: a network made its labels 'labels_pseudo'"]


def test_no_score_takes_soft_labels_for_the_truth() -> None:
    volume = replace(tube("a"), soft=SoftLabels("labels_pseudo", Path("SOURCE.json"), SEEN_1))
    with pytest.raises(InputError, match="a has soft labels"):
        score({"a": volume.label}, [volume], ScoreConfig())


def test_the_guard_knows_a_held_out_volume_by_its_voxels_whatever_it_is_called() -> None:
    held_out = replace(tube("renamed", seed=1), content_hash="hash-1")
    taught = replace(tube("a", seed=2), soft=SoftLabels("labels_pseudo", Path("SOURCE.json"), SEEN_1))
    assert len(leaks(Fold((taught,), (held_out,)))) == 1
    with pytest.raises(InputError, match="seen kidney_1_dense, which is held out"):
        guard(Fold((taught,), (held_out,)))
    guard(Fold((taught,), (tube("other", seed=3),)))


def test_hard_labels_have_no_maker() -> None:
    assert origin_leak("a", None, "kidney_1", {}) is None


@pytest.mark.timeout(20)
def test_a_pipe_says_nothing_about_soft_labels(tmp_path) -> None:
    os.mkfifo(tmp_path / "SOURCE.json")
    assert read_source(tmp_path).source is None
