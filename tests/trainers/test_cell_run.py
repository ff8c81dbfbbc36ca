"""One supernet from volumes to genotypes: it continues after any stop, and learns from both sides."""

from pathlib import Path
from typing import Any

import pytest
import torch
from kidneys import tube

from search_spaces.cells.cell_space import CELL_SPACES
from search_spaces.errors import InputError
from trainers.cell_search.config import CellSearchConfig
from trainers.cell_search.run import CellFindings, CellPlan, CellTalk, genotype_names, run_cells, split_for
from trainers.fit import make_accelerator
from trainers.report import Report

VOLUMES = (tube("a"), tube("b", seed=1))
SPACE = CELL_SPACES["L1"].model_copy(update={"levels": 2, "nodes": 1, "same": ("identity", "conv3")})
CONFIG = CellSearchConfig.model_validate(
    {
        "steps": 8,
        "supernets": {
            "cells": {"crops": [16], "batch_size": 1, "candidate": {"slices_in": 8, "width": 4}},
            "hybrid": {
                "crops": [64],
                "batch_size": 2,
                "candidate": {"encoder": "tu-resnet10t", "slices_in": 3, "width": 4},
            },
        },
        "shrink_every": 2,
        "samples": 1,
        "randoms": 1,
        "perturbations": 2,
        "perturbation_paths": 1,
    }
)


def _run(
    plan: CellPlan, folder: Path, costs: Path, stop: tuple[str, int] | None = None, seed: int = 3
) -> CellFindings | None:
    lines: list[dict[str, Any]] = []
    talk = CellTalk(lambda phase, done, of, loss: (phase, done) != stop, lines.append)
    accelerator = make_accelerator("float32", "cpu")
    return run_cells(plan, VOLUMES, SPACE, CONFIG, seed, accelerator, folder, talk, [costs], save_every=0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "stops"), [("cells", (("search", 2), ("search", 6), ("decode", 3))), ("hybrid", (("search", 6),))]
)
def test_a_stopped_run_continues_and_finds_the_same(
    tmp_path: Path, family: str, stops: tuple[tuple[str, int], ...]
) -> None:
    plan = CellPlan(family=family, crop=16 if family == "cells" else 64)
    costs = tmp_path / "costs.json"
    whole = _run(plan, tmp_path / "whole", costs)
    for stop in stops:
        folder = tmp_path / f"broken-{stop[0]}-{stop[1]}"
        assert _run(plan, folder, costs, stop) is None
        assert [path.name for path in folder.glob("step-*")]
        torch.manual_seed(99)
        broken = _run(plan, folder, costs)
        assert whole is not None and broken is not None
        assert broken.genotypes == whole.genotypes
        assert broken.probabilities == whole.probabilities
    assert whole is not None
    assert tuple(whole.genotypes) == genotype_names(CONFIG)


@pytest.mark.slow
def test_measuring_can_be_stopped_and_started_again(tmp_path: Path) -> None:
    plan, costs = CellPlan(family="cells", crop=16), tmp_path / "costs.json"
    assert _run(plan, tmp_path / "search", costs, ("measure", 4)) is None
    assert not costs.exists()
    assert _run(plan, tmp_path / "search", costs) is not None
    assert costs.exists()


@pytest.mark.slow
def test_a_search_goes_on_beside_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    own, cache, notes = tmp_path / "costs.json", tmp_path / "cache", list[str]()
    cache.write_text("no folder")
    talk = CellTalk(lambda phase, done, of, loss: phase != "search", lambda values: None, Report(notes.append))
    plan, accelerator = CellPlan(family="cells", crop=16), make_accelerator("float32", "cpu")
    files = [own, cache / "costs" / "cells.json"]
    assert run_cells(plan, VOLUMES, SPACE, CONFIG, 3, accelerator, tmp_path / "search", talk, files) is None
    assert own.is_file()
    assert [note for note in notes if "cells.json cannot be written" in note and "measures these costs again" in note]
    with pytest.raises(NotADirectoryError):
        run_cells(plan, VOLUMES, SPACE, CONFIG, 3, accelerator, tmp_path / "other", talk, files[1:])


def test_a_damaged_file_of_costs_is_named(tmp_path: Path) -> None:
    costs = tmp_path / "costs.json"
    costs.write_text('{"entries": {')
    with pytest.raises(InputError, match=r"costs.json is damaged, or of another version; delete it to measure again"):
        _run(CellPlan(family="cells", crop=16), tmp_path / "search", costs)


def test_another_seed_sees_other_patches() -> None:
    plan = CellPlan(family="cells", crop=16)
    first, second = (split_for(plan, VOLUMES, CONFIG, seed) for seed in (0, 1))
    places = [sampler.location(0) for sampler in (*first, *second)]
    assert len({place.start for place in places}) == 4
    assert {volume.name for volume in first[0].volumes} != {volume.name for volume in first[1].volumes}
