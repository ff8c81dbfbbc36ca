"""Folders for temporary files."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.data.scratch import scratch_folder

LEFT = """
import sys, time
from pathlib import Path
from trainers.data.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as place:
    (place / "probabilities.npy").write_bytes(bytes(1000))
    print("there", flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_even_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), scratch_folder(tmp_path) as place:
        (place / "below").mkdir()
        (place / "below" / "file").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_files_of_a_killed_process_are_removed_by_the_next_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LEFT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "there\n"
        (theirs,) = tmp_path.iterdir()
        with scratch_folder(tmp_path):
            assert (theirs / "probabilities.npy").stat().st_size == 1000
        other.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == [theirs]
    with scratch_folder(tmp_path) as place:
        assert list(tmp_path.iterdir()) == [place]
