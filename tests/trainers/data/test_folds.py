"""Which kidneys train and which are scored, and that the same tissue is never on both sides."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from search_spaces.errors import InputError
from trainers.data.folds import DataConfig, choose
from trainers.data.place import VolumeSource
from trainers.data.sources import scan
from trainers.report import Report


def make_sources(root: Path, **volumes: dict) -> list[VolumeSource]:
    """Real folders of two 8 x 8 slices each; `labels=False` leaves the labels out."""
    rng = np.random.default_rng(0)
    manifest = ""
    for name, facts in volumes.items():
        facts = {"kidney": name, "spacing": 50.0, "annotated": 1.0, "labels": True, "split": "train", **facts}
        for part in ("images", "labels") if facts["labels"] else ("images",):
            folder = root / facts["split"] / name / part
            folder.mkdir(parents=True)
            for z in range(2):
                pixels = rng.integers(0, 60_000, (8, 8)).astype(np.uint16)
                tifffile.imwrite(
                    folder / f"{z:04d}.tif", pixels if part == "images" else (pixels > 50_000).astype("u1")
                )
        manifest += f'[volumes.{name}]\nkidney = "{facts["kidney"]}"\nvoxel_spacing_um = {facts["spacing"]}\n'
        manifest += f"annotated = {facts['annotated']}\n"
    (root / "dataset.toml").write_text(manifest)
    return scan(root)


def chosen(sources: list[VolumeSource], **config: object) -> tuple[list[str], list[str], list[str]]:
    """Names to train on, names to score on, and the notes."""
    notes: list[str] = []
    train, held_out = choose(sources, DataConfig(**config), Report(notes.append))
    return [source.name for source in train], [source.name for source in held_out], notes


def test_all_other_kidneys_train_when_one_is_held_out(tmp_path):
    sources = make_sources(tmp_path, a={}, b={}, c={})
    assert chosen(sources, hold_out="b") == (["a", "c"], ["b"], [])


def test_no_kidney_is_on_both_sides(tmp_path):
    sources = make_sources(tmp_path, a1={"kidney": "a"}, a2={"kidney": "a"}, b1={"kidney": "b"}, b2={"kidney": "b"})
    assert chosen(sources, hold_out="a") == (["b1", "b2"], ["a1", "a2"], [])


def test_a_held_out_volume_takes_its_whole_kidney_out_of_training_but_is_scored_alone(tmp_path):
    sources = make_sources(tmp_path, a1={"kidney": "a"}, a2={"kidney": "a"}, b={})
    assert chosen(sources, hold_out="a2") == (["b"], ["a2"], [])


def test_without_a_held_out_kidney_the_error_lists_the_kidneys(tmp_path):
    sources = make_sources(tmp_path, a={}, b={}, c={"labels": False})
    with pytest.raises(InputError, match=r"hold_out.*: a, b$"):
        chosen(sources)


def test_an_unknown_held_out_kidney_gets_the_nearest_name(tmp_path):
    sources = make_sources(tmp_path, kidney_1={}, kidney_3={})
    with pytest.raises(InputError, match=r"hold_out, 'kidny_3'; did you mean 'kidney_3'"):
        chosen(sources, hold_out="kidny_3")


def test_unknown_names_in_train_and_exclude_are_errors(tmp_path):
    sources = make_sources(tmp_path, a={}, b={})
    with pytest.raises(InputError, match="train, 'zz'"):
        chosen(sources, hold_out="a", train=("zz",))
    with pytest.raises(InputError, match="exclude, 'zz'"):
        chosen(sources, hold_out="a", exclude=("zz",))


def test_one_kidney_is_not_enough(tmp_path):
    sources = make_sources(tmp_path, a1={"kidney": "a"}, a2={"kidney": "a"})
    with pytest.raises(InputError, match="only one kidney, a;"):
        chosen(sources, hold_out="a")


def test_the_held_out_kidney_cannot_be_trained_on(tmp_path):
    sources = make_sources(tmp_path, a={}, a2={"kidney": "a"}, b={})
    with pytest.raises(InputError, match="a is in train, but its kidney a is held out"):
        chosen(sources, hold_out="a", train=("a", "b"))
    with pytest.raises(InputError, match="a2 is in train, but its kidney a is held out"):
        chosen(sources, hold_out="a", train=("a2", "b"))


def test_the_held_out_kidney_cannot_be_excluded(tmp_path):
    sources = make_sources(tmp_path, a={}, b={}, c={})
    with pytest.raises(InputError, match="a is both held out and excluded"):
        chosen(sources, hold_out="a", exclude=("a",))


def test_nothing_left_to_train_on_is_an_error(tmp_path):
    sources = make_sources(tmp_path, a={}, b={"spacing": 5.0})
    with pytest.raises(InputError, match="nothing is left to train on when a is held out"):
        chosen(sources, hold_out="a")


def test_excluded_volumes_are_neither_trained_nor_scored_on(tmp_path):
    sources = make_sources(tmp_path, a1={"kidney": "a"}, a2={"kidney": "a"}, b={}, c={})
    assert chosen(sources, hold_out="a", exclude=("a1", "c")) == (["b"], ["a2"], [])


def test_a_zoomed_scan_is_left_out_with_a_note_that_says_how_to_include_it(tmp_path):
    sources = make_sources(tmp_path, a={}, b={"spacing": 63.08}, voi={"spacing": 5.2})
    train, _, notes = chosen(sources, hold_out="a")
    assert train == ["b"]
    assert len(notes) == 1 and "voi" in notes[0] and "5.2 µm" in notes[0] and "name it in train" in notes[0]
    assert chosen(sources, hold_out="a", train=("b", "voi")) == (["b", "voi"], ["a"], [])


def test_a_training_volume_without_labels_is_an_error(tmp_path):
    sources = make_sources(tmp_path, a={}, b={}, c={"labels": False})
    with pytest.raises(InputError, match=r"c has no labels and cannot be trained on; .*exclude"):
        chosen(sources, hold_out="a")


def test_unlabelled_scans_under_test_are_left_out_with_a_note(tmp_path):
    sources = make_sources(tmp_path, a={}, b={}, c={"labels": False, "split": "test"})
    train, _, notes = chosen(sources, hold_out="a")
    assert train == ["b"]
    assert len(notes) == 1 and notes[0].startswith("c is not trained on")


def test_a_held_out_volume_with_incomplete_labels_is_scored_only_when_named(tmp_path):
    sources = make_sources(
        tmp_path, dense={"kidney": "k3"}, sparse={"kidney": "k3", "annotated": 0.85}, k1={}, k2={"annotated": 0.65}
    )
    train, held_out, notes = chosen(sources, hold_out="k3")
    assert (train, held_out) == (["k1", "k2"], ["dense"])
    assert len(notes) == 1 and "sparse" in notes[0] and "85%" in notes[0]
    assert chosen(sources, hold_out="sparse")[1] == ["sparse"]
    with pytest.raises(InputError, match=r"no volume with complete, human-made labels.*: k2"):
        chosen(sources, hold_out="k2")


def test_a_held_out_volume_without_labels_is_an_error_when_named(tmp_path):
    sources = make_sources(tmp_path, a1={"kidney": "a", "labels": False}, a2={"kidney": "a"}, b={})
    with pytest.raises(InputError, match="a1 has no labels and cannot be scored"):
        chosen(sources, hold_out="a1")


def test_a_misspelt_key_of_the_configuration_is_an_error():
    with pytest.raises(ValueError, match="holdout"):
        DataConfig(holdout="a")


@pytest.mark.data
def test_real_kidney_3_is_held_out_whole(real_data):
    train, held_out, notes = chosen(scan(real_data), hold_out="kidney_3", exclude=("hipct_k1_slice", "hipct_k2_slice"))
    assert all(name.startswith("hipct_k1_p") for name in train)
    assert held_out == [f"hipct_k3_p{number}" for number in ("12", "13", "15a", "15b", "17")]
    assert any("hipct_k3_slice" in note for note in notes)
    assert any("octa_tubenet" in note for note in notes)
