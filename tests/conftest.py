"""What tests share: a folder of the session, that of real kidneys, a GPU, and the cores of the machine."""

import os
from pathlib import Path

import pytest

from nas.config.environment import ENVIRONMENT

os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})  # before torch


MOST_WORKERS = 4  # a process with its searches takes 3 GB


def pytest_xdist_auto_num_workers() -> int:
    """One process of tests for each core that this one may use."""
    return min(len(_cores()), MOST_WORKERS)


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _keep_to_a_share_of_the_cores() -> None:
    """Tests that run side by side, and what they start, do not wait for each other's threads."""
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if worker and workers and hasattr(os, "sched_setaffinity"):
        cores = _cores()
        first = int(worker.removeprefix("gw")) % len(cores)
        os.sched_setaffinity(0, cores[first :: int(workers)])


_keep_to_a_share_of_the_cores()  # before torch and numba, which count them when they are imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU or real kidneys where these are missing, and say why."""
    import torch

    has_gpu = torch.cuda.is_available()
    has_data = bool(os.environ.get("NAS_REAL_DATA"))
    for item in items:
        if not has_gpu and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if not has_data and item.get_closest_marker("data"):
            item.add_marker(pytest.mark.skip(reason="set NAS_REAL_DATA to a folder of real kidneys"))


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a command remembers of its user, in tests and the processes that they start."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all processes of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real labelled kidney patches named by NAS_REAL_DATA."""
    return Path(os.environ["NAS_REAL_DATA"])
