"""Sparse labels on phantoms, through the command line: search, label with the best, search again with its labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command_line import nas
from typer.testing import CliRunner

from nas.commands.main import make_app
from nas.config.read import read_config
from nas.jobs.kidneys import open_fold
from results.run_folder import create
from search_spaces.errors import InputError
from trainers.data.phantom import PhantomConfig, write_phantoms

pytestmark = pytest.mark.slow

SETTINGS = (
    "study.leaders=0", "study.rungs=0", "fit.steps=4", 'space.unet.encoder=["tu-resnet10t"]', 'space.fit.loss=["dice"]'
)  # fmt: skip
QUICK = ["--trials", "0", *(part for setting in SETTINGS for part in ("--set", setting))]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantom kidneys; of phantom_2 the far half of the slices lost its labels, and dataset.toml says so."""
    root = tmp_path_factory.mktemp("data") / "scans"
    write_phantoms(root, PhantomConfig(kidneys=3, shape=(24, 48, 48)), seed=0)
    (root / "train_rles.csv").unlink()
    kept, all_ = 0, 0
    for path in sorted((root / "train" / "phantom_2" / "labels").iterdir()):
        label = tifffile.imread(path)
        all_ += np.count_nonzero(label)
        if int(path.stem) >= 12:
            tifffile.imwrite(path, np.zeros_like(label))
        else:
            kept += np.count_nonzero(label)
    manifest = root / "dataset.toml"
    before, name, after = manifest.read_text().partition("[volumes.phantom_2]")
    manifest.write_text(before + name + after.replace("annotated = 1.0", f"annotated = {kept / all_:.4f}", 1))
    return root


@pytest.fixture(scope="module")
def labelled(scans: Path, config: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:  # type: ignore[type-arg]
    """What `nas label` says after it labelled phantom_2 with the best of a search; dataset.toml uses the new set."""
    run = tmp_path_factory.mktemp("runs") / "first"
    nas("search", config, "--data", scans, "--run", run, *QUICK, cache=cache)
    arguments = ["label", str(run / "best"), str(scans / "train" / "phantom_2"), "--write", "--json"]
    # In this process: importing torch once more takes longer than all the rest.
    done = CliRunner().invoke(make_app(), arguments, env={"NAS_CACHE": str(cache)}, catch_exceptions=False)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_labels_made_by_the_best_of_a_search_say_what_it_has_seen(labelled: dict) -> None:  # type: ignore[type-arg]
    assert labelled["source"]["kidneys"] == ["phantom_1", "phantom_2"]
    assert labelled["source"]["matched_share"] == labelled["labelled_voxels"] / labelled["vessel_voxels"]


def test_a_search_learns_from_labels_that_its_predecessor_made(
    labelled: dict,  # type: ignore[type-arg]
    scans: Path,
    config: Path,
    cache: Path,
    tmp_path: Path,
) -> None:
    nas("search", config, "--data", scans, "--run", tmp_path / "second", *QUICK, cache=cache)
    provenance = json.loads((tmp_path / "second" / "best" / "architecture.json").read_text())["provenance"]
    assert provenance["teachers"] == [labelled["source"]]


def test_holding_out_a_kidney_that_the_maker_of_labels_has_seen_is_one_line(
    labelled: dict,  # type: ignore[type-arg]
    scans: Path,
    config: Path,
    tmp_path: Path,
) -> None:
    settings = read_config(config, [f'data.root="{scans}"', "data.hold_out=phantom_1"])
    name = Path(labelled["labels"]).name
    with pytest.raises(InputError, match=rf"phantom_2's soft labels '{name}' .* has seen phantom_1") as caught:
        open_fold(settings, create(tmp_path / "run"))
    assert "\n" not in str(caught.value)
