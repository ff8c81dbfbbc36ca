"""A configuration as the TOML that a run folder keeps: every key that is not off, and no base."""

from typing import Any

import tomli_w

from nas.config.search_config import SearchConfig


def write_config(config: SearchConfig) -> str:
    """The configuration as TOML. A key that is off (None) is left out: it is off by default."""
    return tomli_w.dumps(without_none(config.model_dump(mode="json")), multiline_strings=False)


def without_none(value: Any) -> Any:
    """Nested values without the keys that are off, which TOML cannot express."""
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_none(v) for v in value]
    return value
