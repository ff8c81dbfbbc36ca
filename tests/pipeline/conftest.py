"""A cache of converted volumes, and one small finished search, for each module of tests."""

from pathlib import Path

import pytest
from command_line import nas
from tiny import TINY


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the searches of a module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of the small search."""
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, config: Path, cache: Path) -> Path:
    """A finished search that nothing happened to."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    nas("search", config, "--run", folder, cache=cache)
    return folder
