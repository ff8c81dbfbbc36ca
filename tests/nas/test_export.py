from pathlib import Path

import pytest
import torch
from kidneys import tube

from nas.bundles.export import export_best
from nas.config.search_config import SearchConfig
from results.bundles.bundle import read_architecture, read_bundle, rewrite_description
from results.bundles.onnx import ONNX
from results.record import Job, Outcome, Record, read_record
from results.run_folder import RunFolder, create
from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network
from trainers.atomic import write_atomically
from trainers.checkpoint import save_tensors
from trainers.data.folds import Fold
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.cross_fit import score
from trainers.metrics.score import ScoreConfig

CANDIDATE = UnetCandidate(encoder="tu-mobilenetv3_small_100", decoder="PSPNet", slices_in=3)
HELD_OUT = tube("k")
FOLD = Fold((tube("t"),), (HELD_OUT,))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run with trial 0 and trial 1, which repeats it; only the weights of trial 1 were kept."""
    folder = create(tmp_path / "run")
    assert HELD_OUT.label is not None
    result = score({"k": HELD_OUT.label * 255}, [HELD_OUT], ScoreConfig())
    for trial, repeats in ((0, None), (1, 0)):
        job = Job(
            trial=trial,
            name="n",
            candidate=CANDIDATE,
            fit=FitConfig(crop=32),
            inference=InferenceConfig(),
            seed=trial,
            repeats=repeats,
        )
        outcome = Outcome(state="complete", score=result, parameters=1)
        folder.trial(trial).path.mkdir(parents=True)
        record = Record(job=job, outcome=outcome, version="0")
        write_atomically(folder.trial(trial).record, record.model_dump_json())
    torch.manual_seed(0)
    save_tensors(build_network(CANDIDATE, 32).state_dict(), folder.trial(1).weights)
    return folder


def test_a_repeat_stands_in_where_the_first_trainings_weights_were_not_kept(folder: RunFolder) -> None:
    assert export_best(folder, 0, SearchConfig(), FOLD)
    found = read_bundle(folder.best).architecture
    assert (found.provenance.trial, found.provenance.seed) == (1, 1)
    assert found.grey_scales == {v.content_hash: (v.grey_low, v.grey_high) for v in (*FOLD.train, *FOLD.held_out)}


def test_weights_that_saw_the_held_out_kidney_are_not_exported(folder: RunFolder) -> None:
    record = read_record(folder.trial(1).record)
    assert record is not None
    other = record.model_copy(update={"job": record.job.model_copy(update={"hold_out": "t"})})
    write_atomically(folder.trial(1).record, other.model_dump_json())
    assert not export_best(folder, 0, SearchConfig(), FOLD)


def test_exporting_again_leaves_what_lies_beside_the_weights(folder: RunFolder) -> None:
    export_best(folder, 0, SearchConfig(), FOLD)
    (folder.best / ONNX).write_text("exported")
    export_best(folder, 0, SearchConfig(), FOLD)
    assert (folder.best / ONNX).is_file()


def test_exporting_again_leaves_what_tuning_chose(folder: RunFolder) -> None:
    export_best(folder, 0, SearchConfig(), FOLD)
    found = read_architecture(folder.best)
    inference = found.reading.inference.model_copy(update={"symmetries": "d4", "smallest_component": 64})
    reading = found.reading.model_copy(update={"inference": inference, "threshold": 0.11, "tuned_on": {"k": "k"}})
    older = found.provenance.model_copy(update={"libraries": {"timm": "0"}})
    tuned = found.model_copy(update={"reading": reading, "provenance": older})
    rewrite_description(folder.best, tuned)
    export_best(folder, 0, SearchConfig(), FOLD)
    assert read_architecture(folder.best) == tuned


def test_another_training_takes_the_place_of_a_tuned_one(folder: RunFolder) -> None:
    export_best(folder, 0, SearchConfig(), FOLD)
    found = read_architecture(folder.best)
    other = found.provenance.model_copy(update={"seed": 7})
    tuned = found.reading.model_copy(update={"tuned_on": {"k": "k"}})
    rewrite_description(folder.best, found.model_copy(update={"reading": tuned, "provenance": other}))
    export_best(folder, 0, SearchConfig(), FOLD)
    assert read_architecture(folder.best) == found


def test_without_any_weights_nothing_is_exported(folder: RunFolder) -> None:
    folder.trial(1).weights.unlink()
    assert not export_best(folder, 0, SearchConfig(), FOLD)
    assert not folder.best.exists()
