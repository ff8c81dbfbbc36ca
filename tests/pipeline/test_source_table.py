"""Preset source-table at a size that a CPU can handle: all nine networks of its table train and are ranked."""

import json
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
import tomli_w
from command_line import nas

# Encoders of the same make that train in seconds.
SMALL = {
    "se_resnext50_32x4d": "resnet18",
    "densenet161": "densenet121",
    "efficientnet-b6": "efficientnet-b0",
    "se_resnext101_32x4d": "resnet18",
    "resnext101_32x8d": "resnet18",
    "resnext101_32x16d": "resnet34",
}


def small_source_table(encoders: dict[str, str]) -> str:
    """The preset with its own losses and decoders, from scratch, two steps each, on phantoms of a few voxels.

    encoders: what takes the place of which.
    """
    values = tomllib.loads(files("nas.config").joinpath("presets", "source-table.toml").read_text(encoding="utf-8"))
    for fixed in values["fixed"]:
        encoder = fixed["candidate"]["encoder"]
        fixed["candidate"] |= {"encoder_weights": "none", "encoder": encoders.get(encoder, encoder)}
        fixed["fit"] |= {"steps": 2, "crop": 32, "batch_size": 2}
    values["fit"] |= {"steps": 2, "loader_workers": 0}
    values["data"]["hold_out"] = "phantom_2"
    values["phantom"] = {"kidneys": 2, "shape": [16, 32, 32]}
    values["study"] |= {"rungs": 0, "kept_weights": 1, "checkpoint_seconds": 3600.0}
    values["inference"] |= {"axes": [0], "batch_voxels": 8192}
    values["score"] |= {"slabs": 4}
    return tomli_w.dumps(values)


@pytest.mark.slow
def test_the_nine_networks_of_the_table_are_trained_and_ranked(tmp_path: Path) -> None:
    (tmp_path / "table.toml").write_text(small_source_table(SMALL))
    nas("search", "table.toml", "--run", "run", cache=tmp_path / "cache", cwd=tmp_path)
    board = json.loads((tmp_path / "run/leaderboard.json").read_text())
    rows = board["rows"]
    assert [row["rank"] for row in rows] == list(range(1, 10))
    assert {row["state"] for row in rows} == {"complete"} and all(row["baseline"] for row in rows)
    names = {row["name"] for row in rows}
    assert len(names) == 9
    assert all(row["second_surface_dice"] is not None for row in rows) and board["second_um"] == 63.08


@pytest.mark.slow
def test_the_nine_networks_of_the_table_are_built_and_learn(tmp_path: Path) -> None:
    """A dry run takes every network through a step on tensors without values."""
    (tmp_path / "table.toml").write_text(small_source_table({}))
    done = nas("search", "table.toml", "--run", "run", "--dry-run", cache=tmp_path / "cache", cwd=tmp_path)
    built = [line for line in done.stdout.splitlines() if " M " in line]
    assert sum(encoder in line for encoder in SMALL for line in built) == 9
    assert any("resnext101_32x16d" in line and "201.0 M" in line for line in built)
