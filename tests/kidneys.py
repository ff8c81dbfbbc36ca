"""Small kidneys for tests: a bright or dark tube in noise, in memory."""

import numpy as np

from trainers.data.volume import Volume


def tube(name: str, shape: tuple[int, int, int] = (24, 48, 48), seed: int = 0, radius: float = 5.0) -> Volume:
    """A kidney with one dark vessel along z, centred at (H / 2, W / 2)."""
    rng = np.random.default_rng(seed)
    _, height, width = shape
    rows, columns = np.mgrid[:height, :width]
    inside = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < radius**2
    label = np.broadcast_to(inside, shape).astype(np.uint8)
    grey = np.where(label > 0, 20_000, 30_000) + rng.normal(0, 500, shape)
    image = grey.astype(np.uint16)
    low, high = np.percentile(image, [2, 98])
    return Volume(
        name=name,
        kidney=name,
        image=image,
        label=label,
        vessel_voxels=np.flatnonzero(label),
        spacing_um=(50.0, 50.0, 50.0),
        annotated=1.0,
        grey_low=float(low),
        grey_high=float(high),
        content_hash=f"{name}-{seed}",
    )
