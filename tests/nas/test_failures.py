"""What an exception means for its trial, and what the sampler learns from it."""

import errno
import signal
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

from nas.config.study_config import StudyConfig
from nas.jobs.failures import outcome_of
from nas.study.samplers import make_sampler
from nas.study.study import tell
from results.record import Job, Outcome, Record
from search_spaces.errors import InputError
from search_spaces.families.unet import UnetCandidate
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.step import NonFiniteLoss


def test_memory_that_this_machine_does_not_have_is_infeasible() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**45, dtype=torch.float64)
    outcome, healthy = outcome_of(caught.value, "cpu")
    assert outcome.state == "infeasible"
    assert healthy
    assert outcome.peak_memory_gib is not None and outcome.peak_memory_gib > 2**18
    assert outcome.memory_excess_gib is not None and 0 < outcome.memory_excess_gib < outcome.peak_memory_gib
    assert "out of memory: needs 26" in (outcome.reason or "")


def test_the_message_of_a_gpu_is_understood() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 600.50 GiB. GPU 0 has a total capacity of 79")
    outcome, _ = outcome_of(error, "cpu")
    assert outcome.peak_memory_gib is not None and 600.5 < outcome.peak_memory_gib < 620
    assert outcome_of(MemoryError(), "cpu")[0].state == "infeasible"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_not_the_trials_fault(number: int) -> None:
    outcome, _ = outcome_of(OSError(number, "No space left on device", "/data/x.npy"), "cpu")
    assert outcome == Outcome(state="interrupted", reason="the disk is full: no space left for /data/x.npy; free some")


def test_a_full_dev_shm_is_not_the_trials_fault_and_says_what_would_do() -> None:
    error = RuntimeError(
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "a.py", line 1\nRuntimeError: unable to write to file </torch_1_2>: No space left on device (28)\n'
    )
    outcome, _ = outcome_of(error, "cpu")
    assert outcome.state == "interrupted" and outcome.reason is not None
    assert "/dev/shm" in outcome.reason and "fit.loader_workers=0" in outcome.reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NonFiniteLoss("the loss became nan"), "the loss became nan"),
        (InputError("no such encoder"), "no such encoder"),
        (ValueError("first line\nsecond line"), "ValueError: first line"),
        (RuntimeError(), "RuntimeError:"),
        (
            RuntimeError(
                "Caught KeyError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                '  File "a.py", line 1\nKeyError: 17\n'
            ),
            "KeyError: 17",
        ),
    ],
)
def test_other_errors_fail_with_one_line(error: Exception, reason: str) -> None:
    outcome, _ = outcome_of(error, "cpu")
    assert (outcome.state, outcome.reason) == ("failed", reason)


def test_the_sampler_avoids_what_does_not_fit_into_memory(tmp_path: Path) -> None:
    """Crops over 300 do not fit; all others score the same, so only the constraint tells them apart."""
    config = StudyConfig(random_trials=10)
    study = optuna.create_study(direction="maximize")
    job = Job(
        trial=0,
        name="j",
        candidate=UnetCandidate(encoder="resnet18"),
        fit=FitConfig(),
        inference=InferenceConfig(),
        seed=0,
    )
    crops = []
    for number in range(60):
        study.sampler = make_sampler(config, number)
        trial = study.ask()
        crop = trial.suggest_int("crop", 64, 512, step=16)
        crops.append(crop)
        if crop > 300:
            outcome = Outcome(state="infeasible", reason="out of memory", memory_excess_gib=crop / 100 - 3)
            tell(study, trial, Record(job=job, outcome=outcome, version="0"))
        else:
            study.tell(trial, 0.5)
    infeasible = [trial for trial in study.trials if any(c > 0 for c in trial.constraints.values())]
    assert len(infeasible) == sum(crop > 300 for crop in crops)
    assert all(trial.state == TrialState.PRUNED for trial in infeasible)
    assert sum(crop > 300 for crop in crops) >= 5
    assert sum(crop > 300 for crop in crops[30:]) <= 6  # a uniform draw: 14


def test_a_checkpoint_that_does_not_fit_on_the_disk_says_so(tmp_path: Path) -> None:
    import resource

    from trainers.checkpoint import save_tensors

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_tensors({"a": torch.zeros(10_000)}, tmp_path / "weights.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
