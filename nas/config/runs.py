"""Which configuration and which run folder a command is about."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nas.config.read import read_config
from nas.config.search_config import SearchConfig
from nas.config.study_config import hide_password
from results.run_folder import RUNS, RunFolder, create, find
from search_spaces.errors import InputError

# What may change from one call to the next on the same run folder: how long to search, and what happens afterwards.
_MAY_CHANGE = {
    "study": {
        "trials",
        "minutes",
        "gpu_hours",
        "attempts",
        "failing_share",
        "checkpoint_seconds",
        "leaders",
        "seeds",
        "kept_weights",
    },
    "data": {"cache"},
    "inference": {"batch_voxels"},
}
_FREE_SECTIONS = {"retrain", "device"}


def open_run(
    source: Path | None, preset: str | None, run: Path | None, overrides: Sequence[str], has_data: bool
) -> tuple[SearchConfig, RunFolder]:
    """Configuration and run folder of `nas search`.

    Without a file or a preset: the configuration that the run folder already has; else the preset demo, or where data
    is given, sennet on a GPU and cpu without one. Raises InputError where the folder holds a search with other
    settings.
    """
    if source is None and preset is None and run is not None and RunFolder(run).config.is_file():
        source = RunFolder(run).config
    config = _from_anywhere(read_source(source, preset, overrides, has_data))
    folder = RunFolder(run or RUNS / config.study.name)
    if folder.config.is_file():
        refuse_other_search(folder, config)
    return config, create(folder.path)


def read_source(
    source: Path | None, preset: str | None, overrides: Sequence[str], has_data: bool = False
) -> SearchConfig:
    """The configuration of a file or a preset. Raises InputError where both are named."""
    if source is not None and preset is not None:
        raise InputError(f"give a configuration file ({source}) or --preset {preset}, not both")
    return read_config(source or preset or default_preset(has_data), overrides)


def _from_anywhere(config: SearchConfig) -> SearchConfig:
    """With paths that mean the same in every process of a search, and to whoever goes on with it from elsewhere."""
    paths = {"root": config.data.root, "cache": config.data.cache}
    whole = {name: path.absolute() for name, path in paths.items() if path is not None}
    return config.model_copy(update={"data": config.data.model_copy(update=whole)})


def read_run(run: Path | None) -> tuple[SearchConfig, RunFolder]:
    """Configuration and folder of a run that exists; InputError where there is none."""
    folder = find(run)
    return read_config(folder.config), folder


def default_preset(has_data: bool) -> str:
    """Demo makes its own kidneys; with data, what this machine can do in reasonable time."""
    if not has_data:
        return "demo"
    import torch

    return "sennet" if torch.cuda.is_available() else "cpu"


def refuse_other_search(folder: RunFolder, config: SearchConfig) -> None:
    """Raise InputError, naming the first settings that differ, unless only budgets do."""
    before, now = (_from_anywhere(c).model_dump() for c in (read_config(folder.config), config))
    different = list(_differences(before, now))
    if different:
        more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
        raise InputError(
            f"{folder.path} holds a search with other settings: {'; '.join(different[:3])}{more}; choose another "
            f"--run, or go on with its own: nas search --run {folder.path}"
        )


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What differs and may not, one sentence a key."""
    for section, old in before.items():
        if section in _FREE_SECTIONS:
            continue
        if isinstance(old, dict):
            free = _MAY_CHANGE.get(section, set())
            parts = ({key: value for key, value in side[section].items() if key not in free} for side in (before, now))
            yield from _different_keys(section, *parts)
        elif old != now[section]:
            yield f"{section} differs"


def _different_keys(name: str, before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What differs in two tables, and in tables inside of them; a key that one of them lacks is None there."""
    for key in dict.fromkeys((*before, *now)):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if all(side is None or isinstance(side, dict) for side in (old, new)):
            yield from _different_keys(f"{name}.{key}", old or {}, new or {})
        else:
            yield f"{name}.{key} was {_short(old)} and is now {_short(new)}"


def _short(value: Any) -> str:
    text = hide_password(str(list(value) if isinstance(value, tuple) else value))
    return text if len(text) <= 60 else f"{text[:57]}..."
