"""OPERATIONS: what an edge of a cell may carry, in two or three dimensions from one table.

Every operation keeps the number of channels: (B, C, ...) -> (B, C, ...), at the same, half or twice the resolution.
Norms act per channel and sample, without scale, shift or running statistics. So an operation's output has the same
scale regardless of the paths sampled before, and a zero channel stays zero: the leading channels alone form a narrower
network.
Convolutions have no bias for the same reason.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Resampling = Literal["same", "down", "up"]

_HIDDEN = 8  # hidden channels of squeeze-and-excitation; fixed, whatever the number of channels
_GROUP = 4  # channels per group of the grouped convolution
_LARGEST_DEPTHWISE = 7  # edge of the kernel from which the smaller ones are cut


def convolution(dims: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    """The convolution layer for 2 or 3 dimensions."""
    return nn.Conv2d if dims == 2 else nn.Conv3d


def norm(dims: int, channels: int, affine: bool = False) -> nn.Module:
    """Instance norm for 2 or 3 dimensions, without running statistics."""
    make = nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d
    return make(channels, affine=affine)


def interpolate(image: Tensor, factor: float) -> Tensor:
    """Resize every spatial axis (bi- or trilinear, half-pixel centres)."""
    mode = "bilinear" if image.ndim == 4 else "trilinear"
    return functional.interpolate(image, scale_factor=factor, mode=mode, align_corners=False)


class Zero(nn.Module):
    """No connection: gives zeros."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.zeros_like(image)


class Depthwise(nn.Module):
    """One kernel per channel, with `size` voxels along each axis.

    `entangle` may replace it by a larger kernel that several sizes share; this layer then uses its middle (weight
    entanglement, as in Sukthanker et al. 2023, arXiv 2312.10440).
    """

    def __init__(self, dims: int, channels: int, size: int) -> None:
        super().__init__()
        self.size, self.dims = size, dims
        self.kernel = nn.Parameter(torch.empty(channels, 1, *[size] * dims))
        nn.init.kaiming_uniform_(self.kernel, a=5**0.5)

    def forward(self, image: Tensor) -> Tensor:
        first = (self.kernel.shape[-1] - self.size) // 2
        kernel: Tensor = self.kernel
        for axis in range(2, 2 + self.dims):
            kernel = kernel.narrow(axis, first, self.size)
        apply = functional.conv2d if self.dims == 2 else functional.conv3d
        return apply(image, kernel, padding=self.size // 2, groups=image.shape[1])


class Pool(nn.Module):
    """Mean or maximum over 3 voxels along each axis."""

    def __init__(self, dims: int, largest: bool, stride: int) -> None:
        super().__init__()
        self.dims, self.largest, self.stride = dims, largest, stride

    def forward(self, image: Tensor) -> Tensor:
        if self.largest:
            pool = functional.max_pool2d if self.dims == 2 else functional.max_pool3d
            return pool(image, 3, self.stride, 1)
        # Padding is replicated, not left out of the mean: torch refuses to pool 3D maps smaller than the kernel.
        padded = functional.pad(image, [1] * (2 * self.dims), mode="replicate")
        mean = functional.avg_pool2d if self.dims == 2 else functional.avg_pool3d
        return mean(padded, 3, self.stride)


class Blur(nn.Module):
    """Halves the resolution after a binomial filter (Zhang 2019, arXiv 1904.11486): no aliasing of thin vessels."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, image: Tensor) -> Tensor:
        line = torch.tensor([0.25, 0.5, 0.25], device=image.device, dtype=image.dtype)
        kernel = line
        for _ in range(self.dims - 1):
            kernel = kernel[..., None] * line
        kernel = kernel.expand(image.shape[1], 1, *kernel.shape)
        apply = functional.conv2d if self.dims == 2 else functional.conv3d
        return apply(image, kernel, stride=2, padding=1, groups=image.shape[1])


class SpaceToDepth(nn.Module):
    """(B, C, ..., 2n) -> (B, C * 2**dims, ..., n): keeps every voxel, as a channel."""

    def forward(self, image: Tensor) -> Tensor:
        batch, channels, *edges = image.shape
        dims = len(edges)
        split = image.reshape(batch, channels, *(n for edge in edges for n in (edge // 2, 2)))
        outer, inner = [2 + 2 * i for i in range(dims)], [3 + 2 * i for i in range(dims)]
        return split.permute(0, 1, *inner, *outer).reshape(batch, channels * 2**dims, *(e // 2 for e in edges))


class DepthToSpace(nn.Module):
    """(B, C * 2**dims, ..., n) -> (B, C, ..., 2n): the reverse of SpaceToDepth."""

    def forward(self, image: Tensor) -> Tensor:
        batch, channels, *edges = image.shape
        dims = len(edges)
        split = image.reshape(batch, channels // 2**dims, *[2] * dims, *edges)
        order = [axis for i in range(dims) for axis in (2 + dims + i, 2 + i)]
        return split.permute(0, 1, *order).reshape(batch, channels // 2**dims, *(2 * e for e in edges))


class Upsample(nn.Module):
    """Doubles the resolution, with linear interpolation."""

    def forward(self, image: Tensor) -> Tensor:
        return interpolate(image, 2)


class SqueezeExcite(nn.Module):
    """Scales every channel by a factor computed from the means of all channels (Hu et al. 2018, arXiv 1709.01507)."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.squeeze = convolution(dims)(channels, _HIDDEN, 1, bias=False)
        self.excite = convolution(dims)(_HIDDEN, channels, 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        mean = image.mean(dim=tuple(range(2, image.ndim)), keepdim=True)
        return image * torch.sigmoid(self.excite(functional.relu(self.squeeze(mean))))


class SpatialGate(nn.Module):
    """Scales every voxel by one factor, computed from its neighbourhood in all channels."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.gate = convolution(dims)(channels, 1, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        return image * torch.sigmoid(self.gate(image))


def _conv(dims: int, channels: int, size: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Module:
    layer = convolution(dims)(
        channels,
        channels,
        size,
        stride=stride,
        padding=dilation * (size // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
    )
    return nn.Sequential(nn.ReLU(), layer, norm(dims, channels))


def _separable(dims: int, channels: int, size: int, stride: int = 1) -> nn.Module:
    """Depthwise, then pointwise."""
    depthwise = convolution(dims)(
        channels, channels, size, stride=stride, padding=size // 2, groups=channels, bias=False
    )
    return nn.Sequential(
        nn.ReLU(), depthwise, convolution(dims)(channels, channels, 1, bias=False), norm(dims, channels)
    )


def _depthwise(dims: int, channels: int, size: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        Depthwise(dims, channels, size),
        convolution(dims)(channels, channels, 1, bias=False),
        norm(dims, channels),
    )


def _factorised(dims: int, channels: int) -> nn.Module:
    """3 x 3 across the first axis, mixing channels, then depthwise 3 along it; in two dimensions 1 x 3, then 3 x 1.

    If both mixed channels, a network with fewer channels would not be contained in one with more.
    """
    make: Any = convolution(dims)
    rest = dims - 1
    across = make(channels, channels, (1, *[3] * rest), padding=(0, *[1] * rest), bias=False)
    along = make(channels, channels, (3, *[1] * rest), padding=(1, *[0] * rest), groups=channels, bias=False)
    return nn.Sequential(nn.ReLU(), across, along, norm(dims, channels))


def _pool(dims: int, channels: int, largest: bool, stride: int = 1) -> nn.Module:
    return nn.Sequential(Pool(dims, largest, stride), norm(dims, channels))


def _pointwise(dims: int, before: Sequence[nn.Module], channels: int, factor: int = 1) -> nn.Module:
    """Some layers without weights, then a pointwise convolution that takes `factor` times the channels."""
    return nn.Sequential(
        nn.ReLU(), *before, convolution(dims)(channels * factor, channels, 1, bias=False), norm(dims, channels)
    )


def _transposed(dims: int, channels: int, separable: bool) -> nn.Module:
    make = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
    groups = channels if separable else 1
    up = make(channels, channels, 2, stride=2, groups=groups, bias=False)
    mix = [convolution(dims)(channels, channels, 1, bias=False)] if separable else []
    return nn.Sequential(nn.ReLU(), up, *mix, norm(dims, channels))


def _sub_pixel(dims: int, channels: int) -> nn.Module:
    grow = convolution(dims)(channels, channels * 2**dims, 1, bias=False)
    return nn.Sequential(nn.ReLU(), grow, DepthToSpace(), norm(dims, channels))


def _linear(dims: int, channels: int) -> nn.Module:
    """Mixes channels before enlarging: the two steps commute, and this order is cheaper."""
    return nn.Sequential(
        nn.ReLU(), convolution(dims)(channels, channels, 1, bias=False), Upsample(), norm(dims, channels)
    )


@dataclass(frozen=True)
class Operation:
    """How to build an operation for (dims, channels), and what it does to the resolution."""

    build: Callable[[int, int], nn.Module]
    resampling: Resampling = "same"
    learns: bool = True  # whether it has weights


OPERATIONS: dict[str, Operation] = {
    # At the same resolution.
    "zero": Operation(lambda dims, channels: Zero(), learns=False),
    "identity": Operation(lambda dims, channels: nn.Identity(), learns=False),
    "conv3": Operation(lambda dims, channels: _conv(dims, channels)),
    "sep3": Operation(lambda dims, channels: _separable(dims, channels, 3)),
    "sep5": Operation(lambda dims, channels: _separable(dims, channels, 5)),
    "dil3": Operation(lambda dims, channels: _conv(dims, channels, dilation=2)),
    "dil3_wide": Operation(lambda dims, channels: _conv(dims, channels, dilation=3)),
    "group3": Operation(lambda dims, channels: _conv(dims, channels, groups=max(1, channels // _GROUP))),
    "factor3": Operation(_factorised),
    "depth3": Operation(lambda dims, channels: _depthwise(dims, channels, 3)),
    "depth5": Operation(lambda dims, channels: _depthwise(dims, channels, 5)),
    "depth7": Operation(lambda dims, channels: _depthwise(dims, channels, _LARGEST_DEPTHWISE)),
    "avg3": Operation(lambda dims, channels: _pool(dims, channels, largest=False), learns=False),
    "max3": Operation(lambda dims, channels: _pool(dims, channels, largest=True), learns=False),
    "squeeze": Operation(SqueezeExcite),
    "gate": Operation(SpatialGate),
    # To half the resolution.
    "down_max": Operation(lambda dims, channels: _pool(dims, channels, True, stride=2), "down", learns=False),
    "down_avg": Operation(lambda dims, channels: _pool(dims, channels, False, stride=2), "down", learns=False),
    "down_conv3": Operation(lambda dims, channels: _conv(dims, channels, stride=2), "down"),
    "down_sep3": Operation(lambda dims, channels: _separable(dims, channels, 3, stride=2), "down"),
    "down_dil3": Operation(lambda dims, channels: _conv(dims, channels, stride=2, dilation=2), "down"),
    "down_shuffle": Operation(lambda dims, channels: _pointwise(dims, [SpaceToDepth()], channels, 2**dims), "down"),
    "down_blur": Operation(lambda dims, channels: _pointwise(dims, [Blur(dims)], channels), "down"),
    # To twice the resolution.
    "up_linear": Operation(_linear, "up"),
    "up_transposed": Operation(lambda dims, channels: _transposed(dims, channels, separable=False), "up"),
    "up_sep_transposed": Operation(lambda dims, channels: _transposed(dims, channels, separable=True), "up"),
    "up_shuffle": Operation(_sub_pixel, "up"),
    "up_linear_depth": Operation(lambda dims, channels: nn.Sequential(Upsample(), _depthwise(dims, channels, 3)), "up"),
}


def entangle(operations: Sequence[nn.Module]) -> None:
    """Make the depthwise convolutions among the operations of one edge share one kernel, the largest of them.

    They then train each other, because each of them uses the middle of that kernel.
    """
    found = [layer for operation in operations for layer in operation.modules() if isinstance(layer, Depthwise)]
    if len(found) < 2:
        return
    largest = max(found, key=lambda layer: layer.size)
    for layer in found:
        layer.kernel = largest.kernel
