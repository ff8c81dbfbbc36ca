import os
import stat
from pathlib import Path

import pytest
import torch

from trainers.atomic import write_atomically
from trainers.checkpoint import (
    damaged_checkpoints,
    load_checkpoint,
    newest_step,
    save_checkpoint,
    save_tensors,
)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, {"a": torch.arange(4.0)}, {"note": "x"})
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    tensors, state = loaded
    assert torch.equal(tensors["a"], torch.tensor([0.0, 1.0, 2.0, 3.0]))
    assert state == {"step": 3, "note": "x"}


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "missing") is None


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        save_checkpoint(tmp_path, step, {"a": torch.zeros(1)}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]


@pytest.mark.parametrize("damaged", ["tensors.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path: Path, damaged: str) -> None:
    save_checkpoint(tmp_path, 1, {"a": torch.ones(1)}, {})
    newest = save_checkpoint(tmp_path, 2, {"a": torch.zeros(1)}, {})
    (newest / damaged).write_bytes(b"{half")
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded[1]["step"] == 1


@pytest.mark.parametrize("state", ["[" * 5_000, "[]", "{}", '{"step": "2"}'])
def test_a_state_that_names_no_step_is_damaged(tmp_path: Path, state: str) -> None:
    newest = save_checkpoint(tmp_path, 2, {"a": torch.zeros(1)}, {})
    (newest / "state.json").write_text(state)
    assert load_checkpoint(tmp_path) is None
    assert damaged_checkpoints(tmp_path) == [newest]


def test_what_is_not_called_by_its_step_is_no_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"a": torch.ones(1)}, {})
    (tmp_path / "step-x").mkdir()
    assert newest_step(tmp_path) == 1


def test_a_half_written_checkpoint_does_not_count(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"a": torch.ones(1)}, {})
    half = tmp_path / ".step-00000002.999"
    half.mkdir()
    (half / "state.json").write_text('{"step": 2}')
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded[1]["step"] == 1


def test_channels_last_tensors_keep_their_values(tmp_path: Path) -> None:
    tensor = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    save_tensors({"a": tensor, "view": tensor[:, 1]}, tmp_path / "w.safetensors")
    from safetensors.torch import load_file

    loaded = load_file(tmp_path / "w.safetensors")
    assert torch.equal(loaded["a"], tensor)
    assert torch.equal(loaded["view"], tensor[:, 1])


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_the_umask_decides_who_may_read_weights(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors")
        write_atomically(tmp_path / "a.json", "{}")
    finally:
        os.umask(before)
    for name in ("a.safetensors", "a.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


def test_nothing_is_written_through_a_link_that_lies_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    for name in ("a.json", "a.safetensors"):
        (tmp_path / f".{name}.{os.getpid()}").symlink_to(tmp_path / "victim")
    write_atomically(tmp_path / "a.json", "{}")
    save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert (tmp_path / "victim").read_text() == "mine"
