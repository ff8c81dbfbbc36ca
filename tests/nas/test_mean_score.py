"""The score of an ensemble's mean, at both voxel sizes."""

from dataclasses import replace
from pathlib import Path

import pytest
from bundles import bundle, scan

from nas.bundles.mean_score import score_mean
from nas.bundles.predictor import Predictor, mean_of
from results.bundles.bundle import read_architecture, read_bundle, rewrite_description
from results.bundles.reading import Reading
from trainers.data.prepare import prepare
from trainers.data.sources import scan_one
from trainers.data.volume import Volume
from trainers.fit import make_accelerator
from trainers.metrics.evaluate import evaluate
from trainers.metrics.score import Score, ScoreConfig
from trainers.report import Report


@pytest.fixture
def kidney(tmp_path: Path) -> Volume:
    volume = prepare(scan_one(scan(tmp_path, "kidney_5", (18, 48, 48))), tmp_path / "cache")
    return replace(volume, spacing_um=(50.0, 50.0, 50.0))


def ensemble_of(*paths: Path, **settings: object) -> Predictor:
    """The bundles, scored at 63.08 µm too, the last of them with other settings of its inference."""
    for path in paths:
        architecture = read_architecture(path)
        inference = architecture.reading.inference.model_copy(update=settings if path == paths[-1] else {})
        config = ScoreConfig(slabs=4, second_um=63.08)
        reading = Reading(inference=inference, threshold=0.5, score_config=config)
        rewrite_description(path, architecture.model_copy(update={"reading": reading}))
    return mean_of("the mean", tuple(read_bundle(path) for path in paths))


def scored(predictor: Predictor, volume: Volume, scratch: Path) -> tuple[Score, Reading, list[float]]:
    shares: list[float] = []
    report = Report(progress=lambda _, done, total: shares.append(done / total))
    found = score_mean(predictor, [volume], "cpu", scratch, report)
    assert found.score is not None
    return found.score, found, shares


def test_the_mean_of_a_network_with_itself_is_scored_as_the_network_is(kidney: Volume, tmp_path: Path) -> None:
    twice = ensemble_of(bundle(tmp_path / "a"), bundle(tmp_path / "b"))
    result, found, shares = scored(twice, kidney, tmp_path / "scratch")
    one = twice.members[0]
    accelerator, own = make_accelerator("float32", "cpu"), one.architecture.reading
    _, alone = evaluate(one.reader, [kidney], own.inference, own.score_config, accelerator)
    assert result == alone
    assert (found.inference.smallest_component, found.threshold) == (None, alone.threshold)
    assert result.second is not None and result.second.values["surface_dice"] > 0
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_one_member_that_cannot_read_the_other_voxel_size_alike_leaves_no_second_score(
    kidney: Volume, tmp_path: Path
) -> None:
    both = ensemble_of(bundle(tmp_path / "a", probability=0.4), bundle(tmp_path / "b", probability=0.6), axes=(0, 1))
    result, _, shares = scored(both, kidney, tmp_path / "scratch")
    assert result.second is None and result.no_second == "kidney_5 would be read along other axes at 63.08 µm"
    assert result.text().endswith("; no second score: kidney_5 would be read along other axes at 63.08 µm")
    assert shares[-1] == 1.0


@pytest.mark.slow
def test_the_smallest_component_of_a_mean_is_one_of_its_members(kidney: Volume, tmp_path: Path) -> None:
    both = ensemble_of(bundle(tmp_path / "a", seed=13), bundle(tmp_path / "b", seed=3), smallest_component=64)
    tried = {size: scored(_all_removing(both, size), kidney, tmp_path / str(size))[0].best for size in (None, 64)}
    result, found, _ = scored(both, kidney, tmp_path / "scratch")
    assert tried[found.inference.smallest_component] == max(tried.values()) == result.best
    assert tried[None] != tried[64]


def _all_removing(predictor: Predictor, size: int | None) -> Predictor:
    members = []
    for member in predictor.members:
        own = member.architecture.reading
        inference = own.inference.model_copy(update={"smallest_component": size})
        reading = own.model_copy(update={"inference": inference})
        members.append(replace(member, architecture=member.architecture.model_copy(update={"reading": reading})))
    return mean_of(predictor.name, tuple(members))
