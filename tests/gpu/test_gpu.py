"""What must hold on a GPU: every precision trains, a resume goes on, scores equal the CPU's, a whole trial runs."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kidneys import tube
from safetensors.torch import load_file
from torch import nn

from nas.config.read import parse_config
from nas.jobs.trial import Talk, run_job
from results.record import Job
from results.run_folder import TrialFolder
from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network
from trainers.data.folds import Fold
from trainers.data.patches import PatchSampler
from trainers.fit import Fit, FitConfig, Precision, make_accelerator
from trainers.inference.reader import InferenceConfig, make_reader
from trainers.metrics.evaluate import predict_all

pytestmark = [
    pytest.mark.gpu,
    # float16's gradient scaler skips the first steps while it looks for a scale, but the schedule goes on.
    pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step:UserWarning"),
]

DEVICE = "cuda"
CANDIDATE = UnetCandidate(encoder="tu-resnet10t", slices_in=3)
CONFIG = FitConfig(
    steps=60,
    crop=32,
    batch_size=8,
    loss="dice + bce",
    learning_rate=3e-3,
    augmentation="flips",
    vessel_share=0.5,
    precision="float32",
)
FOLD = Fold((tube("a"), tube("b", seed=1)), (tube("c", seed=2),))


@pytest.fixture(autouse=True)
def _leave_the_process_on_the_cpu() -> Iterator[None]:
    """accelerate keeps one device for all of a process; other tests hold an accelerator of the CPU."""
    yield
    make_accelerator("float32", "cpu")


def _fit(network: nn.Module, config: FitConfig = CONFIG) -> Fit:
    sampler = PatchSampler(FOLD.train, 3, 1, config.crop, config.vessel_share, seed=5)
    return Fit(network, sampler, config, 5, make_accelerator(config.precision, DEVICE))


def _job(crop: int = 32, **changes: Any) -> Job:
    fit = CONFIG.model_copy(update={"crop": crop, "steps": 12, "precision": "auto", **changes})
    return Job(trial=0, name="tiny", candidate=CANDIDATE, fit=fit, inference=InferenceConfig(), seed=0)


def _folder(path: Path) -> TrialFolder:
    path.mkdir()
    return TrialFolder(path)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_every_precision_lowers_the_loss_and_keeps_the_weights_finite(precision: Precision) -> None:
    torch.manual_seed(0)
    fit = _fit(build_network(CANDIDATE, 32), CONFIG.model_copy(update={"precision": precision}))
    losses: list[float] = []
    assert fit.run(60, lambda _, loss: bool(losses.append(loss)) or True)
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    for name, value in fit.averaged.state_dict().items():
        assert value.device.type == DEVICE, name
        assert torch.isfinite(value).all(), name
        assert value.dtype in (torch.float32, torch.int64), name  # mixed precision keeps its weights in float32


def _small(seed: int) -> nn.Module:
    """Dropout draws from the device's own generator, so a resume that forgot it would go another way."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(4, 1, 1)
    )


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_resumed_training_equals_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    config = CONFIG.model_copy(update={"steps": 12, "learning_rate": 0.01, "loss": "bce", "precision": precision})
    unbroken = _fit(_small(0), config)
    unbroken.run(12, lambda _, __: True)

    first = _fit(_small(0), config)
    assert not first.run(12, lambda step, _: step < 6)
    first.save(tmp_path)
    halfway = {name: value.clone() for name, value in first.averaged.state_dict().items()}
    torch.manual_seed(999)  # another process would have drawn other numbers by now
    second = _fit(_small(7), config)
    assert second.resume(tmp_path)
    second.run(12, lambda _, __: True)

    moved = 0.0
    for name, value in unbroken.averaged.state_dict().items():
        torch.testing.assert_close(second.averaged.state_dict()[name], value, rtol=1e-4, atol=1e-4, msg=name)
        if value.is_floating_point():
            moved = max(moved, float((value - halfway[name]).abs().max()))
    assert moved > 1e-3  # else nothing would have been gone on with


def test_a_checkpoint_of_the_gpu_goes_on_on_the_cpu(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": 6})
    first = _fit(_small(0), config)
    first.run(6, lambda step, _: step < 3)
    first.save(tmp_path)
    sampler = PatchSampler(FOLD.train, 3, 1, config.crop, config.vessel_share, seed=5)
    second = Fit(_small(7), sampler, config, 5, make_accelerator("float32", "cpu"))
    assert second.resume(tmp_path)
    losses: list[float] = []
    second.run(6, lambda _, loss: bool(losses.append(loss)) or True)
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("masks", ["middle", "all"])
def test_the_gpu_predicts_what_the_cpu_does(masks: str) -> None:
    candidate = CANDIDATE.model_copy(update={"masks": masks})
    torch.manual_seed(0)
    network = build_network(candidate, 32)
    reader = make_reader(network, candidate, FitConfig(crop=32))
    volumes = [tube("a", (20, 40, 56)), tube("b", (33, 48, 48), seed=1)]
    on_cpu = predict_all(reader, volumes, InferenceConfig(), make_accelerator("float32", "cpu"))
    accelerator = make_accelerator("float32", DEVICE)
    network.to(accelerator.device)
    on_gpu = predict_all(reader, volumes, InferenceConfig(), accelerator)
    for volume in volumes:
        difference = np.abs(on_cpu[volume.name].astype(int) - on_gpu[volume.name].astype(int))
        assert difference.max() <= 2  # steps of 1/255
        assert np.ptp(on_cpu[volume.name]) > 10  # a constant would prove nothing


def test_a_whole_trial_completes(tmp_path: Path) -> None:
    config = parse_config({"score": {"slabs": 2, "resamples": 50}}, "test")
    folder = _folder(tmp_path / "trial")
    scored: list[int] = []
    talk = Talk(lambda *_: "go", lambda step, _: scored.append(step))
    outcome = run_job(_job(), FOLD, config, folder, DEVICE, talk, rungs=[4])
    assert (outcome.state, outcome.step) == ("complete", 12)
    assert scored == [4]
    assert outcome.device == torch.cuda.get_device_name()
    assert outcome.score is not None
    assert 0.0 <= outcome.score.value <= 1.0
    assert outcome.peak_memory_gib is not None
    assert 0.0 < outcome.peak_memory_gib < 2.0
    network = build_network(CANDIDATE, 32)
    network.load_state_dict(load_file(folder.weights))  # kept on the CPU, whatever trained them
    assert folder.overlay.is_file()


def test_a_trial_told_to_leave_goes_on_from_its_step(tmp_path: Path) -> None:
    config = parse_config({"score": {"slabs": 2, "resamples": 50}}, "test")
    folder = _folder(tmp_path / "trial")
    leaving = Talk(lambda phase, done, *_: "leave" if done >= 5 else "go", lambda *_: "go")
    left = run_job(_job(), FOLD, config, folder, DEVICE, leaving)
    assert (left.state, left.step) == ("interrupted", 5)
    steps: list[int] = []
    going = Talk(lambda phase, done, *_: "go" if phase == "score" or steps.append(done) is None else "stop", _go)
    assert run_job(_job(), FOLD, config, folder, DEVICE, going).state == "complete"
    assert steps == list(range(6, 13))


def _go(step: int, value: float) -> Any:
    return "go"


def test_the_peak_memory_is_that_of_the_trial_and_not_of_those_before(tmp_path: Path) -> None:
    config = parse_config({"score": {"slabs": 2, "resamples": 50}}, "test")
    talk = Talk(lambda *_: "go", _go)
    peaks = []
    for number, batch_size in enumerate((64, 2)):
        folder = _folder(tmp_path / str(number))
        outcome = run_job(_job(batch_size=batch_size, steps=2), FOLD, config, folder, DEVICE, talk)
        assert outcome.peak_memory_gib is not None
        peaks.append(outcome.peak_memory_gib)
    assert peaks[1] < 0.7 * peaks[0]
