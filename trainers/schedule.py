"""The learning rate of a training, by step: SCHEDULES.

`warmup-stable-decay` (Hägele et al., arXiv 2405.18392), the default, has a trunk without a planned end: the rate rises
for a few steps and then stays. A network to be scored or exported is taken from the end of a short branch, in which the
rate falls to 0. The trunk then goes on from where the branch left it, so one training can be scored at many lengths.

`one-cycle` (Smith and Topin, arXiv 1708.07120) rises and falls once over a length that is known from the start.
"""

import math
from typing import Annotated

import torch
from pydantic import AfterValidator, BaseModel, Field, PositiveInt
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from search_spaces.errors import unknown_name


def check_schedule(name: str) -> str:
    """The name of a schedule. Raises ValueError for an unknown one."""
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    return name


class ScheduleConfig(BaseModel, frozen=True, extra="forbid"):
    """How the learning rate goes up and down."""

    schedule: Annotated[str, AfterValidator(check_schedule)] = "warmup-stable-decay"  # a name in SCHEDULES
    warm_up: float = Field(default=0.3, gt=0, lt=1)  # one-cycle: share of the steps in which the learning rate rises
    # warmup-stable-decay: steps in which the learning rate rises; a number, because a trunk has no planned end.
    warm_up_steps: PositiveInt = 100
    # warmup-stable-decay: share of the steps, up to where a network is scored, in which the rate falls.
    cooldown: float = Field(default=0.2, gt=0, lt=1)


def branch_begins(config: ScheduleConfig, until: int) -> int:
    """The step at which the branch that ends at step `until` leaves the trunk, at least one step before."""
    return until - max(1, round(config.cooldown * until))


class OneCycle:
    """Up to the peak in the first share of the steps, and down to almost 0 in the rest."""

    branches = False  # whether a training can be scored anywhere and go on

    def __init__(self, config: ScheduleConfig, optimiser: torch.optim.Optimizer, steps: int, peak: float) -> None:
        # One step more, so that the last one still has a learning rate.
        self.torch: LRScheduler = OneCycleLR(optimiser, peak, total_steps=steps + 1, pct_start=config.warm_up)

    def branches_at(self, until: int) -> int:
        """The same step: the rate falls by itself, once, so there is no branch."""
        return until

    def cooled_after(self, begin: int) -> int:
        """The same step."""
        return begin

    def stay(self) -> None:
        """Nothing: it has no trunk."""

    def fall(self, begin: int, until: int, now: int) -> None:
        """Nothing: it has no branch."""


class WarmupStableDecay:
    """Up to the peak in a number of steps, then at the peak; in a branch, down to 0 as 1 - sqrt."""

    branches = True

    def __init__(self, config: ScheduleConfig, optimiser: torch.optim.Optimizer, steps: int, peak: float) -> None:
        self._config = config
        self._branch: tuple[int, int] | None = None  # the step at which it begins, and that at which it ends
        self.torch: LRScheduler = LambdaLR(optimiser, self._share_of_peak)

    def branches_at(self, until: int) -> int:
        """The step at which the branch that ends at step `until` leaves the trunk; at least one step before."""
        return branch_begins(self._config, until)

    def cooled_after(self, begin: int) -> int:
        """The last step of a branch that begins at this step: the inverse of `branches_at`."""
        until = begin + 1
        while self.branches_at(until) < begin:
            until += max(1, begin - self.branches_at(until))
        return until

    def stay(self) -> None:
        """Follow the trunk from the next step on."""
        self._branch = None

    def fall(self, begin: int, until: int, now: int) -> None:
        """Follow the branch from step `begin` to step `until`, after which the rate would be 0; `now` lies in it."""
        self._branch = (begin, until)
        for group, peak in zip(self.torch.optimizer.param_groups, self.torch.base_lrs, strict=True):
            group["lr"] = peak * self._share_of_peak(now)

    def _share_of_peak(self, step: int) -> float:
        """The rate of the step that comes after `step` others."""
        risen = min(1.0, (step + 1) / self._config.warm_up_steps)
        if self._branch is None:
            return risen
        begin, until = self._branch
        return risen * (1 - math.sqrt(min(1.0, (step - begin + 1) / (until - begin + 1))))


Schedule = OneCycle | WarmupStableDecay
SCHEDULES: dict[str, type[OneCycle] | type[WarmupStableDecay]] = {
    "one-cycle": OneCycle,
    "warmup-stable-decay": WarmupStableDecay,
}
