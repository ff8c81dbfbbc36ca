from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from kidneys import tube
from torch import Tensor, nn

from search_spaces.errors import InputError
from trainers.data import scratch
from trainers.data.volume import Volume
from trainers.fit import make_accelerator
from trainers.inference.overlap import starts
from trainers.inference.predict import predict
from trainers.inference.reader import InferenceConfig, Reader
from trainers.report import Report

CPU = make_accelerator("float32", "cpu")


class Middle(nn.Module):
    """Answers the middle slice it is shown, so that the prediction must be sigmoid(grey value)."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, images: Tensor) -> Tensor:
        if self.outputs > 1:
            return images
        return images[:, images.shape[1] // 2 : images.shape[1] // 2 + 1]


def _reader(outputs: int = 1, crop: int = 16, any_size: bool = True) -> Reader:
    return Reader(Middle(outputs), slices_in=3, slices_out=outputs, crop=crop, stride=8, any_size=any_size)


def _expected(volume: Volume) -> np.ndarray:
    return torch.sigmoid(torch.from_numpy(volume.normalise(volume.image))).numpy() * 255


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("any_size", [True, False])
@pytest.mark.parametrize("shape", [(24, 48, 48), (9, 30, 41), (17, 16, 50)])
def test_every_voxel_gets_the_networks_answer_for_it(shape: tuple[int, int, int], any_size: bool, outputs: int) -> None:
    volume = tube("a", shape)
    found = predict(_reader(outputs, any_size=any_size), volume, InferenceConfig(), CPU)
    assert found.dtype == np.uint8
    # Half a step of 1/255, and what rounding three axes to 16 bits adds.
    assert np.abs(found - _expected(volume)).max() <= 0.55


def test_axes_with_planes_shorter_than_half_a_crop_are_left_out() -> None:
    volume = tube("a", (6, 40, 40))
    calls: list[tuple[str, int, int]] = []
    predict(_reader(crop=16), volume, InferenceConfig(), CPU, report=Report(progress=lambda *step: calls.append(step)))
    assert calls[-1] == ("predicting", 6, 6)


def test_a_volume_too_small_for_the_crop_is_named() -> None:
    with pytest.raises(InputError, match=r"lump of \(6, 40, 40\).*128"):
        predict(_reader(crop=128), tube("lump", (6, 40, 40)), InferenceConfig(), CPU)


@pytest.mark.parametrize("boxes", [False, True])
def test_probabilities_that_are_nan_are_not_background(boxes: bool) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.full_like(images, torch.nan)

    reader = Reader(Broken(), slices_in=8, slices_out=8, crop=16, stride=8, any_size=False, boxes=boxes)
    with pytest.raises(
        InputError, match=r"lump: the network's probabilities are not numbers; its weights are damaged$"
    ):
        predict(reader, tube("lump", (16, 40, 40)), InferenceConfig(), CPU)


def test_one_slice_is_enough() -> None:
    volume = tube("a", (1, 40, 40))
    found = predict(_reader(), volume, InferenceConfig(), CPU)
    assert np.abs(found - _expected(volume)).max() <= 0.55


@pytest.mark.parametrize("outputs", [1, 3])
def test_reading_in_small_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch, outputs: int) -> None:
    volume = tube("a", (20, 32, 32))
    whole = predict(_reader(outputs), volume, InferenceConfig(), CPU)
    monkeypatch.setattr("trainers.inference.tiles._CHUNK_BYTES", (4 * 32 * 32 * 5, 4 * 32 * 32 * 5))
    in_chunks = predict(_reader(outputs), volume, InferenceConfig(batch_voxels=32 * 32 * 2), CPU)
    np.testing.assert_array_equal(whole, in_chunks)


def test_large_volumes_keep_their_sums_in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    volume = tube("a", (20, 32, 32))
    in_memory = predict(_reader(), volume, InferenceConfig(), CPU)
    monkeypatch.setattr(scratch, "_IN_MEMORY_BYTES", 1000)
    on_disk = predict(_reader(), volume, InferenceConfig(), CPU, scratch=tmp_path / "scratch")
    assert isinstance(on_disk, np.memmap)
    np.testing.assert_array_equal(in_memory, on_disk)


def test_tiles_cover_a_plane_with_the_overlap_asked_for() -> None:
    found = starts(1303, 512, 0.25)
    assert found[0] == 0
    assert found[-1] == 1303 - 512
    assert all(b - a <= 512 * 0.75 for a, b in pairwise(found))


def test_networks_of_a_fixed_size_only_see_that_size() -> None:
    seen: set[tuple[int, ...]] = set()

    class Spy(Middle):
        def forward(self, images: Tensor) -> Tensor:
            seen.add(tuple(images.shape[2:]))
            return super().forward(images)

    reader = replace(_reader(any_size=False), network=Spy())
    predict(reader, tube("a", (24, 40, 40)), InferenceConfig(), CPU)
    assert seen == {(16, 16)}


def test_the_mean_over_axes_is_a_mean() -> None:
    class ByCall(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            # Along z all planes of this volume are 20 x 30, along y 10 x 30, along x 10 x 20.
            value = {(24, 32): 0.0, (16, 32): 100.0, (16, 24): 100.0}[tuple(images.shape[2:])]
            return torch.full_like(images[:, :1], value)

    reader = replace(_reader(), network=ByCall())
    found = predict(reader, tube("a", (10, 20, 30)), InferenceConfig(), CPU)
    # (0.5 + 1 + 1) / 3 of 255 is 212.5
    assert set(np.unique(found)) <= {212, 213}


@pytest.mark.parametrize("shape", [(24, 48, 48), (9, 30, 41), (7, 16, 50), (33, 20, 21)])
@pytest.mark.parametrize("voxels", [1 << 20, 2_000])
def test_boxes_give_every_voxel_the_networks_answer_for_it(shape: tuple[int, int, int], voxels: int) -> None:
    volume = tube("a", shape)
    reader = Reader(Middle(8), slices_in=8, slices_out=8, crop=16, stride=4, any_size=True, boxes=True)
    steps: list[tuple[str, int, int]] = []
    report = Report(progress=lambda *step: steps.append(step))
    found = predict(reader, volume, InferenceConfig(batch_voxels=voxels), CPU, report=report)
    assert np.abs(found - _expected(volume)).max() <= 0.55
    assert steps[-1][1] == steps[-1][2]


def test_boxes_are_read_along_axes_that_are_half_a_box_deep() -> None:
    volume = tube("a", (3, 40, 40))
    reader = Reader(Middle(8), slices_in=8, slices_out=8, crop=4, stride=4, any_size=True, boxes=True)
    steps: list[tuple[str, int, int]] = []
    predict(reader, volume, InferenceConfig(), CPU, report=Report(progress=lambda *step: steps.append(step)))
    assert steps[-1] == ("predicting", 80, 80)  # across y and x, not across the three slices
