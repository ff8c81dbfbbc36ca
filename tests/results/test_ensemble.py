import json
import shutil
from pathlib import Path

import pytest
from bundles import bundle

from results.bundles.ensemble import ENSEMBLE, Ensemble, member_of, read_ensemble, read_members, write_ensemble
from results.bundles.reading import Reading
from search_spaces.errors import InputError
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import ScoreConfig


def _ensemble(folder: Path) -> Path:
    """Two bundles, and their ensemble beside them."""
    path = folder / "top2"
    members = [member_of(path, bundle(folder / name, seed=seed), seed) for seed, name in enumerate("ab")]
    ensemble = Ensemble(
        name="both",
        members=tuple(members),
        reading=Reading(inference=InferenceConfig(), threshold=0.25, score_config=ScoreConfig()),
        study="s",
        version="0",
        held_out_volumes={},
    )
    return write_ensemble(path, ensemble)


def test_an_ensemble_survives_being_written_and_moved_with_its_members(tmp_path: Path) -> None:
    path = _ensemble(tmp_path / "here")
    before = read_ensemble(path)
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there" / "top2"
    assert read_ensemble(moved) == before
    assert [b.architecture.provenance.trial for b in read_members(moved, before)] == [0, 1]


@pytest.mark.parametrize("change", ["weights", "threshold"])
def test_a_member_that_was_changed_since_is_refused(tmp_path: Path, change: str) -> None:
    path = _ensemble(tmp_path)
    bundle(tmp_path / "b", seed=2 if change == "weights" else 1, threshold=0.5 if change == "weights" else 0.7)
    with pytest.raises(InputError, match=r"b has changed since .*top2 was made"):
        read_members(path, read_ensemble(path))


def test_a_member_that_is_gone_is_named(tmp_path: Path) -> None:
    path = _ensemble(tmp_path)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(InputError, match=r"a is not a bundle: architecture.json cannot be read"):
        read_members(path, read_ensemble(path))


@pytest.mark.parametrize("content", ["{", "[]", '{"name": 1}'])
def test_a_damaged_description_is_one_line(tmp_path: Path, content: str) -> None:
    path = _ensemble(tmp_path)
    (path / ENSEMBLE).write_text(content)
    with pytest.raises(InputError, match=r"ensemble.json does not describe an ensemble") as caught:
        read_ensemble(path)
    assert "\n" not in str(caught.value)


def test_one_network_is_no_ensemble(tmp_path: Path) -> None:
    path = _ensemble(tmp_path)
    values = json.loads((path / ENSEMBLE).read_text())
    values["members"] = values["members"][:1]
    (path / ENSEMBLE).write_text(json.dumps(values))
    with pytest.raises(InputError, match="members"):
        read_ensemble(path)
