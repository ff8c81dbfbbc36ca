"""What every entry of AUGMENTATIONS keeps, so that a new one is tested the day it is named."""

import pickle

import numpy as np
import pytest

from search_spaces.errors import InputError
from trainers.data.augment import AUGMENTATIONS, Augmentation
from trainers.data.volume import CLIP_HIGH, CLIP_LOW

EDGE = 64


def make_disc(slices_in: int, slices_out: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc of radius 14, off the centre, in dark surroundings; the label is the disc."""
    y, x = np.indices((EDGE, EDGE))
    disc = (y - 26) ** 2 + (x - 38) ** 2 <= 14**2
    image = np.where(disc, 1.5, -0.5).astype(np.float32)
    return np.repeat(image[None], slices_in, 0), np.repeat(disc[None].astype(np.uint8), slices_out, 0)


@pytest.fixture(scope="module", params=sorted(AUGMENTATIONS))
def augmentation(request: pytest.FixtureRequest) -> Augmentation:
    return Augmentation(request.param)


@pytest.mark.parametrize(("slices_in", "slices_out"), [(1, 1), (2, 1), (3, 3), (5, 1), (5, 5), (9, 9)])
def test_shapes_and_types_stay(augmentation, slices_in, slices_out):
    image, label = augmentation(*make_disc(slices_in, slices_out), seed=(0, 1))
    assert image.shape == (slices_in, EDGE, EDGE) and image.dtype == np.float32
    assert label.shape == (slices_out, EDGE, EDGE) and label.dtype == np.uint8


def test_labels_stay_0_or_1(augmentation):
    for number in range(30):
        _, label = augmentation(*make_disc(1, 3), seed=(0, number))
        assert set(np.unique(label).tolist()) == {0, 1}


def test_image_and_label_stay_aligned(augmentation):
    for number in range(40):
        image, label = augmentation(*make_disc(3, 3), seed=(1, number))
        bright = image > (image.min() + image.max()) / 2
        # A disc of radius 14 has a border of about 2 pi 14 pixels; half of them may differ by rounding, no more.
        assert np.count_nonzero(bright != (label == 1), axis=(1, 2)).max() <= 44


def test_all_slices_of_a_sample_are_moved_alike(augmentation):
    for number in range(20):
        _, label = augmentation(*make_disc(3, 3), seed=(2, number))
        assert (label == label[:1]).all()


def test_grey_values_stay_finite_and_in_range(augmentation):
    rng = np.random.default_rng(0)
    image = rng.uniform(CLIP_LOW, CLIP_HIGH, (5, EDGE, EDGE)).astype(np.float32)
    for number in range(40):
        changed, _ = augmentation(image, np.zeros((1, EDGE, EDGE), np.uint8), seed=(3, number))
        assert np.isfinite(changed).all()
        assert changed.min() >= CLIP_LOW - 1e-4 and changed.max() <= CLIP_HIGH + 1e-4
        # What lies below 0 and above 1 carries walls and lumens and must not be cut away.
        assert changed.min() < -0.3 and changed.max() > 1.3


def test_equal_seeds_give_equal_changes(augmentation):
    image, label = make_disc(3, 1)
    first = augmentation(image, label, seed=(7, 5))
    augmentation(image, label, seed=(7, 6))
    second = augmentation(image, label, seed=(7, 5))
    elsewhere = pickle.loads(pickle.dumps(augmentation))(image, label, seed=(7, 5))
    for other in (second, elsewhere):
        assert np.array_equal(first[0], other[0]) and np.array_equal(first[1], other[1])


def test_the_input_is_left_as_it_was(augmentation):
    image, label = make_disc(3, 1)
    for number in range(10):
        augmentation(image, label, seed=(number,))
    assert np.array_equal(image, make_disc(3, 1)[0]) and np.array_equal(label, make_disc(3, 1)[1])


def test_an_unknown_augmentation_gets_the_nearest_name():
    with pytest.raises(InputError, match="unknown augmentation 'standart'; did you mean 'standard'"):
        Augmentation("standart")
