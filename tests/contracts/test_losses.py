"""Every loss in the table: lowest for the right answer, higher for a worse one, with a correct gradient."""

import math

import pytest
import torch
from torch import Tensor

from search_spaces.errors import InputError
from trainers.losses.losses import LOSSES, build_loss

EVERY_LOSS = [*LOSSES, "dice + 0.5*focal"]

# Logit 0 (probability 1/2) everywhere, one voxel of four is vessel: 0.5 true positives, 1.5 false ones, 0.5 missed.
BY_HAND = {
    "bce": math.log(2),
    "boundary_dou": (2 + 1 - 2 * 0.5) / (2 + 1),  # the vessel voxel is border, so alpha is -1
    # No skeleton in even probabilities; of the target's, one voxel, half is found: shares (0 + 1) / (0 + 1), 1.5 / 2.
    "cldice": 1 - 2 * 1.0 * 0.75 / (1.0 + 0.75),
    "edge_bce": math.log(2),
    "focal": 0.5**2 * math.log(2),
    "dice": 1 - 2 * 0.5 / (2 + 1),
    "jaccard": 1 - 0.5 / (2 + 1 - 0.5),
    "tversky": 1 - 0.5 / (0.5 + 0.3 * 1.5 + 0.7 * 0.5),
    "lovasz": 1.0,  # every margin error is 1, and the weights of all voxels together are the Jaccard loss of 1
}


def target() -> Tensor:
    values = torch.zeros(2, 3, 8, 8)
    values[:, :, 2:5, 3:6] = 1
    return values


def logits_of(confidence: float) -> Tensor:
    return confidence * (2 * target() - 1)


def test_every_value_is_computed_by_hand_here_or_with_its_loss() -> None:
    assert LOSSES.keys() - BY_HAND.keys() == {"surface_cubes"}  # tests/trainers/test_cube_loss.py


@pytest.mark.parametrize("name", BY_HAND)
def test_the_value_is_the_one_computed_by_hand(name: str) -> None:
    one_of_four = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert build_loss(name)(torch.zeros(1, 1, 2, 2), one_of_four).item() == pytest.approx(BY_HAND[name], abs=1e-6)


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_the_right_answer_costs_nothing(name: str) -> None:
    assert 0 <= build_loss(name)(logits_of(20.0), target()).item() < 1e-5


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_a_worse_answer_costs_more(name: str) -> None:
    # The surface of the inverse is the target's: the surer of it, the better surface_cubes likes that part.
    confidences = (3.0, 0.9, -0.9) if name == "surface_cubes" else (3.0, 0.9, -0.9, -3.0)
    values = [build_loss(name)(logits_of(confidence), target()).item() for confidence in confidences]
    assert values == sorted(values)
    assert len(set(values)) == len(confidences)


@pytest.mark.parametrize("name", EVERY_LOSS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("scale", [1.0, 80.0])
def test_the_gradient_is_finite_for_any_target_and_any_logit(name: str, share: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (scale * torch.randn(2, 2, 8, 8, generator=generator)).requires_grad_()
    targets = (torch.rand(2, 2, 8, 8, generator=generator) < share).float()
    loss = build_loss(name)(logits, targets)
    loss.backward()
    assert logits.grad is not None
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", [name for name in EVERY_LOSS if name != "lovasz"])  # smp's lovasz is float32 only
def test_the_gradient_equals_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 2, 3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    targets = (torch.rand(2, 2, 3, 4, generator=generator) < 0.4).double()
    assert torch.autograd.gradcheck(build_loss(name), (logits, targets))


def test_the_gradient_of_lovasz_equals_finite_differences_between_its_kinks() -> None:
    logits = torch.tensor([0.1, -0.7, 0.4, 0.6]).reshape(1, 1, 2, 2).requires_grad_()
    targets = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    loss = build_loss("lovasz")
    (gradient,) = torch.autograd.grad(loss(logits, targets), logits)
    for index in range(4):
        step = torch.zeros(4).index_fill_(0, torch.tensor(index), 1e-2).reshape(1, 1, 2, 2)
        slope = (loss(logits + step, targets) - loss(logits - step, targets)) / 2e-2
        assert slope.item() == pytest.approx(gradient.flatten()[index].item(), abs=1e-4)


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "boundary_dou"])
def test_region_losses_are_zero_for_a_batch_without_vessels(name: str) -> None:
    logits = torch.ones(1, 1, 4, 4, requires_grad=True)
    loss = build_loss(name)(logits, torch.zeros(1, 1, 4, 4))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(1, 1, 4, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_half_precision_logits_do_not_overflow(name: str) -> None:
    # 200 000 vessel voxels: three times the largest half precision number.
    logits, targets = torch.full((1, 2, 400, 500), 2.0), torch.ones(1, 2, 400, 500)
    half = build_loss(name)(logits.half(), targets.half())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(build_loss(name)(logits, targets).item(), rel=1e-3)


def test_a_sum_adds_its_weighted_terms() -> None:
    logits, targets = logits_of(0.3), target()
    parts = build_loss("dice")(logits, targets) + 0.5 * build_loss("focal")(logits, targets)
    assert build_loss("dice + 0.5*focal")(logits, targets).item() == pytest.approx(parts.item(), rel=1e-6)
    assert build_loss(" 0.5 * focal+dice ")(logits, targets).item() == pytest.approx(parts.item(), rel=1e-6)
    assert build_loss("1e-1*bce")(logits, targets).item() == pytest.approx(
        0.1 * build_loss("bce")(logits, targets).item(), rel=1e-6
    )


def test_targets_of_another_shape_are_not_flattened_away() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        build_loss("dice")(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dise", "unknown loss 'dise'; did you mean 'dice' or 'cldice'?"),
        ("dice + fokal", "unknown loss 'fokal'; did you mean 'focal'?"),
        ("", "not a sum like"),
        ("dice +", "not a sum like"),
        ("dice - focal", "'dice - focal' is not a term"),
        ("dice * 0.5", "not a sum like"),
        ("-1*dice", "not a sum like"),
        ("0*dice", "a weight is a positive number"),
        ("1.2.3*dice", "a weight is a positive number"),
        ("dice + 2*dice", "names 'dice' twice"),
    ],
)
def test_a_text_that_is_not_a_sum_of_losses_gets_one_line_that_names_it(spec: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        build_loss(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
