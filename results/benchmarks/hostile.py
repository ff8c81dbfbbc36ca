"""Hostile run folders, bundles and stores: whatever a command does with one, it touches nothing outside.

    python results/benchmarks/hostile.py [--only TEXT]    # a Markdown table; exit code 1 if something was touched

A small search is run, then its folder and its best bundle are copied, once for each attack, and attacked: links (to
files, folders, devices, up and absolute), pipes, paths with `..` wherever a name or a path stands, names with escape
sequences, claims of huge sizes. Commands that read, repair, go on with, train, predict and convert are run on each
copy. Beside the copies lies a folder that stands for the user's own files; it must stay as it is, byte for byte, time
for time, and nothing may appear beside it. A command ends within a minute, with no traceback, and in one line where it
refuses.
"""

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

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
warm_up_steps = 0
augmentation = "flips"
[[fixed]]
name = "plain"
candidate = { encoder = "tu-mobilenetv3_small_100", decoder = "PSPNet", slices_in = 3 }
"""
RUN_COMMANDS = (
    "doctor --run IT",
    "status --run IT",
    "show 0 --run IT",
    "search --run IT",
    "retrain best --steps 2 --run IT",
)
BUNDLE_COMMANDS = ("predict IT SCANS --out OUT", "show IT", "retrain IT --steps 2 --run RUN")
STORE_COMMANDS = ("data check IT --out OUT", "predict BUNDLE IT --out OUT")


@dataclass(frozen=True)
class Attack:
    """What is done to a copy of a folder, given the folder of the user's own files, and what is then run on it."""

    name: str
    kind: str
    commands: tuple[str, ...]
    make: Callable[[Path, Path], None]


def attacks() -> Iterator[Attack]:
    """All of them."""
    places = [
        "trials", "trials/0000", "trials/0000/record.json", "trials/0000/candidate.json", "trials/0000/checkpoint",
        "trials/0009", "cells", "cells/x", "best", "best/weights.safetensors", "best/MODEL_CARD.md", "retrained",
        "retrained/trial-0000", "study.journal", "study.mark", "leaderboard.json", "LEADERBOARD.md", "plan.json",
        "config.toml", "identity.json", "buildable.json", "driver.lock", "worker-0.log", "phantoms", ".search.1",
        ".record.json.7",
    ]  # fmt: skip
    for place in places:
        yield Attack(f"{place}: link to a folder or file", "run folder", RUN_COMMANDS, _link(place))
    for place in places[::3]:
        yield Attack(f"{place}: link upwards", "run folder", RUN_COMMANDS[:4], _link(place, up=True))
    for place in ("trials/0000/record.json", "study.journal", "plan.json", "config.toml", "leaderboard.json"):
        yield Attack(f"{place}: a pipe", "run folder", RUN_COMMANDS[:4], _pipe(place))
    for key, value in (
        ("study.name", "../../mine"), ("study.name", "/tmp/mine"), ("study.name", "\x1b[2J"),
        ("data.hold_out", "../mine"),
        ("fit.loader_workers", 10**6), ("phantom.shape", [10**6] * 3), ("phantom.kidneys", 10**9),
    ):  # fmt: skip
        yield Attack(f"config.toml: {key} = {value!r}", "run folder", RUN_COMMANDS, _set_in_toml(key, value))
    for name in ("../../../mine", "/etc", "x/../../../mine", "..", "\x1b]0;x"):
        yield Attack(f"a cell search called {name!r}", "run folder", RUN_COMMANDS[:4], _plan_of(name))
        yield Attack(f"a genotype called {name!r}", "run folder", RUN_COMMANDS[:4], _record_of(genotype=name))
        yield Attack(f"the record of a trial called {name!r}", "run folder", RUN_COMMANDS[:4], _record_of(name=name))

    parts = ["architecture.json", "weights.safetensors", "MODEL_CARD.md", "model.onnx", "x/y", ".best.old"]
    for place in parts:
        yield Attack(f"{place}: link to a file", "bundle", BUNDLE_COMMANDS, _link(place))
        yield Attack(f"{place}: link to /dev/zero", "bundle", BUNDLE_COMMANDS, _link(place, to="/dev/zero"))
        yield Attack(f"{place}: a pipe", "bundle", BUNDLE_COMMANDS, _pipe(place))
    for name in ("../../../mine", "/etc/mine", "\x1b[2J", "a\nb"):
        yield Attack(f"named {name!r}", "bundle", BUNDLE_COMMANDS, _in_json("architecture.json", ("name",), name))
        volumes = {name: "00"}
        keys = ("provenance", "held_out_volumes")
        yield Attack(f"held out {name!r}", "bundle", BUNDLE_COMMANDS, _in_json("architecture.json", keys, volumes))
        yield Attack(f"an ensemble of {name!r}", "bundle", BUNDLE_COMMANDS, _ensemble(name))
    for keys, value in (
        (("fit", "loader_workers"), 10**6), (("fit", "crop"), 10**6), (("fit", "batch_size"), 10**9),
        (("candidate", "slices_in"), 10**7 + 1), (("reading", "threshold"), -5.0), (("reading", "threshold"), 1e300),
        (("candidate", "encoder"), "tu-resnet18.../x"), (("candidate", "encoder"), "hf-hub:x/y"),
        (("reading", "inference", "overlap"), 0.9999999), (("parameters",), -1),
    ):  # fmt: skip
        said = f"{'.'.join(keys)} = {value!r}"
        yield Attack(said, "bundle", BUNDLE_COMMANDS, _in_json("architecture.json", keys, value))

    for inside in ("../mine", "/mine", "0/../../mine", ".."):
        yield Attack(f"OME-Zarr: level at {inside!r}", "store", STORE_COMMANDS, _ome_zarr(inside))
        yield Attack(f"OME-Zarr: labels at {inside!r}", "store", STORE_COMMANDS, _ome_labels(inside))
        yield Attack(f"dataset.toml: labels = {inside!r}", "store", STORE_COMMANDS, _dataset("labels", inside))
        yield Attack(f"dataset.toml: kidney = {inside!r}", "store", STORE_COMMANDS, _dataset("kidney", inside))
        yield Attack(f"dataset.toml: a volume {inside!r}", "store", STORE_COMMANDS, _volume(inside))
        yield Attack(f"train_rles.csv: a volume {inside!r}", "store", STORE_COMMANDS, _rles(inside))
    yield Attack("OME-TIFF whose pages lie in another file", "store", STORE_COMMANDS, _ome_elsewhere)
    yield Attack("OME-XML with entities of entities", "store", STORE_COMMANDS, _entities)
    yield Attack("a level of OME-Zarr is a link", "store", STORE_COMMANDS, _zarr_link)
    yield Attack("Zarr of 10^18 voxels without chunks", "store", STORE_COMMANDS, _huge_zarr)


def _link(place: str, up: bool = False, to: str | None = None) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        path = folder / place
        is_file = path.is_file() or "." in Path(place).name[1:]
        _gone(path)
        target = Path(to) if to else mine / ("thesis.txt" if is_file else "experiments")
        path.symlink_to(os.path.relpath(target, path.parent) if up else target)

    return make


def _pipe(place: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        _gone(folder / place)
        os.mkfifo(folder / place)

    return make


def _gone(path: Path) -> None:
    """Room for another entry at this path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _set_in_toml(key: str, value: Any) -> Callable[[Path, Path], None]:
    section, _, name = key.partition(".")

    def make(folder: Path, mine: Path) -> None:
        text = (folder / "config.toml").read_text()
        body = re.sub(rf"(?m)^{name} = .*$", "", text)
        line = f"{name} = {json.dumps(value)}\n"
        assert f"[{section}]\n" in body, key
        (folder / "config.toml").write_text(body.replace(f"[{section}]\n", f"[{section}]\n{line}", 1))

    return make


def _plan_of(name: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        pace = {"step": 0.1, "part": 1.0, "whole": 1.0}
        plan = {"time": 900.0, "spent": 1.0, "pace": pace, "steps": 30, "rungs": 0, "reduction": 3, "candidates": 1}
        (folder / "plan.json").write_text(json.dumps(plan | {"baselines": 0, "fresh": 0, "cells": [name]}))

    return make


def _record_of(**named: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        for file in ("candidate.json", "record.json"):
            path = folder / "trials/0000" / file
            described = json.loads(path.read_text())
            job = described.get("job", described)
            if "genotype" in named:
                job["candidate"] = {"family": "cells", "genotype": named["genotype"], "slices_in": 8, "width": 4}
            else:
                job["name"] = named["name"]
            path.write_text(json.dumps(described))

    return make


def _in_json(file: str, keys: tuple[str, ...], value: Any) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        described = json.loads((folder / file).read_text())
        table = described
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value
        (folder / file).write_text(json.dumps(described))

    return make


def _ensemble(path: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        reading = json.loads((folder / "architecture.json").read_text())["reading"]
        (folder / "architecture.json").unlink()
        member = {"path": path, "content_hash": "00", "trial": 0}
        described = {"format": 2, "name": "top2", "members": [member, member], "reading": reading, "study": "s"}
        (folder / "ensemble.json").write_text(json.dumps(described | {"version": "0", "held_out_volumes": {}}))

    return make


def _ome_zarr(inside: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        store = folder / "v.zarr"
        zarr.create_array(folder / "mine", shape=(8, 32, 32), dtype="uint16")[:] = 7
        zarr.create_array(store / "0", shape=(8, 32, 32), dtype="uint16")[:] = 7
        levels = [{"path": inside, "coordinateTransformations": []}]
        attributes = {"multiscales": [{"version": "0.4", "datasets": levels}]}
        (store / ".zgroup").write_text('{"zarr_format": 2}')
        (store / ".zattrs").write_text(json.dumps(attributes))

    return make


def _ome_labels(inside: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        _ome_zarr("0")(folder, mine)
        labels = folder / "v.zarr" / "labels"
        labels.mkdir()
        (labels / ".zgroup").write_text('{"zarr_format": 2}')
        (labels / ".zattrs").write_text(json.dumps({"labels": [inside]}))

    return make


def _slices(place: Path) -> None:
    (place / "images").mkdir(parents=True)
    for z in range(6):
        grey = np.random.default_rng(z).integers(0, 60_000, (40, 40)).astype(np.uint16)
        tifffile.imwrite(place / "images" / f"{z:04d}.tif", grey)


def _dataset(key: str, value: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        _slices(folder / "v")
        (folder / "dataset.toml").write_text(f"[volumes.v]\n{key} = {json.dumps(value)}\n")

    return make


def _volume(name: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        _slices(folder / "v")
        (folder / "dataset.toml").write_text(f"[volumes.{json.dumps(name)}]\nkidney = 'k'\n[volumes.v]\n")

    return make


def _rles(name: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        _slices(folder / "v")
        (folder / "train_rles.csv").write_text(f"id,rle,height,width\n{name}_0000,1 1,40,40\nv_0000,1 1,40,40\n")

    return make


def _ome_elsewhere(folder: Path, mine: Path) -> None:
    tifffile.imwrite(folder / "v.ome.tif", np.ones((4, 32, 32), np.uint16), metadata={"axes": "ZYX"})
    text = (folder / "v.ome.tif").read_bytes()
    wanted = f'FileName="{mine / "secret.ome.tif"}"'.encode()
    found = re.search(rb'FileName="[^"]*"', text)
    if found is None:  # it is named in the tag's text only where there are several files
        found = re.search(rb"<TiffData[^>]*>", text)
    assert found is not None
    (folder / "v.ome.tif").write_bytes(text.replace(found[0], wanted.ljust(len(found[0]))[: len(found[0])]))


def _entities(folder: Path, mine: Path) -> None:
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    text = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "boom">{levels}]><OME><Image ID="&e11;"/></OME>'
    grey = np.ones((4, 32, 32), np.uint16)
    tifffile.imwrite(folder / "v.ome.tif", grey, description=text.encode(), metadata=None)


def _zarr_link(folder: Path, mine: Path) -> None:
    _ome_zarr("0")(folder, mine)
    shutil.move(folder / "v.zarr" / "0", mine.parent / "beside")
    (folder / "v.zarr" / "0").symlink_to(mine.parent / "beside")


def _huge_zarr(folder: Path, mine: Path) -> None:
    store = folder / "v.zarr"
    store.mkdir()
    huge = {"zarr_format": 2, "shape": [10**6] * 3, "chunks": [1000] * 3, "dtype": "<u2", "fill_value": 0}
    (store / ".zarray").write_text(json.dumps(huge | {"order": "C", "compressor": None, "filters": None}))


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
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["NAS_CACHE"] = str(work / "cache")
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
                "BUNDLE": work / "base/best",
                "SCANS": work / "base/phantoms",
            }
            for command in attack.commands:
                for place in (it, out, work / "run", work / "beside"):
                    shutil.rmtree(place, ignore_errors=True)
                shutil.copytree(work / "base", work / "run")
                if attack.kind == "store":
                    it.mkdir()
                else:
                    shutil.copytree(work / "base" / ("best" if attack.kind == "bundle" else ""), it)
                attack.make(it, own)
                before, around = state(own), {path.name for path in work.iterdir()} | {"out"}
                arguments = [str(words.get(word, word)) for word in command.split()]
                code, said = run(arguments, work / "log")
                wrong = []
                if state(own) != before:
                    wrong.append("the user's own files were touched")
                    shutil.rmtree(own)
                    mine(own)
                if more := {path.name for path in work.iterdir()} - around:
                    wrong.append(f"{more} appeared outside")
                if code not in (0, 1):
                    wrong.append("no end" if code == 124 else f"exit code {code}")
                if any("Traceback" in line for line in said) or (code == 1 and len(said) != 1):
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
