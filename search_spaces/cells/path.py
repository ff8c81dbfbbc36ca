"""Path: the options of a supernet that one pass takes, and the weight of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.cells.cell_space import Choice


@dataclass(frozen=True)
class Pick:
    """One option of a decision, by its position. weight: a scalar tensor that carries a gradient, or None for 1."""

    option: int
    weight: Tensor | None = None


@dataclass(frozen=True)
class Path:
    """The picks for every decision. aux_skip: share of its input that every mixed operation adds to its output."""

    picks: Mapping[str, tuple[Pick, ...]]
    aux_skip: float = 0.0

    def __getitem__(self, decision: str) -> tuple[Pick, ...]:
        return self.picks[decision]

    def get(self, decision: str) -> tuple[Pick, ...] | None:
        """The picks for a decision, or None if there is nothing to decide."""
        return self.picks.get(decision)


def plain_path(choice: Choice, aux_skip: float = 0.0) -> Path:
    """The path of one choice, with weight 1 for every option."""
    return Path({key: tuple(Pick(option) for option in options) for key, options in choice.items()}, aux_skip)


def blend(picks: tuple[Pick, ...], value: Callable[[int], Tensor]) -> Tensor:
    """Weighted sum of the values of the picked options."""
    parts = []
    for pick in picks:
        part = value(pick.option)
        parts.append(part if pick.weight is None else part * pick.weight)
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0) if len(parts) > 2 else parts[0] + parts[1]
