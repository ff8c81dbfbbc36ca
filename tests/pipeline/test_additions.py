"""What CONTRIBUTING promises: each thing that can be added is one file and one row, and then it works everywhere.

The program is copied, the files of `tests/additions/` and their rows are put in, and nothing else is changed.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADDITIONS = ROOT / "tests" / "additions"


@dataclass(frozen=True)
class Addition:
    """A row of a table, and the file that it names, where it names one."""

    table: str  # the file with the table
    opening: str  # how the table begins
    row: str
    file: tuple[str, str] | None = None  # in tests/additions, in the program
    named: str | None = None  # what the table's file imports of it


ADDED = [
    Addition(
        "search_spaces/families/__init__.py",
        "FAMILIES: dict[str, type[Candidate]] = {",
        '"plain3d": Plain3dCandidate,',
        ("family.py", "search_spaces/families/plain3d.py"),
        "Plain3dCandidate",
    ),
    Addition(
        "trainers/losses/losses.py",
        "LOSSES: dict[str, Callable[[], nn.Module]] = {",
        '"squares": Squares,',
        ("loss.py", "trainers/losses/squares.py"),
        "Squares",
    ),
    Addition(
        "trainers/metrics/table.py",
        "METRICS: dict[str, Metric] = {",
        '"recall": RECALL,',
        ("metric.py", "trainers/metrics/recall.py"),
        "RECALL",
    ),
    Addition(
        "nas/commands/main.py",
        "COMMANDS: dict[str, Callable[..., None] | typer.Typer] = {",
        '"greet": greet,',
        ("command.py", "nas/commands/greet.py"),
        "greet",
    ),
    Addition("search_spaces/published/encoders.py", "ENCODERS: dict[str, Encoder] = {", '"tu-resnet26t": Encoder(),'),
]


def add(program: Path, addition: Addition) -> None:
    """Copy the file, write the row and the import that it needs."""
    table = program / addition.table
    text = table.read_text(encoding="utf-8")
    opening = next(line for line in text.splitlines() if line.startswith(addition.opening))
    text = text.replace(opening, f"{opening}\n    {addition.row}", 1)
    if addition.file is not None:
        source, target = addition.file
        shutil.copy(ADDITIONS / source, program / target)
        module = target.removesuffix(".py").replace("/", ".")
        first = next(line for line in text.splitlines() if line.startswith(("import ", "from ")))
        text = text.replace(first, f"from {module} import {addition.named}\n{first}", 1)
    table.write_text(text, encoding="utf-8")


def nas(program: Path, *arguments: str) -> str:
    """Run the copy's command, and give what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(program), "NAS_CACHE": str(program / "cache")}
    command = [sys.executable, "-m", "nas", *arguments]
    done = subprocess.run(command, cwd=program, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program with everything that is added."""
    folder = tmp_path_factory.mktemp("program")
    ignored = shutil.ignore_patterns("__pycache__", "runs", "benchmarks")
    for package in ("search_spaces", "trainers", "results", "nas"):
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    for addition in ADDED:
        add(folder, addition)
    return folder


@pytest.fixture(scope="module")
def run(program: Path) -> Path:
    """A search over all of it."""
    shutil.copy(ADDITIONS / "space.toml", program)
    nas(program, "search", "space.toml", "--run", "run")
    return program / "run"


def jobs(run: Path) -> list[dict[str, object]]:
    """What the trials were."""
    return [json.loads(path.read_text()) for path in sorted(run.glob("trials/*/candidate.json"))]


def chosen(run: Path, part: str, field: str) -> set[object]:
    return {job[part].get(field) for job in jobs(run)} - {None}  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_family_of_one_file_and_one_row_is_searched_ranked_and_exported(run: Path) -> None:
    board = json.loads((run / "leaderboard.json").read_text())
    assert {row["family"] for row in board["rows"]} == {"plain3d", "unet"}
    assert all(row["state"] == "complete" for row in board["rows"])
    assert set() < chosen(run, "candidate", "layers") <= {1, 2, 3}
    assert json.loads((run / "best" / "architecture.json").read_text())["candidate"]["family"] in {"plain3d", "unet"}


@pytest.mark.slow
def test_a_loss_of_one_file_and_one_row_is_trained_with(run: Path) -> None:
    assert set() < chosen(run, "fit", "loss") <= {"squares", "dice + squares"}


@pytest.mark.slow
def test_a_metric_of_one_file_and_one_row_is_on_the_leaderboard(run: Path) -> None:
    board = json.loads((run / "leaderboard.json").read_text())
    assert all(0.0 <= row["metrics"]["recall"] <= 1.0 for row in board["rows"])
    assert "recall" in (run / "LEADERBOARD.md").read_text()
    assert "recall" in (run / "best" / "MODEL_CARD.md").read_text()


@pytest.mark.slow
def test_an_encoder_of_one_row_is_trained(program: Path, run: Path) -> None:
    only = ("--set", 'space.families=["unet"]', "--set", 'space.unet.encoder=["tu-resnet26t"]', "--trials", "1")
    nas(program, "search", "space.toml", "--run", "encoder", *only)
    assert chosen(program / "encoder", "candidate", "encoder") == {"tu-resnet26t"}


@pytest.mark.slow
def test_fields_are_searched_by_their_names_alone(run: Path) -> None:
    decays, overlaps = chosen(run, "fit", "weight_decay"), chosen(run, "inference", "overlap")
    assert len(decays) == len(jobs(run)) and all(1e-4 <= float(str(decay)) <= 1e-1 for decay in decays)
    assert all(0.2 <= float(str(share)) <= 0.4 for share in chosen(run, "fit", "cooldown"))
    assert overlaps <= {0.0, 0.5}


@pytest.mark.slow
def test_a_command_of_one_file_and_one_row_is_there(program: Path) -> None:
    assert nas(program, "greet", "you") == "hello you\n"
    assert "greet" in nas(program, "--help")
