"""Where patches lie, what is in them, and that a saved position continues the stream exactly."""

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from time import thread_time

import numpy as np
import psutil
import pytest
import torch

from search_spaces.errors import InputError
from trainers.data.augment import Augmentation
from trainers.data.batches import Batches, loader_died
from trainers.data.patches import PatchLocation, PatchSampler
from trainers.data.volume import Volume


def make_volume(shape: tuple[int, int, int], name: str = "a", vessels: int = 5, annotated: float = 1.0) -> Volume:
    """Grey value 3000 z + 50 y + x, so that a voxel says where it came from; `vessels` voxels are labelled."""
    z, y, x = np.indices(shape)
    image = (3000 * z + 50 * y + x).astype(np.uint16)
    label = np.zeros(shape, np.uint8)
    label.flat[np.random.default_rng(0).choice(label.size, vessels, replace=False)] = 1
    # Normalising with these two leaves the grey value divided by 50000, far from the clip.
    return Volume(name, name, image, label, np.flatnonzero(label), (1.0, 1.0, 1.0), annotated, 0.0, 50_000.0, name)


def sampler_of(*volumes: Volume, slices_in=3, slices_out=1, crop=8, vessel_share=0.0, seed=0, **more) -> PatchSampler:
    return PatchSampler(volumes, slices_in, slices_out, crop, vessel_share, seed, **more)


def grey(image: np.ndarray) -> np.ndarray:
    return np.rint(image * 50_000).astype(int)


def test_a_patch_along_z_holds_neighbouring_slices():
    image, label = sampler_of(make_volume((10, 20, 20))).patch(PatchLocation(0, 0, (4, 2, 3)))
    assert image.shape == (3, 8, 8) and label.shape == (1, 8, 8)
    assert image.dtype == np.float32 and label.dtype == np.uint8
    assert grey(image)[0, 0, 0] == 3000 * 4 + 50 * 2 + 3
    assert grey(image)[2, 0, 0] == 3000 * 6 + 50 * 2 + 3
    assert grey(image)[0, 7, 1] == 3000 * 4 + 50 * 9 + 4


def test_a_patch_along_y_or_x_has_the_other_two_axes_in_order():
    sampler = sampler_of(make_volume((10, 20, 20)))
    along_y, _ = sampler.patch(PatchLocation(0, 1, (1, 4, 3)))
    assert grey(along_y)[2, 1, 5] == 3000 * (1 + 1) + 50 * (4 + 2) + (3 + 5)
    along_x, _ = sampler.patch(PatchLocation(0, 2, (1, 4, 3)))
    assert grey(along_x)[2, 1, 5] == 3000 * (1 + 1) + 50 * (4 + 5) + (3 + 2)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("slices_out", [1, 5])
def test_the_label_lies_where_the_image_does(axis, slices_out):
    volume = make_volume((12, 12, 12), vessels=300)
    sampler = sampler_of(volume, slices_in=5, slices_out=slices_out)
    for number in range(40):
        location = sampler.location(number)
        image, label = sampler.patch(PatchLocation(0, axis, location.start))
        middle = image[2:3] if slices_out == 1 else image
        # The grey value names the voxel, so the label can be looked up again.
        values = grey(middle)
        z, y, x = values // 3000, values % 3000 // 50, values % 50
        assert np.array_equal(label, volume.label[z, y, x])


def test_slices_beyond_the_ends_repeat_the_last_one():
    sampler = sampler_of(make_volume((10, 20, 20)), slices_in=5)
    first, _ = sampler.patch(PatchLocation(0, 0, (-2, 0, 0)))
    assert [int(value) for value in grey(first)[:, 0, 0]] == [0, 0, 0, 3000, 6000]
    last, _ = sampler.patch(PatchLocation(0, 0, (7, 0, 0)))
    assert [int(value) for value in grey(last)[:, 0, 0]] == [21_000, 24_000, 27_000, 27_000, 27_000]


def test_a_plane_smaller_than_the_crop_is_mirrored_with_its_label():
    volume = make_volume((10, 20, 6), vessels=200)
    image, label = sampler_of(volume, crop=8).patch(PatchLocation(0, 0, (4, 2, -1)))
    assert [int(value) for value in grey(image)[0, 0] - 12_100] == [0, 0, 1, 2, 3, 4, 5, 5]
    assert np.array_equal(label[0][:, 0], label[0][:, 1])
    assert np.array_equal(label[0][:, 6], label[0][:, 7])


def test_planes_smaller_than_half_the_crop_are_not_used():
    sampler = sampler_of(make_volume((6, 40, 40)), crop=16)
    assert {sampler.location(number).axis for number in range(50)} == {0}


def test_a_crop_that_fits_nowhere_is_an_error_that_names_the_largest_possible_one():
    with pytest.raises(InputError, match=r"crop 26 is too large for a of shape \(6, 12, 20\); .* is 24$"):
        sampler_of(make_volume((6, 12, 20)), crop=26)
    assert sampler_of(make_volume((6, 12, 20)), crop=24).sample(0)[0].shape == (3, 24, 24)


def test_all_three_axes_are_drawn_alike():
    sampler = sampler_of(make_volume((20, 20, 20)))
    counts = np.bincount([sampler.location(number).axis for number in range(900)])
    assert counts.min() > 240


def test_patches_lie_everywhere_and_inside():
    sampler = sampler_of(make_volume((10, 10, 10)), crop=8)
    seen = np.zeros((10, 10, 10), int)
    # A corner is seen by one sample in 90: the chance to miss one of eight in 1500 is below 1e-6.
    for number in range(1500):
        location = sampler.location(number)
        image, _ = sampler.patch(location)
        values = grey(image[1])
        seen[values // 3000, values % 3000 // 50, values % 50] += 1
    assert seen.min() > 0


@pytest.mark.parametrize("slices_out", [1, 3])
def test_a_patch_around_a_vessel_holds_one_in_its_middle_slice(slices_out):
    sampler = sampler_of(make_volume((30, 40, 50), vessels=3), slices_out=slices_out, vessel_share=1.0)
    for number in range(200):
        _, label = sampler.sample(number)
        assert label[slices_out // 2].any()


def test_a_vessel_may_lie_anywhere_in_its_patch():
    volume = make_volume((40, 40, 40), vessels=0)
    volume.label[20, 20, 20] = 1
    volume = Volume(**{**volume.__dict__, "vessel_voxels": np.flatnonzero(volume.label)})
    sampler = sampler_of(volume, vessel_share=1.0, crop=4)
    places = {tuple(np.argwhere(sampler.sample(number)[1][0])[0].tolist()) for number in range(400)}
    assert places == {(row, column) for row in range(4) for column in range(4)}


def test_the_share_of_patches_around_vessels_is_kept():
    sampler = sampler_of(make_volume((60, 60, 60), vessels=1), vessel_share=0.3, crop=4)
    shares = np.mean([sampler.sample(number)[1].any() for number in range(1000)])
    assert 0.25 < shares < 0.35


def test_volumes_are_drawn_by_their_voxels_and_labelled_share():
    large, sparse = make_volume((20, 20, 20), "large"), make_volume((20, 20, 20), "sparse", annotated=0.5)
    small = make_volume((10, 20, 20), "small")
    sampler = sampler_of(large, sparse, small)
    counts = np.bincount([sampler.location(number).volume for number in range(2000)]) / 2000
    assert counts == pytest.approx([0.5, 0.25, 0.25], abs=0.04)


def test_patches_around_vessels_are_drawn_by_their_number():
    none, few = make_volume((20, 20, 20), "none", 0), make_volume((20, 20, 20), "few", 10)
    sampler = sampler_of(none, few, make_volume((10, 20, 20), "many", 30), vessel_share=1.0)
    counts = np.bincount([sampler.location(number).volume for number in range(2000)], minlength=3) / 2000
    assert counts == pytest.approx([0.0, 0.25, 0.75], abs=0.04)


def test_a_sample_is_a_function_of_seed_and_number():
    volume = make_volume((20, 20, 20))
    one, same, other = (sampler_of(volume, vessel_share=0.5, seed=seed) for seed in (1, 1, 2))
    assert [one.location(n) for n in (5, 3, 900)] == [same.location(n) for n in (5, 3, 900)]
    assert [one.location(n) for n in range(20)] != [other.location(n) for n in range(20)]


def test_a_volume_without_labels_or_vessels_is_an_error():
    volume = make_volume((10, 10, 10), vessels=0)
    with pytest.raises(InputError, match="a has no labels"):
        sampler_of(Volume(**{**volume.__dict__, "label": None}))
    with pytest.raises(InputError, match=r"no vessel is labelled in a; .*vessel_share"):
        sampler_of(volume, vessel_share=0.5)
    assert not sampler_of(volume).sample(0)[1].any()


def test_an_impossible_number_of_output_slices_is_an_error():
    with pytest.raises(InputError, match="slices_out 2 is neither 1 nor slices_in, which is 5"):
        sampler_of(make_volume((10, 10, 10)), slices_in=5, slices_out=2)


def mapped(volume: Volume, folder: Path) -> Volume:
    """The same volume with memory-mapped arrays."""
    arrays = {}
    for name in ("image", "label", "vessel_voxels"):
        np.save(folder / f"{name}.npy", getattr(volume, name))
        arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
    return Volume(**{**volume.__dict__, **arrays})


def test_a_memory_map_travels_to_other_processes_as_its_file_name(tmp_path):
    import pickle

    sampler = sampler_of(mapped(make_volume((30, 60, 60)), tmp_path), vessel_share=0.5)
    packed = pickle.dumps(sampler)
    assert len(packed) < 3000  # the image alone has 216 000 bytes
    again = pickle.loads(packed)
    assert isinstance(again.volumes[0].image, np.memmap)
    for number in range(10):
        for here, there in zip(sampler.sample(number), again.sample(number), strict=True):
            assert np.array_equal(here, there)


def test_a_part_of_a_memory_map_travels_with_the_right_voxels(tmp_path):
    import pickle

    volume = mapped(make_volume((30, 20, 20)), tmp_path)
    part = Volume(**{**volume.__dict__, "image": volume.image[10:], "label": volume.label[10:]})
    again = pickle.loads(pickle.dumps(sampler_of(part)))
    assert np.array_equal(again.volumes[0].image, part.image)


def batches_of(volume: Volume, start: int = 0, workers: int = 0) -> Batches:
    sampler = sampler_of(volume, vessel_share=0.5, slices_in=3, slices_out=3)
    return Batches(sampler, Augmentation("flips"), batch_size=4, start=start, workers=workers)


# In a process of its own, because torch tells of a dead loader from a signal handler, whatever runs at that moment.
DYING = """
import os
import psutil
from test_patches import batches_of, make_volume
from trainers.data.batches import loader_died

if __name__ == "__main__":
    try:
        stream = iter(batches_of(make_volume((20, 20, 20)), workers=1))
        next(stream)
        (loader,) = (child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline()))
        loader.kill()
        for _ in range(100_000):  # the samples that were made before it died come first
            next(stream)
    except Exception as error:
        print("told" if loader_died(error) else repr(error), flush=True)
        os._exit(0)
"""


@pytest.mark.slow
def test_a_killed_loader_process_is_told_from_a_mistake(tmp_path):
    (tmp_path / "dying.py").write_text(DYING)
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, tmp_path / "dying.py"], env=known, capture_output=True, text=True, check=True
    )
    assert done.stdout == "told\n"
    assert not loader_died(RuntimeError("CUDA error"))


def test_batches_are_tensors_of_the_samples():
    batches = batches_of(make_volume((20, 20, 20)))
    image, label = next(iter(batches))
    assert image.shape == (4, 3, 8, 8) and label.shape == (4, 3, 8, 8)
    assert image.dtype == label.dtype == torch.float32
    assert batches.position == 4


def test_batches_resumed_from_a_saved_position_equal_an_unbroken_stream():
    volume = make_volume((20, 20, 20), vessels=50)
    unbroken = list(islice(batches_of(volume), 5))
    broken = batches_of(volume)
    first = list(islice(broken, 2))
    second = list(islice(batches_of(volume, start=broken.position), 3))
    for expected, found in zip(unbroken, first + second, strict=True):
        assert torch.equal(expected[0], found[0]) and torch.equal(expected[1], found[1])


def test_batches_leave_the_global_random_numbers_alone():
    state = torch.random.get_rng_state()
    next(iter(batches_of(make_volume((20, 20, 20)))))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:This DataLoader will create 2 worker processes:UserWarning"
)  # tests have a core each
def test_loader_processes_make_the_same_stream(tmp_path):
    volume = mapped(make_volume((20, 20, 20), vessels=50), tmp_path)
    alone = list(islice(batches_of(volume), 5))
    with_workers = batches_of(volume, workers=2)
    for expected, found in zip(alone, islice(with_workers, 5), strict=True):
        assert torch.equal(expected[0], found[0]) and torch.equal(expected[1], found[1])
    assert with_workers.position == 20


@pytest.mark.slow
def test_loader_processes_outlive_a_signal_that_is_the_trainers_to_answer(tmp_path):
    volume = mapped(make_volume((20, 20, 20), vessels=50), tmp_path)
    expected, stream = list(islice(batches_of(volume), 12)), iter(batches_of(volume, workers=1))
    found = [next(stream)]
    loaders = [child for child in psutil.Process().children() if "multiprocessing.spawn" in " ".join(child.cmdline())]
    assert loaders
    for loader in loaders:
        loader.send_signal(signal.SIGTERM)
    found += islice(stream, 11)  # more than it had made before
    assert all(torch.equal(a[0], b[0]) for a, b in zip(expected, found, strict=True))


@pytest.mark.slow
def test_a_patch_of_a_large_memory_map_takes_milliseconds(tmp_path):
    shape = (300, 550, 600)
    image = np.lib.format.open_memmap(tmp_path / "image.npy", "w+", np.uint16, shape)
    label = np.lib.format.open_memmap(tmp_path / "label.npy", "w+", np.uint8, shape)
    for z in range(shape[0]):
        image[z] = z
    label[::3] = 1
    # Each page costs more when it is touched for the first time; a training run does that once.
    image, label = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("image", "label"))
    assert image.max() == 299 and label.max() == 1
    vessels = np.arange(0, image.size, 997)
    vessels = vessels[label.flat[vessels] == 1]
    volume = Volume("a", "a", image, label, vessels, (1.0, 1.0, 1.0), 1.0, 0.0, 1.0, "a")
    for axis in range(3):
        sampler = sampler_of(volume, slices_in=5, crop=256, vessel_share=0.5, axes=(axis,))
        seconds = []
        for number in range(30):
            started = thread_time()
            sampler.sample(number)
            seconds.append(thread_time() - started)
        # 1 to 3 ms on an idle machine; processor time and a margin, for one that also runs other tests.
        assert np.median(seconds) < 0.01


@pytest.mark.parametrize("slices", [4, 12])
def test_a_box_lies_inside_its_volume_where_there_is_room(slices):
    sampler = sampler_of(make_volume((12, 14, 16)), slices_in=slices, slices_out=slices, crop=8, boxes=True)
    starts = set()
    for number in range(200):
        location = sampler.location(number)
        for along, edge in enumerate((12, 14, 16)):
            size = slices if along == location.axis else 8
            assert 0 <= location.start[along] <= edge - size
        starts.add(location.start[location.axis])
        image, label = sampler.patch(location)
        assert image.shape == label.shape == (slices, 8, 8)
    assert len(starts) > 1


def test_a_vessel_lies_anywhere_in_its_box():
    volume = make_volume((24, 24, 24), vessels=1)
    sampler = sampler_of(volume, slices_in=8, slices_out=8, crop=8, vessel_share=1.0, boxes=True)
    depths = set()
    for number in range(60):
        location = sampler.location(number)
        _, label = sampler.patch(location)
        assert label.sum() == 1
        depths.add(int(np.flatnonzero(label.any(axis=(1, 2)))[0]))
    assert len(depths) > 4


def test_a_box_deeper_than_its_volume_is_mirrored_along_all_axes():
    volume = make_volume((6, 20, 20))
    sampler = sampler_of(volume, slices_in=8, slices_out=8, crop=8, axes=(0,), boxes=True)
    image, _ = sampler.patch(PatchLocation(0, 0, (-2, 0, 0)))
    assert grey(image)[:, 0, 0].tolist() == [3000 * z for z in (1, 0, 0, 1, 2, 3, 4, 5)]


def test_volumes_too_small_for_boxes_are_skipped_and_named_if_there_is_no_other():
    thin, deep = make_volume((1, 20, 20), "thin"), make_volume((16, 20, 20), "deep")
    sampler = sampler_of(thin, deep, slices_in=8, slices_out=8, boxes=True)
    assert [volume.name for volume in sampler.volumes] == ["deep"]
    with pytest.raises(InputError, match="boxes of 8 x 8 x 8 are too large for thin"):
        sampler_of(thin, slices_in=8, slices_out=8, boxes=True)
