"""Settings that somebody wrote, and that do nothing beside the others."""

from collections.abc import Iterator
from typing import Any

from nas.config.difference import Values
from nas.config.search_config import SearchConfig
from search_spaces.cells.cell_candidate import CellCandidate
from search_spaces.families import FAMILIES
from search_spaces.space import Range
from trainers.fit import FitConfig

# Fields of the recipe that only one schedule reads.
_READ_BY = {"warm_up": "one-cycle", "warm_up_steps": "warmup-stable-decay", "cooldown": "warmup-stable-decay"}


def idle_settings(config: SearchConfig, written: Values) -> Iterator[str]:
    """One line for each. written: what a file or the command line says itself, without what it starts from."""
    study: Values = written.get("study", {})
    space: Values = written.get("space", {})
    yield from _schedules(config, written, space)
    for family in space:
        if family in FAMILIES and family not in config.space.families:
            yield f"[space.{family}] does nothing: space.families leaves {family} out"
    if not any(issubclass(FAMILIES[family], CellCandidate) for family in config.space.families):
        for name in ("cell_space", "cell_search"):
            if name in written:
                yield f"[{name}] does nothing: no searched family ({', '.join(config.space.families)}) has cells"
    for family in written.get("cell_search", {}).get("supernets", {}):
        if family in FAMILIES and family not in config.space.families:
            yield f"[cell_search.supernets.{family}] does nothing: space.families leaves {family} out"
    if "phantom" in written and config.data.root is not None:
        yield f"[phantom] does nothing: the scans are in {config.data.root}"
    if not config.study.leaders:
        yield from (f"study.{name} does nothing: study.leaders is 0" for name in ("seeds", "folds") if name in study)
    if not config.study.rungs:
        yield from (f"study.{n} does nothing: study.rungs is 0" for n in ("promotion", "reduction") if n in study)
    if config.study.trial_sampler == "random" and "random_trials" in study:
        yield 'study.random_trials does nothing: study.trial_sampler = "random" draws every candidate at random'


def _schedules(config: SearchConfig, written: Values, space: Values) -> Iterator[str]:
    used = {config.fit.schedule} | {fixed.fit["schedule"] for fixed in config.fixed if "schedule" in fixed.fit}
    for family in config.space.families:
        _, choice = config.space.choices(family, "fit").get("schedule", ("", ()))
        used |= set() if isinstance(choice, Range) else set(choice)
    places: dict[str, Any] = {"fit": written.get("fit", {}), "space.fit": space.get("fit", {})}
    places |= {f"space.{family}.fit": space[family].get("fit", {}) for family in space if family in FAMILIES}
    for place, values in places.items():
        for field, schedule in _READ_BY.items():
            usual = place == "fit" and values.get(field) == FitConfig.model_fields[field].default
            if field in values and schedule not in used and not usual:
                yield f'{place}.{field} does nothing: only fit.schedule = "{schedule}" has it'
