"""Timer: a training ends when its time is over, also if its steps change what they cost."""

import pytest

from nas.jobs import clock
from nas.jobs.clock import Timer

COOLDOWN = 0.2


def branches_at(until: int) -> int:
    return until - max(1, round(COOLDOWN * until))


class Machine:
    """Time that passes with steps alone."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(clock.time, "monotonic", found.monotonic)
    return found


def trained(machine: Machine, seconds: float, costs: tuple[float, float], change_at: float = 0.5) -> tuple[float, int]:
    """What a training took in all, and its steps; costs: of a step before and after a share of the time."""
    timer, began, step = Timer(seconds, branches_at), machine.now, 0

    def cost() -> float:
        return costs[machine.now - began > change_at * seconds]

    while True:
        machine.now += cost() + (1.0 if step == 0 else 0.0)  # the first step warms up
        step += 1
        if timer.is_time(step):
            break
    last = step
    while branches_at(last) < step:
        last += 1
    for _ in range(last - step):
        machine.now += cost()
    return machine.now - began, last


@pytest.mark.parametrize("seconds", [20.0, 900.0])
def test_a_training_of_even_steps_keeps_to_its_time(machine: Machine, seconds: float) -> None:
    took, steps = trained(machine, seconds, (0.1, 0.1))
    assert took == pytest.approx(seconds, rel=0.02)
    assert steps == pytest.approx(10 * (seconds - 1), rel=0.02)


@pytest.mark.parametrize("after", [0.07, 0.14])
def test_steps_that_become_cheaper_or_dearer_change_the_number_of_steps_and_not_the_time(
    machine: Machine, after: float
) -> None:
    took, _ = trained(machine, 900.0, (0.1, after))
    assert took == pytest.approx(900.0, rel=0.1)


def test_no_time_is_two_steps(machine: Machine) -> None:
    assert trained(machine, 0.0, (0.1, 0.1))[1] == 2
