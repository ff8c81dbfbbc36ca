"""One small finished search for all tests, and a cache of converted volumes."""

import shutil
from pathlib import Path

import pytest
from command_line import nas
from shared import made_once
from tiny import TINY


@pytest.fixture(scope="session")
def cache(session_folder: Path) -> Path:
    """Shared by all searches."""
    return session_folder / "cache"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of the small search."""
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, session_folder: Path, config: Path, cache: Path) -> Path:
    """A finished, undisturbed search that the tests of one module may change."""
    finished = made_once(
        session_folder / "finished", lambda folder: nas("search", config, "--run", folder, cache=cache)
    )
    return shutil.copytree(finished, tmp_path_factory.mktemp("runs") / "whole")
