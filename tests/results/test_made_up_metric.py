"""A metric of masks alone: with a row in METRICS it is a column of the leaderboard and on the card, and it can rank."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import records
from bundles import bundle
from kidneys import tube
from numpy.typing import NDArray
from rich.console import Console

from nas.bundles.score_masks import score_masks
from nas.commands.leaderboard_table import leaderboard_table
from nas.search.dashboard_notes import note
from results.bundles.bundle import read_architecture
from results.bundles.model_card import model_card
from results.leaderboard.columns import to_markdown
from results.leaderboard.leaderboard import read_leaderboard
from results.leaderboard.ledger import Ledger
from results.record import Outcome, Record
from results.run_folder import create
from trainers.data.geometry import Spacing
from trainers.metrics.cross_fit import mask_values, score
from trainers.metrics.metric import Metric, by_masks, ratio
from trainers.metrics.score import Score, ScoreConfig
from trainers.metrics.second_score import second_score
from trainers.metrics.slabs import cut_into_slabs
from trainers.metrics.table import METRICS


def in_both_and_in_either(
    predicted: NDArray[np.bool_], target: NDArray[np.bool_], spacing_um: Spacing
) -> tuple[float, float]:
    return float((predicted & target).sum()), float((predicted | target).sum())


JACCARD = Metric("Jaccard index", by_masks(in_both_and_in_either), lambda sums: ratio(sums[0], sums[1]))

KIDNEY = tube("k", (24, 32, 32), radius=6.0)
LABEL = np.asarray(KIDNEY.label) > 0
WIDE = np.asarray(tube("k", (24, 32, 32), radius=6.9).label) > 0  # most voxels right, and little of the surface
HALF = LABEL.copy()  # half of both
HALF[12:] = False


@pytest.fixture(autouse=True)
def _a_row_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "jaccard", JACCARD)


def scored(mask: NDArray[np.bool_], config: ScoreConfig) -> Score:
    predictions = {"k": mask * np.uint8(200)}
    first = score(predictions, [KIDNEY], config)
    return first.model_copy(update={"second": second_score(predictions, [KIDNEY], first, config)})


def jaccard(mask: NDArray[np.bool_]) -> float:
    return float((mask & LABEL).sum() / (mask | LABEL).sum())


def record(trial: int, found: Score) -> Record:
    return records.record(trial, None).model_copy(update={"outcome": Outcome(state="complete", score=found)})


def ledger_of(folder: Path, config: ScoreConfig) -> Ledger:
    """A ledger of two trials: the mask that is too wide, and the half mask."""
    ledger = Ledger(create(folder), "s", "k", config)
    for trial, mask in enumerate((WIDE, HALF)):
        ledger.folder.trial(trial).path.mkdir(parents=True)
        ledger.add(record(trial, scored(mask, config)))
    return ledger


@pytest.fixture
def config() -> ScoreConfig:
    return ScoreConfig(slabs=4, second_um=50.0)


@pytest.fixture
def by_jaccard() -> ScoreConfig:
    return ScoreConfig(slabs=4, second_um=50.0, rank_by="jaccard")


def test_it_is_a_column_of_the_leaderboard(config: ScoreConfig, tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, config)
    board = ledger.board()
    values = json.loads(ledger.folder.leaderboard_json.read_text())
    by_trial = {row["trial"]: row["metrics"]["jaccard"] for row in values["rows"]}
    assert by_trial == {0: pytest.approx(jaccard(WIDE)), 1: pytest.approx(jaccard(HALF))}
    assert values["titles"]["jaccard"] == "Jaccard index" and values["rank_by"] == "surface_dice"
    assert values["rows"][0]["second_metrics"]["jaccard"] == values["rows"][0]["metrics"]["jaccard"]
    assert read_leaderboard(ledger.folder.leaderboard_json) == board
    page = to_markdown(board)
    assert "| voxel dice at 50 µm | Jaccard index | Jaccard index at 50 µm |" in page
    assert f"| {jaccard(WIDE):.4f} | {jaccard(WIDE):.4f} |" in page
    console = Console(file=StringIO(), width=240)
    console.print(leaderboard_table(board, 240))
    assert "Jaccard index at 50 µm" in console.file.getvalue()  # type: ignore[attr-defined]


def test_it_is_on_the_card_and_in_the_notes(config: ScoreConfig, tmp_path: Path) -> None:
    found = scored(WIDE, config)
    plain = read_architecture(bundle(tmp_path / "b", 0.5))
    described = plain.model_copy(update={"reading": plain.reading.model_copy(update={"score": found})})
    said = f"Jaccard index {jaccard(WIDE):.4f}"
    assert said in model_card(described) and said in found.text() and said in note(record(0, found))
    assert "| held-out volume | surface dice | voxel dice | Jaccard index |\n" in note(record(0, found))


def test_it_can_rank(config: ScoreConfig, by_jaccard: ScoreConfig, tmp_path: Path) -> None:
    assert [row.trial for row in ledger_of(tmp_path / "a", config).board().rows] == [1, 0]
    board = ledger_of(tmp_path / "b", by_jaccard).board()
    assert [row.trial for row in board.rows] == [0, 1]
    first = board.rows[0]
    assert board.value(first) == pytest.approx(jaccard(WIDE)) and first.seed_scores == (board.value(first),)
    assert (first.ci_low, first.ci_high) == pytest.approx((jaccard(WIDE), jaccard(WIDE)))  # all slabs are alike
    assert [row.tied_with_best for row in board.rows] == [True, True]  # the slabs do not agree on which is better
    assert board.metric == "Jaccard index, threshold cross-fitted over slabs by surface dice"
    assert "| start | Jaccard index | 95 %, slabs | at 50 µm | surface dice |" in to_markdown(board)


def test_where_it_ranks_surface_dice_chooses_the_thresholds(by_jaccard: ScoreConfig) -> None:
    """At 100 the mask is the label; at 50 it is wider, at 200 it is half of it."""
    levels = np.where(LABEL, 100, np.where(WIDE, 50, 0)).astype(np.uint8)
    levels[HALF] = 200
    found = score({"k": levels}, [KIDNEY], by_jaccard)
    assert (found.rank_by, found.value, found.best, found.mean_over_thresholds) == ("jaccard", 1.0, 1.0, None)
    assert all(50 / 255 < slab.threshold <= 100 / 255 for slab in found.slabs)
    slabs = cut_into_slabs({"k": levels}, [KIDNEY], 4)
    assert mask_values(slabs, by_jaccard, 50, None)["jaccard"] == pytest.approx(jaccard(WIDE))


def test_it_is_measured_on_masks_without_small_components(config: ScoreConfig) -> None:
    specks = LABEL.copy()
    specks[::3, 0, 0] = True
    predictions = {"k": specks * np.uint8(200)}
    assert score(predictions, [KIDNEY], config).values["jaccard"] < 1.0
    assert score(predictions, [KIDNEY], config, 2).values["jaccard"] == 1.0


def test_two_masks_are_compared_in_it(tmp_path: Path) -> None:
    for name, mask in (("a", WIDE), ("b", LABEL)):
        np.save(tmp_path / f"{name}.npy", mask.astype(np.uint8))
    near, exact = (score_masks(tmp_path / "a.npy", tmp_path / "b.npy", "50", um) for um in (50.0, 0.0))
    assert near["jaccard"] == exact["jaccard"] == pytest.approx(jaccard(WIDE))
    assert near["surface_dice"] == 1.0 > exact["surface_dice"]


def test_it_can_be_left_out(config: ScoreConfig) -> None:
    without = config.model_copy(update={"metrics": ("voxel_dice",)})
    assert list(scored(WIDE, without).values) == ["surface_dice", "voxel_dice"]
