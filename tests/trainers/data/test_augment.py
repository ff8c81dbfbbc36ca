"""What the single augmentations do."""

import os
import subprocess
import sys

import numpy as np

from trainers.data.augment import Augmentation


def make_corner() -> tuple[np.ndarray, np.ndarray]:
    """A sample without any symmetry."""
    image = np.arange(36, dtype=np.float32).reshape(1, 6, 6) / 36
    return image, (image > 0.6).astype(np.uint8)


def test_none_changes_nothing():
    image, label = make_corner()
    changed, changed_label = Augmentation("none")(image, label, seed=(0,))
    assert changed is image and changed_label is label


def test_flips_give_all_eight_symmetries_and_nothing_else():
    image, label = make_corner()
    symmetries = [np.rot90(side, turns) for side in (image[0], image[0, ::-1]) for turns in range(4)]
    flips = Augmentation("flips")
    seen = set()
    for number in range(100):
        changed, changed_label = flips(image, label, seed=(number,))
        matching = [n for n, symmetry in enumerate(symmetries) if np.allclose(changed[0], symmetry, atol=1e-5)]
        assert len(matching) == 1
        assert np.array_equal(changed_label[0], symmetries[matching[0]] > 0.6)
        seen.add(matching[0])
    assert seen == set(range(8))


def test_standard_changes_shape_and_grey_independently():
    """With one seed for all transforms (albumentations' own seeding) either all would happen or none."""
    image = np.zeros((1, 32, 32), np.float32)
    image[0, 8:20, 10:22] = 1.0
    label = (image > 0.5).astype(np.uint8)
    standard = Augmentation("standard")
    moved, brighter = [], []
    for number in range(300):
        changed, changed_label = standard(image, label, seed=(number,))
        moved.append(int(changed_label.sum()) != int(label.sum()))
        brighter.append(abs(float(np.median(changed[changed_label == 1])) - 1.0) > 0.01)
    # Four kinds: moved or not, brighter or not; each has a good share.
    kinds = np.bincount(2 * np.array(moved) + np.array(brighter), minlength=4) / 300
    assert kinds.min() > 0.05


def test_making_an_augmentation_neither_imports_albumentations_nor_asks_the_network():
    program = "import sys; from trainers.data.augment import Augmentation; Augmentation('standard'); "
    program += "print('albumentations' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "False"
