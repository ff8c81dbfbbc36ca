"""Hostile run folders, bundles and stores: whatever a command does with one, it touches nothing outside.

    python results/benchmarks/hostile.py [--only TEXT]    # a Markdown table; exit code 1 if something was touched

A small search is run, then its folder and its best bundle are copied, once for each attack, and attacked: links (to
files, folders, devices, up and absolute), pipes, paths with `..` wherever a name or a path stands, names with escape
sequences, claims of huge sizes, files that hold something else, and a configuration that names places and servers
outside. Commands that read, repair, go on with, train, predict and convert are run on each copy. Beside the copies lies
a folder that stands for the user's own files; it must stay as it is, byte for byte, time for time, nothing may appear
beside it, and a server that stands for the stranger's must not be asked. A command ends within a minute, with no
traceback, and in one line where it refuses.
"""

import argparse
import hashlib
import io
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from hostile_attacks import STRANGER, attacks

from nas.commands.main import main as nas

SECONDS = 60
SEARCH = """
[study]
name = "base"
trials = 1
rungs = 0
leaders = 0
seeds = 1
[data]
hold_out = "phantom_2"
[phantom]
kidneys = 2
shape = [16, 48, 48]
[space.unet]
encoder = ["tu-mobilenetv3_small_100"]
decoder = ["PSPNet"]
[space.fit]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
[fit]
steps = 2
crop = 32
batch_size = 2
augmentation = "flips"
[[fixed]]
name = "plain"
candidate = { encoder = "tu-mobilenetv3_small_100", decoder = "PSPNet", slices_in = 3 }
"""


def run(arguments: list[str], log: Path) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of a command in a forked process; code 124 if it takes more than a minute."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.setpgid(0, 0)
        sys.argv = ["nas", *arguments]
        code = 1
        with log.open("w") as told, redirect_stderr(told), redirect_stdout(io.StringIO()):
            try:
                nas()
            except SystemExit as ended:
                code = int(ended.code or 0)
            except BaseException as error:
                print(f"Traceback: {error!r}", file=told)
        os._exit(code)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), log.read_text().strip().splitlines()
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 124, log.read_text().strip().splitlines()


def state(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a folder: kind, mode, times and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(folder))] = (facts.st_mode, facts.st_mtime_ns, content)
    return found


def mine(folder: Path) -> Path:
    """A user's own files, some with names that this program uses for what it may remove."""
    (folder / "experiments" / "step-0001000").mkdir(parents=True)
    (folder / "experiments" / "step-0001000" / "model.bin").write_text("months of work")
    (folder / "experiments" / "record.json").write_text("{}")
    (folder / ".project.17").mkdir()
    (folder / ".project.17" / "thesis.tex").write_text("mine")
    for name in (".notes.2024", ".profile.old", "thesis.txt", "weights.safetensors", "architecture.json"):
        (folder / name).write_text("mine")
    tifffile.imwrite(folder / "secret.ome.tif", np.full((4, 32, 32), 999, np.uint16), metadata={"axes": "ZYX"})
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    return folder


def main() -> int:
    """A table, one line for each defect on stderr, and how many there were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="attacks whose name contains this")
    only = parser.parse_args().only
    tried: dict[str, list[int]] = {}
    defects = 0
    for heavy in ("nas.search.search", "nas.bundles.retrain", "nas.bundles.predict"):
        import_module(heavy)  # once, before the commands are forked
    with tempfile.TemporaryDirectory() as name, socket.create_server(STRANGER) as stranger:
        stranger.setblocking(False)
        work = Path(name)
        os.environ |= {"NAS_CACHE": str(work / "cache"), "XDG_STATE_HOME": str(work / "state")}
        (work / "base.toml").write_text(SEARCH)
        (work / "log").touch()
        code, said = run(["search", str(work / "base.toml"), "--run", str(work / "base")], work / "log")
        assert code == 0, said
        own = mine(work / "mine")
        for number, attack in enumerate(one for one in attacks() if only in one.name):
            it, out = work / "it", work / "out"
            words = {
                "IT": it,
                "OUT": out,
                "RUN": work / "run",
                "NEW": work / "new",
                "BUNDLE": work / "base/best",
                "SCANS": work / "base/phantoms",
            }
            for command in attack.commands:
                for place in (it, out, work / "run", work / "new", work / "beside"):
                    shutil.rmtree(place, ignore_errors=True)
                shutil.copytree(work / "base", work / "run")
                if attack.kind == "store":
                    it.mkdir()
                else:
                    shutil.copytree(work / "base" / ("best" if attack.kind == "bundle" else ""), it)
                attack.make(it, own)
                before, around = state(own), {path.name for path in work.iterdir()} | {"out", "new", "state"}
                arguments = [str(words.get(word, word)) for word in command.replace("IT/", f"{it}/").split()]
                code, said = run(arguments, work / "log")
                wrong = []
                if state(own) != before:
                    wrong.append("the user's own files were touched")
                    shutil.rmtree(own)
                    mine(own)
                if more := {path.name for path in work.iterdir()} - around:
                    wrong.append(f"{more} appeared outside")
                with suppress(BlockingIOError):
                    stranger.accept()[0].close()
                    wrong.append("a server of the stranger's was asked")
                if code not in (0, 1):
                    wrong.append("no end" if code == 124 else f"exit code {code}")
                reports = command.startswith(("doctor", "data check"))  # what they find is their output
                if any("Traceback" in line for line in said) or (code == 1 and len(said) != 1 and not reports):
                    wrong.append("not one line")
                if any("\x1b" in line for line in said):
                    wrong.append("an escape sequence is printed")
                row = tried.setdefault(attack.kind, [0, 0, 0, 0])
                row[0] += command == attack.commands[0]
                row[1] += 1
                row[2] += code == 1
                row[3] += bool(wrong)
                if wrong:
                    defects += 1
                    text = "\n    ".join(line[:200] for line in said[-4:])
                    print(
                        f"{number} {attack.kind}: {attack.name}: nas {command}: {', '.join(wrong)}\n    {text}",
                        file=sys.stderr,
                    )
    print("| what is hostile | attacks | commands run | refused in one line | defects |\n|---|---:|---:|---:|---:|")
    for kind, (count, commands, refused, bad) in tried.items():
        print(f"| {kind} | {count} | {commands} | {refused} | {bad} |")
    print(f"\n{sum(row[0] for row in tried.values())} attacks, {defects} defects.")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
