"""From an Optuna trial to a design, and from a fixed design to the parameters of its trial: one walk over the rows."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel

from nas.config.design import Design
from nas.config.search_config import SearchConfig
from nas.jobs.cell_search import needs_cells
from nas.study.buildable import Buildable
from search_spaces.any_candidate import read_candidate
from search_spaces.cells.genotype import Genotype
from search_spaces.families import FAMILIES
from search_spaces.field import read_value
from search_spaces.space import Range, Row, rows
from trainers.cell_search.run import genotype_names
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
# (family, crop) -> the genotypes that a cell search found for it, by how they were found.
Genotypes = Callable[[str, int], Mapping[str, Genotype]]
# A choice, its name in the study and its values there -> the value that is taken.
Answer = Callable[[Row, str, Distribution], Any]

FAMILY, GENOTYPE = "family", "genotype"


def no_genotypes(family: str, crop: int) -> Mapping[str, Genotype]:
    """Stands in for found genotypes in spaces without cells."""
    raise ValueError(f"no cells of family {family} were searched")


def suggest(
    trial: optuna.Trial, config: SearchConfig, possible: Buildable, genotypes: Genotypes = no_genotypes
) -> Design:
    """One point of the search space, asked of Optuna choice by choice.

    Only what can be built is offered. The same trial always gives the same point. genotypes: where those of cell
    searches are looked up.
    """
    family = _family(trial, config)
    chosen = _walk(config, possible, family, _defaults(config, family), _asking(trial))
    fit = FitConfig.model_validate({**config.fit.model_dump(), **chosen.fit})
    if needs_cells(config, family):
        chosen.candidate[GENOTYPE] = genotypes(family, fit.crop)[chosen.candidate[GENOTYPE]]
    return Design(
        candidate=read_candidate({"family": family, **chosen.candidate}),
        fit=fit,
        inference=InferenceConfig.model_validate({**config.inference.model_dump(), **chosen.inference}),
    )


def cells_wanted(trial: optuna.Trial, config: SearchConfig, possible: Buildable) -> tuple[str, int] | None:
    """Family and crop whose cells a trial is going to need; None if it needs none."""
    family = _family(trial, config)
    if not needs_cells(config, family):
        return None
    chosen = _walk(config, possible, family, _defaults(config, family), _asking(trial), until=GENOTYPE)
    return family, int(chosen.fit.get("crop", config.fit.crop))


def known_parameters(config: SearchConfig, possible: Buildable, design: Design) -> dict[str, Any]:
    """The parameters of a fixed trial that the space could have suggested, by their names in the study."""
    return {name: value for name, (_, value) in known_distributions(config, possible, design).items()}


def register(trial: optuna.Trial, config: SearchConfig, possible: Buildable, design: Design) -> None:
    """Enter a fixed trial's known parameters as if they had been suggested, so that the sampler learns from them."""
    for name, (distribution, _) in known_distributions(config, possible, design).items():
        _ask(trial, name, distribution)


def genotype_parameters(config: SearchConfig, family: str, name: str) -> dict[str, Any]:
    """The parameters that make a trial train one kind of genotype, by their names in the study."""
    return {f"{family}.{GENOTYPE}": name} | ({FAMILY: family} if len(config.space.families) > 1 else {})


def origin_of(trial: optuna.Trial, family: str) -> str | None:
    """How a trial's cells were found, or their name; None if it has none."""
    found = trial.params.get(f"{family}.{GENOTYPE}")
    return None if found is None else str(found)


def known_distributions(
    config: SearchConfig, possible: Buildable, design: Design
) -> dict[str, tuple[Distribution, Any]]:
    """The same with what each could have been; nothing for a family that is not searched."""
    family = design.candidate.family
    found: dict[str, tuple[Distribution, Any]] = {}
    if family not in config.space.families:
        return found  # the sampler has nothing to learn for a family that it never suggests
    if len(config.space.families) > 1:
        found[FAMILY] = (CategoricalDistribution(config.space.families), family)

    def own(row: Row, name: str, distribution: Distribution) -> Any:
        value = getattr(getattr(design, row.part), row.field)
        if isinstance(distribution, CategoricalDistribution):
            labels = [label for label in distribution.choices if _meant(row, label) == value]
            if labels:
                found[name] = (distribution, labels[0])
        elif value is not None and distribution.low <= value <= distribution.high:
            found[name] = (distribution, value)
        return value

    _walk(config, possible, family, {**dict(design.candidate), "crop": design.fit.crop}, own)
    return found


@dataclass
class _Chosen:
    """Values that were taken, by field."""

    candidate: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    inference: dict[str, Any] = field(default_factory=dict)


def _family(trial: optuna.Trial, config: SearchConfig) -> str:
    families = config.space.families
    return str(trial.suggest_categorical(FAMILY, families)) if len(families) > 1 else families[0]


def _defaults(config: SearchConfig, family: str) -> dict[str, Any]:
    """The values of a family's fields, and of the crop, that no choice has changed."""
    fields = FAMILIES[family].model_fields.items()
    return {name: info.default for name, info in fields if not info.is_required()} | {"crop": config.fit.crop}


def _walk(
    config: SearchConfig,
    possible: Buildable,
    family: str,
    start: Mapping[str, Any],
    answer: Answer,
    until: str | None = None,
) -> _Chosen:
    """Take a value for every choice of a family, one after another, stopping before the choice of the field `until`.

    start: the values of fields that are not chosen. A choice is left out if none of its values goes with those before
    it.
    """
    chosen = _Chosen()
    for row in _rows(config, family):
        if row.field == until:
            break
        given = {**start, **chosen.candidate, **chosen.fit}
        offered = _offered(row, family, given, possible)
        if offered is not None:
            getattr(chosen, row.part)[row.field] = answer(row, *offered)
    return chosen


def _rows(config: SearchConfig, family: str) -> list[Row]:
    """The rows of the space and, if cells are searched for the family, one row for how they are found."""
    found = list(rows(config.space, family))
    if needs_cells(config, family):
        first = sum(row.field in FAMILIES[family].decisive for row in found)
        names = genotype_names(config.cell_search)
        found.insert(first, Row(family, "candidate", GENOTYPE, f"{family}.{GENOTYPE}", names, found=True))
    return found


def _offered(row: Row, family: str, given: Mapping[str, Any], possible: Buildable) -> tuple[str, Distribution] | None:
    """The name of a choice in the study and its values, given the choices before it; None if nothing is left to choose.

    If these leave it only some of its values (an encoder may not fit a decoder or a crop), the name says which: Optuna
    wants one set of values per name, and the sampler then learns about each set separately.
    """
    kind = FAMILIES[family]

    def goes(value: Any) -> bool:
        if row.field in kind.decisive and not possible.allows(family, row.field, value, given):
            return False
        return row.part != "candidate" or kind.allows(row.field, _meant(row, _label(value)), given)

    if isinstance(row.choice, Range):
        return (row.name, _of_range(row, row.choice)) if goes(row.choice.low) else None
    labels = tuple(_label(value) for value in row.choice if goes(value))
    if not labels:
        return None
    name = row.name if len(labels) == len(row.choice) else f"{row.name} of {', '.join(map(str, labels))}"
    return name, CategoricalDistribution(labels)


def _of_range(row: Row, choice: Range) -> Distribution:
    """Whole numbers if the field holds whole numbers."""
    low, high = (read_value(_owner(row), row.field, end) for end in (choice.low, choice.high))
    kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
    return kind(low, high, log=choice.log)


def _label(value: Any) -> Any:
    """A value as the study stores it: a name, a number, or JSON."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)


def _meant(row: Row, label: Any) -> Any:
    """The value of the field that a label stands for; names of genotypes still to be found stay names."""
    values = () if isinstance(row.choice, Range) else row.choice
    value = next((value for value in values if _label(value) == label), label)
    return value if row.found else read_value(_owner(row), row.field, value)


def _owner(row: Row) -> type[BaseModel]:
    """The class that has the field."""
    owners: dict[str, type[BaseModel]] = {
        "candidate": FAMILIES[row.family],
        "fit": FitConfig,
        "inference": InferenceConfig,
    }
    return owners[row.part]


def _asking(trial: optuna.Trial) -> Answer:
    """Takes what the study's sampler suggests."""

    def ask(row: Row, name: str, distribution: Distribution) -> Any:
        return _meant(row, _ask(trial, name, distribution))

    return ask


def _ask(trial: optuna.Trial, name: str, distribution: Distribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
