"""The whole pipeline with SAM's encoders, through the command line, from weights in a file of the user's own."""

import json
from pathlib import Path

import pytest
import timm
import torch
from command_line import nas
from safetensors.torch import load_file, save_file

SAM = """
[study]
name = "sam"
trials = 1
random_trials = 2
rungs = 1
leaders = 0
promotion = "none"

[data]
hold_out = "phantom_3"

[phantom]
kidneys = 3
shape = [24, 48, 48]

[space]
families = ["sam"]

[space.sam]
encoder = ["sam2_hiera_tiny"]
encoder_weights = ["FILE"]
tuning = ["lora"]
lora_rank = [2]
slices_in = [3]

[space.fit]
loss = ["dice + bce"]
learning_rate = { low = 1e-3, high = 1e-2, log = true }

[fit]
steps = 4
crop = 32
batch_size = 2
learning_rate = 3e-3
augmentation = "flips"

[inference]
axes = [0]
overlap = 0.0

[retrain]
steps = 6

[[fixed]]
name = "from scratch"
candidate = { family = "sam", encoder = "sam2_hiera_tiny", slices_in = 3 }
"""

LORA = "sam2_hiera_tiny (published) LoRA 2 · dice + bce · 3x32 · flips"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What timm publishes for SAM 2's smallest encoder, with random numbers."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "published.safetensors"
    save_file(timm.create_model("sam2_hiera_tiny", num_classes=0).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    path = tmp_path_factory.mktemp("config") / "sam.toml"
    path.write_text(SAM.replace("FILE", str(weights)))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, config: Path, cache: Path) -> tuple[Path, str]:
    """A finished search in family sam, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "sam"
    return folder, nas("search", config, "--run", folder, cache=cache).stdout


def _rows(run: Path) -> list[dict]:  # type: ignore[type-arg]
    return json.loads((run / "leaderboard.json").read_text())["rows"]  # type: ignore[no-any-return]


def test_every_tuning_is_trained_and_ranked_with_its_start_beside_it(run: tuple[Path, str]) -> None:
    folder, printed = run
    rows = {row["name"]: row for row in _rows(folder)}
    assert {row["state"] for row in rows.values()} == {"complete"}
    assert {row["family"] for row in rows.values()} == {"sam"}
    starts = {name: row["start"] for name, row in rows.items()}
    assert starts == {"from scratch": "scratch", LORA: "published"}
    assert "note: from scratch: sam2_hiera_tiny; others start from published" in printed
    assert "1 of 2 ranked row(s) started from random weights" in " ".join(printed.split())
    assert "| from scratch | scratch |" in (folder / "LEADERBOARD.md").read_text()


def test_lora_is_retrained_and_its_bundle_predicts_its_score_without_factors(
    run: tuple[Path, str], cache: Path, tmp_path: Path
) -> None:
    folder, _ = run
    trial = next(row["trial"] for row in _rows(folder) if row["name"] == LORA)
    done = json.loads(nas("retrain", str(trial), "--run", folder, "--onnx", "--json", cache=cache).stdout)
    bundle = Path(done["bundle"])
    assert (bundle / "model.onnx").is_file()
    assert not [key for key in load_file(bundle / "weights.safetensors") if "lora" in key or "base_layer" in key]
    scan = folder / "phantoms" / "train" / "phantom_3"
    found = json.loads(
        nas("predict", bundle, scan, "--score", "--json", "--out", tmp_path / "m.npy", cache=cache).stdout
    )
    assert found["score"]["values"]["surface_dice"] == pytest.approx(
        done["record"]["outcome"]["score"]["values"]["surface_dice"], abs=1e-6
    )
