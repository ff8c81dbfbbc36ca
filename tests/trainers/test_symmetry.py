from dataclasses import replace

import numpy as np
import pytest
import torch
from kidneys import tube
from torch import Tensor, nn

from trainers.fit import make_accelerator
from trainers.inference.predict import predict
from trainers.inference.reader import InferenceConfig, Reader
from trainers.inference.symmetry import Symmetries, count, mean_probabilities

CPU = make_accelerator("float32", "cpu")


class Pointwise(nn.Module):
    """Answers what it is shown: the same network, whichever way the plane is turned."""

    def forward(self, images: Tensor) -> Tensor:
        return images


class RightHalf(nn.Module):
    """0.5 in the left half of an image, 1.0 in the right one."""

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.zeros_like(images)
        logits[..., images.shape[-1] // 2 :] = 100.0
        return logits


PLANES = Reader(Pointwise(), slices_in=1, slices_out=1, crop=16, stride=8, any_size=True)
BOXES = Reader(Pointwise(), slices_in=8, slices_out=8, crop=16, stride=4, any_size=True, boxes=True)


@pytest.mark.parametrize("reader", [PLANES, BOXES, replace(PLANES, any_size=False)])
@pytest.mark.parametrize("symmetries", ["flips", "d4"])
def test_a_symmetric_network_answers_alike_in_every_view(reader: Reader, symmetries: Symmetries) -> None:
    volume = tube("a", (17, 20, 30))
    alone = predict(reader, volume, InferenceConfig(), CPU)
    np.testing.assert_array_equal(predict(reader, volume, InferenceConfig(symmetries=symmetries), CPU), alone)


@pytest.mark.parametrize("symmetries", ["flips", "d4"])
def test_each_side_of_a_lopsided_network_counts_equally_everywhere(symmetries: Symmetries) -> None:
    found = mean_probabilities(RightHalf(), torch.zeros(2, 3, 8, 12), symmetries, CPU)
    assert torch.equal(found, torch.full((2, 3, 8, 12), 0.75))


def test_a_network_is_shown_all_eight_views_of_the_plane_and_its_slices_in_order() -> None:
    image = torch.arange(2 * 2 * 3, dtype=torch.float32).reshape(1, 2, 2, 3)
    seen: list[np.ndarray] = []

    class Spy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images.numpy()[0])
            return images

    mean_probabilities(Spy(), image, "d4", CPU)
    array = image.numpy()[0]
    turned = [np.rot90(array, k, (1, 2)) for k in range(4)]
    expected = {view.tobytes() for one in turned for view in (one, one[:, :, ::-1])}
    assert {np.ascontiguousarray(view).tobytes() for view in seen} == expected
    assert len(seen) == count("d4") == 8


def test_flat_weights_count_tiles_equally_where_they_overlap_and_hats_do_not() -> None:
    class ByTile(nn.Module):
        """0.5 for the tile that is shown first, 1.0 for the next."""

        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            return torch.full_like(images, 100.0 * (self.calls - 1))

    volume = tube("a", (1, 16, 24))  # tiles of 16 at columns 0 and 8
    row = {}
    for weighting in ("flat", "hat"):
        reader = replace(PLANES, network=ByTile(), any_size=False)
        config = InferenceConfig(axes=(0,), overlap=0.5, weighting=weighting)  # type: ignore[arg-type]
        row[weighting] = predict(reader, volume, config, CPU)[0, 0]
    # 0.5, 0.75 and 1.0 of 255
    assert row["flat"].tolist() == [128] * 8 + [191] * 8 + [255] * 8
    # The first tile's hat falls from 8 to 1 over the columns 8 to 15, the second one's rises from 1 to 8.
    weights = np.arange(8, 0, -1) / 9
    assert np.abs(row["hat"][8:16] - 255 * (1 - 0.5 * weights)).max() <= 0.51
