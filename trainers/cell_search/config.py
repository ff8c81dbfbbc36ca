"""CellSearchConfig: every number in cell search, with its meaning and source."""

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
from search_spaces.cells.cell_candidate import CellCandidate
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
# The values that the named algorithms set. Only the principle of SCNAS (Kim et al. 2019, arXiv 1906.05956) is public:
# stochastic sampling in a relaxed, bi-level search. The numbers under "scnas" are those of DARTS (arXiv 1806.09055) and
# GDAS (arXiv 1910.04465), not the paper's.
ALGORITHMS: dict[str, dict[str, Any]] = {
    "scnas-x": {},  # the defaults below
    "scnas": {**_LIKE_DARTS, "estimator": "one-path", "weight_paths": "one-path"},
    "darts": {**_LIKE_DARTS, "estimator": "mixture", "weight_paths": "mixture"},
}


_CAN_BE_OFF = ("gradient_clip", "alpha_clip", "shrink_every")


class Supernets(BaseModel, frozen=True, extra="forbid"):
    """The supernets of one family: one for each class of crops, and the network around their cells."""

    # Patch edges in voxels, each with its own supernet; a trial uses the cells found for the nearest one.
    crops: tuple[PositiveInt, ...] = Field(min_length=1)
    batch_size: PositiveInt = 4  # patches per step
    # Fields that differ from the family's default candidate; DARTS usually halves the width used for training later.
    candidate: dict[str, Any] = Field(default_factory=dict)


_SUPERNETS = {
    "cells": Supernets(crops=(64,), batch_size=2),
    "hybrid": Supernets(crops=(128,), candidate={"slices_in": 3}),
}


class CellSearchConfig(SparseWeights, frozen=True, extra="forbid"):
    """How weights and alphas of a supernet are learned. `algorithm` sets the values that the file does not set.

    DARTS: Liu et al. 2019, arXiv 1806.09055. GDAS: Dong and Yang 2019, arXiv 1910.04465. "ours": chosen on phantoms.
    """

    algorithm: str = "scnas-x"  # search algorithm: a name in ALGORITHMS
    steps: PositiveInt = 2_000  # optimiser steps of the weights, including the warm-up; ours
    warm_up: float = Field(default=0.4, ge=0, lt=1)  # share of the steps before alphas change; DiNTS uses 0.5
    alpha_every: PositiveInt = 1  # weight steps per alpha step; DARTS: 1
    supernets: dict[str, Supernets] = Field(default_factory=lambda: dict(_SUPERNETS))  # supernets, by family with cells
    loss: str = "dice + bce"  # loss for both weights and alphas: a sum of names in LOSSES
    vessel_share: float = Field(default=0.75, ge=0, le=1)  # share of samples placed around a vessel
    # Voxel edge in micrometres for cell search, or "scanned"; None: the same as the recipe's.
    voxel_size_um: PositiveFloat | Literal["scanned"] | None = None
    augmentation: str = "flips"  # a name in AUGMENTATIONS, optionally with parts removed, as in section fit

    # Weights.
    weight_paths: str = "sampled"  # how paths are drawn in weight steps: a name in ESTIMATORS; sampled: one path
    optimiser: str = Field(default="adamw", pattern="^(adamw|sgd)$")  # adamw or sgd; DARTS: sgd with momentum 0.9
    learning_rate: PositiveFloat = 3e-3  # initial learning rate, with cosine decay to 0; DARTS: 0.025 with sgd
    weight_decay: NonNegativeFloat = 0.01  # weight decay of the optimiser; DARTS: 3e-4 with sgd
    gradient_clip: PositiveFloat | None = 5.0  # largest norm of the weights' gradient; None: no clipping; DARTS: 5

    # Alphas.
    estimator: str = "two-path"  # how the gradient of alphas is found: a name in ESTIMATORS
    # Learning rate of Adam for the alphas, with betas 0.5 and 0.999 as in DARTS, which uses 3e-4 over 20,000 steps.
    alpha_learning_rate: PositiveFloat = 0.02
    alpha_weight_decay: NonNegativeFloat = 1e-3  # weight decay of the alphas; as in DARTS
    # Largest norm of the alphas' gradient; None: no clipping; as in DiNTS, as shipped with MONAI.
    alpha_clip: PositiveFloat | None = 0.5
    tau: tuple[PositiveFloat, PositiveFloat] = (10.0, 0.1)  # Gumbel temperature at the start and at the end; GDAS
    floor: float = Field(default=0.02, ge=0, lt=0.5)  # smallest probability of an option; falls to 0; ours
    # Weight of the input added to every mixed operation; falls to 0; DARTS- (arXiv 2009.01027).
    aux_skip: float = Field(default=1.0, ge=0)
    entropy_weight: NonNegativeFloat = 0.05  # weight of the alphas' entropy in the loss; rises from 0; ours
    cost_weight: NonNegativeFloat = 0.1  # weight of log(expected seconds / budget) in the loss if positive; ours
    cost_budget: PositiveFloat = 1.0  # budget as a multiple of the seconds of the space's mean network
    shrink_every: PositiveInt | None = 100  # alpha steps between checks for unlikely options; None: never drops any
    shrink_divergence: PositiveFloat = 0.01  # Jensen-Shannon divergence in bits below which alphas are settled; ours
    # Share of the likeliest option's probability; options below this share are dropped; ours.
    shrink_below: float = Field(default=0.05, ge=0, lt=0.5)

    # Genotypes that become trials.
    perturbations: NonNegativeInt = 2  # number of genotypes built from the options with the lowest supernet loss
    perturbation_paths: PositiveInt = 4  # number of networks, each with its own batch, that evaluate an option
    samples: NonNegativeInt = 1  # number of genotypes drawn from the alphas
    randoms: NonNegativeInt = 2  # number of random genotypes of equal cost, for comparison

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
        """Slices, width and encoder of a family's supernets; its genotype is not a result of the search."""
        return _supernet_candidate(family, self.supernets[family])

    @model_validator(mode="before")
    @classmethod
    def _as_the_algorithm_says(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        name = values.get("algorithm", "scnas-x")
        if name not in ALGORITHMS:
            raise unknown_name("algorithm", str(name), ALGORITHMS)
        # "none" is written explicitly, because a missing key means the algorithm's value.
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
            raise ValueError(f"{family}.candidate names a {key}, which is not a choice here: take it out")
    candidate = read_candidate({"family": family, "genotype": "plain", **supernet.candidate})
    assert isinstance(candidate, CellCandidate)
    return candidate
