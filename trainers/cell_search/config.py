"""CellSearchConfig: every number of cell search, with its meaning and where it comes from."""

from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_serializer,
    field_validator,
    model_validator,
)

from search_spaces.any_candidate import read_candidate
from search_spaces.cells.candidate import CellCandidate
from search_spaces.cells.cell_space import FRAMES
from search_spaces.errors import unknown_name
from trainers.losses.sparse import SparseWeights

_LIKE_DARTS: dict[str, Any] = {
    "warm_up": 0.0,
    "optimiser": "sgd",
    "learning_rate": 0.025,
    "weight_decay": 3e-4,
    "alpha_learning_rate": 3e-4,
    "floor": 0.0,
    "aux_skip": 0.0,
    "entropy_weight": 0.0,
    "cost_weight": 0.0,
    "shrink_every": None,
}
# What the named algorithms set. Of SCNAS (Kim et al. 2019, arXiv 1906.05956) only the principle is public: a stochastic
# sampling of a relaxed, bi-level search. The numbers under "scnas" are those of DARTS (arXiv 1806.09055) and of GDAS
# (arXiv 1910.04465), not the paper's.
ALGORITHMS: dict[str, dict[str, Any]] = {
    "scnas-x": {},  # the defaults below
    "scnas": {**_LIKE_DARTS, "estimator": "one-path", "weight_paths": "one-path"},
    "darts": {**_LIKE_DARTS, "estimator": "mixture", "weight_paths": "mixture"},
}


_CAN_BE_OFF = ("gradient_clip", "alpha_clip", "shrink_every")


class Supernets(BaseModel, frozen=True, extra="forbid"):
    """The supernets of one family: a class of crops each, and the network around their cells."""

    crops: tuple[PositiveInt, ...] = Field(min_length=1)  # edges of the patches; a trial uses the nearest one's cells
    batch_size: PositiveInt = 4  # patches a step
    # What differs from the family's default candidate; half the width of what is trained afterwards is usual in DARTS.
    candidate: dict[str, Any] = Field(default_factory=dict)


_SUPERNETS = {
    "cells": Supernets(crops=(64,), batch_size=2),
    "hybrid": Supernets(crops=(128,), candidate={"slices_in": 3}),
}


class CellSearchConfig(SparseWeights, frozen=True, extra="forbid"):
    """How weights and alphas of a supernet are learned. `algorithm` sets what the file does not.

    DARTS: Liu et al. 2019, arXiv 1806.09055. GDAS: Dong and Yang 2019, arXiv 1910.04465. "ours": chosen on phantoms.
    """

    algorithm: str = "scnas-x"  # a name in ALGORITHMS
    steps: PositiveInt = 2_000  # optimiser steps of the weights, the warm-up included; ours
    warm_up: float = Field(default=0.4, ge=0, lt=1)  # share of the steps before alphas move; DiNTS uses 0.5
    alpha_every: PositiveInt = 1  # weight steps for each alpha step; DARTS: 1
    supernets: dict[str, Supernets] = Field(default_factory=lambda: dict(_SUPERNETS))  # by family with cells
    loss: str = "dice + bce"  # of weights and alphas alike
    vessel_share: float = Field(default=0.75, ge=0, le=1)  # share of samples placed around a vessel
    # Edge of the voxels that cells are searched on, or as scanned. None: what the recipe trains networks on.
    voxel_size_um: PositiveFloat | Literal["scanned"] | None = None
    augmentation: str = "flips"  # a name in AUGMENTATIONS, perhaps without parts, as in the section fit

    # Weights.
    weight_paths: str = "sampled"  # how paths are drawn for weight steps: a name in ESTIMATORS; sampled: one path
    optimiser: str = Field(default="adamw", pattern="^(adamw|sgd)$")  # DARTS: sgd, with momentum 0.9
    learning_rate: PositiveFloat = 3e-3  # the peak; falls to 0 as a cosine (DARTS: 0.025 with sgd)
    weight_decay: NonNegativeFloat = 0.01  # DARTS: 3e-4 with sgd
    gradient_clip: PositiveFloat | None = 5.0  # DARTS: 5

    # Alphas.
    estimator: str = "two-path"  # how the gradient of alphas is found: a name in ESTIMATORS
    alpha_learning_rate: PositiveFloat = 0.02  # Adam, betas 0.5 and 0.999 (DARTS, which takes 3e-4 over 20,000 steps)
    alpha_weight_decay: NonNegativeFloat = 1e-3  # DARTS
    alpha_clip: PositiveFloat | None = 0.5  # DiNTS, as shipped with MONAI
    tau: tuple[PositiveFloat, PositiveFloat] = (10.0, 0.1)  # temperature at the start and at the end; GDAS
    floor: float = Field(default=0.02, ge=0, lt=0.5)  # smallest probability of an option, falls to 0; ours
    aux_skip: float = Field(default=1.0, ge=0)  # beside every mixed operation, falls to 0; DARTS- (arXiv 2009.01027)
    entropy_weight: NonNegativeFloat = 0.05  # of the alphas' entropy, rises from 0; ours
    cost_weight: NonNegativeFloat = 0.1  # of log(expected seconds / budget) where that is positive; ours
    cost_budget: PositiveFloat = 1.0  # times the seconds of the mean network of the space
    shrink_every: PositiveInt | None = 100  # alpha steps between looks; None never drops an option
    shrink_divergence: PositiveFloat = 0.01  # Jensen-Shannon, in bits, under which alphas have settled; ours
    shrink_below: float = Field(default=0.05, ge=0, lt=0.5)  # of the likeliest: options less likely than that go; ours

    # What becomes trials.
    perturbations: NonNegativeInt = 2  # genotypes whose every option the supernet does best with
    perturbation_paths: PositiveInt = 4  # networks, each with a batch of its own, that judge an option
    samples: NonNegativeInt = 1  # genotypes drawn from the alphas
    randoms: NonNegativeInt = 2  # random genotypes of equal cost, to compare with

    @field_validator("supernets", mode="before")
    @classmethod
    def _usual_ones(cls, given: Any) -> Any:
        """A family that is not named keeps its default."""
        return {**_SUPERNETS, **given} if isinstance(given, dict) else given

    @field_validator("supernets")
    @classmethod
    def _candidates_exist(cls, supernets: dict[str, Supernets]) -> dict[str, Supernets]:
        for family, supernet in supernets.items():
            _supernet_candidate(family, supernet)
        return supernets

    def supernet_candidate(self, family: str) -> CellCandidate:
        """Slices, width and encoder of a family's supernets; its genotype is none of the search's."""
        return _supernet_candidate(family, self.supernets[family])

    @model_validator(mode="before")
    @classmethod
    def _as_the_algorithm_says(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        name = values.get("algorithm", "scnas-x")
        if name not in ALGORITHMS:
            raise unknown_name("algorithm", str(name), ALGORITHMS)
        # "none" is written out: a key that is left out means what the algorithm says.
        off = {key: None for key in _CAN_BE_OFF if values.get(key) == "none"}
        return {**ALGORITHMS[name], **values, **off}

    @field_serializer(*_CAN_BE_OFF, when_used="json")
    def _say_none(self, value: Any) -> Any:
        return "none" if value is None else value


def _supernet_candidate(family: str, supernet: Supernets) -> CellCandidate:
    if family not in FRAMES:
        raise unknown_name("family with cells", family, FRAMES)
    for key in ("family", "genotype"):
        if key in supernet.candidate:
            raise ValueError(f"{family}.candidate names a {key}, which is no choice here: take it out")
    candidate = read_candidate({"family": family, "genotype": "plain", **supernet.candidate})
    assert isinstance(candidate, CellCandidate)
    return candidate
