"""A search from configuration to exported leader, without its command."""

from io import StringIO
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console
from searches import tiny_config

from nas.commands.live_view import PlainView
from nas.config.search_config import SearchConfig
from nas.search.search import SearchResult, run_search
from results.bundles.bundle import read_bundle
from results.record import read_record
from results.run_folder import RunFolder, create
from search_spaces.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create(tmp_path / "run")


def _config(tmp_path: Path, *changes: dict[str, dict[str, object]]) -> SearchConfig:
    small = {
        "study": {"trials": 1, "leaders": 0, "rungs": 0},
        "data": {"hold_out": "phantom_2", "cache": str(tmp_path / "cache")},
        "phantom": {"kidneys": 2, "shape": [16, 40, 40]},
        "fit": {"steps": 2},
    }
    return tiny_config(small, *changes)


def _search(config: SearchConfig, folder: RunFolder) -> tuple[SearchResult, str]:
    out = StringIO()
    result = run_search(config, folder, PlainView(Console(file=out, width=200)))
    return result, out.getvalue()


@pytest.mark.slow
def test_a_search_leaves_a_ranking_and_a_bundle_and_is_over_when_run_again(tmp_path: Path, folder: RunFolder) -> None:
    config = _config(tmp_path)
    result, _ = _search(config, folder)
    assert not result.stopped
    assert result.board.best is not None
    assert read_bundle(folder.best).architecture.provenance.trial == result.board.best
    again, printed = _search(config, folder)
    assert again.board.rows == result.board.rows
    assert "trial 0" not in printed


def test_one_folder_holds_one_search_at_a_time(tmp_path: Path, folder: RunFolder) -> None:
    with FileLock(folder.lock), pytest.raises(InputError, match=r"another search is running in .*; wait for it, or"):
        _search(_config(tmp_path), folder)


@pytest.mark.slow
def test_a_mistake_in_the_settings_does_not_bind_the_folder_to_them(tmp_path: Path, folder: RunFolder) -> None:
    with pytest.raises(InputError, match="crop 512 is too large for phantom_1"):
        _search(_config(tmp_path, {"fit": {"crop": 512}}), folder)
    assert not folder.config.exists()
    assert not folder.trial_folders()


@pytest.mark.slow
def test_finalists_are_confirmed_with_each_kidney_held_out(tmp_path: Path, folder: RunFolder) -> None:
    each = {"data": {"hold_out": "each"}, "phantom": {"kidneys": 3}, "study": {"trials": 2, "leaders": 2, "seeds": 2}}
    result, printed = _search(_config(tmp_path, *({key: values} for key, values in each.items())), folder)
    names = {"phantom_1", "phantom_2", "phantom_3"}
    judged = [row for row in result.board.rows if row.judged]
    assert result.board.held_out == "phantom_1"
    assert len(judged) == 2
    assert len(result.board.rows) == 3  # none is lost because the study lists it as failed
    assert all(row.kidneys.keys() == names and len(row.judged) == 3 for row in judged)
    assert "phantom_2 held out)" in printed
    assert "study.seeds counts as 4 instead of 2: a fresh seed for each of 3 kidneys held out" in printed
    assert read_bundle(folder.best).architecture.provenance.held_out_volumes.keys() == {"phantom_1"}
    for number, place in folder.trial_folders():
        record = read_record(place.record)
        assert record is not None
        if record.outcome.score is not None:
            (scored,) = record.outcome.score.volumes
            assert scored.volume == (record.job.hold_out or "phantom_1"), number


def test_a_storage_that_only_a_configuration_names_is_refused_before_anything_is_made(
    tmp_path: Path, folder: RunFolder
) -> None:
    named = {"study": {"storage": "postgresql://me@db.stranger/d"}}
    with pytest.raises(InputError, match=r"names the storage postgresql://db\.stranger/d, which none of your commands"):
        _search(_config(tmp_path, named), folder)
    assert not folder.phantoms.exists()
