"""Unsure background: where it is, and that it passes through the loader as part of the target."""

from dataclasses import replace

import numpy as np
import pytest
from kidneys import tube

from trainers.data.augment import Augmentation
from trainers.data.batches import Batches
from trainers.data.patches import PatchSampler
from trainers.data.unsure import UNSURE, to_target, unsure

SPARSE = replace(tube("a"), annotated=0.6)


def one_voxel() -> np.ndarray:
    label = np.zeros((5, 9, 9), np.uint8)
    label[2, 4, 4] = 1
    return label


@pytest.mark.parametrize("margin", [0, 1, 2])
def test_background_is_sure_in_a_cube_around_each_vessel_voxel(margin: int) -> None:
    sure = ~unsure(one_voxel().astype(np.float32), margin)
    expected = np.zeros((5, 9, 9), bool)
    expected[2 - margin : 3 + margin, 4 - margin : 5 + margin, 4 - margin : 5 + margin] = True
    np.testing.assert_array_equal(sure, expected)


def test_a_patch_without_any_label_is_all_unsure() -> None:
    assert unsure(np.zeros((1, 8, 8), np.float32), 3).all()


def test_a_patch_of_vessel_alone_has_nothing_unsure() -> None:
    assert not unsure(np.ones((1, 8, 8), np.float32), 0).any()


def test_only_incomplete_labels_have_unsure_background() -> None:
    label = one_voxel()
    np.testing.assert_array_equal(to_target(label, tube("dense"), 1), label)
    np.testing.assert_array_equal(to_target(label, SPARSE, None), label)
    target = to_target(label, SPARSE, 1)
    assert set(np.unique(target)) == {UNSURE, 0.0, 1.0}
    assert (target == UNSURE).sum() == label.size - 27
    assert target.dtype == np.float32


def test_batches_of_sparse_volumes_are_marked_and_all_else_is_as_it_was() -> None:
    def first(margin: int | None) -> tuple[np.ndarray, np.ndarray]:
        sampler = PatchSampler([SPARSE], 3, 1, 32, 1.0, seed=1)
        images, targets = next(iter(Batches(sampler, Augmentation("flips"), 4, sparse_margin=margin)))
        return images.numpy(), targets.numpy()

    images, targets = first(2)
    plain_images, plain_targets = first(None)
    np.testing.assert_array_equal(images, plain_images)
    np.testing.assert_array_equal(np.maximum(targets, 0), plain_targets)
    assert (targets == UNSURE).any()


def test_of_two_mixed_patches_only_the_one_of_incomplete_labels_is_unsure() -> None:
    # Two volumes of one kidney: all of one is vessel, nothing is labelled in the other; every sample is mixed.
    augmentation = Augmentation("strong - turn - tilt - scale - elastic - light - gamma - noise - symmetries")
    augmentation.changes = replace(augmentation.changes, cutmix=1.0)
    bare = replace(SPARSE, label=np.zeros_like(SPARSE.label), vessel_voxels=np.zeros(0, np.int64))
    full = replace(tube("full"), kidney="a", label=np.ones_like(SPARSE.label))
    sampler = PatchSampler([bare, full], 1, 1, 32, 0.0, seed=0)
    seen = [set(np.unique(sampler.sample(number, augmentation, sparse_margin=1)[1])) for number in range(16)]
    assert {UNSURE, 1.0} in seen
    assert set().union(*seen) == {UNSURE, 1.0}
