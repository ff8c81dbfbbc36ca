"""Nothing that lies in the current folder, which may be a stranger's run or scans, is imported from there."""

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import nas_process

from nas.config.environment import ENVIRONMENT
from nas.workers.process import start_process

MODULES = ("typer", "rich", "torch", "numba", "numpy", "pydantic", "tifffile", "multiprocessing", "json")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with modules that leave a trace when they are imported."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text("from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n")
    return tmp_path


def test_a_worker_imports_nothing_from_the_current_folder(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hostile)
    started = start_process()
    started.process.communicate()  # it ends when its input is closed, after its imports
    assert started.process.returncode == 0
    assert not list(hostile.glob("*.ran"))


def test_processes_of_a_worker_import_nothing_from_the_current_folder(
    hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    subprocess.run([sys.executable, "-c", "import multiprocessing, numpy"], cwd=hostile, check=True)  # as `spawn` does
    assert not list(hostile.glob("*.ran"))


def test_the_command_imports_nothing_from_the_current_folder(hostile: Path) -> None:
    assert "retrain" in nas_process("--help", cwd=hostile).stdout
    assert not list(hostile.glob("*.ran"))


def test_pipes_do_not_get_the_numbers_of_closed_standard_streams(tmp_path: Path) -> None:
    script = (
        "import os, sys; from nas.commands.main import _open_missing_streams\n"
        "_open_missing_streams()\n"
        "open(sys.argv[1], 'w').write(str(min(os.pipe()) > 2))\n"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script, str(tmp_path / "found")]
    subprocess.run(command, check=True)
    assert (tmp_path / "found").read_text() == "True"
