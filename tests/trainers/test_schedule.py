"""SCHEDULES: what the learning rate is at each step, and that a branch leaves no trace on its trunk."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from trainings import CONFIG, go_on, small_fit, small_network

from trainers.fit import Fit, FitConfig
from trainers.schedule import SCHEDULES

TRUNK = CONFIG.model_copy(
    update={"schedule": "warmup-stable-decay", "warm_up_steps": 4, "cooldown": 0.25, "learning_rate": 0.1}
)


def rates(fit: Fit, run: str, until: int) -> list[float]:
    """The learning rates of the steps up to `until`."""
    found: list[float] = []
    optimiser = fit._optimiser.optimizer
    hook = optimiser.register_step_pre_hook(lambda *_: found.append(optimiser.param_groups[0]["lr"]))
    getattr(fit, run)(until, go_on)
    hook.remove()
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_is_scored_is_trained_at_a_rate_that_has_risen_and_has_fallen_again(schedule: str) -> None:
    fit = small_fit(CONFIG.model_copy(update={"schedule": schedule, "warm_up_steps": 3, "steps": 20}))
    found = rates(fit, "run", fit.branches_at(20)) + rates(fit, "cool_down", 20)
    highest = found.index(max(found))
    assert len(found) == 20
    assert max(found) == pytest.approx(CONFIG.learning_rate, rel=0.05)  # one-cycle's peak lies between two steps
    assert found[: highest + 1] == sorted(found[: highest + 1])
    assert found[highest:] == sorted(found[highest:], reverse=True)
    assert found[-1] < 0.15 * CONFIG.learning_rate


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_training_stopped_at_any_step_goes_on_at_the_same_rates(schedule: str, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"schedule": schedule, "warm_up_steps": 3, "cooldown": 0.5})
    unbroken = small_fit(config)
    wanted = rates(unbroken, "run", unbroken.branches_at(6)) + rates(unbroken, "cool_down", 6)
    for stop in range(1, 6):
        first = small_fit(config)
        first.run(min(stop, first.branches_at(6)), go_on)
        if first.step < stop:
            first.cool_down(6, lambda step, _, stop=stop: step < stop)
        first.save(tmp_path / str(stop))
        second = small_fit(config)
        second.resume(tmp_path / str(stop))
        assert second.step == stop
        assert rates(second, "run", second.branches_at(6)) + rates(second, "cool_down", 6) == wanted[stop:]


def test_the_rate_rises_and_stays() -> None:
    assert rates(small_fit(TRUNK), "run", 7) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1])


def test_a_branch_takes_its_share_of_the_steps_and_falls_by_the_root() -> None:
    fit = small_fit(TRUNK)
    assert fit.branches_at(12) == 9
    fit.run(9, go_on)
    # 1 - sqrt(1/4), 1 - sqrt(2/4), 1 - sqrt(3/4)
    assert rates(fit, "cool_down", 12) == pytest.approx([0.05, 0.0292893, 0.0133975], rel=1e-5)


def test_the_shortest_branch_is_one_step() -> None:
    fit = small_fit(TRUNK)
    assert fit.branches_at(1) == 0
    assert rates(fit, "cool_down", 1) == pytest.approx([0.025 * (1 - 0.5**0.5)])


def test_a_branch_that_leaves_the_warm_up_falls_from_the_rate_there() -> None:
    fit = small_fit(TRUNK.model_copy(update={"warm_up_steps": 100, "cooldown": 0.5}))
    fit.run(2, go_on)
    assert rates(fit, "cool_down", 4) == pytest.approx([0.003 * (1 - (1 / 3) ** 0.5), 0.004 * (1 - (2 / 3) ** 0.5)])


def test_a_trunk_with_branches_equals_one_without(tmp_path: Path) -> None:
    plain = small_fit(TRUNK)
    plain.run(9, go_on)

    branched = small_fit(TRUNK)
    for rung in (4, 8):
        branched.run(branched.branches_at(rung), go_on)
        branched.save(tmp_path)
        branched.cool_down(rung, go_on)
        branched.resume(tmp_path)
    assert branched.step == 6
    assert rates(branched, "run", 9) == pytest.approx([0.1] * 3)

    for name, value in plain.averaged.state_dict().items():
        assert torch.equal(value, branched.averaged.state_dict()[name]), name


def test_a_branch_resumed_in_its_middle_equals_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = small_fit(TRUNK)
    unbroken.run(9, go_on)
    unbroken.cool_down(12, go_on)

    first = small_fit(TRUNK)
    first.run(9, go_on)
    assert not first.cool_down(12, lambda step, _: step < 10)
    first.save(tmp_path)
    second = small_fit(TRUNK, network=small_network(seed=7))
    second.resume(tmp_path)
    second.cool_down(12, go_on)

    for name, value in unbroken.averaged.state_dict().items():
        assert torch.equal(value, second.averaged.state_dict()[name]), name


def test_one_training_can_be_scored_at_lengths_that_were_not_planned() -> None:
    found = []
    for steps in (12, 500):
        fit = small_fit(TRUNK.model_copy(update={"steps": steps}))
        fit.run(9, go_on)
        fit.cool_down(12, go_on)
        found.append(list(fit.averaged.state_dict().values()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_branch_elsewhere_on_the_trunk_is_a_mistake_of_ours() -> None:
    fit = small_fit(TRUNK)
    with pytest.raises(ValueError, match="step 0 is not between 9 and 12"):
        fit.cool_down(12, go_on)


def test_one_cycle_falls_by_itself() -> None:
    fit = small_fit(CONFIG.model_copy(update={"schedule": "one-cycle"}))
    assert fit.branches_at(6) == 6
    assert rates(fit, "run", 6)[-1] < 0.1 * CONFIG.learning_rate
    assert rates(fit, "cool_down", 6) == []


def test_an_unknown_schedule_names_the_known_ones() -> None:
    with pytest.raises(ValidationError, match=r"unknown schedule 'wsd'.*one-cycle"):
        FitConfig(schedule="wsd")


@pytest.mark.parametrize("cooldown", [0.01, 0.2, 0.5, 0.9])
def test_where_a_branch_ends_follows_from_where_it_begins(cooldown: float) -> None:
    fit = small_fit(TRUNK.model_copy(update={"cooldown": cooldown}))
    assert all(fit.branches_at(fit.cooled_after(begin)) == begin for begin in range(1, 200))
