"""The same tissue on both sides is found in every disguise, and different tissue is let pass."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from stacks import one_source

from search_spaces.errors import InputError
from trainers.data.folds import Fold
from trainers.data.landmarks import landmarks, landmarks_of
from trainers.data.leaks import guard, leaks
from trainers.data.phantom import PhantomConfig, write_phantoms
from trainers.data.prepare import prepare
from trainers.data.shared_tissue import overlap
from trainers.data.sources import scan, scan_one
from trainers.data.volume import Volume


def make_volume(name: str, kidney: str, image: np.ndarray) -> Volume:
    label = np.zeros(image.shape, np.uint8)
    content_hash = image.tobytes().hex()
    return Volume(
        name, kidney, image, label, np.zeros(0, np.int64), (50.0, 50.0, 50.0), 1.0, 0.0, 60_000.0, content_hash
    )


def noise(seed: int, shape: tuple[int, int, int] = (6, 12, 12)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60_000, shape).astype(np.uint16)


def ramp(seed: int, shape: tuple[int, int, int] = (16, 48, 56)) -> np.ndarray:
    """Smooth grey values that all seeds share, and grains that are each seed's own."""
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    grey = 20_000 + 300 * z + 100 * y + 50 * x + np.random.default_rng(seed).integers(0, 3000, shape)
    return grey.astype(np.uint16)


def stretched(grey: np.ndarray) -> np.ndarray:
    low, high = int(grey.min()), int(grey.max())
    return ((grey - low) / (high - low) * 65_535).round().astype(np.uint16)


DISGUISES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda grey: grey,
    "8 bits": lambda grey: grey >> 8,
    "8 bits, clipped": lambda grey: np.clip((grey.astype(int) - 22_000) >> 5, 0, 255).astype(np.uint16),
    "spread over 16 bits": stretched,
    "plus 1": lambda grey: grey + np.uint16(1),
    "inverted": lambda grey: np.uint16(65_535) - grey,
    "gamma": lambda grey: (65_535 * (grey / 65_535) ** 2.2).astype(np.uint16),
    "with noise": lambda grey: (grey + np.random.default_rng(9).normal(0, 300, grey.shape)).astype(np.uint16),
    "mirrored along x": lambda grey: grey[:, :, ::-1],
    "mirrored along z and y": lambda grey: grey[::-1, ::-1],
    "turned by 90 degrees": lambda grey: np.rot90(grey, axes=(1, 2)),
    "axes swapped": lambda grey: grey.transpose(2, 0, 1),
    "cropped in the plane": lambda grey: grey[:, 3:, 5:-7],
    "cropped along all axes": lambda grey: grey[1:, 4:40, 9:50],
    "padded": lambda grey: np.pad(grey, ((2, 3), (5, 0), (0, 7))),
    "8 bits, mirrored, cropped": lambda grey: grey[:, ::-1, 4:44] >> 8,
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("swapped", [False, True])
def test_a_copy_is_found_in_every_disguise(disguise: str, swapped: bool) -> None:
    grey = ramp(0)
    one, other = make_volume("a", "x", np.ascontiguousarray(DISGUISES[disguise](grey))), make_volume("b", "y", grey)
    train, held_out = (other, one) if swapped else (one, other)
    with pytest.raises(
        InputError, match=rf"^{train.name} is trained on and {held_out.name} is held out, but .*; exclude"
    ):
        guard(Fold((train,), (held_out,)))


def test_a_copy_whose_bright_vessels_are_clipped_is_found() -> None:
    """The inside of a vessel has nearly all of the variance, and the copy shows none of it."""
    grey, rng = ramp(0, (24, 48, 56)).astype(int), np.random.default_rng(1)
    grey[8:16, 20:28] += rng.integers(5_000, 35_000, (8, 8, 56))
    low, high = np.percentile(grey, [2, 94])
    copy = ((np.clip(grey, low, high) - low) / (high - low) * 255).round().astype(np.uint16)
    assert leaks(Fold((make_volume("a", "x", grey.astype(np.uint16)),), (make_volume("b", "y", copy),)))


def test_scans_that_overlap_are_found_and_their_overlap_is_told() -> None:
    whole = ramp(0, (30, 60, 64))
    left, right = make_volume("l", "x", whole[:, :, :40].copy()), make_volume("r", "y", whole[:, :, 22:].copy() >> 1)
    (said,) = leaks(Fold((left,), (right,)))
    assert "the two show the same tissue: 25,984 voxels in common" in said  # 28 x 58 x 16, a voxel less at every side


@pytest.mark.parametrize("seed", range(1, 6))
def test_different_grains_on_the_same_slope_are_different_tissue(seed: int) -> None:
    assert leaks(Fold((make_volume("a", "x", ramp(0)),), (make_volume("b", "y", ramp(seed)),))) == []


def in_a_ball(grey: np.ndarray, outside: int) -> np.ndarray:
    """Grey values with a round field of view that touches all sides."""
    places = np.ogrid[tuple(slice(-1, 1, edge * 1j) for edge in grey.shape)]
    return np.where(sum(place**2 for place in places) < 1, grey, outside).astype(np.uint16)


@pytest.mark.parametrize("outside", [0, 65_535])
def test_an_equal_field_of_view_makes_no_equal_tissue(outside: int) -> None:
    """The step at its edge is many times what tissue shows, and lies in the same place in every scan of a beamline."""
    one, other, copy = (in_a_ball(grey, outside) for grey in (ramp(0), ramp(1), ramp(0) >> 1))
    assert leaks(Fold((make_volume("a", "x", one),), (make_volume("b", "y", other),))) == []
    assert leaks(Fold((make_volume("a", "x", one),), (make_volume("b", "y", copy),)))


def test_phantom_kidneys_are_different_tissue(tmp_path) -> None:
    write_phantoms(tmp_path / "scans", PhantomConfig(kidneys=3, shape=(24, 64, 64)), seed=0)
    first, *others = (prepare(source, tmp_path / "cache") for source in scan(tmp_path / "scans"))
    assert leaks(Fold(tuple(others), (first,))) == []


@pytest.mark.parametrize("grey", [np.zeros((20, 30, 30), np.uint16), np.zeros((3, 40, 40), np.uint16), ramp(0)[:4]])
def test_what_shows_nothing_has_no_landmarks(grey: np.ndarray) -> None:
    found = landmarks(grey)
    assert len(found.places) == 0
    assert overlap(grey, ramp(0), found, landmarks(ramp(0))) is None


def test_landmarks_do_not_depend_on_tiles(monkeypatch) -> None:
    grey = ramp(3, (40, 50, 60))
    whole = landmarks(grey)
    monkeypatch.setattr("trainers.data.landmarks._TILE", (7, 11, 13))
    parts = landmarks(grey)
    order = [np.lexsort(one.places.T[::-1]) for one in (whole, parts)]
    assert np.array_equal(whole.places[order[0]], parts.places[order[1]])
    assert np.array_equal(whole.looks[order[0]], parts.looks[order[1]])


def test_landmarks_are_found_once_for_a_converted_volume(tmp_path) -> None:
    volume = prepare(one_source(tmp_path, ramp(0)), tmp_path / "cache")
    first = landmarks_of(volume)
    (kept,) = Path(tmp_path / "cache").rglob("landmarks.npz")
    time = kept.stat().st_mtime_ns
    again = landmarks_of(volume)
    assert kept.stat().st_mtime_ns == time
    assert np.array_equal(first.places, again.places) and np.array_equal(first.looks, again.looks)
    whole = kept.read_bytes()
    for damaged in (b"", b"damaged", whole[:100], whole[:-30], whole[:200] + bytes(100) + whole[300:]):
        kept.write_bytes(damaged)
        assert np.array_equal(landmarks_of(volume).places, first.places)
        assert len(kept.read_bytes()) == len(whole)


def labelled(folder: Path, name: str, grey: np.ndarray, label: np.ndarray) -> Volume:
    """A converted volume."""
    np.save(folder / f"{name}.npy", grey)
    np.save(folder / f"{name}_labels.npy", label)
    return prepare(scan_one(folder / f"{name}.npy"), folder / "cache")


TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda voxels: voxels,
    "mirrored": lambda voxels: voxels[::-1, :, ::-1],
    "turned": lambda voxels: np.rot90(voxels, axes=(1, 2)),
    "axes swapped": lambda voxels: voxels.transpose(2, 0, 1),
    "padded": lambda voxels: np.pad(voxels, ((2, 3), (5, 0), (0, 7))),
}
FILTERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "median": lambda grey: ndimage.median_filter(grey, 3),
    "gauss": lambda grey: ndimage.gaussian_filter(grey, 1.0),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("filtered", FILTERS)
def test_a_copy_that_was_filtered_is_found_by_its_labels(tmp_path, turn: str, filtered: str) -> None:
    label = (ndimage.gaussian_filter(np.random.default_rng(3).random((16, 48, 56)), 2.0) > 0.53).astype(np.uint8)
    original = labelled(tmp_path, "a", ramp(0), label)
    assert len(original.vessel_voxels) > 500
    copy = labelled(tmp_path, "b", TURNS[turn](FILTERS[filtered](ramp(0))), TURNS[turn](label))
    with pytest.raises(InputError, match=r"^b is trained on and a is held out, but the two have the same labels, of"):
        guard(Fold((copy,), (original,)))
    moved = label.copy()
    z, y, x = np.argwhere(label)[0]
    moved[z, y, x] = 0
    other = tuple(np.argwhere(label == 0)[0])
    moved[other] = 1
    assert leaks(Fold((labelled(tmp_path, "c", ramp(1), moved),), (original,))) == []


def test_few_equal_labels_are_chance(tmp_path) -> None:
    label = np.zeros((16, 48, 56), np.uint8)
    label[4, 10:20, 10:20] = 1
    volumes = [labelled(tmp_path, name, ramp(seed), label) for seed, name in enumerate("ab")]
    assert leaks(Fold((volumes[0],), (volumes[1],))) == []


def test_different_kidneys_do_not_leak():
    fold = Fold((make_volume("a", "1", noise(0)), make_volume("b", "2", noise(1))), (make_volume("c", "3", noise(2)),))
    assert leaks(fold) == []
    guard(fold)


@pytest.mark.parametrize(
    ("train", "held_out", "why"),
    [
        (("a", "k", noise(0)), ("b", "k", noise(1)), "both belong to k"),
        (("kidney_3_sparse", "x", noise(0)), ("kidney_3_dense", "y", noise(1)), "kidney_3_dense lies inside"),
        (("kidney_1_voi", "x", noise(0)), ("kidney_1_dense", "y", noise(1)), "kidney_1_voi lies inside"),
        (("a", "x", noise(0)), ("b", "y", noise(0)), "all their grey values are equal"),
        (("a", "x", noise(0)), ("b", "y", noise(0)[2:4]), "slices in common"),
        (("a", "x", noise(0)[1:5]), ("b", "y", noise(0)[3:]), "slices in common"),
    ],
)
def test_a_leak_is_an_error_that_names_both_volumes(train, held_out, why):
    fold = Fold((make_volume("other", "z", noise(9)), make_volume(*train)), (make_volume(*held_out),))
    with pytest.raises(InputError, match=rf"^{train[0]} is trained on and {held_out[0]} is held out, but .*{why}"):
        guard(fold)


def test_empty_slices_are_not_a_leak():
    first, second = noise(0), noise(1)
    first[:2] = 0
    second[4:] = 0
    assert leaks(Fold((make_volume("a", "x", first),), (make_volume("b", "y", second),))) == []
