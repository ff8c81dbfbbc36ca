"""Every operation keeps its channels, changes the resolution as declared, and is part of a wider one."""

import pytest
import torch
from inherit import inherit
from torch import Tensor

from search_spaces.cells.operations import OPERATIONS

FACTOR = {"same": 1.0, "down": 0.5, "up": 2.0}


def image_of(dims: int, channels: int = 8, edge: int = 8) -> Tensor:
    return torch.randn(2, channels, *[edge] * dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_keeps_channels_and_changes_the_resolution_as_it_says(name: str, dims: int) -> None:
    torch.manual_seed(0)
    operation = OPERATIONS[name]
    layer = operation.build(dims, 8).double()
    image = image_of(dims).requires_grad_()
    out = layer(image)
    edge = int(8 * FACTOR[operation.resampling])
    assert out.shape == (2, 8, *[edge] * dims)
    assert torch.isfinite(out).all()
    assert bool(list(layer.parameters())) == operation.learns
    if name != "zero":
        (out * torch.randn_like(out)).sum().backward()
        assert image.grad is not None and image.grad.abs().sum() > 0
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_leading_channels_are_a_narrower_operation(name: str, dims: int) -> None:
    torch.manual_seed(0)
    wide, narrow = OPERATIONS[name].build(dims, 8).double(), OPERATIONS[name].build(dims, 4).double()
    inherit(narrow, wide, dims)
    image = image_of(dims)
    image[:, 4:] = 0.0
    torch.testing.assert_close(wide(image)[:, :4], narrow(image[:, :4]))
    silent = wide(torch.zeros_like(image))
    assert torch.equal(silent, torch.zeros_like(silent))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_runs_on_the_smallest_maps(name: str) -> None:
    layer = OPERATIONS[name].build(3, 4)
    edge = 4 if OPERATIONS[name].resampling == "down" else 2
    assert torch.isfinite(layer(torch.randn(1, 4, edge, edge, edge))).all()


# Of these the channels hold the places, so that a symmetric kernel is not a mirrored one.
SHUFFLES = ("down_shuffle", "up_shuffle")


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in SHUFFLES])
def test_an_operation_does_not_shift_what_it_sees(name: str) -> None:
    """A mirrored image gives the mirrored mean: no operation moves its content by part of a voxel."""
    torch.manual_seed(0)
    operation = OPERATIONS[name]
    layer = operation.build(2, 4).double()
    for parameter in layer.parameters():  # kernels that are themselves symmetric
        if parameter.ndim == 4:
            parameter.data = (parameter + parameter.flip(-1)) / 2
    # Strides keep the first voxel, so that an odd edge is symmetric.
    image = image_of(2, 4, 9 if operation.resampling == "down" else 8)
    torch.testing.assert_close(layer(image.flip(-1)), layer(image).flip(-1))
