"""SearchConfig: the sections of a search, read from TOML, and the one line that a mistake in it gets."""

import tomllib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from nas.config.design import Design
from nas.config.study_config import StudyConfig
from search_spaces.any_candidate import AnyCandidate
from search_spaces.cells.cell_space import CELL_SPACES, DEFAULT_LEVEL, CellSpace
from search_spaces.errors import InputError, unknown_name
from search_spaces.families import FAMILIES
from search_spaces.space import SearchSpace, check_section
from trainers.cell_search.config import ALGORITHMS, CellSearchConfig
from trainers.data.folds import DataConfig
from trainers.data.phantom import PhantomConfig
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import ScoreConfig

PRESETS = ("demo", "cpu", "sennet", "source-table")


class RetrainConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What `nas retrain` changes of a recipe."""

    steps: PositiveInt = 20_000  # optimiser steps of the full training
    learning_rate_factor: PositiveFloat = 1.0  # on the rate that the search found at its own length


class FixedTrial(BaseModel, frozen=True, extra="forbid"):
    """A candidate and recipe that are trained whatever the sampler thinks, and never stopped early."""

    name: str = Field(pattern=r"^[^\x00-\x1f\x7f]+$")  # of its row
    candidate: AnyCandidate  # its family, and what differs from that family's defaults
    fit: dict[str, Any] = Field(default_factory=dict)  # what differs from the section `fit`
    inference: dict[str, Any] = Field(default_factory=dict)  # what differs from the section `inference`


class SearchConfig(BaseModel, frozen=True, extra="forbid"):
    """Everything that decides what a search does."""

    study: StudyConfig = StudyConfig()
    data: DataConfig = DataConfig()
    phantom: PhantomConfig = PhantomConfig()  # the kidneys that a search makes itself where data.root is not given
    space: SearchSpace = SearchSpace.model_validate({})
    cell_space: CellSpace = CELL_SPACES[DEFAULT_LEVEL]  # what the cells of families cells and hybrid may be
    cell_search: CellSearchConfig = CellSearchConfig()  # how they are searched
    fit: FitConfig = FitConfig()  # the recipe, where the space does not say otherwise
    inference: InferenceConfig = InferenceConfig()
    score: ScoreConfig = ScoreConfig()
    retrain: RetrainConfig = RetrainConfig()
    device: str = "auto"  # auto: every GPU there is, or the CPU; cpu; cuda
    fixed: tuple[FixedTrial, ...] = ()

    @model_validator(mode="after")
    def _recipes_of_the_space_exist(self) -> "SearchConfig":
        """Every value that the space has for a field of the recipe or the reading goes with the rest of its section."""
        sections = [("", self.space.fit, self.space.inference)]
        sections += [(f"{name}.", s.fit, s.inference) for name in FAMILIES for s in [self.space.family(name)]]
        for family, fit, inference in sections:
            check_section(fit, FitConfig, f"space.{family}fit", self.fit)
            check_section(inference, InferenceConfig, f"space.{family}inference", self.inference)
        return self


def read_config(source: str | Path, overrides: Iterable[str] = ()) -> SearchConfig:
    """The configuration of a preset's name or a TOML file, with `key=value` overrides.

    Raises InputError with one line that names the file and the key.
    """
    if str(source) in PRESETS and not Path(source).is_file():
        file, name = files("nas.config").joinpath("presets", f"{source}.toml"), f"preset {source}"
        text = file.read_text(encoding="utf-8")
    else:
        path = Path(source)
        if not path.suffix and not path.is_file():
            raise unknown_name("preset", str(source), PRESETS)
        try:
            text, name = path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as a configuration: {error}") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name} is not valid TOML: {error}") from error
    for override in overrides:
        _override(values, override)
    return parse_config(values, name)


def parse_config(values: dict[str, Any], name: str) -> SearchConfig:
    """Validate nested values; every mistake becomes one line that starts with `name`."""
    try:
        config = SearchConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{name}: {one_line(error, SearchConfig)}") from error
    for fixed in config.fixed:
        design_of(config, fixed)
    return config


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


def write_config(config: SearchConfig) -> str:
    """The configuration as TOML. A key that is off (None) is left out: it is off by default."""
    return tomli_w.dumps(_without_none(config.model_dump(mode="json")), multiline_strings=False)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value


def _override(values: dict[str, Any], override: str) -> None:
    """Apply one `section.key=value`; the value is read as TOML, and as plain text where it is none."""
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise InputError(f"--set takes section.key=value, as in study.trials=20; got {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    section = values
    for part in path[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise InputError(f"--set {key}: {part!r} is a value, not a section")
    for governed in _GOVERNS.get(key.strip(), ()):
        section.pop(governed, None)
    if isinstance(value, str) and value.lower() == "none" and _can_be_off(path):
        section.pop(path[-1], None)
    else:
        section[path[-1]] = value


# What a name decides goes with it: otherwise the numbers that a preset writes out would win over the name.
_GOVERNS = {
    "cell_search.algorithm": frozenset(key for settings in ALGORITHMS.values() for key in settings),
    "cell_space.level": frozenset(CellSpace.model_fields) - {"nodes", "edges", "levels"},
}


def _can_be_off(path: Sequence[str]) -> bool:
    """Whether the key takes None; elsewhere "none" is a name, as of a pruner or an augmentation."""
    model: Any = SearchConfig
    for part in path[:-1]:
        model = getattr(model, "model_fields", {}).get(part)
        model = model and model.annotation
    field = getattr(model, "model_fields", {}).get(path[-1])
    # Where a number is the default, "none" has to be said.
    return field is not None and field.default is None and type(None) in get_args(field.annotation)


def one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake of a validation, with its key, its value and what would do."""
    first = error.errors()[0]
    # Where one choice of several is wrong, pydantic also says that there are too few of them.
    others = [other for other in error.errors()[1:] if first["loc"][: len(other["loc"])] != other["loc"]]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        return str(unknown_name("key", key, _keys(model, location[:-1])))
    if first["type"] == "missing":
        return f"{key} is missing"
    value, what = first["input"], first["msg"].removeprefix("Value error, ")
    text = f"{key}: {what}" if isinstance(value, dict) else f"{key} = {value!r}: {what}"
    return f"{text} (and {len(others)} more mistake(s))" if others else text


def _keys(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """The keys that exist in the section at `location`, with their section in front."""
    prefix = ""
    for part in location:
        prefix += f"{part}."
        if part.isdecimal() or part not in model.model_fields:
            continue
        annotation = model.model_fields[part].annotation
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return [prefix + name for name in model.model_fields]
