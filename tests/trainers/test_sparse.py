"""Sparse labels: unsure background counts as much as the recipe says, in every loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kidneys import tube
from torch import Tensor, nn

from trainers.data.patches import PatchSampler
from trainers.data.unsure import UNSURE
from trainers.fit import Fit, FitConfig, make_accelerator
from trainers.losses.losses import LOSSES, build_loss
from trainers.losses.sparse import lessened, weigh_unsure

EVERY_LOSS = [*LOSSES, "dice + 0.5*focal"]


def sparse_target() -> Tensor:
    """One labelled vessel at the left; all voxels at the right are unsure."""
    target = torch.zeros(2, 3, 8, 8)
    target[:, :, 2:5, 1:3] = 1
    target[..., 4:] = UNSURE
    return target


def some_logits(seed: int) -> Tensor:
    return 3 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def loss_and_gradient(name: str, logits: Tensor, target: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    loss = build_loss(name, weight)(leaf, target)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_at_weight_0_no_loss_depends_on_what_a_network_says_of_unsure_voxels(name: str) -> None:
    target, logits = sparse_target(), some_logits(0)
    other = torch.where(target < 0, some_logits(1), logits)
    loss, gradient = loss_and_gradient(name, logits, target, 0.0)
    other_loss, other_gradient = loss_and_gradient(name, other, target, 0.0)
    assert torch.equal(loss, other_loss)
    assert torch.equal(gradient, other_gradient)
    assert torch.equal(gradient[target < 0], torch.zeros_like(gradient[target < 0]))
    assert gradient[target >= 0].abs().max() > 0


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_at_weight_1_unsure_background_is_background_bit_for_bit(name: str) -> None:
    target, logits = sparse_target(), some_logits(0)
    marked, plain = (loss_and_gradient(name, logits, t, 1.0) for t in (target, target.clamp(min=0)))
    assert torch.equal(marked[0], plain[0])
    assert torch.equal(marked[1], plain[1])


@pytest.mark.parametrize("name", EVERY_LOSS)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_where_all_is_sure_no_weight_changes_a_bit(name: str, weight: float) -> None:
    target, logits = sparse_target().clamp(min=0), some_logits(0)
    weighed, plain = (loss_and_gradient(name, logits, target, w) for w in (weight, 1.0))
    assert torch.equal(weighed[0], plain[0])
    assert torch.equal(weighed[1], plain[1])


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_a_false_alarm_in_unsure_background_costs_less_the_less_it_weighs(name: str) -> None:
    target = sparse_target()
    logits = 4 * (2 * target.clamp(min=0) - 1)
    logits[:, :, 3:6, 5:7] = 2.0  # a vessel that nobody labelled
    values = [loss_and_gradient(name, logits, target, weight)[0].item() for weight in (0.0, 0.1, 0.5, 1.0)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_cross_entropy_of_an_unsure_voxel_is_the_weight_times_that_of_a_sure_one() -> None:
    logits = torch.tensor([-60.0, -21.0, -19.0, -3.0, 0.0, 3.0, 60.0], dtype=torch.float64).reshape(1, 1, 1, 7)
    loss, gradient = loss_and_gradient("bce", logits, torch.full_like(logits, UNSURE), 0.25)
    sure_loss, sure_gradient = loss_and_gradient("bce", logits, torch.zeros_like(logits), 1.0)
    assert loss.item() == pytest.approx(0.25 * sure_loss.item(), rel=1e-8)
    torch.testing.assert_close(gradient, 0.25 * sure_gradient, rtol=1e-8, atol=1e-12)


def test_an_even_chance_at_half_weight_is_one_minus_the_root_of_a_half() -> None:
    assert lessened(torch.zeros(1), 0.5).sigmoid().item() == pytest.approx(1 - 0.5**0.5, rel=1e-6)


@pytest.mark.parametrize("weight", [1e-6, 0.3, 0.999])
def test_no_logit_is_too_large_to_be_weighed(weight: float) -> None:
    logits = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4]).requires_grad_()
    weighed, targets = weigh_unsure(logits, torch.full((7,), UNSURE), weight)
    (gradient,) = torch.autograd.grad(weighed.sum(), logits)
    assert torch.isfinite(weighed).all()
    assert torch.isfinite(gradient).all()
    assert (weighed.diff() > 0).all()
    assert torch.equal(targets, torch.zeros(7))


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_soft_targets_pull_towards_them(name: str) -> None:
    target = torch.full((2, 3, 8, 8), 0.1)
    target[:, :, 2:5, 3:6] = 0.8
    right, wrong = (6 * (target - 0.45) * sign for sign in (1, -1))
    loss, gradient = loss_and_gradient(name, right, target, 1.0)
    assert torch.isfinite(gradient).all()
    assert loss < loss_and_gradient(name, wrong, target, 1.0)[0]


class _Voxelwise(nn.Module):
    """Logits that say bright or dark, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([-1.0]))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * (images[:, :1] - 0.5)


@pytest.mark.parametrize(("weight", "untouched"), [(0.0, True), (0.3, False), (1.0, False)])
def test_a_training_is_not_punished_for_a_vessel_that_nobody_labelled(weight: float, untouched: bool) -> None:
    # A volume whose labels hold nothing: all that it says is background, and all of that is unsure.
    whole = tube("a")
    bare = replace(whole, label=np.zeros_like(whole.label), annotated=0.0, vessel_voxels=np.zeros(0, np.int64))
    config = FitConfig(
        steps=2, crop=16, batch_size=2, loss="bce", augmentation="none", vessel_share=0.0, weight_decay=0.0,
        sparse_background=weight,
    )  # fmt: skip
    network = _Voxelwise()
    fit = Fit(network, PatchSampler([bare], 1, 1, 16, 0.0, seed=0), config, 0, make_accelerator("float32", "cpu"))
    fit.run(2, lambda _step, _loss: True)
    assert (network.scale.item() == -1.0) == untouched


def test_weight_1_trains_the_weights_of_a_volume_that_is_called_complete() -> None:
    def trained(annotated: float) -> Tensor:
        volume = replace(tube("a"), annotated=annotated)
        config = FitConfig(steps=3, crop=16, batch_size=2, loss="dice + bce", augmentation="flips", sparse_background=1)
        torch.manual_seed(0)
        network = nn.Conv2d(3, 1, 3, padding=1)
        fit = Fit(network, PatchSampler([volume], 3, 1, 16, 0.5, seed=0), config, 0, make_accelerator("float32", "cpu"))
        fit.run(3, lambda _step, _loss: True)
        return network.weight.detach().clone()

    assert torch.equal(trained(0.5), trained(1.0))
