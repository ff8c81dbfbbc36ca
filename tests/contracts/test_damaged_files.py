"""Whatever is damaged in a file, its reader takes it or refuses it in one line: a short run of the fuzzing."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

PLACE = Path(__file__).parents[2] / "results" / "benchmarks" / "fuzz.py"
SPECIFICATION = importlib.util.spec_from_file_location("fuzz", PLACE)
assert SPECIFICATION is not None and SPECIFICATION.loader is not None
fuzz: Any = importlib.util.module_from_spec(SPECIFICATION)
sys.modules["fuzz"] = fuzz  # what it sends between its processes is looked up there
SPECIFICATION.loader.exec_module(fuzz)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", fuzz.TARGETS, ids=lambda target: target.__name__)
def test_damaged_files_bring_no_traceback(target: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = fuzz.fuzz(target, inputs=150, seconds=2.0, seed=7)
    assert found.tried > 5
    assert not found.defects, "\n\n".join(f"{key}\n{text}" for key, text in found.defects.items())
