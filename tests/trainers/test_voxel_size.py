"""Voxel size: a network that reads at its own, masks on the scan's grid, and the second score."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from search_spaces.families.unet import UnetCandidate
from trainers.data.patches import PatchSampler
from trainers.data.resample import resample_volume
from trainers.data.volume import Volume
from trainers.fit import FitConfig, make_accelerator
from trainers.inference.predict import predict, usable_axes
from trainers.inference.reader import InferenceConfig, Reader, make_reader
from trainers.metrics.cross_fit import score
from trainers.metrics.evaluate import evaluate
from trainers.metrics.score import ScoreConfig
from trainers.metrics.second_score import second_score
from trainers.report import Report


class Bright(nn.Module):
    """Vessel is what is brighter than the middle grey value; remembers the sizes it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: set[tuple[int, ...]] = set()

    def forward(self, image: Tensor) -> Tensor:
        self.shown.add(tuple(image.shape[2:]))
        return (image - 0.5) * 20


def make_tube(spacing_um: float, radius_um: float = 200.0, edge_um: float = 3200.0) -> Volume:
    """A smooth bright tube along z, its grey value 0.5 on its surface, off the middle of the volume."""
    edge = round(edge_um / spacing_um)
    y, x = (np.arange(edge) - (edge - 1) / 2) * spacing_um, (np.arange(edge) - (edge - 1) / 2) * spacing_um
    distance = np.hypot(y[:, None] - 330.0, x[None, :] + 170.0)
    grey = np.clip(0.5 + (radius_um - distance) / 400, 0, 1)
    image = np.repeat((grey * 10_000).astype(np.uint16)[None], edge, 0)
    label = np.repeat((distance <= radius_um).astype(np.uint8)[None], edge, 0)
    return Volume("t", "t", image, label, np.flatnonzero(label), (spacing_um,) * 3, 1.0, 0.0, 10_000.0, "t")


def make_part(shape: tuple[int, int, int]) -> Volume:
    whole = make_tube(50.0)
    assert whole.label is not None
    box = tuple(slice(0, edge) for edge in shape)
    return replace(
        whole, image=whole.image[box], label=whole.label[box], vessel_voxels=np.flatnonzero(whole.label[box])
    )


def reader_at(voxel_size_um: float | None, crop: int = 16) -> Reader:
    fit = FitConfig(crop=crop, voxel_size_um=voxel_size_um)
    return replace(make_reader(Bright(), UnetCandidate(slices_in=1), fit), stride=1)


ACCELERATOR = make_accelerator("float32", "cpu")
INFERENCE = InferenceConfig()


@pytest.mark.parametrize("voxel_size_um", [63.08, 100.0, 40.0])
def test_probabilities_come_back_on_the_scans_own_grid_without_a_shift(voxel_size_um):
    volume = make_tube(50.0)
    direct = predict(reader_at(None), volume, INFERENCE, ACCELERATOR)
    there_and_back = predict(reader_at(voxel_size_um), volume, INFERENCE, ACCELERATOR)
    assert there_and_back.shape == volume.shape and there_and_back.dtype == np.uint8
    mask, again = direct >= 128, there_and_back >= 128
    assert np.count_nonzero(mask != again) < 0.05 * mask.sum()
    centres = [np.array([(p * w).sum() / w.sum() for p in np.indices(w.shape)]) for w in (direct, there_and_back)]
    assert np.abs(centres[0] - centres[1]).max() < 0.05


def test_the_network_is_shown_the_volume_at_its_own_voxel_size():
    reader = reader_at(100.0)
    predict(reader, make_tube(50.0), INFERENCE, ACCELERATOR)
    assert isinstance(reader.network, Bright) and reader.network.shown == {(32, 32)}


def test_a_volume_of_nearly_that_voxel_size_is_read_as_it_is():
    volume = make_tube(50.0)
    near = replace(volume, spacing_um=(50.16,) * 3)
    assert np.array_equal(
        predict(reader_at(50.0), near, INFERENCE, ACCELERATOR), predict(reader_at(None), volume, INFERENCE, ACCELERATOR)
    )


def test_the_second_score_is_that_of_the_resampled_kidney_at_the_first_ones_thresholds():
    volume = make_tube(50.0)
    config = ScoreConfig(second_um=63.08, slabs=4)
    predictions, result = evaluate(reader_at(None), [volume], INFERENCE, config, ACCELERATOR)
    assert result == score(predictions, [volume], config).model_copy(update={"second": result.second})
    assert result.second is not None and result.second.voxel_size_um == 63.08
    # Grey values tell the tube's surface at any voxel size.
    assert result.value > 0.9
    assert result.second.values["surface_dice"] > 0.8 and result.second.values["voxel_dice"] > 0.9


def test_each_slab_of_the_second_score_has_the_threshold_of_its_part_of_the_kidney():
    """Probabilities that are right only at the threshold of the slab they lie in."""
    volume = make_tube(50.0)
    label = volume.label
    assert label is not None
    half = label.shape[0] // 2
    levels = np.where(label > 0, 200, 100).astype(np.uint8)  # one threshold between suits the first half
    levels[half:] = np.where(label[half:] > 0, 90, 10)  # and one below 90 the second
    first = score({"t": levels}, [volume], ScoreConfig(slabs=2))
    # Each half is cut at the threshold that the other half chose, so each is wrong.
    assert [round(255 * slab.threshold) for slab in first.slabs] == [51, 151] and first.value < 0.02
    swapped = first.model_copy(
        update={
            "slabs": tuple(s.model_copy(update={"threshold": t}) for s, t in zip(first.slabs, (0.6, 0.2), strict=True))
        }
    )
    right = second_score({"t": levels}, [volume], swapped, ScoreConfig(slabs=2, second_um=50.0))
    wrong = second_score({"t": levels}, [volume], first, ScoreConfig(slabs=2, second_um=50.0))
    # Of surfaces the cubes between the two halves are wrong at either threshold, a whole plane of them.
    assert right.values["voxel_dice"] == 1.0 and right.values["surface_dice"] > 0.4
    assert wrong.values["voxel_dice"] < 0.05 and wrong.values["surface_dice"] < 0.02


@pytest.mark.parametrize(
    ("volume", "crop", "why"),
    [
        (make_tube(63.0), 16, "the held-out kidney already has voxels of 63.08 µm"),
        (replace(make_tube(50.0), spacing_um=None), 16, "the voxel spacing of t is not stated"),
        (make_part((64, 9, 9)), 16, "t of (51, 7, 7) voxels is too small to be read with crops of 16"),
        (make_part((64, 36, 64)), 64, "t would be read along other axes at 63.08 µm"),
        (make_part((16, 64, 64)), 16, "t has only 13 slices at 63.08 µm"),
    ],
)
def test_an_impossible_second_score_says_why_and_changes_nothing_else(volume, crop, why):
    reader = reader_at(None, crop)
    _, result = evaluate(reader, [volume], INFERENCE, ScoreConfig(second_um=63.08), ACCELERATOR)
    assert result.second is None and result.no_second == why
    assert 0 <= result.value <= 1


def test_progress_of_both_scores_is_one_line():
    seen: list[tuple[str, int, int]] = []
    evaluate(
        reader_at(None),
        [make_tube(50.0)],
        INFERENCE,
        ScoreConfig(second_um=63.08),
        ACCELERATOR,
        report=Report(progress=lambda *step: seen.append(step)),
    )
    (what,), (total,) = ({step[index] for step in seen} for index in (0, 2))
    assert (what, [done for _, done, _ in seen]) == ("predicting", sorted(done for _, done, _ in seen))
    assert seen[-1] == (what, total, total)


def test_a_voxel_size_needs_to_know_that_of_the_scan():
    unknown = replace(make_tube(50.0), spacing_um=None)
    what = r"t cannot be read at 100 µm: its voxel spacing is not stated; state voxel_spacing_um of \[volumes.t\] in "
    for call in (
        lambda: predict(reader_at(100.0), unknown, INFERENCE, ACCELERATOR),
        lambda: PatchSampler([unknown], 1, 1, 16, 0.5, seed=0, spacing_um=100.0),
        lambda: usable_axes(unknown, (0,), 16, voxel_size_um=100.0),
    ):
        with pytest.raises(InputError, match=what + "dataset.toml"):
            call()


def test_a_voxel_size_far_finer_than_the_scan_is_a_mistake_of_units():
    volume = make_tube(50.0)
    assert usable_axes(volume, (0,), 16, voxel_size_um=12.5) == (0,)  # 64 times as many voxels
    for call in (
        lambda: predict(reader_at(0.05), volume, INFERENCE, ACCELERATOR),
        lambda: PatchSampler([volume], 1, 1, 16, 0.5, seed=0, spacing_um=0.05),
        lambda: usable_axes(volume, (0,), 16, voxel_size_um=0.05),
        lambda: resample_volume(volume, 0.05),
    ):
        with pytest.raises(InputError, match=r"t cannot be read at 0.05 µm: its own voxels of 50 µm are more than 64"):
            call()
    _, result = evaluate(reader_at(None), [volume], INFERENCE, ScoreConfig(second_um=0.05), ACCELERATOR)
    assert result.no_second is not None and result.no_second.startswith("t cannot be read at 0.05 µm")


def test_a_volume_that_is_too_small_at_the_voxel_size_is_refused_with_it():
    with pytest.raises(InputError, match=r"t of \(4, 4, 4\) voxels at 800 µm is too small to be read with crops of 16"):
        usable_axes(make_tube(50.0), (0, 1, 2), 16, voxel_size_um=800.0)
    with pytest.raises(
        InputError, match=r"crop 96 is too large for t of shape \(32, 32, 32\) at 100 µm; the largest p"
    ):
        PatchSampler([make_tube(50.0)], 1, 1, 96, 0.5, seed=0, spacing_um=100.0)


def test_a_scan_of_much_finer_voxels_is_not_cut_with_holes():
    with pytest.raises(InputError, match="t has voxels of 50 µm and cannot be trained on at 101 µm, more than 2 times"):
        PatchSampler([make_tube(50.0)], 1, 1, 16, 0.5, seed=0, spacing_um=101.0)
    PatchSampler([make_tube(50.0)], 1, 1, 16, 0.5, seed=0, spacing_um=100.0)


def test_one_voxel_size_leaves_no_target():
    with pytest.raises(ValueError, match="voxel_size_um = 50 resamples every scan to one voxel size, but target_um = "):
        FitConfig(voxel_size_um=50.0, target_um=63.0)
    assert FitConfig(target_um=63.0).sampled_um == 63.0 and FitConfig(voxel_size_um=50.0).sampled_um == 50.0
    assert make_reader(Bright(), UnetCandidate(), FitConfig(target_um=63.0)).voxel_size_um is None


@pytest.mark.slow
def test_a_training_at_another_voxel_size_resumes_and_repeats(tmp_path):
    from search_spaces.network import build_network
    from trainers.fit import Fit

    config = FitConfig(steps=4, crop=32, batch_size=2, loss="dice", voxel_size_um=80.0)

    def trained(stops: tuple[int, ...]) -> Tensor:
        for number, stop in enumerate((*stops, 4)):
            torch.manual_seed(0)
            candidate = UnetCandidate(encoder="tu-resnet10t", slices_in=1)
            sampler = PatchSampler([make_tube(50.0)], 1, 1, 32, 0.5, seed=0, spacing_um=config.sampled_um)
            fit = Fit(build_network(candidate, 32), sampler, config, 0, ACCELERATOR)
            if number:
                assert fit.resume(tmp_path)
            fit.run(stop, lambda _step, _loss: True)
            fit.save(tmp_path)
        return torch.cat([p.detach().flatten() for p in fit.averaged.parameters()])

    assert torch.equal(trained(()), trained((2,)))
