"""The flow between packages: imports point one way, and nothing reads a pickle."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOW = ("search_spaces", "trainers", "results", "nas")
ROOMS = ("config", "jobs", "study", "workers", "bundles", "search", "commands")  # of nas, each knows those before it
OUTER_LOOP_ONLY = {"optuna", "optuna_dashboard", "typer", "rich"}  # who decides and who prints: nas alone
PICKLE_READERS = {"torch.load", "pickle.load", "pickle.loads", "joblib.load", "numpy.load", "np.load"}


def modules() -> list[Path]:
    """Every module of the packages; what a search wrote and the scripts that measure the whole are none."""
    outputs = {ROOT / "results" / "runs", ROOT / "results" / "benchmarks"}
    found = (path for package in FLOW for path in (ROOT / package).rglob("*.py"))
    return sorted(path for path in found if not outputs & set(path.parents))


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The top-level package of every import in a module, wherever it stands in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield package if node.level else (node.module or "").split(".")[0]


def imported_modules(path: Path) -> set[str]:
    """Dotted names of everything that a module imports from our packages, `from a.b import c` as a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.split(".")[0] in FLOW}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that reach each other in a circle, in order; empty where there are none."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return way[way.index(name) :]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := walk(other, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def forbidden_imports(source: str, package: str) -> set[str]:
    right = set(FLOW[FLOW.index(package) + 1 :])
    outside = set() if package == "nas" else OUTER_LOOP_ONLY
    return (right | outside) & set(imported(ast.parse(source), package))


def pickle_reads(source: str) -> set[str]:
    """Calls that read a pickle, `allow_pickle=` that is not False, and imports that would hide one."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            allows = [word for word in node.keywords if word.arg == "allow_pickle"]
            if any(not (isinstance(word.value, ast.Constant) and word.value.value is False) for word in allows):
                found.add(f"{name}(allow_pickle)")
            if name in PICKLE_READERS and not name.endswith(("np.load", "numpy.load")):
                found.add(name)
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & PICKLE_READERS
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module in ("pickle", "joblib")}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in ("pickle", "joblib")}
            found |= {f"torch as {alias.asname}" for alias in node.names if alias.name == "torch" and alias.asname}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_its_package_and_those_to_its_left(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert forbidden_imports(path.read_text(encoding="utf-8"), package) == set()


def test_a_room_of_nas_imports_only_from_itself_and_those_before_it() -> None:
    backwards = [
        f"{dotted(path)} imports {name}"
        for path in modules()
        for name in imported_modules(path)
        if dotted(path).startswith("nas.") and len(path.relative_to(ROOT).parts) > 2 and name.startswith("nas.")
        if name.split(".")[1] in ROOMS
        and ROOMS.index(name.split(".")[1]) > ROOMS.index(path.relative_to(ROOT).parts[1])
    ]
    assert backwards == []


def test_every_module_of_nas_has_a_room() -> None:
    found = {path.relative_to(ROOT / "nas").parts[0] for path in modules() if path.is_relative_to(ROOT / "nas")}
    assert found == {*ROOMS, "__init__.py", "__main__.py"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {dotted(path) for path in modules()}
    graph = {dotted(path): imported_modules(path) & names for path in modules()}
    assert circle(graph) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_benchmarks_are_scripts_that_nothing_imports() -> None:
    benchmarks = ROOT / "results" / "benchmarks"
    assert not list(benchmarks.rglob("__init__.py"))
    scripts = {path.stem for path in benchmarks.glob("*.py")}
    named = {f"results.benchmarks.{name}" for name in scripts} | {"results.benchmarks"}
    assert [dotted(path) for path in modules() if imported_modules(path) & named] == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_reads_no_pickle(path: Path) -> None:
    assert pickle_reads(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "module",
    [
        "nas.commands.main",
        "nas.search.status",
        "nas.study.storage",
        "nas.commands.leaderboard_table",
        "results.leaderboard.leaderboard",
    ],
)
def test_what_only_reads_a_run_answers_without_torch(module: str) -> None:
    code = f"import sys, {module}; print({{'torch', 'timm', 'accelerate'}} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_volumes_are_opened_through_one_door() -> None:
    convert = "trainers.data.prepare.prepare"
    assert {dotted(path) for path in modules() if convert in imported_modules(path)} == {
        "trainers.data.open_volumes",
        "trainers.data.check",  # looks at each volume by itself, and goes on where one is broken
    }


def test_every_package_of_the_flow_has_modules() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in modules()} == set(FLOW)


@pytest.mark.parametrize(
    ("package", "source", "found"),
    [
        ("search_spaces", "import trainers.losses.losses", {"trainers"}),
        ("trainers", "def f():\n    from results.record import Record", {"results"}),
        ("trainers", "import optuna.trial as t", {"optuna"}),
        ("results", "from nas import cli", {"nas"}),
        ("results", "from trainers.losses.losses import LOSSES", set()),
        ("nas", "import optuna, search_spaces.space", set()),
        ("trainers", "from . import losses", set()),
    ],
)
def test_the_check_finds_an_import_against_the_flow(package: str, source: str, found: set[str]) -> None:
    assert forbidden_imports(source, package) == found


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(path, weights_only=True)",
        "import pickle",
        "from pickle import loads",
        "from torch import load",
        "import joblib\njoblib.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=flag)",
        "import torch as t",
    ],
)
def test_the_check_finds_a_read_of_a_pickle(source: str) -> None:
    assert pickle_reads(source)


@pytest.mark.parametrize(
    "source", ["import numpy as np\nnp.load(path, mmap_mode='r')", "np.load(path, allow_pickle=False)", "json.load(f)"]
)
def test_the_check_lets_arrays_and_json_pass(source: str) -> None:
    assert pickle_reads(source) == set()
