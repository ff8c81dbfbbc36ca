"""Surface cubes: a differentiable surface dice, like that of the competition's first place.

The score counts the area of 2x2x2 cubes that contain surface. A cube contains none if all eight voxels are vessel or
all are tissue. If voxels are independent, both probabilities are products of eight probabilities; the rest is surface.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.errors import InputError
from trainers.metrics.surface_area import surface_areas

SLICES = 2  # neighbouring output slices that a cube needs


class SurfaceCubes(nn.Module):
    """Mean of three dice losses over cubes: all vessel, all tissue, and surface, weighted by surface area.

    Areas are those of cubic voxels, relative to their mean over all cubes with surface; a cube without target surface
    counts once. A class that does not occur in the target is left out. Cubes beyond the patch are ignored. A mask and
    its inverse have the same surface, so combine this loss with one that tells vessel from tissue (dice, bce or focal).
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
            raise InputError(f"loss 'surface_cubes' needs {SLICES} neighbouring output slices; this network gives 1")
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
    """The mean over every cube, (B, m - 1, H - 1, W - 1)."""
    return functional.avg_pool3d(values.unsqueeze(1), 2, 1).squeeze(1)


def _dice_loss(chance: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    overlap, both = (weight * chance * target).sum(), (weight * (chance + target)).sum()
    loss: Tensor = 1 - 2 * overlap / both.clamp(min=1e-7)
    return loss
