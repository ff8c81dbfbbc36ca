"""What every entry of AUGMENTATIONS must guarantee, so that a new one is tested the day it is named."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from search_spaces.errors import InputError
from trainers.data.augment import AUGMENTATIONS, PARTS, Augmentation, draw_rectangle
from trainers.data.patches import PatchSampler
from trainers.data.volume import CLIP_HIGH, CLIP_LOW, Volume

EDGE = 40


def make_ball() -> Volume:
    """A bright ball of radius 12 in dark surroundings, a little off the centre; the label is the ball."""
    z, y, x = np.indices((EDGE,) * 3)
    ball = (z - 20) ** 2 + (y - 18) ** 2 + (x - 23) ** 2 <= 12**2
    image = np.where(ball, 50_000, 10_000).astype(np.uint16)
    label = ball.astype(np.uint8)
    # -0.5 and 1.5 after normalising
    return Volume("a", "a", image, label, np.flatnonzero(label), (1.0, 1.0, 1.0), 1.0, 20_000.0, 40_000.0, "a")


BALL = make_ball()


def sampler(slices_in: int, slices_out: int, seed: int = 0) -> PatchSampler:
    return PatchSampler([BALL], slices_in, slices_out, 32, 0.7, seed)


@pytest.fixture(scope="module", params=sorted(AUGMENTATIONS))
def augmentation(request: pytest.FixtureRequest) -> Augmentation:
    return Augmentation(request.param)


@pytest.mark.parametrize(("slices_in", "slices_out"), [(1, 1), (2, 2), (3, 1), (3, 3), (5, 1), (9, 9)])
def test_shapes_and_types_stay(augmentation, slices_in, slices_out):
    for number in range(8):
        image, label = sampler(slices_in, slices_out).sample(number, augmentation)
        assert image.shape == (slices_in, 32, 32) and image.dtype == np.float32 and image.flags.c_contiguous
        assert label.shape == (slices_out, 32, 32) and label.dtype == np.float32 and label.flags.c_contiguous


def test_labels_stay_0_or_1(augmentation):
    samples = sampler(3, 3)
    assert set(np.unique([samples.sample(n, augmentation)[1] for n in range(30)]).tolist()) == {0, 1}


def test_image_and_label_stay_aligned(augmentation):
    """They agree best where they lie: a label moved by one pixel, any way, fits the image worse."""
    samples, compared = sampler(3, 3, seed=1), 0
    for number in range(60):
        image, label = samples.sample(number, augmentation)
        if not 50 < label[1].sum() < 900:
            continue
        compared += 1
        bright = image > (np.median(image[label == 1]) + np.median(image[label == 0])) / 2
        inner = np.s_[:, 1:-1, 1:-1]
        wrong = {
            (down, right): np.count_nonzero((bright != np.roll(label, (down, right), (1, 2)))[inner])
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        }
        assert min(wrong, key=lambda shift: wrong[shift]) == (0, 0), wrong
    assert compared > 30


def test_grey_values_stay_finite_and_in_range(augmentation):
    rng = np.random.default_rng(0)
    for number in range(40):
        patch = rng.uniform(CLIP_LOW, CLIP_HIGH, (5, 32, 32)).astype(np.float32), np.zeros((1, 32, 32), np.uint8)
        changed, _ = augmentation.change(patch, np.random.default_rng(number))
        assert np.isfinite(changed).all()
        assert changed.min() >= CLIP_LOW and changed.max() <= CLIP_HIGH
        # What lies below 0 and above 1 carries walls and lumens and must not be cut away.
        assert changed.min() < -0.2 and changed.max() > 1.2


def test_equal_numbers_give_equal_samples(augmentation):
    samples = sampler(3, 1, seed=7)
    first = samples.sample(5, augmentation)
    samples.sample(6, augmentation)
    second = samples.sample(5, augmentation)
    elsewhere = pickle.loads(pickle.dumps(samples)).sample(5, pickle.loads(pickle.dumps(augmentation)))
    for other in (second, elsewhere):
        assert np.array_equal(first[0], other[0]) and np.array_equal(first[1], other[1])


def test_the_volume_is_left_as_it_was(augmentation):
    samples = sampler(3, 1)
    for number in range(10):
        samples.sample(number, augmentation)
    assert np.array_equal(BALL.image, make_ball().image) and np.array_equal(BALL.label, make_ball().label)


def test_every_part_can_be_taken_away_and_is_then_off():
    on = [part for part in PARTS if getattr(Augmentation("strong").changes, part)]
    assert on == list(PARTS)
    for part in on:
        assert not getattr(Augmentation(f"strong - {part}").changes, part)
    assert Augmentation("strong - " + " - ".join(on)).changes.symmetries is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("standart", "unknown augmentation 'standart'; did you mean 'standard'"),
        ("strong - tilted", "unknown part in augmentation 'strong - tilted', 'tilted'; did you mean 'tilt'"),
        ("flips - tilt", "augmentation 'flips - tilt' removes 'tilt', which 'flips' does not have"),
        ("strong - tilt - tilt", "removes 'tilt', which 'strong' does not have, or no longer has"),
    ],
)
def test_a_text_that_is_not_an_augmentation_gets_one_line(text, message):
    with pytest.raises(InputError, match=message):
        Augmentation(text)


def test_cutmix_takes_a_rectangle_of_image_and_label_together():
    """Where one half of a volume is bright vessel and the other dark background, the two always agree."""
    label = np.zeros((40, 40, 40), np.uint8)
    label[:, :, 20:] = 1
    halves = replace(BALL, image=label * np.uint16(60_000), label=label, vessel_voxels=np.flatnonzero(label))
    samples = PatchSampler([halves], 1, 1, 16, 0.5, seed=0, axes=(0,))
    cutmix = Augmentation("strong - symmetries - turn - tilt - scale - elastic - light - gamma - noise")
    cut = 0
    for number in range(100):
        plain, (image, found) = samples.sample(number), samples.sample(number, cutmix)
        assert np.array_equal(image > 0.5, found == 1)
        changed = found[0] != plain[1][0]
        rows, columns = np.nonzero(changed.any(1))[0], np.nonzero(changed.any(0))[0]
        assert changed.sum() == len(rows) * len(columns) and changed.mean() <= 0.55
        cut += bool(changed.any())
    assert 5 < cut < 40


def test_a_part_of_a_moved_patch_is_what_the_whole_has_there():
    samples, augmentation = sampler(3, 3), Augmentation("strong")
    rng = np.random.default_rng(0)
    for number in range(20):
        move, part = augmentation.move(rng, 32), draw_rectangle(rng, 32)
        whole, piece = (
            samples.patch(samples.location(number), move),
            samples.patch(samples.location(number), move, part),
        )
        assert all(np.array_equal(a[:, *part], b) for a, b in zip(whole, piece, strict=True))
