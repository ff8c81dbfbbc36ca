"""Checkpoints: safetensors for arrays, JSON for the rest, written so that a kill never leaves a partial one.

A checkpoint is a folder `step-00001200/` with `tensors.safetensors` and `state.json`. It is written under another
name, flushed to disk and renamed. The two newest are kept, as a fallback in case the last one is damaged.
"""

import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainers.atomic import aside, whole_folder

KEPT = 2
TENSORS, STATE = "tensors.safetensors", "state.json"


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, atomically. Views and channels-last tensors are stored as contiguous ones.

    The umask decides who may read the file, as with all others; safetensors alone would keep it to its owner.
    """
    part = aside(path)
    part.unlink(missing_ok=True)
    with part.open("xb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    try:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, part)
        part.chmod(mode)
    except SafetensorError as error:  # raised for a full disk, among others
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        part.unlink(missing_ok=True)
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of one step below `folder` and remove all but the newest two."""
    final = folder / f"step-{step:08d}"
    with whole_folder(final) as part:
        save_tensors(tensors, part / TENSORS)
        (part / STATE).write_text(json.dumps({"step": step, **state}), encoding="utf-8")
        if final.exists():
            shutil.rmtree(final)
    for old in _newest_first(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest complete checkpoint below `folder`: (tensors, state), or None if there is none.

    A damaged one (after a false report that it was flushed) is skipped with a printed line; the one before it is used.
    """
    for path in _newest_first(folder):
        loaded = _load(path)
        if loaded is not None:
            return loaded
        print(f"{path} is damaged and is skipped")
    return None


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint below `folder`, or None if there is none."""
    newest = next(iter(_newest_first(folder)), None)
    return None if newest is None else int(newest.name.removeprefix("step-"))


def damaged_checkpoints(folder: Path) -> list[Path]:
    """Incomplete or damaged checkpoints below `folder`. Raises OSError if the disk cannot be read."""
    return [path for path in _newest_first(folder) if not _whole(path)]


def _whole(path: Path) -> bool:
    try:
        _state(path)
        load_file(path / TENSORS)
    except (FileNotFoundError, ValueError, SafetensorError):
        return False
    return True


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    try:
        state = _state(path)
        return load_file(path / TENSORS), state
    except (OSError, ValueError, SafetensorError):
        return None


def _state(path: Path) -> dict[str, Any]:
    """What is kept besides tensors. Raises ValueError if it is something else."""
    state = from_json((path / STATE).read_bytes())
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise ValueError(f"{path / STATE} names no step")
    return state


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(found, reverse=True)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's state as named tensors, and its parameter groups as plain values."""
    state = optimiser.state_dict()
    tensors = {
        f"optimiser.{index}.{name}": torch.as_tensor(value)
        for index, values in state["state"].items()
        for name, value in values.items()
    }
    return tensors, state["param_groups"]


def restore_optimiser(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """The reverse of `optimiser_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = tensor
    for group in groups:  # JSON has turned the tuples (betas) into lists
        group.update({key: tuple(value) for key, value in group.items() if key == "betas"})
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def surroundings(
    schedule: torch.optim.lr_scheduler.LRScheduler, accelerator: Accelerator
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of a training besides networks and optimisers, as tensors and plain values.

    It consists of random states, the position in the schedule, and the loss scale of float16.
    """
    tensors = {"random.cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    place = {key: value for key, value in schedule.state_dict().items() if key in ("last_epoch", "_step_count")}
    scaler = accelerator.scaler
    return tensors, {"schedule": place, "scaler": None if scaler is None else scaler.state_dict()}


def restore_surroundings(
    schedule: torch.optim.lr_scheduler.LRScheduler,
    accelerator: Accelerator,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> None:
    """The reverse of `surroundings`."""
    place = {key: int(value) for key, value in state["schedule"].items()}
    schedule.load_state_dict({**schedule.state_dict(), **place})
    torch.set_rng_state(tensors["random.cpu"])
    if accelerator.device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
    if state["scaler"] is not None and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state["scaler"])


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
    """Copy the tensors whose names start with `prefix` into a network; every name must match."""
    network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
