"""Pretrained weights: found only on this machine, loaded completely, never read from a pickle."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from parameters import first_is_quick
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor

from search_spaces.candidate import Candidate
from search_spaces.errors import InputError
from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network
from search_spaces.published.weights import find_weights, offered_weights

State = dict[str, Tensor]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, on a machine without a network."""

    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("something asked the network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", no_network)
    return tmp_path / "hub"


def put(hub: Path, encoder: str, weights: str, state: State) -> Path:
    """Lay weights where `hf download` would put them."""
    place = offered_weights(encoder)[weights]
    folder = hub / f"models--{place.repository.replace('/', '--')}"
    commit = place.revision or "0123456789abcdef0123456789abcdef01234567"
    path = folder / "snapshots" / commit / "model.safetensors"
    path.parent.mkdir(parents=True)
    if place.revision is None:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)
    save_file(state, path)
    return path


def smp_state(name: str, seed: int = 1) -> State:
    """What smp publishes for an encoder: 3 colours in, and a classifier that the encoder has no use for."""
    torch.manual_seed(seed)
    state: State = get_encoder(name, weights=None).state_dict()
    return {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


def timm_state(name: str, classes: int = 1000) -> State:
    torch.manual_seed(1)
    return timm.create_model(name, num_classes=classes).state_dict()


def loaded(candidate: Candidate, crop: int = 64) -> State:
    torch.manual_seed(2)
    return build_network(candidate, crop).get_submodule("encoder").state_dict()


def test_none_needs_no_file(hub: Path) -> None:
    assert UnetCandidate(encoder_weights="none").find_weights() is None


def test_weights_of_smp_are_found_in_the_cache_and_loaded_completely(hub: Path) -> None:
    published = smp_state("resnet18")
    path = put(hub, "resnet18", "imagenet", published)
    candidate = UnetCandidate(encoder="resnet18", encoder_weights="imagenet", slices_in=3)
    state = loaded(candidate)
    assert candidate.find_weights() == path
    assert all(torch.equal(state[key], published[key]) for key in state)


def test_the_revision_that_smp_pins_is_the_only_one_taken(hub: Path) -> None:
    path = put(hub, "resnet18", "imagenet", {"x": torch.zeros(1)})
    path.parent.rename(path.parent.with_name("f" * 40))
    with pytest.raises(InputError, match="are not on this machine"):
        find_weights("resnet18", "imagenet")


@pytest.mark.parametrize("slices", first_is_quick([1, 5]))
def test_three_colours_become_slices_of_the_same_total_weight(hub: Path, slices: int) -> None:
    published = smp_state("resnet18")
    put(hub, "resnet18", "imagenet", published)
    first = loaded(UnetCandidate(encoder_weights="imagenet", slices_in=slices))["conv1.weight"]
    colours = published["conv1.weight"]
    if slices == 1:
        wanted = colours[:, 0] + colours[:, 1] + colours[:, 2]
        torch.testing.assert_close(first[:, 0], wanted)
    else:
        for channel, colour in enumerate([0, 1, 2, 0, 1]):
            torch.testing.assert_close(first[:, channel], colours[:, colour] * 3 / 5)


@pytest.mark.parametrize(
    ("encoder", "deep_key"),
    first_is_quick(
        [
            ("tu-resnet10t", "layer4.0.conv2.weight"),
            ("tu-convnextv2_atto", "stages.3.blocks.1.mlp.fc1.weight"),
            ("tu-mobilenetv3_small_100", "blocks.4.2.conv_pwl.weight"),
        ]
    ),
)
def test_weights_of_timm_are_found_in_the_cache_and_loaded(hub: Path, encoder: str, deep_key: str) -> None:
    published = timm_state(encoder.removeprefix("tu-"))
    put(hub, encoder, "imagenet", published)
    state = loaded(UnetCandidate(encoder=encoder, encoder_weights="imagenet"))
    deep = [value for key, value in state.items() if key.replace("_", ".").endswith(deep_key.replace("_", "."))]
    assert len(deep) == 1
    assert torch.equal(deep[0], published[deep_key])


@pytest.mark.slow
def test_every_number_of_a_timm_encoder_comes_from_the_file(hub: Path) -> None:
    published = timm_state("convnextv2_atto")
    put(hub, "tu-convnextv2_atto", "imagenet", published)
    state = loaded(UnetCandidate(encoder="tu-convnextv2_atto", encoder_weights="imagenet", slices_in=3))
    by_name = {key.replace(".", "_"): value for key, value in published.items()}
    assert state
    assert all(torch.equal(v, by_name[k.removeprefix("model.").replace(".", "_")]) for k, v in state.items())


def test_a_tag_of_timm_names_weights_too(hub: Path) -> None:
    assert "fcmae" in offered_weights("tu-convnextv2_atto")
    path = put(hub, "tu-convnextv2_atto", "fcmae", {"x": torch.zeros(1)})
    assert find_weights("tu-convnextv2_atto", "fcmae") == path


@pytest.mark.slow
def test_position_tables_of_windows_are_resampled_to_the_crop(hub: Path) -> None:
    published = timm_state("maxvit_nano_rw_256")
    put(hub, "tu-maxvit_nano_rw_256", "imagenet", published)
    candidate = UnetCandidate(encoder="tu-maxvit_nano_rw_256", encoder_weights="imagenet")
    table = "stages_0.blocks.0.attn_block.attn.rel_pos.relative_position_bias_table"
    trained_size, small = loaded(candidate, 256), loaded(candidate, 96)
    key = next(k for k in small if k.endswith(table))
    assert torch.equal(trained_size[key], published[table.replace("stages_0", "stages.0")])
    assert small[key].shape != trained_size[key].shape
    assert small[key].std().item() == pytest.approx(trained_size[key].std().item(), rel=0.5)


@pytest.mark.slow
def test_a_vision_transformer_gets_its_position_table_resampled(hub: Path) -> None:
    published = timm_state("vit_tiny_patch16_224")
    put(hub, "tu-vit_tiny_patch16_224", "imagenet", published)
    state = loaded(UnetCandidate(encoder="tu-vit_tiny_patch16_224", decoder="DPT", encoder_weights="imagenet"), 64)
    assert state["model.pos_embed"].shape == (1, 1 + 4 * 4, 192)
    assert torch.equal(state["model.blocks.7.mlp.fc1.weight"], published["blocks.7.mlp.fc1.weight"])


@pytest.mark.parametrize("encoder", first_is_quick(["resnet18", "tu-resnet10t", "mit_b0"]))
def test_a_file_saved_from_our_encoder_loads_again(tmp_path: Path, encoder: str) -> None:
    torch.manual_seed(1)
    ours = build_network(UnetCandidate(encoder=encoder), 64).get_submodule("encoder").state_dict()
    path = tmp_path / "encoder.safetensors"
    save_file(ours, path)
    state = loaded(UnetCandidate(encoder=encoder, encoder_weights=str(path)))
    assert state.keys() == ours.keys()
    assert all(torch.equal(state[key], ours[key]) for key in ours)


@pytest.mark.parametrize("classes", first_is_quick([0, 10]))
def test_a_timm_file_may_have_any_classifier_or_none(tmp_path: Path, classes: int) -> None:
    published = timm_state("resnet10t", classes)
    path = tmp_path / "fine-tuned.safetensors"
    save_file(published, path)
    state = loaded(UnetCandidate(encoder="tu-resnet10t", encoder_weights=str(path)))
    assert torch.equal(state["model.layer4.0.conv2.weight"], published["layer4.0.conv2.weight"])


@pytest.mark.parametrize(
    ("encoder", "other"),
    first_is_quick(
        [
            ("resnet18", "resnet34"),
            ("resnet34", "resnet18"),
            ("tu-resnet10t", "resnet14t"),
            ("tu-resnet14t", "resnet10t"),
        ]
    ),
)
def test_a_file_of_another_architecture_is_refused_with_the_first_keys(
    tmp_path: Path, encoder: str, other: str
) -> None:
    state = timm_state(other) if encoder.startswith("tu-") else smp_state(other)
    path = tmp_path / "other.safetensors"
    save_file(state, path)
    with pytest.raises(InputError) as caught:
        build_network(UnetCandidate(encoder=encoder, encoder_weights=str(path)), 64)
    message = str(caught.value)
    assert message.startswith(f"weights file {path} does not fit encoder '{encoder}': ")
    assert "layer" in message
    assert "\n" not in message
    assert len(message) < 600


def test_a_first_convolution_of_another_number_of_slices_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "seven.safetensors"
    save_file(build_network(UnetCandidate(slices_in=7), 64).get_submodule("encoder").state_dict(), path)
    with pytest.raises(InputError, match=r"does not fit encoder 'resnet18': size mismatch for conv1\.weight"):
        build_network(UnetCandidate(slices_in=5, encoder_weights=str(path)), 64)


def test_missing_weights_are_refused_in_one_line_with_the_command_that_fetches_them(hub: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_weights("resnext101_32x16d", "instagram")
    revision = offered_weights("resnext101_32x16d")["instagram"].revision
    command = f"hf download smp-hub/resnext101_32x16d.instagram model.safetensors --revision {revision}"
    assert f"or only these with `{command}`, or set encoder_weights to none" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_is_not_built_without_its_weights(hub: Path) -> None:
    with pytest.raises(InputError, match=r"`hf download timm/resnet10t\.c3_in1k model\.safetensors`"):
        build_network(UnetCandidate(encoder="tu-resnet10t", encoder_weights="imagenet"), 64)


def test_without_pretrained_no_file_is_looked_for(hub: Path) -> None:
    build_network(UnetCandidate(encoder_weights="imagenet"), 64, pretrained=False)


def test_unknown_weights_name_those_that_exist() -> None:
    with pytest.raises(
        InputError, match=r"unknown encoder_weights of resnet18 'instagram'; .*imagenet.*none.*ssl.*swsl"
    ):
        find_weights("resnet18", "instagram")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
def test_a_pickle_is_refused_and_the_conversion_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"is a pickle, .*safetensors\.torch\.save_file"):
        find_weights("resnet18", str(path))


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.safetensors"
    with pytest.raises(InputError, match=f"weights file {path} does not exist"):
        find_weights("resnet18", str(path))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_file(smp_state("resnet18"), path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(InputError, match=f"weights file {path} cannot be read: "):
        build_network(UnetCandidate(encoder_weights=str(path)), 64)


@pytest.mark.parametrize(
    ("harm", "message"), [("int8", "is int8; a file of float32"), ("nan", "contains values that are not numbers")]
)
def test_a_bad_file_that_torch_would_load_silently_is_named(tmp_path: Path, harm: str, message: str) -> None:
    state = smp_state("resnet18")
    damaged = state["conv1.weight"]
    state["conv1.weight"] = damaged.to(torch.int8) if harm == "int8" else damaged.fill_(float("nan"))
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(InputError, match=f"odd.safetensors: conv1.weight {message}"):
        build_network(UnetCandidate(encoder_weights=str(tmp_path / "odd.safetensors")), 64)


def test_a_damaged_file_in_the_cache_is_not_taken_for_weights(hub: Path) -> None:
    path = put(hub, "resnet18", "imagenet", smp_state("resnet18"))
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(
        InputError, match=r"weights 'imagenet' of encoder 'resnet18' are damaged, .* `nas weights fetch`"
    ):
        find_weights("resnet18", "imagenet")


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    yield {**os.environ, "HF_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.slow
def test_the_cache_is_the_one_that_hf_home_names(tmp_path: Path, environment: dict[str, str]) -> None:
    path = put(tmp_path / "hub", "resnet18", "imagenet", {"x": torch.zeros(1)})
    program = "from search_spaces.published.weights import find_weights; print(find_weights('resnet18', 'imagenet'))"
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(path)
