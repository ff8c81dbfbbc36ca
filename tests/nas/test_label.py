"""Pseudo labels: the threshold that matches the annotated share, the new label set, and who may make it."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from kidneys import tube

from nas.bundles.export import describe_trial
from nas.bundles.label import Labelled, count_levels, label_path, level_map, match_level, soft_slices
from nas.bundles.predict import predict_paths
from nas.bundles.requests import LabelRequest, PredictRequest
from nas.config.search_config import SearchConfig
from results.bundles.architecture import Architecture, Provenance
from results.bundles.bundle import write_bundle
from results.bundles.reading import Reading
from results.record import Job, Outcome, Record
from search_spaces.errors import InputError
from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network
from trainers.data.folds import DataConfig, Fold, choose
from trainers.data.masks import read_mask
from trainers.data.prepare import prepare
from trainers.data.soft_labels import LabelSource, SoftLabels
from trainers.data.sources import scan, scan_one
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import ScoreConfig
from trainers.report import Report

CANDIDATE = UnetCandidate(encoder="tu-mobilenetv3_small_100", decoder="PSPNet", slices_in=3)
READING = Reading(inference=InferenceConfig(axes=(0,)), threshold=0.25, score_config=ScoreConfig())
TEACHER = LabelSource(kidneys=("kidney_7",), volumes={"kidney_7_x": "hash-7"})


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_bundle(path: Path, **provenance: object) -> Path:
    """A network that was never trained, with a made-up past: trained on kidney_1_dense, ranked on kidney_3_dense."""
    past = {"train_volumes": {"kidney_1_dense": "hash-1"}, "held_out_volumes": {"kidney_3_dense": "hash-3"}}
    torch.manual_seed(0)
    architecture = Architecture(
        name="small", candidate=CANDIDATE, fit=FitConfig(crop=32, precision="float32"),
        voxel_spacing_um=((50.0, 50.0, 50.0),), grey_scales={}, reading=READING, parameters=1,
        provenance=Provenance.model_validate(
            {"study": "s", "trial": 3, "seed": 0, "version": "0", "libraries": {}, **past, **provenance}
        ),
    )  # fmt: skip
    return write_bundle(path, architecture, build_network(CANDIDATE, 32).state_dict())


def write_volume(root: Path, name: str = "kidney_2", seed: int = 0, first: int = 0, labels: bool = True) -> Path:
    """One tube in the layout of the competition, of which only the first half is labelled; slices from `first`."""
    volume = tube(name, (8, 32, 32), seed)
    for part, stack in (("images", volume.image), ("labels", volume.label * np.uint8(255))):
        if part == "labels" and not labels:
            continue
        folder = root / "train" / name / part
        folder.mkdir(parents=True)
        for z, one in enumerate(stack):
            tifffile.imwrite(folder / f"{first + z:04d}.tif", one * (part == "images" or z < 4))
    return root / "train" / name


def run(bundle: Path, volume: Path, **changes: object) -> tuple[Labelled, list[str]]:
    notes: list[str] = []
    request = LabelRequest(bundle, volume, **{"device": "cpu", **changes})  # type: ignore[arg-type]
    done = label_path(request, Report(notes.append))
    return done, notes


def test_the_threshold_is_where_the_labelled_voxels_are_the_annotated_share() -> None:
    # 8 voxels are labelled and are 0.8 of all vessels, so 2 more are wanted: those of levels 200 and 90.
    outside = np.zeros(256, np.int64)
    outside[[200, 90, 60, 0]] = (1, 1, 3, 100)
    assert 60 < match_level(outside, 8, 0.8) <= 90
    assert 90 < match_level(outside, 9, 0.9) <= 200
    assert match_level(outside, 8, 8 / 13) <= 60


def test_level_0_is_never_a_threshold() -> None:
    outside = np.zeros(256, np.int64)
    outside[0] = 1000
    assert match_level(outside, 5, 0.01) >= 1


def test_levels_are_counted_outside_of_the_labels_alone() -> None:
    volume = tube("a", (2, 4, 4), radius=1.5)
    levels = np.full((2, 4, 4), 7, np.uint8)
    outside, labelled = count_levels(levels, volume)
    assert labelled == volume.label.sum()
    assert (outside[7], outside.sum()) == (32 - labelled, 32 - labelled)


@pytest.mark.parametrize("level", [1, 2, 77, 128, 200, 254, 255])
def test_the_map_rises_and_puts_the_threshold_on_one_half(level: int) -> None:
    mapped = level_map(level).astype(int)
    assert (mapped[0], mapped[255]) == (0, 255)
    assert (np.diff(mapped) >= 0).all()
    assert mapped[level] == (128 if level < 255 else 255)
    assert mapped[level - 1] < 128


def test_what_people_labelled_is_surely_vessel() -> None:
    volume = tube("a", (2, 4, 4), radius=1.5)
    new = np.stack(list(soft_slices(np.full((2, 4, 4), 30, np.uint8), volume, 60)))
    assert (new[volume.label > 0] == 255).all()
    assert (new[volume.label == 0] == 64).all()


def test_a_volume_gets_a_new_label_set_and_the_lines_that_use_it(tmp_path: Path) -> None:
    folder = write_volume(tmp_path, first=3)
    (tmp_path / "dataset.toml").write_text("# scans\n[volumes.kidney_2]\nannotated = 0.4  # about\n")
    done, _ = run(make_bundle(tmp_path / "b"), folder, write=True)
    assert done.labels == folder / "labels_pseudo"
    assert (tmp_path / "dataset.toml").read_text() == (
        '# scans\n[volumes.kidney_2]\nannotated = 1.0  # about\nlabels = "labels_pseudo"\nsoft = true\n'
    )
    source = scan_one(folder)
    assert (source.label.numbers, source.soft.source, source.annotated) == (tuple(range(3, 11)), done.source, 1.0)
    volume = prepare(source, tmp_path / "cache")
    assert np.count_nonzero(volume.label >= 128) == done.vessel_voxels
    assert done.source.matched_share == done.labelled_voxels / done.vessel_voxels
    assert done.source.matched_share == pytest.approx(0.4, abs=0.1)
    assert sorted(path.name for path in folder.iterdir()) == ["images", "labels", "labels_pseudo"]
    with tifffile.TiffFile(done.labels / "0003.tif") as tif:
        assert tif.pages[0].compression.name == "DEFLATE"


def test_the_source_says_who_made_the_labels(tmp_path: Path) -> None:
    folder = write_volume(tmp_path)
    bundle = make_bundle(tmp_path / "b", teachers=(TEACHER,))
    done, _ = run(bundle, folder)
    said = json.loads((done.labels / "SOURCE.json").read_text())
    assert said["kidneys"] == ["kidney_1", "kidney_7"]  # kidney_7 by way of the labels that the bundle learned from
    assert said["volumes"] == {"kidney_7_x": "hash-7", "kidney_1_dense": "hash-1"}
    assert said["held_out"] == {"kidney_3_dense": "hash-3"}
    assert (said["annotated"], said["labels"], said["threshold"]) == (0.65, "labels", done.threshold)
    assert len(said["weights_hash"]) == 64
    assert str(tmp_path) not in json.dumps(said)


def test_a_bundle_notes_the_kidneys_and_the_teachers_of_its_training() -> None:
    taught = replace(tube("t"), soft=SoftLabels("labels_pseudo", Path("SOURCE.json"), TEACHER))
    job = Job(trial=0, name="n", candidate=CANDIDATE, fit=FitConfig(crop=32), inference=InferenceConfig(), seed=0)
    record = Record(job=job, outcome=Outcome(state="complete", score=None, parameters=1), version="0")
    found = describe_trial(record, SearchConfig(), Fold((taught,), (tube("k"),)), READING).provenance
    assert found.kidneys == {"t": "t", "k": "k"}
    assert found.teachers == (TEACHER,)


def test_labels_may_not_train_where_a_kidney_that_their_maker_knows_is_held_out(tmp_path: Path) -> None:
    for seed, name in enumerate(("kidney_1_dense", "kidney_2", "kidney_3_dense")):
        write_volume(tmp_path, name, seed)
    run(make_bundle(tmp_path / "b"), tmp_path / "train" / "kidney_2", write=True)
    sources = scan(tmp_path)
    assert len(sources) == 3  # a new dataset.toml lists the others too
    with pytest.raises(InputError, match="network that has seen kidney_1, which is held out"):
        choose(sources, DataConfig(hold_out="kidney_1"))
    assert len(choose(sources, DataConfig(hold_out="kidney_3"))[0]) == 2


def test_without_write_dataset_toml_is_left_alone_and_its_lines_are_given(tmp_path: Path) -> None:
    folder = write_volume(tmp_path)
    done, _ = run(make_bundle(tmp_path / "b"), folder, out="second")
    assert not done.manifest.exists()
    assert tomllib.loads(done.manifest_lines)["volumes"]["kidney_2"] == {
        "labels": "second", "soft": True, "annotated": 1.0
    }  # fmt: skip


def test_a_volume_without_labels_takes_a_threshold(tmp_path: Path) -> None:
    folder = write_volume(tmp_path, labels=False)
    done, _ = run(make_bundle(tmp_path / "b"), folder, threshold=0.5)
    assert (done.labelled_voxels, done.source.matched_share, done.source.annotated) == (0, None, None)
    assert done.threshold == 128 / 255


def test_a_share_that_cannot_be_reached_is_reported(tmp_path: Path) -> None:
    folder = write_volume(tmp_path)
    (tmp_path / "dataset.toml").write_text("[volumes.kidney_2]\nannotated = 0.01\n")
    _, notes = run(make_bundle(tmp_path / "b"), folder)
    assert any("the network is too sure, or finds too little" in note for note in notes)


@pytest.mark.parametrize(
    ("manifest", "changes", "says"),
    [
        (None, {"out": "labels"}, "--out 'labels' cannot name a new label set: it stands for something else"),
        (None, {"out": "image"}, "--out 'image' cannot name a new label set"),
        (None, {"out": ".hidden"}, "--out '.hidden' cannot name a new label set"),
        (None, {"out": "soft.tif"}, "--out 'soft.tif' cannot name a new label set"),
        (None, {"out": "a/b"}, "--out: 'a/b' cannot be the name"),
        ("annotated = 1.0", {}, "annotated = 1, so there is no share to match; .* or give --threshold"),
        ("annotated = 0.0", {}, "annotated = 0, so there is no share to match"),
        ("labels = 'none'", {}, "no label set 'none'"),
        (
            "labels = 'labels'\nsoft = true",
            {},
            "uses the soft labels 'labels'; to make new ones, remove these from dataset.toml",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path: Path, manifest: str | None, changes: dict[str, object], says: str
) -> None:
    folder = write_volume(tmp_path)
    if manifest is not None:
        (tmp_path / "dataset.toml").write_text(f"[volumes.kidney_2]\n{manifest}\n")
    with pytest.raises(InputError, match=says) as caught:
        run(tmp_path / "no bundle is read before", folder, **changes)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in folder.iterdir()) == ["images", "labels"]


def test_labels_that_hold_no_vessel_leave_no_share_to_match_and_no_label_set(tmp_path: Path) -> None:
    folder = write_volume(tmp_path)
    for file in (folder / "labels").iterdir():
        tifffile.imwrite(file, np.zeros_like(tifffile.imread(file)))
    (tmp_path / "dataset.toml").write_text("[volumes.kidney_2]\nannotated = 0.5\n")
    with pytest.raises(
        InputError, match=r"kidney_2 has no labelled voxel, so there is no share to match \(annotated = 0.5"
    ):
        run(make_bundle(tmp_path / "b"), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["images", "labels"]


def test_a_volume_without_labels_has_no_share(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kidney_2 has no labels, so there is no share to match; give --threshold"):
        run(tmp_path / "b", write_volume(tmp_path, labels=False))


def test_a_volume_that_is_one_file_has_no_place_for_a_label_set(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", tube("a").image)
    with pytest.raises(InputError, match=r"label sets lie beside images/ .*move it to scan/images.npy"):
        run(tmp_path / "b", tmp_path / "scan.npy", threshold=0.5)


@pytest.mark.parametrize("name", ["kidney_3_sparse", "kidney_3_crop"])
def test_the_kidney_that_a_bundle_was_ranked_on_is_not_labelled_with_it(tmp_path: Path, name: str) -> None:
    folder = write_volume(tmp_path, name)
    (tmp_path / "dataset.toml").write_text(f"[volumes.{name}]\nannotated = 0.5\n")
    with pytest.raises(InputError, match=rf"{name} shows kidney_3, which .* was ranked on") as caught:
        run(make_bundle(tmp_path / "b"), folder)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in folder.iterdir()) == ["images", "labels"]


def test_a_ranked_on_volume_is_known_by_its_voxels_under_another_name(tmp_path: Path) -> None:
    folder = write_volume(tmp_path)
    content = prepare(scan_one(folder), tmp_path / "cache").content_hash
    bundle = make_bundle(tmp_path / "b", held_out_volumes={"other": content}, kidneys={"other": "other"})
    with pytest.raises(InputError, match=r"kidney_2 shows kidney_2, which .* was ranked on"):
        run(bundle, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["images", "labels"]


@pytest.mark.slow
def test_a_piece_of_a_kidney_is_seen_in_the_grey_scale_that_predict_has_for_it(tmp_path: Path) -> None:
    scans = {name: write_volume(tmp_path, name, seed, labels=False) for seed, name in enumerate(("left", "right"))}
    for file in (scans["right"] / "images").iterdir():  # the darker piece of the two
        tifffile.imwrite(file, tifffile.imread(file) // 2)
    facts = 'kidney = "kidney_2"\nvoxel_spacing_um = 50.0\n'
    (tmp_path / "dataset.toml").write_text("".join(f"[volumes.{name}]\n{facts}" for name in scans))
    bundle = make_bundle(tmp_path / "b")

    def predicted(volumes: Path, out: str) -> Path:
        predict_paths(PredictRequest([bundle, volumes], out=tmp_path / out, threshold=0.5, device="cpu"))
        return tmp_path / out

    together = read_mask(predicted(tmp_path / "train", "both") / "left")
    alone = read_mask(predicted(scans["left"], "alone.npy"))
    assert (together != alone).any()  # else nothing is tested: give the network another seed
    done, _ = run(bundle, scans["left"], threshold=0.5)
    labels = np.stack([tifffile.imread(file) for file in sorted(done.labels.glob("*.tif"))])
    np.testing.assert_array_equal(labels >= 128, together)


def test_dataset_toml_may_be_a_link(tmp_path: Path) -> None:
    folder = write_volume(tmp_path)
    (tmp_path / "shared.toml").write_text("[volumes.kidney_2]\nannotated = 0.4\n")
    (tmp_path / "dataset.toml").symlink_to("shared.toml")
    run(make_bundle(tmp_path / "b"), folder, write=True)
    assert (tmp_path / "dataset.toml").is_symlink()
    assert "soft = true" in (tmp_path / "shared.toml").read_text()
