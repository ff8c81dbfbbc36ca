"""Surface cubes: surface dice made differentiable, after the competition's first place.

The score counts the area of 2x2x2 cubes that hold surface. A cube holds none where all eight voxels are vessel or all
are tissue; with independent voxels the chances of both are products of eight probabilities, and the rest is surface.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.errors import InputError
from trainers.metrics.surface_area import surface_areas

SLICES = 2  # neighbouring slices of output that a cube takes


class SurfaceCubes(nn.Module):
    """Mean of three dice losses over cubes: all vessel, all tissue, and surface, weighted by the area that is there.

    Areas are those of cubic voxels, relative to their mean over all cubes with surface; where the target has none, a
    cube counts once. A class that the target lacks is left out. Cubes beyond the patch are not looked at. A mask and
    its inverse have one surface, so give this loss company that knows vessels from tissue (dice, bce or focal).
    """

    areas: Tensor

    def __init__(self) -> None:
        super().__init__()
        areas = torch.from_numpy(surface_areas((1.0, 1.0, 1.0)))
        relative = areas / areas[areas > 0].mean()
        self.register_buffer("areas", torch.where(areas > 0, relative, torch.ones_like(areas)), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits and targets of 0 and 1, both (B, m, H, W) -> scalar. Raises InputError for fewer than two slices."""
        if logits.shape[1] < SLICES:
            raise InputError(f"loss 'surface_cubes' needs {SLICES} neighbouring slices of output, this network gives 1")
        codes = _codes(targets)
        vessel = 8 * _means(functional.logsigmoid(logits))
        tissue = 8 * _means(functional.logsigmoid(-logits))
        chances = (vessel.exp(), tissue.exp())
        classes = [
            (chances[0], (codes == 255).to(logits.dtype), torch.ones_like(vessel)),
            (chances[1], (codes == 0).to(logits.dtype), torch.ones_like(vessel)),
            (
                (1 - chances[0] - chances[1]).clamp(min=0),
                ((codes > 0) & (codes < 255)).to(logits.dtype),
                self.areas.to(logits.dtype)[codes],
            ),
        ]
        losses = torch.stack([_dice_loss(*each) for each in classes])
        there = torch.stack([target.sum() > 0 for _, target, _ in classes]).to(logits.dtype)
        return (losses * there).sum() / there.sum()


def _codes(targets: Tensor) -> Tensor:
    """The code of every cube, int64, (B, m - 1, H - 1, W - 1); see `trainers/metrics/surface_area.py`."""
    _, slices, height, width = targets.shape
    voxels = (targets > 0.5).long()
    codes = torch.zeros_like(voxels[:, 1:, 1:, 1:])
    for bit in range(8):
        z, y, x = bit >> 2 & 1, bit >> 1 & 1, bit & 1
        codes += voxels[:, z : slices - 1 + z, y : height - 1 + y, x : width - 1 + x] << bit
    return codes


def _means(values: Tensor) -> Tensor:
    """Over every cube, (B, m - 1, H - 1, W - 1)."""
    return functional.avg_pool3d(values.unsqueeze(1), 2, 1).squeeze(1)


def _dice_loss(chance: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    overlap, both = (weight * chance * target).sum(), (weight * (chance + target)).sum()
    loss: Tensor = 1 - 2 * overlap / both.clamp(min=1e-7)
    return loss
