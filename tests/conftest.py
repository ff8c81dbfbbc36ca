"""What tests share: the folder of real kidneys, and a device with a GPU."""

import os
from pathlib import Path

import pytest

from nas.config.environment import ENVIRONMENT

os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})  # before torch


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


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real labelled kidney patches named by NAS_REAL_DATA."""
    return Path(os.environ["NAS_REAL_DATA"])
