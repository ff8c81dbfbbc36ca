"""However a file is damaged, its reader accepts it or refuses it in one line: a short run of the fuzzing."""

import importlib
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

sys.path.append(str(Path(__file__).parents[2] / "results" / "benchmarks"))  # scripts, in no package
fuzz: Any = importlib.import_module("fuzz")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("target", fuzz.TARGETS, ids=lambda target: target.__name__)
def test_damaged_files_bring_no_traceback(target: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = fuzz.fuzz(target, inputs=150, seconds=2.0, seed=7)
    assert found.tried > 5
    assert not found.defects, "\n\n".join(f"{key}\n{text}" for key, text in found.defects.items())
