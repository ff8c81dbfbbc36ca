"""SearchConfig: the sections of a search."""

from typing import Any

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from nas.config.design import Design
from nas.config.mistakes import one_line
from nas.config.study_config import StudyConfig
from search_spaces.any_candidate import AnyCandidate
from search_spaces.cells.cell_space import CELL_SPACES, DEFAULT_LEVEL, CellSpace
from search_spaces.errors import InputError
from search_spaces.families import FAMILIES
from search_spaces.space import SearchSpace, check_pairs, check_section
from trainers.cell_search.config import CellSearchConfig
from trainers.data.folds import DataConfig
from trainers.data.phantom import PhantomConfig
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import ScoreConfig


class RetrainConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What `nas retrain` changes in a recipe."""

    steps: PositiveInt = 20_000  # optimiser steps of the full training
    learning_rate_factor: PositiveFloat = 1.0  # multiplies the rate that the search found for its shorter training


class FixedTrial(BaseModel, frozen=True, extra="forbid"):
    """A candidate and recipe that are trained whatever the sampler suggests, and never stopped early."""

    name: str = Field(pattern=r"^[^\x00-\x1f\x7f]+$")  # of its row on the leaderboard
    candidate: AnyCandidate  # its family, and what differs from that family's defaults
    fit: dict[str, Any] = Field(default_factory=dict)  # what differs from the section `fit`
    inference: dict[str, Any] = Field(default_factory=dict)  # what differs from the section `inference`
    default: bool = False  # exported unless a searched network is surely better; at most one fixed trial


class SearchConfig(BaseModel, frozen=True, extra="forbid"):
    """Everything that decides what a search does."""

    study: StudyConfig = StudyConfig()
    data: DataConfig = DataConfig()
    phantom: PhantomConfig = PhantomConfig()  # the kidneys that a search makes itself if data.root is not given
    space: SearchSpace = SearchSpace.model_validate({})
    cell_space: CellSpace = CELL_SPACES[DEFAULT_LEVEL]  # what the cells of families cells and hybrid may be
    cell_search: CellSearchConfig = CellSearchConfig()  # how cells are searched
    fit: FitConfig = FitConfig()  # the recipe, unless the space says otherwise
    inference: InferenceConfig = InferenceConfig()
    score: ScoreConfig = ScoreConfig()
    retrain: RetrainConfig = RetrainConfig()
    device: str = "auto"  # auto (every GPU, or the CPU if there is none), cpu or cuda
    fixed: tuple[FixedTrial, ...] = ()  # trained first, whatever the sampler suggests

    @model_validator(mode="after")
    def _recipes_of_the_space_exist(self) -> "SearchConfig":
        """Every value in the space for a field of recipe or reading fits the rest, and all other values."""
        sections = [("", self.space.fit, self.space.inference)]
        sections += [(f"{name}.", s.fit, s.inference) for name in FAMILIES for s in [self.space.family(name)]]
        for family, fit, inference in sections:
            check_section(fit, FitConfig, f"space.{family}fit", self.fit)
            check_section(inference, InferenceConfig, f"space.{family}inference", self.inference)
        for name in self.space.families:
            check_pairs(self.space.choices(name, "fit"), FitConfig, self.fit)
            check_pairs(self.space.choices(name, "inference"), InferenceConfig, self.inference)
        return self

    @model_validator(mode="after")
    def _one_default(self) -> "SearchConfig":
        if len(names := [fixed.name for fixed in self.fixed if fixed.default]) > 1:
            raise ValueError(f"fixed: only one trial can be the default, not both {names[0]!r} and {names[1]!r}")
        return self


def design_of(config: SearchConfig, fixed: FixedTrial) -> Design:
    """The design of a fixed trial: the sections `fit` and `inference` with the trial's differences."""
    try:
        fit = FitConfig.model_validate({**config.fit.model_dump(), **fixed.fit})
    except ValidationError as error:
        raise InputError(f"fixed trial {fixed.name!r}: {one_line(error, FitConfig)}") from error
    try:
        inference = InferenceConfig.model_validate({**config.inference.model_dump(), **fixed.inference})
    except ValidationError as error:
        raise InputError(f"fixed trial {fixed.name!r}: {one_line(error, InferenceConfig)}") from error
    return Design(fixed.candidate, fit, inference)
