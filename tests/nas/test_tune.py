"""Choosing how a bundle reads, on its held-out volume."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bundles import bundle, scan

from nas.bundles.predict import predict_paths
from nas.bundles.requests import PredictRequest, RetrainRequest, TuneRequest
from nas.bundles.retrain import find_retraining
from nas.bundles.tune import Tuned, tune
from nas.commands.tune import tune as tune_command
from nas.config.search_config import SearchConfig
from results.bundles.bundle import read_architecture, rewrite_description
from results.run_folder import create
from search_spaces.errors import InputError
from trainers.data.prepare import default_cache, prepare
from trainers.data.sources import scan_one
from trainers.inference.reader import InferenceConfig
from trainers.report import Report


def test_what_was_tuned_on_held_out_volumes_is_left_out_of_a_new_training_that_is_scored_there(tmp_path: Path) -> None:
    own = InferenceConfig(axes=(0,), overlap=0.5)
    path, run = bundle(tmp_path / "b", inference=own), create(tmp_path / "run")
    known = read_architecture(path)
    tuned = own.model_copy(update={"symmetries": "d4", "smallest_component": 64})
    reading = known.reading.model_copy(update={"inference": tuned, "tuned_on": {"k": "k"}})
    for before in (known, known.model_copy(update={"reading": reading})):
        rewrite_description(path, before)
        training = find_retraining(run, SearchConfig(), str(path), None, RetrainRequest())
        assert training.job.inference == own
        assert training.known == before.reading


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Tuned]:
    """A bundle as it was, its held-out kidney, and what tuning without writing found."""
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE", str(folder / "cache"))
        kidney = scan(folder, "kidney_5", (16, 32, 40))
        held_out = {"kidney_5": prepare(scan_one(kidney), default_cache()).content_hash}
        network = bundle(folder / "b", held_out=held_out)
        return network, kidney, _tune(network, kidney, write=False)


def _tune(network: Path, *paths: Path, write: bool) -> Tuned:
    return tune(TuneRequest(network, list(paths), write=write, device="cpu"))


def test_every_way_is_tried_and_the_bundle_stays_as_it_is(tuned: tuple[Path, Path, Tuned]) -> None:
    network, _, found = tuned
    ways = [(way.symmetries, way.smallest_component) for way in found.ways]
    assert ways == [(s, c) for s in ("none", "flips", "d4") for c in (None, 16, 64, 256)]
    assert (found.before, found.written) == (found.ways[0], False)
    assert read_architecture(network).reading.tuned_on == {}


def test_what_is_written_is_what_predict_then_does(
    tuned: tuple[Path, Path, Tuned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, kidney, dry = tuned
    monkeypatch.setenv("NAS_CACHE", str(network.parent / "cache"))
    copy = shutil.copytree(network, tmp_path / "copy")
    found = _tune(copy, kidney, write=True)
    assert found.model_dump(exclude={"bundle", "written"}) == dry.model_dump(exclude={"bundle", "written"})
    assert found.pays and found.written  # else nothing below is tested: give the network another seed
    written = read_architecture(copy).reading
    assert (written.inference.symmetries, written.inference.smallest_component) == (
        found.chosen.symmetries,
        found.chosen.smallest_component,
    )
    assert (written.threshold, written.score) == (found.score.threshold, found.score)
    assert written.tuned_on == read_architecture(network).provenance.held_out_volumes
    notes: list[str] = []
    again = predict_paths(
        PredictRequest([copy, kidney], out=tmp_path / "m", score=True, held_out=True, device="cpu"),
        Report(notes.append),
    )
    assert again.score is not None
    assert again.score.value == pytest.approx(found.chosen.value, abs=1e-12)
    assert again.mask_values["surface_dice"] == pytest.approx(found.score.best, abs=1e-12)
    assert any("were chosen on kidney_5" in note for note in notes)


def test_another_volume_of_the_same_name_is_refused(
    tuned: tuple[Path, Path, Tuned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="kidney_5 is not the volume of that name"):
        _tune(tuned[0], scan(tmp_path, "kidney_5", (16, 32, 40), seed=3), write=False)


def test_a_bundle_that_was_trained_on_every_kidney_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trained on every kidney"):
        _tune(bundle(tmp_path / "b"), scan(tmp_path, "kidney_5"), write=False)


def test_a_signal_leaves_nothing_behind(tuned: tuple[Path, Path, Tuned], monkeypatch: pytest.MonkeyPatch) -> None:
    network, kidney, _ = tuned
    cache = network.parent / "cache"
    monkeypatch.setenv("NAS_CACHE", str(cache))
    seen: list[list[Path]] = []

    @contextmanager
    def signalled(_console: object) -> Iterator[Report]:
        def stop(_what: str, _done: int, _of: int) -> None:
            seen.append(list(cache.glob(".scratch-*")))
            os.kill(os.getpid(), signal.SIGTERM)

        yield Report(progress=stop)

    monkeypatch.setattr("nas.commands.progress.reporting", signalled)
    with pytest.raises(InputError, match="stopped before the end; the same command starts over"):
        tune_command(bundle=network, volumes=[kidney], device="cpu", as_json=True)
    assert len(seen[0]) == 1 and not list(cache.glob(".scratch-*"))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
