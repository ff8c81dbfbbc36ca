"""The pretrained weights of a search: listed with size and licence, fetched from a hub, told apart from scratch."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from command_line import nas
from kidneys import tube
from safetensors.torch import save, save_file

from nas.config.difference import merge
from nas.config.read import parse_config, read_config
from nas.config.search_config import SearchConfig
from nas.search.needed_weights import list_weights, needed, starting_note
from nas.search.preflight import preflight
from nas.study.buildable import find_buildable
from search_spaces.errors import InputError
from search_spaces.published.weights import find_weights
from trainers.data.folds import Fold

REPOSITORY = "timm/resnet10t.c3_in1k"
SPACE = {
    "fit": {"crop": [32], "batch_size": [2], "loss": ["dice", "bce"]},
    "unet": {"encoder": ["tu-resnet10t"], "encoder_weights": ["imagenet"], "slices_in": [3]},
    "sam": {
        "encoder": ["sam2_hiera_tiny"],
        "encoder_weights": ["fb_r896"],
        "tuning": ["frozen"],
        "slices_in": [3],
    },
}


def config_of(*families: str, **changes: dict[str, Any]) -> SearchConfig:
    values = {"study": {"trials": 4}, "space": {**merge(SPACE, changes), "families": list(families)}}
    return parse_config({**values, "fit": {"augmentation": "flips"}}, "test")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


class _Hub(BaseHTTPRequestHandler):
    """The three questions that the hub's client asks, answered for one repository."""

    content = save({"x": torch.zeros(100)})

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        card = json.dumps({"id": REPOSITORY, "cardData": {"license": "mit"}, "siblings": []}).encode()
        is_card = self.path.startswith(f"/api/models/{REPOSITORY}")
        if not is_card and self.path != f"/{REPOSITORY}/resolve/main/model.safetensors":
            self.send_error(404)
            return
        content = card if is_card else self.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json" if is_card else "application/octet-stream")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"1"')
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        return None


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """The address of a hub on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def write_small_config(place: Path) -> Path:
    config = place / "config.toml"
    config.write_text('[space.unet]\nencoder = ["tu-resnet10t"]\nencoder_weights = ["imagenet"]\n')
    return config


def run_command(place: Path, endpoint: str, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """`nas weights` with a hub at an address and a cache of its own, read when the client is imported."""
    environment = {**os.environ, "HF_HOME": str(place / "hf"), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-m", "nas", "weights", *arguments, str(write_small_config(place))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def run_offline(place: Path, *arguments: str) -> str:
    """What `nas weights` prints with the same cache in this process, which may not ask any hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(place / "hf/hub"))
        assert huggingface_hub.constants.HF_HUB_OFFLINE
        return nas("weights", *arguments, write_small_config(place)).stdout


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory, hub: str) -> tuple[Path, dict[str, Any], str]:
    """A folder with a cache that was empty, what was listed then, and what fetching printed."""
    place = tmp_path_factory.mktemp("fetched")
    (before,) = json.loads(run_command(place, hub, "list", "--json").stdout)
    return place, before, run_command(place, hub, "fetch").stdout


@pytest.mark.slow
def test_missing_weights_are_listed_fetched_and_then_found_offline(
    fetched: tuple[Path, dict[str, Any], str],
) -> None:
    place, before, printed = fetched
    assert (before["repository"], before["file"]) == (REPOSITORY, None)
    assert (before["size_bytes"], before["size_estimated"]) == (len(_Hub.content), False)
    assert before["licence"] == "apache-2.0"
    assert f"1 of 1: {REPOSITORY}, 0 MB, licence: apache-2.0" in printed
    assert "all weights are on this machine" in printed
    assert list((place / "hf").rglob("snapshots/*/model.safetensors"))
    assert "all weights are on this machine" in run_offline(place, "fetch")


@pytest.mark.slow
def test_damaged_weights_are_missing_and_fetched_again(
    fetched: tuple[Path, dict[str, Any], str], hub: str, tmp_path: Path
) -> None:
    shutil.copytree(fetched[0], tmp_path, symlinks=True, dirs_exist_ok=True)
    (file,) = (tmp_path / "hf").rglob("snapshots/*/model.safetensors")
    whole = file.read_bytes()
    file.resolve().write_bytes(whole[:-4])
    (damaged,) = json.loads(run_offline(tmp_path, "list", "--offline", "--json"))
    assert damaged["file"] is None
    assert "all weights are on this machine" in run_command(tmp_path, hub, "fetch").stdout
    assert file.read_bytes() == whole


@pytest.mark.slow
def test_a_hub_out_of_reach_is_one_line_that_says_what_would_help(tmp_path: Path) -> None:
    done = run_command(tmp_path, "http://127.0.0.1:9", "fetch", expect=1)
    assert done.stderr.startswith(f"nas: {REPOSITORY} cannot be fetched from 127.0.0.1:9: ")
    assert f"`hf download {REPOSITORY} model.safetensors`" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.usefixtures("empty_cache")
def test_without_a_hub_sizes_are_estimated_and_licences_are_timms_or_unknown() -> None:
    config = config_of("unet", "sam", unet={"encoder": ["resnet18"]})
    resnet, hiera = list_weights(config)
    # 3 slices as 3 colours: torchvision's ResNet-18 without its classifier of 513 000.
    assert (resnet.size_bytes, resnet.size_estimated) == (4 * (11_689_512 - 513_000), True)
    assert resnet.licence == "unknown, see https://huggingface.co/smp-hub/resnet18.imagenet"
    assert (hiera.encoder, hiera.weights, hiera.licence) == ("sam2_hiera_tiny", "fb_r896", "apache-2.0")
    assert (hiera.repository, hiera.file) == ("timm/sam2_hiera_tiny.fb_r896", None)


@pytest.mark.slow
@pytest.mark.usefixtures("empty_cache")
def test_the_source_table_needs_one_file_for_each_of_its_encoders() -> None:
    rows = list_weights(read_config("source-table"))
    assert [row.encoder for row in rows] == [
        "se_resnext50_32x4d",
        "densenet161",
        "efficientnet-b6",
        "se_resnext101_32x4d",
        "resnext101_32x8d",
        "resnext101_32x16d",
    ]


def test_a_file_of_the_users_own_is_listed_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file({"x": torch.zeros(10)}, path)
    (row,) = list_weights(config_of("unet", unet={"encoder_weights": [str(path)]}))
    assert (row.file, row.size_bytes, row.repository) == (path, path.stat().st_size, None)


def test_the_encoders_of_the_families_are_needed_and_no_others() -> None:
    config = config_of("sam", sam={"encoder_weights": ["none", "fb_r896"]})
    found = [(candidate.family, candidate.encoder, candidate.encoder_weights) for candidate, _ in needed(config)]
    assert found == [("sam", "sam2_hiera_tiny", "none"), ("sam", "sam2_hiera_tiny", "fb_r896")]


def test_files_of_one_name_in_two_folders_are_both_needed() -> None:
    files = ["a/x.safetensors", "b/x.safetensors"]
    config = config_of("unet", unet={"encoder_weights": files})
    assert [getattr(candidate, "encoder_weights", None) for candidate, _ in needed(config)] == files


def test_weights_of_networks_with_an_even_number_of_slices_are_listed() -> None:
    even = {"slices_in": [4], "masks": ["all"]}
    found = [candidate for candidate, _ in needed(config_of("unet", "sam", unet=even, sam=even))]
    assert {(c.slices_in, c.slices_out) for c in found} == {(4, 4)}


def test_a_search_says_which_candidates_start_from_scratch_where_others_do_not() -> None:
    unet, sam = {"encoder_weights": ["none"]}, {"encoder_weights": ["none", "fb_r896"], "tuning": ["full", "frozen"]}
    mixed = config_of("unet", "sam", unet=unet, sam=sam)
    note = starting_note(mixed, find_buildable(mixed))
    assert note is not None
    assert note.startswith("from scratch: resnet10t, sam2_hiera_tiny; others start from fb_r896.")
    alike = config_of("unet", unet=unet)
    assert starting_note(alike, find_buildable(alike)) is None


@pytest.mark.slow
def test_weights_of_another_encoder_stop_a_search_before_its_first_trial(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    save_file(timm.create_model("sam2_hiera_tiny", num_classes=0).state_dict(), path)
    fold = Fold((tube("a"), tube("b")), (tube("c"),))
    own = {"encoder_weights": [str(path)]}
    preflight(config_of("sam", sam=own), fold)
    wrong = config_of("sam", sam={**own, "encoder": ["sam2_hiera_small"]})
    with pytest.raises(InputError, match=f"weights file {path} does not fit encoder 'sam2_hiera_small': ") as caught:
        preflight(wrong, fold)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("empty_cache")
def test_missing_weights_of_sam_are_one_line_with_both_commands() -> None:
    with pytest.raises(
        InputError,
        match=r"fetch` and its configuration, or only these with `hf download timm/samvit_base_patch16.sa1b",
    ):
        find_weights("samvit_base_patch16", "sa1b")
