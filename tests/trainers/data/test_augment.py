"""What each single change does."""

import numpy as np

from trainers.data.augment import Augmentation
from trainers.data.grey_changes import change_gamma, change_light, change_noise
from trainers.data.patches import PatchSampler
from trainers.data.volume import Volume


def make_corner() -> tuple[np.ndarray, np.ndarray]:
    """A sample without any symmetry."""
    image = np.arange(36, dtype=np.float32).reshape(1, 6, 6) / 36
    return image, (image > 0.6).astype(np.uint8)


def test_none_changes_nothing():
    image, label = make_corner()
    changed, changed_label = Augmentation("none").change((image, label), np.random.default_rng(0))
    assert np.array_equal(changed, image) and np.array_equal(changed_label, label)


def test_flips_give_all_eight_symmetries_and_nothing_else():
    image, label = make_corner()
    symmetries = [np.rot90(side, turns) for side in (image[0], image[0, ::-1]) for turns in range(4)]
    flips = Augmentation("flips")
    seen = set()
    for number in range(100):
        changed, changed_label = flips.change((image, label), np.random.default_rng(number))
        matching = [n for n, symmetry in enumerate(symmetries) if np.array_equal(changed[0], symmetry)]
        assert len(matching) == 1
        assert np.array_equal(changed_label[0], symmetries[matching[0]] > 0.6)
        seen.add(matching[0])
    assert seen == set(range(8))


def test_contrast_turns_about_the_middle_and_brightness_shifts_all():
    grey = np.array([0.2, 0.5, 0.8], np.float32)
    for seed in range(20):
        low, middle, high = change_light(grey, np.random.default_rng(seed), 0.0, 0.5)
        assert np.isclose(middle, 0.5, atol=1e-6) and np.isclose(low + high, 1.0, atol=1e-6)
        assert 0.6 / 1.5 - 1e-6 <= high - low <= 0.6 * 1.5 + 1e-6
        shifted = change_light(grey, np.random.default_rng(seed), 0.3, 0.0) - grey
        assert np.ptp(shifted) < 1e-6 and abs(shifted[0]) <= 0.3


def test_gamma_keeps_the_ends_and_the_order():
    grey = np.linspace(-1, 2, 50, dtype=np.float32)
    for seed in range(20):
        changed = change_gamma(grey, np.random.default_rng(seed), 0.5)
        assert np.allclose(changed[[0, -1]], [-1, 2], atol=1e-5) and (np.diff(changed) > 0).all()


def test_noise_has_no_mean_and_at_most_its_deviation():
    grey = np.full((64, 64), 0.5, np.float32)
    deviations = []
    for seed in range(40):
        noise = change_noise(grey, np.random.default_rng(seed), 0.1) - 0.5
        assert abs(noise.mean()) < 4 * 0.1 / 64
        deviations.append(noise.std())
    assert max(deviations) < 0.105 and min(deviations) < 0.02


def test_the_elastic_bend_is_smooth_and_moves_by_its_deviation():
    rng = np.random.default_rng(0)
    augmentation = Augmentation("strong")
    bends = np.array([m.bend for m in (augmentation.move(rng, 64) for _ in range(200)) if m is not None])
    assert bends.shape[1:] == (2, 64, 64) and bends.dtype == np.float32
    at_nodes = bends[:, :, ::21, ::21][:, :, 1:-1, 1:-1]  # of 64 pixels and five nodes, roughly
    assert 0.6 < at_nodes.std() / augmentation.changes.elastic < 1.1 and abs(bends.mean()) < 0.1
    # Neighbours move nearly alike, so that nothing is torn.
    assert np.abs(np.diff(bends, axis=3)).max() < 0.7


def test_a_partner_is_of_the_same_kidney():
    def volume(name: str, kidney: str, seed: int) -> Volume:
        label = (np.random.default_rng(seed).random((16, 16, 16)) > 0.9).astype(np.uint8)
        voxels = np.zeros((16, 16, 16), np.uint16)
        return Volume(name, kidney, voxels, label, np.flatnonzero(label), (1.0, 1.0, 1.0), 1.0, 0.0, 1.0, name)

    volumes = [volume("a", "k1", 0), volume("b", "k2", 1), volume("c", "k1", 2)]
    sampler = PatchSampler(volumes, 1, 1, 8, 0.5, seed=0)
    others = set()
    for number in range(80):
        own = sampler.location(number)
        other = sampler.partner(number, own)
        assert volumes[other.volume].kidney == volumes[own.volume].kidney
        assert other == sampler.partner(number, own)
        others.add((own.volume, other.volume))
    assert (0, 2) in others and (2, 0) in others and (1, 1) in others
