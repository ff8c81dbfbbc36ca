"""Conversions in separate processes: killed, two at once, and how much memory they take."""

import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from stacks import a_volume, one_source, write_slices

from trainers.data import slices
from trainers.data.prepare import prepare, statistics_of
from trainers.report import Report


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


# Converts one slice at a time, records each, and takes 20 ms for it, so that it can be killed half-way.
SLOWLY = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from trainers.data import convert, slices
    from trainers.data.prepare import prepare
    from trainers.data.sources import scan_one
    from trainers.report import Report
    slices.BLOCK_BYTES = 1
    convert.CHECKPOINT_SECONDS = 0
    def advance(_what, done, _total):
        print(done, flush=True)
        time.sleep(0.02)
    report = Report(lambda text: print(text, flush=True), advance)
    volume = prepare(scan_one(Path(sys.argv[1])), Path(sys.argv[2]), report)
    print("hash", volume.content_hash, flush=True)
    """
)


def convert_slowly(folder, cache) -> subprocess.Popen:
    command = [sys.executable, "-c", SLOWLY, str(folder), str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_after(process: subprocess.Popen, done: int) -> None:
    for line in process.stdout:
        if line.strip() == str(done):
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_killed_conversion_goes_on_where_it_was(tmp_path, cache, monkeypatch, dtype: type) -> None:
    image, label = a_volume(shape=(40, 20, 24))
    source = one_source(tmp_path, image.astype(dtype), label)
    passes = 2 if dtype == np.float32 else 1
    kill_after(convert_slowly(tmp_path / "data" / "a", cache), done=40 * (passes - 1) + 25)
    assert not (cache / source.key).exists()
    monkeypatch.setattr(slices, "BLOCK_BYTES", 1)
    seen: list[int] = []
    volume = prepare(source, cache, Report(progress=lambda _what, done, _total: seen.append(done)))
    assert seen[0] > 40 * (passes - 1) + 20
    unbroken = prepare(source, tmp_path / "other")
    assert volume.content_hash == unbroken.content_hash
    assert np.array_equal(volume.image, unbroken.image)
    assert np.array_equal(volume.label, label)
    assert np.array_equal(volume.vessel_voxels, np.flatnonzero(label))
    assert statistics_of(source, cache) == statistics_of(source, tmp_path / "other")
    assert [path.name for path in cache.glob("*.part")] == []


@pytest.mark.slow
def test_what_a_killed_conversion_was_writing_is_not_in_the_finished_one(tmp_path, cache) -> None:
    source = one_source(tmp_path, *a_volume(shape=(40, 20, 24)))
    kill_after(convert_slowly(tmp_path / "data" / "a", cache), done=25)
    for name in ("progress.json", "vessels.npy", "statistics.json"):  # as a kill between two system calls leaves them
        (cache / f"{source.key}.part" / f".{name}.1").write_bytes(b"half")
    prepare(source, cache)
    there = sorted(path.name for path in (cache / source.key).iterdir())
    assert there == ["image.npy", "label.npy", "statistics.json", "vessels.npy"]


@pytest.mark.slow
def test_a_partial_file_shorter_than_recorded_is_not_trusted(tmp_path, cache) -> None:
    image, _ = a_volume(shape=(40, 20, 24))
    source = one_source(tmp_path, image)
    kill_after(convert_slowly(tmp_path / "data" / "a", cache), done=25)
    with (cache / f"{source.key}.part" / "image.npy").open("r+b") as file:
        file.truncate(5_000)
    assert np.array_equal(prepare(source, cache).image, image)


@pytest.mark.slow
def test_two_processes_convert_one_volume_once(tmp_path, cache) -> None:
    image, _ = a_volume(shape=(40, 20, 24))
    source = one_source(tmp_path, image)
    first = convert_slowly(tmp_path / "data" / "a", cache)
    assert first.stdout.readline().strip() == "1"
    notes: list[str] = []
    drained = threading.Thread(target=first.stdout.read)
    drained.start()
    progress: list[int] = []
    volume = prepare(source, cache, Report(notes.append, lambda _what, done, _total: progress.append(done)))
    assert first.wait() == 0
    drained.join()
    first.stdout.close()
    assert np.array_equal(volume.image, image)
    assert progress == []
    assert "another process is converting it" in notes[0]


# 250 MB of image in all; its own peak is measured, beyond what the imports took.
PEAK = textwrap.dedent(
    r"""
    import re, sys
    from pathlib import Path
    import numpy as np
    from trainers.data.prepare import prepare
    from trainers.data.sources import scan_one
    prepare(scan_one(Path(sys.argv[2])), Path(sys.argv[3]))
    def peak():  # getrusage would count what the parent had before exec
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
    before = peak()
    prepare(scan_one(Path(sys.argv[1])), Path(sys.argv[3]))
    print(peak() - before)
    """
)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_conversion_takes_little_memory(tmp_path, cache) -> None:
    slice_ = np.random.default_rng(0).integers(0, 60_000, (1000, 1250)).astype(np.uint16)
    write_slices(tmp_path / "large" / "images", np.broadcast_to(slice_, (100, 1000, 1250)))
    write_slices(tmp_path / "small" / "images", a_volume()[0])
    command = [sys.executable, "-c", PEAK, str(tmp_path / "large"), str(tmp_path / "small"), str(cache)]
    grown = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 130
