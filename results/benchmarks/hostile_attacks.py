"""What `hostile.py` does to run folders, bundles and stores."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

RUN_COMMANDS = (
    "doctor --run IT",
    "status --run IT",
    "show 0 --run IT",
    "search --run IT",
    "retrain best --steps 2 --run IT",
)
CONFIG_COMMANDS = (*RUN_COMMANDS, "search IT/config.toml --run NEW")
STRANGER = ("127.0.0.1", 45_117)  # a server of theirs, to which nothing may connect
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
    for key, value in (
        ("data.cache", "MINE"), ("data.cache", "../mine"), ("data.root", "MINE"), ("data.root", "/dev"),
        ("data.root", "/proc/self"), ("study.storage", "postgresql://u:pw@{}:{}/d".format(*STRANGER)),
        ("study.storage", "postgresql://u@/d?hostaddr={}&port={}".format(*STRANGER)),
        ("study.storage", "sqlite:////MINE/thesis.txt"), ("study.rungs", 10**9), ("study.seeds", 10**9),
        ("study.leaders", 10**9), ("score.resamples", 10**9), ("score.slabs", 10**9), ("score.rung_axes", [0] * 10**6),
    ):  # fmt: skip
        said = f"config.toml: {key} = {value!r}"[:80]
        yield Attack(said, "run folder", CONFIG_COMMANDS, _set_in_toml(key, value))
    texts = [b"\xff\xfe", b"[" * 10_000, b"[]", b"9" * 5_000]
    for place in (*places, "costs.json", "trials/0000/seconds", "trials/0000/scores.jsonl", "trials/0000/last_step"):
        if "." in place[1:] or place.rpartition("/")[2] in ("seconds", "last_step"):
            for text in texts:
                yield Attack(f"{place}: {text[:20]!r}", "run folder", RUN_COMMANDS[:4], _text(place, text))
    for text in (
        b"{}",
        b"[]",
        b'{"step": 1}',
        b'{"step": 1, "groups": 7, "schedule": {"last_epoch": "x"}, "scaler": 0}',
    ):
        yield Attack(f"a trunk whose state is {text!r}", "run folder", RUN_COMMANDS[-1:], _trunk_state(text))
    yield Attack("folders in each other", "run folder", RUN_COMMANDS[:4], _nested)
    yield Attack(
        "config.toml: tables in each other", "run folder", CONFIG_COMMANDS, _text("config.toml", b"a." * 9_999)
    )
    for place in ("trials/0000/log.txt", "worker-0.log", "study.journal", "x"):
        yield Attack(f"{place}: link to itself", "run folder", RUN_COMMANDS[:4], _link(place, to=Path(place).name))
    for name in ("../../../mine", "/etc", "x/../../../mine", "..", "\x1b]0;x", "[/x]"):
        yield Attack(f"a cell search called {name!r}", "run folder", RUN_COMMANDS[:4], _plan_of(name))
        yield Attack(f"a genotype called {name!r}", "run folder", RUN_COMMANDS[:4], _record_of(genotype=name))
        yield Attack(f"the record of a trial called {name!r}", "run folder", RUN_COMMANDS[:4], _record_of(name=name))

    parts = ["architecture.json", "weights.safetensors", "MODEL_CARD.md", "model.onnx", "x/y", ".best.old"]
    for place in parts:
        yield Attack(f"{place}: link to a file", "bundle", BUNDLE_COMMANDS, _link(place))
        yield Attack(f"{place}: link to /dev/zero", "bundle", BUNDLE_COMMANDS, _link(place, to="/dev/zero"))
        yield Attack(f"{place}: a pipe", "bundle", BUNDLE_COMMANDS, _pipe(place))
    for name in ("../../../mine", "/etc/mine", "\x1b[2J", "a\nb", "[/x]"):
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
        (("reading", "inference", "axes"), [0] * 10**6), (("voxel_spacing_um",), [[0, 0, 0]]),
        (("voxel_spacing_um",), [[1e300, 1e-300, 1.0]]), (("grey_scales",), {"x": [1e300, -1e300]}),
        (("fit", "voxel_size_um"), 1e-9), (("fit", "target_um"), 1e9), (("reading", "tuned_on"), {"[/x]": "0"}),
    ):  # fmt: skip
        said = f"{'.'.join(keys)} = {value!r}"[:80]
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


def _text(place: str, text: bytes) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        _gone(folder / place)
        (folder / place).write_bytes(text)

    return make


def _trunk_state(text: bytes) -> Callable[[Path, Path], None]:
    def make(folder: Path, mine: Path) -> None:
        for file in folder.glob("trials/*/trunk/*/state.json"):
            file.write_bytes(text)

    return make


def _nested(folder: Path, mine: Path) -> None:
    place = folder / "trials" / "0000" / "checkpoint"
    for _ in range(900):  # as many as `shutil` can remove again
        place = place / "x"
        place.parent.mkdir(exist_ok=True)


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
        line = f"{name} = {json.dumps(value).replace('MINE', str(mine))}\n"
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
