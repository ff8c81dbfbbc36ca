"""The table of commands: a function and a row make a command, and the fields of a request are its options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from nas.commands.main import COMMANDS, make_app
from nas.commands.spread import spread
from nas.study.own_storages import check_own
from search_spaces.errors import InputError


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does(name: str) -> None:
    done = CliRunner().invoke(make_app(), [name, "--help"])
    assert done.exit_code == 0
    command = COMMANDS[name]
    said = command.info.help if isinstance(command, typer.Typer) else command.__doc__
    assert said and said.split()[0] in done.stdout


@dataclass(frozen=True)
class _Request:
    folder: Annotated[Path, typer.Argument(help="A folder.")]
    scans: Annotated[list[Path], typer.Argument(help="Scans.")]
    depth: Annotated[int, typer.Option(min=1, help="How deep.")] = 3
    is_quick: Annotated[bool, typer.Option("--quick", help="Sooner.")] = False


@spread
def _dig(request: _Request, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Dig in a folder."""
    print(request, as_json)


def test_a_row_makes_a_command_whose_options_are_the_fields_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "dig", _dig)
    run, app = CliRunner().invoke, make_app()
    asked = _Request(Path("a"), [Path("b"), Path("c")])
    assert run(app, ["dig", "a", "b", "c"]).stdout == f"{asked} False\n"
    asked = _Request(Path("a"), [Path("b")], depth=5, is_quick=True)
    assert run(app, ["dig", "a", "--depth", "5", "--quick", "b", "--json"]).stdout == f"{asked} True\n"
    assert run(app, ["dig", "a", "b", "--depth", "0"]).exit_code == 2
    assert "Dig in a folder." in run(app, ["dig", "--help"]).stdout


def test_a_command_is_a_function_too(capsys: pytest.CaptureFixture[str]) -> None:
    _dig(folder=Path("a"), scans=[], as_json=True)
    assert capsys.readouterr().out == f"{_Request(Path('a'), [])} True\n"


@pytest.mark.parametrize("by", ["file", "run", "bare", "--storage", "--set"])
def test_a_storage_is_its_user_s_own_once_the_command_line_names_it(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://me@db.{by.strip('-')}/d"
    monkeypatch.setattr("nas.workers.process.warm_up", lambda: None)
    monkeypatch.setattr("nas.search.dry_run.dry_run", lambda *_: None)
    theirs = by in ("run", "bare")
    file = tmp_path / "folder" / "config.toml"
    file.parent.mkdir()
    if by == "run":
        (tmp_path / "folder" / "trials").mkdir()
    file.write_text("" if by.startswith("--") else f'[study]\nstorage = "{url}"\n')
    said = {"--storage": ["--storage", url], "--set": ["--set", f"study.storage={url}"]}.get(by, [])
    run = file.parent if by == "bare" else tmp_path / "run"
    done = CliRunner().invoke(make_app(), ["search", str(file), "--dry-run", "--run", str(run), *said])
    assert done.exit_code == 0, done.output
    if theirs:
        with pytest.raises(InputError, match="repeat it with --storage"):
            check_own(url)
    else:
        check_own(url)
