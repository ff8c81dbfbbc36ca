"""What of a space can be built: found by building all of it once, and remembered in the run folder."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from nas.config.search_config import SearchConfig
from results.version import program_version
from search_spaces.errors import InputError
from search_spaces.families import FAMILIES
from search_spaces.field import read_value
from search_spaces.network import check_buildable
from search_spaces.space import Combination, combinations, options
from trainers.atomic import write_atomically
from trainers.fit import FitConfig
from trainers.report import SILENT, Report


@dataclass(frozen=True)
class Buildable:
    """Which values of each family's decisive choices can be combined, and why others cannot."""

    tried: dict[str, tuple[Combination, ...]]  # by family

    def of(self, family: str) -> list[Combination]:
        """The combinations of a family that make a network."""
        return [combination for combination in self.tried[family] if combination.refusal is None]

    @property
    def refusals(self) -> list[str]:
        """Why the other combinations make no network."""
        return [c.refusal for combinations in self.tried.values() for c in combinations if c.refusal is not None]

    def allows(self, family: str, field: str, value: Any, given: Mapping[str, Any]) -> bool:
        """Whether a value of a decisive choice can still make a network with the values chosen before it.

        given: values by field; only those of decisive choices that come before `field` count.
        """
        names = FAMILIES[family].decisive
        known = {name: given[name] for name in names[: names.index(field)]} | {field: value}
        return any(known.items() <= combination.named.items() for combination in self.of(family))


class _Remembered(BaseModel, frozen=True, extra="forbid"):
    """What was found, and for what: the result differs for another space, program or library."""

    of: str
    tried: dict[str, tuple[Combination, ...]]


def find_buildable(config: SearchConfig, report: Report = SILENT, remembered: Path | None = None) -> Buildable:
    """What of the configuration's space can be built; takes a fraction of a second per combination.

    remembered: the file from which an earlier process's result is read, or to which this one's is written. Raises
    InputError if a family's choices can never be made.
    """
    check_options(config)
    if program_version().endswith("-dirty"):
        remembered = None  # while the program is being edited, an earlier result may no longer hold
    found = None if remembered is None else _recall(remembered, config)
    if found is None:
        found = _build(config, report)
        if remembered is not None:
            known = _Remembered(of=_key(config), tried=found.tried)
            write_atomically(remembered, known.model_dump_json(indent=1) + "\n")
    return found


def check_options(config: SearchConfig) -> None:
    """Raise InputError with one line if choices of a family can never be made. Cheap: builds nothing."""
    for family in config.space.families:
        FAMILIES[family].check_options(options(config.space, family, config.fit.crop), config.cell_space)


def _build(config: SearchConfig, report: Report) -> Buildable:
    every = {family: combinations(config.space, family, config.fit.crop) for family in config.space.families}
    what, done, total = "building every choice", 0, sum(map(len, every.values()))
    found: dict[str, tuple[Combination, ...]] = {}
    for family, untried in every.items():
        for combination in untried:
            report.progress(what, done, total)
            found[family] = (*found.get(family, ()), replace(combination, refusal=_refusal(config, combination)))
            done += 1
    report.progress(what, total, total)
    return Buildable(found)


def _refusal(config: SearchConfig, combination: Combination) -> str | None:
    """Why a combination makes no network, tried with its smallest batch; None if it makes one."""
    family = combination.family
    kind, offered = FAMILIES[family], options(config.space, family, config.fit.crop)
    try:
        candidate = combination.candidate(kind.lightest(offered, config.cell_space))
        check_buildable(candidate, combination.crop, batch=min(offered_fit(config, family, "batch_size")))
    except InputError as error:
        return str(error)
    return None


def offered_fit(config: SearchConfig, family: str, field: str) -> tuple[Any, ...]:
    """The values of a field of the recipe that a family may be trained with; for a range, its ends."""
    named = config.space.choices(family, "fit").get(field)
    if named is None:
        return (getattr(config.fit, field),)
    ends = named[1] if isinstance(named[1], tuple) else (named[1].low, named[1].high)
    return tuple(read_value(FitConfig, field, value) for value in ends)


def _recall(file: Path, config: SearchConfig) -> Buildable | None:
    try:
        known = _Remembered.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return Buildable(known.tried) if known.of == _key(config) else None


def _key(config: SearchConfig) -> str:
    builders = [program_version(), *(version(name) for name in ("torch", "timm", "segmentation-models-pytorch"))]
    facts = [part.model_dump_json() for part in (config.space, config.fit, config.cell_space)]
    return hashlib.sha256("\n".join([*builders, *facts]).encode()).hexdigest()
