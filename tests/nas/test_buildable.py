"""What of a space can be built is found once a run."""

import json
from pathlib import Path

import pytest

from nas.study import buildable as module
from nas.study.buildable import buildable
from search_spaces.space import SearchSpace

SPACE = SearchSpace(encoders=("tu-resnet10t", "tu-vit_tiny_patch16_224"), decoders=("Unet", "DPT"), crops=(64,))


@pytest.fixture(autouse=True)
def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_known", {})
    monkeypatch.setattr(module, "program_version", lambda: "0.1.0")


def _built(space: SearchSpace, file: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many pairs are built by a process that starts with this file."""
    monkeypatch.setattr(module, "_known", {})
    built: list[int] = []
    buildable(space, lambda done, of: built.append(done), file)
    return max(built, default=0)


def test_a_second_process_builds_nothing_and_knows_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "buildable.json"
    assert _built(SPACE, file, monkeypatch) == 4
    first = buildable(SPACE)
    assert first.decoders("tu-resnet10t") == ("Unet",)
    assert _built(SPACE, file, monkeypatch) == 0
    assert buildable(SPACE) == first


@pytest.mark.parametrize("harm", ["another space", "another library", "torn"])
def test_what_is_remembered_of_something_else_is_built_again(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "buildable.json"
    space = SPACE.model_copy(update={"decoders": ("Unet",)})
    _built(space, file, monkeypatch)
    if harm == "another space":
        assert _built(SPACE, file, monkeypatch) == 4
        return
    if harm == "another library":
        monkeypatch.setattr(module, "version", lambda name: "99")
    else:
        file.write_text(file.read_text()[:-20])
    assert _built(space, file, monkeypatch) == 2
    assert json.loads(file.read_text())["pairs"]
