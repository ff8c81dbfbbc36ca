"""Worker processes: what they are told, what they answer, and how they fail."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from nas.config.read import parse_config
from nas.config.search_config import SearchConfig
from nas.config.write import write_config
from nas.jobs.kidneys import open_fold
from nas.workers.executor import Event, Executor
from nas.workers.local import LocalLauncher, _why, devices
from nas.workers.protocol import (
    Answer,
    Died,
    Finished,
    Open,
    Progress,
    Ready,
    Scored,
    Start,
    from_driver,
    from_worker,
)
from results.record import Job, Outcome
from results.run_folder import RunFolder, create
from search_spaces.errors import InputError
from search_spaces.families.unet import UnetCandidate
from trainers.fit import FitConfig

FIT = FitConfig(steps=6, crop=32, batch_size=2, loss="dice", augmentation="flips", precision="float32")
SECONDS = 120.0  # until a worker has spoken, on a machine that is busy


def _job(trial: int, **fit: object) -> Job:
    return Job(
        trial=trial,
        name=f"job {trial}",
        candidate=UnetCandidate(encoder="tu-resnet10t", slices_in=3),
        fit=FIT.model_copy(update=fit),
        seed=1,
        repeats=None if trial < 3 else 0,
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "killed (signal 9): most likely the machine ran out of memory"),
        (-11, "the worker was killed by signal 11"),
        (1, "the worker ended with code 1"),
        (0, "the worker ended with code 0"),
    ],
)
def test_how_a_worker_died_is_said_in_words(code: int, words: str) -> None:
    assert _why(code).endswith(words)


@pytest.mark.parametrize(
    "message",
    [
        Ready(device="cuda:1"),
        Progress(work=3, phase="train", done=1, total=9, loss=0.25),
        Progress(work=3, phase="score", done=1, total=9, loss=None),
        Scored(trial=3, step=5, value=0.5),
        Finished(trial=3, outcome=Outcome(state="failed", reason="two\nlines · and µm")),
        Died(work=None, reason="gone"),
        Died(work=4, reason="gone"),
    ],
    ids=lambda message: message.kind,
)
def test_what_a_worker_says_is_one_line_that_says_all_of_it(message: BaseModel) -> None:
    line = message.model_dump_json()
    assert "\n" not in line
    assert from_worker.validate_json(line) == message


@pytest.mark.parametrize(
    "message",
    [
        Open(run="r", device="cpu", threads=1, log="l"),
        Start(job=_job(3)),
        *(Answer(work=1, answer=a) for a in ("go", "stop", "leave")),
    ],
)
def test_what_the_driver_says_is_one_line_that_says_all_of_it(message: BaseModel) -> None:
    line = message.model_dump_json()
    assert "\n" not in line
    assert from_driver.validate_json(line) == message


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "answer", "trial": 1, "answer": "perhaps"}',
        '{"kind": "answer", "trial": 1, "answer": "go", "why": "x"}',
        '{"kind": "ready", "device": "cpu"}',
        '{"trial": 1, "answer": "go"}',
    ],
)
def test_what_is_no_message_is_an_error(line: str) -> None:
    with pytest.raises(ValidationError):
        from_driver.validate_json(line)


def test_the_cpu_is_one_worker() -> None:
    assert devices("cpu") == ["cpu"]


def _until(executor: Executor, kind: type[Event], heard: list[Event] | None = None) -> Event:
    """The next event of a kind; what was said before it goes to `heard`."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        event = executor.next_event(timeout=0.5)
        if isinstance(event, kind):
            return event
        if event is not None and heard is not None:
            heard.append(event)
    raise AssertionError(f"no {kind.__name__} within {SECONDS} seconds")


@pytest.mark.slow
def test_a_worker_that_cannot_open_its_run_names_its_log_and_does_not_hang(tmp_path: Path) -> None:
    folder = create(tmp_path / "run")
    folder.config.write_text("[study]\ntrails = 3\n")
    with (
        Executor(LocalLauncher(folder, "cpu"), folder.worker_log, workers=1) as executor,
        pytest.raises(InputError, match=r"no worker can be started on cpu .*code 1.*did you mean 'study.trials'.*see"),
    ):
        executor.open()
        _until(executor, Ready)
    assert "config.toml: unknown key 'study.trails'" in folder.worker_log(0).read_text()


@pytest.mark.slow
def test_a_worker_touches_nothing_before_it_is_told_to_and_can_be_sent_away(tmp_path: Path) -> None:
    folder = create(tmp_path / "run")  # without a configuration, which the worker would miss
    began = time.monotonic()
    with Executor(LocalLauncher(folder, "cpu"), folder.worker_log, workers=1) as executor:
        assert executor.next_event(timeout=1.0) is None
        (worker,) = executor._workers
    assert worker.process.returncode == -9
    assert time.monotonic() - began < 8.0  # not the time that a worker is given to finish what it does
    assert not folder.worker_log(0).exists()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SearchConfig:
    return parse_config(
        {
            "study": {"rungs": 1, "reduction": 3},
            "data": {"hold_out": "phantom_2", "cache": str(tmp_path_factory.mktemp("cache"))},
            "phantom": {"kidneys": 2, "shape": [16, 32, 32]},
            "inference": {"axes": [0]},
            "score": {"slabs": 2, "resamples": 10},
        },
        "test",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, config: SearchConfig) -> RunFolder:
    folder = create(tmp_path_factory.mktemp("runs") / "run")
    folder.config.write_text(write_config(config))
    open_fold(config, folder)
    return folder


@pytest.fixture(scope="module")
def executor(folder: RunFolder) -> Iterator[Executor]:
    """One worker, ready; the tests below use it one after the other, as a search does."""
    with Executor(LocalLauncher(folder, "cpu"), folder.worker_log, workers=1) as executor:
        executor.open()
        assert executor.idle() == 0
        assert not executor.any_ready()
        assert _until(executor, Ready) == Ready(device="cpu")
        yield executor
    (worker,) = executor._workers
    assert worker.process.returncode == 0  # it left when its input was closed, and was not killed


@pytest.mark.slow
def test_a_job_that_cannot_be_trained_is_an_outcome_and_its_traceback_is_in_the_log(
    executor: Executor, folder: RunFolder
) -> None:
    executor.start(_job(0, loss="dise"))
    assert (executor.running(), executor.idle()) == ([0], 0)
    finished = _until(executor, Finished)
    assert isinstance(finished, Finished)
    assert finished.outcome.state == "failed"
    assert finished.outcome.reason == "unknown loss 'dise'; did you mean 'dice' or 'cldice'?"
    assert "Traceback" in folder.trial(0).log.read_text()
    assert (executor.running(), executor.idle()) == ([], 1)


@pytest.mark.slow
def test_the_same_worker_then_trains_and_scores_another(executor: Executor, folder: RunFolder) -> None:
    heard: list[Event] = []
    executor.start(_job(1))
    scored = _until(executor, Scored, heard)
    assert isinstance(scored, Scored)
    assert (scored.trial, scored.step) == (1, 2)  # 6 steps, a third of them before the rung
    executor.answer(1, "go")
    finished = _until(executor, Finished, heard)
    assert isinstance(finished, Finished)
    assert (finished.outcome.state, finished.outcome.step) == ("complete", 6)
    assert finished.outcome.score is not None
    assert {event.work for event in heard if isinstance(event, Progress)} == {1}
    assert folder.trial(1).overlay.is_file()


@pytest.mark.slow
def test_a_recipe_of_another_precision_runs_in_the_same_worker(executor: Executor) -> None:
    executor.start(_job(2, precision="bfloat16"))
    _until(executor, Scored)
    executor.answer(2, "stop")
    finished = _until(executor, Finished)
    assert isinstance(finished, Finished)
    assert finished.outcome.state == "pruned", finished.outcome.reason
    assert str(finished.outcome.reason).startswith("behind the others at step 2")


@pytest.mark.slow
def test_a_worker_told_to_leave_writes_a_checkpoint_and_goes_on_from_it(executor: Executor, folder: RunFolder) -> None:
    executor.start(_job(3, steps=300))
    _until(executor, Progress)
    executor.answer(3, "leave")
    finished = _until(executor, Finished)
    assert isinstance(finished, Finished)
    assert finished.outcome.state == "interrupted"
    assert 0 < finished.outcome.step < 300
    assert len(list(folder.trial(3).checkpoints.iterdir())) == 1


@pytest.mark.slow
def test_a_worker_that_dies_is_said_to_be_dead_and_started_again(executor: Executor) -> None:
    executor.start(_job(4, steps=100_000))
    _until(executor, Progress)
    executor._workers[0].process.kill()
    died = _until(executor, Died)
    assert died == Died(work=4, reason=_why(-9))
    assert _until(executor, Ready) == Ready(device="cpu")
    assert executor.running() == []
