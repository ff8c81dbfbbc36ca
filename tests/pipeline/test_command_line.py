"""How the command line answers mistakes: one line that names them, exit code 1, and nothing is lost."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from bundles import bundle
from command_line import nas, nas_process


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("leaderboard",), "no run below results/runs; start one with `nas search`"),
        (("status", "--run", "nowhere"), "nowhere is not a run folder"),
        (("retrain", "best", "--run", "nowhere"), "nowhere is not a run folder"),
        (("search", "--preset", "demmo"), "unknown preset 'demmo'; did you mean 'demo'"),
        (("search", "missing.toml"), "missing.toml cannot be read"),
        (("search", "--set", "study.trails=3"), "unknown key 'study.trails'; did you mean 'study.trials'"),
        (("search", "--families", "cels"), "unknown family 'cels'; did you mean 'cells'"),
        (("search", "--data", "no_scans", "--hold-out", "k"), "no_scans: there is no such file or folder"),
        (("search", "--data", "ph 😀 ü", "--hold-out", "k"), "/ph 😀 ü: there is no such file or folder"),
        (("predict", "no_bundle", "scan"), "no_bundle is not a bundle"),
        (("score", "a.npy", "b.npy"), "a.npy"),
        (("score", "a.npy", "b.npy", "--spacing-um", "1,2"), "--spacing-um takes one positive number or three"),
        (("config", "demmo"), "unknown preset 'demmo'; did you mean 'demo'"),
        (("config", "demo", "--set", "fit.stps=3"), "unknown key 'fit.stps'; did you mean 'fit.steps'"),
        (("data", "check", "no_scans"), "no_scans"),
        (("data", "phantom", "out", "--shape", "1,2"), "--shape takes three numbers"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = nas(*arguments, cwd=tmp_path, expect=1)
    assert message in done.stderr
    assert done.stderr.startswith("nas: ")
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("command", ["label", "tune"])
def test_a_bundle_in_the_place_of_a_volume_is_named(tmp_path: Path, command: str) -> None:
    (tmp_path / "scan" / "images").mkdir(parents=True)
    done = nas(command, "scan", bundle(tmp_path / "b"), cwd=tmp_path, expect=1)
    assert "b is a bundle, where a volume is expected: the bundle comes first, as in `nas" in done.stderr


def test_scans_in_the_place_of_a_configuration_are_named(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    done = nas("search", "scans", cwd=tmp_path, expect=1)
    assert done.stderr == (
        "nas: scans is a folder, not a configuration file; `nas search` takes scans with --data and a run with --run\n"
    )


@pytest.mark.parametrize("command", ["status", "leaderboard", "doctor", "dashboard"])
def test_a_run_is_named_with_or_without_an_option(tmp_path: Path, command: str) -> None:
    for arguments in (("--run", "a"), ("a",), ("a", "--run", "a")):
        done = nas(command, *arguments, cwd=tmp_path, expect=1)
        assert "a is not a run folder" in done.stderr + done.stdout
    assert "two runs are named, a and --run b" in nas(command, "a", "--run", "b", cwd=tmp_path, expect=1).stderr


@pytest.mark.slow
def test_a_process_that_ends_with_a_mistake_says_nothing_else(tmp_path: Path) -> None:
    done = nas_process("search", "--families", "cels", cwd=tmp_path, expect=1)
    assert done.stdout == ""
    assert done.stderr.startswith("nas: ") and done.stderr.count("\n") == 1, done.stderr


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    nas("search", "--no-such-option", cwd=tmp_path, expect=2)


def test_help_answers_at_once(tmp_path: Path) -> None:
    # Half a second is the promise on an idle machine (see the benchmarks); what breaks it is an import of torch,
    # which takes seconds.
    heavy = ("torch", "numpy", "pydantic", "optuna")
    code = f"import sys, nas.commands.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "search" in nas_process("--help", cwd=tmp_path).stdout


def test_a_configuration_that_is_printed_can_be_searched_with(tmp_path: Path) -> None:
    done = nas("config", "cpu", "--set", "fit.steps=77", cwd=tmp_path)
    assert "steps = 77  # optimiser steps, not epochs" in done.stdout.splitlines()
    (tmp_path / "mine.toml").write_text(done.stdout)
    assert nas("config", "mine.toml", cwd=tmp_path).stdout == done.stdout
    values = json.loads(nas("config", "mine.toml", "--json", cwd=tmp_path).stdout)
    assert (values["study"]["name"], values["fit"]["steps"]) == ("cpu", 77)


def test_a_run_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = nas("search", "--run", tmp_path / "file" / "run", expect=1)
    assert "cannot be written" in done.stderr


def test_a_place_that_the_system_refuses_is_named_with_what_would_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = nas("data", "phantom", tmp_path / "file" / "kidneys", expect=1)
    assert re.match(r"nas: .*/file/.*: choose another path\n$", done.stderr), done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_dashboard_answers_whom_it_knows_and_ends_when_asked(tmp_path: Path, host: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("")
    command = [sys.executable, "-m", "nas", "dashboard", "--run", tmp_path / "run", "--host", host, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = re.search(r"http://\S+:(\d+)/dashboard/(\?token=\S+)?", server.stdout.readline())
    assert address is not None
    assert (address[2] is None) == (host == "127.0.0.1")

    def status(name: str, query: str = "") -> int:
        asked = urllib.request.Request(f"http://127.0.0.1:{address[1]}/api/studies{query}", headers={"Host": name})
        try:
            with urllib.request.urlopen(asked, timeout=240) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    known = f"127.0.0.1:{address[1]}"
    assert status(known) == (200 if host == "127.0.0.1" else 403)
    assert status("evil.example") == 403
    server.terminate()
    printed = server.communicate(timeout=240)
    assert server.returncode == 0
    assert printed == ("", "")


def test_a_mistake_does_not_bind_the_run_folder_to_it(tmp_path: Path) -> None:
    small = ("--set", "phantom.shape=[16, 32, 32]")
    done = nas("search", "--run", tmp_path / "run", "--hold-out", "phantom_9", *small, cache=tmp_path, expect=1)
    assert "phantom_9" in done.stderr
    assert not (tmp_path / "run" / "config.toml").exists()


@pytest.mark.slow
def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    small = ["--set", "phantom.shape=[16, 64, 64]", "--set", "study.trials=1"]
    done = nas("search", "--run", tmp_path / "run", *small, "--set", "device=cuda:99", cache=tmp_path, expect=1)
    assert "there is no device 'cuda:99' here; choose one of: auto, cpu" in done.stderr
