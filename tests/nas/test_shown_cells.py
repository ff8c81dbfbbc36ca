"""What a cell search found: kept in its folder, drawn, and shown on request."""

import json
from pathlib import Path

import pytest
from parameters import first_is_quick

from nas.config.read import parse_config
from nas.config.write import write_config
from nas.jobs.cell_search import genotypes_of, read_findings
from nas.search.shown_cells import SearchShown, Shown, describe_target
from results.pictures.cells import draw_alphas, draw_genotype, operation_shares
from results.run_folder import RunFolder, create
from search_spaces.cells.cell_space import CELL_SPACES
from search_spaces.cells.hand_made import hand_made
from search_spaces.errors import InputError
from trainers.cell_search.run import CellFindings, CellPlan, FoundGenotype

CONFIG = parse_config(
    {"space": {"families": ["hybrid"]}, "cell_search": {"supernets": {"hybrid": {"crops": [64]}}}}, "test"
)


def _found(folder: RunFolder) -> CellFindings:
    space = CELL_SPACES["L1"]
    genotypes = {
        name: FoundGenotype(genotype=hand_made(base, "hybrid"), seconds=0.25, memory_bytes=2**20)
        for name, base in (("likeliest", "plain"), ("random-1", "residual"))
    }
    findings = CellFindings(
        plan=CellPlan(family="hybrid", crop=64),
        space=space,
        genotypes=genotypes,
        probabilities={"skip/0/1": [0.75, 0.25]},
        options={"skip/0/1": ["identity", "conv3"]},
        search_seconds=61.0,
        device="CPU",
    )
    place = folder.cells("hybrid-64")
    place.path.mkdir(parents=True)
    place.findings.write_text(findings.model_dump_json())
    return findings


def _run(tmp_path: Path) -> RunFolder:
    folder = create(tmp_path / "run")
    folder.config.write_text(write_config(CONFIG))
    return folder


def test_findings_are_read_again_and_give_genotypes_by_name(tmp_path: Path) -> None:
    folder = create(tmp_path)
    plan = CellPlan(family="hybrid", crop=64)
    assert read_findings(folder.cells(plan.id)) is None
    with pytest.raises(InputError, match="hybrid-64 has not ended yet"):
        genotypes_of(folder, plan)
    findings = _found(folder)
    assert read_findings(folder.cells(plan.id)) == findings
    assert genotypes_of(folder, plan)["random-1"] == hand_made("residual", "hybrid")
    folder.cells(plan.id).findings.write_text("{}")
    with pytest.raises(InputError, match="is damaged, or of another version"):
        read_findings(folder.cells(plan.id))


@pytest.mark.parametrize("suffix", first_is_quick([".svg", ".png"]))
@pytest.mark.parametrize("family", ["cells", "hybrid"])
def test_a_genotype_is_drawn_as_svg_and_png(tmp_path: Path, family: str, suffix: str) -> None:
    file = tmp_path / f"cells{suffix}"
    draw_genotype(file, hand_made("residual", family), "a <title> & $more$")
    start = file.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if suffix == ".png" else b"<?xml" in start


@pytest.mark.slow
def test_the_picture_of_alphas_is_drawn_from_their_history(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    lines = [
        {"step": step, "loss": 1.0, "alpha_loss": None if step < 3 else 0.9, "entropy": 1 - step / 10}
        | {"seconds": 0.2, "budget": 0.25, "probabilities": {"a/0/1": [0.5 + step / 20, 0.5 - step / 20]}}
        for step in range(1, 6)
    ]
    history.write_text("\n".join(map(json.dumps, lines)))
    draw_alphas(tmp_path / "alphas.png", history, "cells-16")
    assert (tmp_path / "alphas.png").read_bytes().startswith(b"\x89PNG")
    draw_alphas(tmp_path / "none.png", tmp_path / "missing.jsonl", "cells-16")


def test_operations_are_counted_the_most_frequent_first() -> None:
    # residual: in every kind of cell by hand; 3 convolutions in each of two normal cells.
    shares = operation_shares(hand_made("residual", "cells"))
    assert shares == {"conv3": 6, "identity": 2, "down_avg": 1, "down_conv3": 1, "up_transposed": 1}
    assert next(iter(shares)) == "conv3"


@pytest.mark.slow
def test_show_draws_what_it_is_asked_for(tmp_path: Path) -> None:
    folder = _run(tmp_path)
    findings = _found(folder)
    by_name = describe_target(folder.path, "hybrid-64/likeliest", tmp_path / "out" / "a")
    assert isinstance(by_name, Shown)
    assert [p.name for p in by_name.pictures] == ["a.svg", "a.png"]
    assert all(p.is_file() for p in by_name.pictures)
    assert "conv3" in by_name.text()
    file = tmp_path / "g.json"
    file.write_text(findings.genotypes["random-1"].genotype.model_dump_json())
    from_file = describe_target(folder.path, str(file), tmp_path / "b")
    assert isinstance(from_file, Shown)
    assert from_file.genotype == findings.genotypes["random-1"].genotype
    whole = describe_target(folder.path, "hybrid-64", None)
    assert isinstance(whole, SearchShown)
    assert "likeliest" in whole.text() and "250.0" in whole.text()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("7", "has no trial 7; its trials are: none"),
        ("hybrid-64/likelyest", "found no 'likelyest'; it found: likeliest, random-1"),
        ("cells-16", "nor a cell search of .* that has ended"),
    ],
)
def test_what_show_cannot_find_is_one_line(tmp_path: Path, target: str, message: str) -> None:
    folder = _run(tmp_path)
    _found(folder)
    with pytest.raises(InputError, match=message):
        describe_target(folder.path, target, None)


def test_a_file_that_holds_no_genotype_is_named(tmp_path: Path) -> None:
    file = tmp_path / "g.json"
    file.write_text('{"cells": []}')
    with pytest.raises(InputError, match=r"g\.json holds no genotype: cells"):
        describe_target(_run(tmp_path).path, str(file), None)
