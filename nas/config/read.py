"""A configuration from a preset or a file, merged with its base and the changes of `--set`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nas.config.difference import Values, merge
from nas.config.mistakes import one_line
from nas.config.presets import PRESETS, preset_text
from nas.config.search_config import SearchConfig, design_of
from search_spaces.errors import InputError, unknown_name
from search_spaces.toml import parse_toml, toml_text

BASE = "preset"  # the key that names the preset a file starts from; without it, the file starts from the defaults


def read_config(source: str | Path, overrides: Iterable[str] = ()) -> SearchConfig:
    """The configuration of a preset, given by name, or of a TOML file, with `key=value` overrides.

    Raises InputError with one line that names the file and the key.
    """
    if str(source) in PRESETS and not Path(source).is_file():
        name, values = f"preset {source}", _preset(str(source))
    else:
        name, values = str(source), _with_base(parse_toml(_text(Path(source)), str(source)), str(source))
    for override in overrides:
        values = merge(values, _override(override))
    return parse_config(values, name)


def written(source: str | Path, overrides: Iterable[str] = ()) -> Values:
    """What a file says itself, without the preset that it starts from, with the overrides; of a preset, these alone."""
    values: Values = {}
    if str(source) not in PRESETS or Path(source).is_file():
        values = {key: value for key, value in parse_toml(_text(Path(source)), str(source)).items() if key != BASE}
    for override in overrides:
        values = merge(values, _override(override))
    return values


def parse_config(values: Values, name: str) -> SearchConfig:
    """Validate nested values; every mistake becomes one line that starts with `name`."""
    try:
        config = SearchConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{name}: {one_line(error, SearchConfig)}") from error
    for fixed in config.fixed:
        try:
            design_of(config, fixed)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    return config


def _preset(name: str) -> Values:
    return _with_base(parse_toml(preset_text(name), f"preset {name}"), f"preset {name}")


def _with_base(values: Values, name: str) -> Values:
    """The values merged with those of the preset that they name, if they name one."""
    difference = {key: value for key, value in values.items() if key != BASE}
    if BASE not in values:
        return merge({}, difference)
    if values[BASE] not in PRESETS:
        raise InputError(f"{name}: {unknown_name(BASE, str(values[BASE]), PRESETS)}")
    return merge(_preset(values[BASE]), difference)


def _text(path: Path) -> str:
    if path.is_dir():
        raise InputError(
            f"{path} is a folder, not a configuration file; `nas search` takes scans with --data and a run with --run"
        )
    if not path.suffix and not path.is_file():
        raise unknown_name("preset", str(path), PRESETS)
    try:
        return toml_text(path)
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be read as a configuration: {what}") from error


def _override(override: str) -> Values:
    """One `section.key=value` as a difference; the value is read as TOML, or as plain text if it is not TOML."""
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise InputError(f"--set takes section.key=value, as in study.trials=20; got {override!r}")
    try:
        read = parse_toml(f"value = {text}", "--set")
    except InputError:
        read = {"value": text}
    if len(read) > 1:
        raise InputError(f"--set takes one key and its value; got {override!r}")
    value: Any = read["value"]
    for part in reversed(path):
        value = {part: value}
    return dict(value)
