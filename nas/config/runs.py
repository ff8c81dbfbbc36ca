"""Which configuration and which run folder a command is about."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.config import named
from nas.config.idle import idle_settings
from nas.config.read import read_config, written
from nas.config.search_config import SearchConfig
from nas.config.storage_url import read_url, shown
from results.run_folder import RUNS, RunFolder, create, find, refuse_outward
from search_spaces.errors import InputError, printable

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
    "data": {"cache", "root"},  # what lies at the root is compared by its content
    "inference": {"batch_voxels"},
}
_FREE_SECTIONS = {"retrain", "device"}


def open_run(
    source: Path | None, preset: str | None, run: Path | None, overrides: Sequence[str], has_data: bool
) -> tuple[SearchConfig, RunFolder]:
    """Configuration and run folder of `nas search`.

    Without a file or a preset, the run folder's own configuration is used; if it has none, the preset demo, or if data
    is given, sennet on a GPU and cpu without one. Raises InputError if the folder holds a search with other settings.
    """
    own = source is not None and not _is_in_run(source, run)
    if run is not None:
        refuse_outward(run)  # before anything in it is read
        if source is None and preset is None and RunFolder(run).config.is_file():
            source = RunFolder(run).config
    config = _from_anywhere(read_source(source, preset, overrides, has_data))
    config = _with_own_cache(config, own or _says(overrides, "data.cache"))
    if config.study.storage is not None and (own or _says(overrides, "study.storage")):
        named.remember(read_url(config.study.storage).mark)
    if any(override.startswith("space.families=") for override in overrides):
        config = _without_other_families(config)
    folder = RunFolder(run or RUNS / config.study.name)
    if folder.config.is_file():
        refuse_outward(folder.path)
        _refuse_other_search(folder, config)
    return config, create(folder.path)


def read_source(
    source: Path | None, preset: str | None, overrides: Sequence[str], has_data: bool = False
) -> SearchConfig:
    """The configuration of a file or a preset. Raises InputError if both are named."""
    if source is not None and preset is not None:
        raise InputError(f"give a configuration file ({source}) or --preset {preset}, not both")
    place = source or preset or default_preset(has_data)
    config = read_config(place, overrides)
    own = [] if source is not None and _is_run(source) else idle_settings(config, written(place, overrides))
    for idle in own:  # the configuration of a run names every setting
        print(f"nas: note: {printable(idle)}", file=sys.stderr)
    return config


def _is_run(source: Path) -> bool:
    return source == RunFolder(source.parent).config and RunFolder(source.parent).is_begun


def _without_other_families(config: SearchConfig) -> SearchConfig:
    """The configuration without the fixed trials of families that are not searched, apart from the default."""
    fixed = tuple(f for f in config.fixed if f.default or f.candidate.family in config.space.families)
    return config.model_copy(update={"fixed": fixed})


def _from_anywhere(config: SearchConfig) -> SearchConfig:
    """The configuration with absolute paths, which mean the same in every process and from every folder."""
    paths = {"root": config.data.root, "cache": config.data.cache}
    whole = {name: path.absolute() for name, path in paths.items() if path is not None}
    return config.model_copy(update={"data": config.data.model_copy(update=whole)})


def _with_own_cache(config: SearchConfig, said: bool) -> SearchConfig:
    """The configuration without a cache that only a run folder names: what is written there may be anything's place.

    said: whether the user named it now, on the command line or in a file that lies in no run folder.
    """
    cache = config.data.cache
    if cache is None or named.is_named(f"cache {cache}"):
        return config
    if said:
        named.remember(f"cache {cache}")
        return config
    print(
        f"nas: note: {printable(str(cache))} is not used for converted volumes, because only the run folder names it; "
        "--set data.cache=FOLDER does",
        file=sys.stderr,
    )
    return config.model_copy(update={"data": config.data.model_copy(update={"cache": None})})


def with_kept_cache(config: SearchConfig, folder: RunFolder) -> SearchConfig:
    """The configuration to be written: a cache that is not used here stays named in the run folder."""
    if config.data.cache is not None or not folder.config.is_file():
        return config
    kept = read_config(folder.config).data.cache
    return config.model_copy(update={"data": config.data.model_copy(update={"cache": kept})})


def _says(overrides: Sequence[str], key: str) -> bool:
    return any(override.startswith(f"{key}=") for override in overrides)


def _is_in_run(source: Path, run: Path | None) -> bool:
    """Whether a file is the configuration of a run, or lies in a run folder: either may be a stranger's."""
    source = source.resolve()
    if run is not None and source == RunFolder(run).config.resolve():
        return True
    return any(RunFolder(parent).config.is_file() and RunFolder(parent).is_begun for parent in source.parents)


def read_run(run: Path | None, writes: bool = False) -> tuple[SearchConfig, RunFolder]:
    """Configuration and folder of a run that exists; InputError if there is none. writes: as in `find`."""
    folder = find(run, writes=writes)
    return read_config(folder.config), folder


def read_run_to_train(run: Path | None, overrides: Sequence[str]) -> tuple[SearchConfig, RunFolder]:
    """Configuration and folder of a run to train from; InputError if overrides make it another search."""
    folder = find(run, writes=True)
    config = _from_anywhere(read_config(folder.config, overrides))
    if overrides:
        _refuse_other_search(folder, config)
    return _with_own_cache(config, _says(overrides, "data.cache")), folder


def default_preset(has_data: bool) -> str:
    """The demo, which makes its own kidneys; with data, the preset that this machine can run in reasonable time."""
    if not has_data:
        return "demo"
    import torch

    return "sennet" if torch.cuda.is_available() else "cpu"


def _refuse_other_search(folder: RunFolder, config: SearchConfig) -> None:
    """Raise InputError, naming the first settings that differ, unless only budgets do."""
    before, now = (_from_anywhere(c).model_dump() for c in (read_config(folder.config), config))
    different = list(_differences(before, now))
    if different:
        more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
        raise InputError(
            f"{folder.path} holds a search with other settings: {'; '.join(different[:3])}{more}; choose another "
            f"--run, or continue with its own: nas search {folder.named}"
        )


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for each key with another value, except those that may change."""
    old, new = _flat(before), _flat(now)
    return [
        _difference(key, old.get(key), new.get(key))
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key) and not _may_change(key)
    ]


def _difference(key: str, old: Any, new: Any) -> str:
    if key == "study.storage":
        old, new = (None if url is None else shown(url) for url in (old, new))
        if old == new:
            return f"{key} has another user, password or option"
    return f"{key} was {_short(old)} and is now {_short(new)}"


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Every value by its full dotted key; a range is one value, other tables are taken apart."""
    found = {}
    for name, value in values.items():
        key = f"{before}{name}"
        table = isinstance(value, dict) and value and "low" not in value
        found.update(_flat(value, f"{key}.") if table else {key: value})
    return found


def _may_change(key: str) -> bool:
    section, _, name = key.partition(".")
    return section in _FREE_SECTIONS or name in _MAY_CHANGE.get(section, ())


def _short(value: Any) -> str:
    if value is None:
        return "not set"
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
