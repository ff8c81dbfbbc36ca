"""Family sam: which weights of an encoder are frozen and which are trained, and its published weights at any crop."""

from functools import lru_cache
from pathlib import Path

import pytest
import timm
import torch
from kidneys import tube
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from search_spaces.any_candidate import CANDIDATES, read_candidate
from search_spaces.errors import InputError
from search_spaces.families import sam
from search_spaces.families.sam import SamCandidate, fold_lora
from search_spaces.network import build_network, check_buildable, check_weights
from search_spaces.published.sam_encoders import GREY_DEVIATION, GREY_MEAN, SAM_ENCODERS
from trainers.data.patches import PatchSampler
from trainers.fit import Fit, FitConfig, make_accelerator

State = dict[str, Tensor]


@lru_cache
def published(name: str) -> State:
    """What timm publishes: random numbers here, in the position tables too, which start at zero."""
    torch.manual_seed(1)
    model = timm.create_model(name, num_classes=0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "pos" in key:
                parameter.normal_(0, 0.5)
    return model.state_dict()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def hiera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "hiera.safetensors"
    save_file(published("sam2_hiera_tiny"), path)
    return path


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(published("samvit_base_patch16"), path)
    return path


def candidate_of(path: Path, tuning: str = "full", **more: object) -> SamCandidate:
    encoder = "sam2_hiera_tiny" if "hiera" in path.name else "samvit_base_patch16"
    values = {"encoder": encoder, "tuning": tuning, "encoder_weights": str(path), "slices_in": 3}
    return SamCandidate.model_validate({**values, **more})


def frozen_values(network: nn.Module) -> State:
    return {name: p.detach().clone() for name, p in network.named_parameters() if not p.requires_grad}


def fit_of(candidate: SamCandidate, steps: int = 4) -> Fit:
    torch.manual_seed(0)
    sampler = PatchSampler((tube("a"), tube("b")), 3, 1, 32, 0.5, seed=0)
    config = FitConfig(steps=steps, crop=32, batch_size=2, learning_rate=1e-2, weight_decay=0.1, augmentation="none")
    return Fit(build_network(candidate, 32), sampler, config, 0, make_accelerator("float32", "cpu"))


@pytest.mark.parametrize("name", SAM_ENCODERS)
def test_the_encoder_sees_grey_values_as_the_colours_it_was_trained_on(name: str) -> None:
    trained = get_pretrained_cfg(name)
    assert trained is not None
    assert pytest.approx(GREY_MEAN, abs=1e-3) == sum(trained.mean) / 3
    assert pytest.approx(GREY_DEVIATION, abs=1e-3) == sum(trained.std) / 3


def test_the_image_is_shifted_before_the_encoder_alone(hiera: Path) -> None:
    network, seen = build_network(candidate_of(hiera), 32), {}
    for part in ("encoder", "stem"):
        network.get_submodule(part).register_forward_pre_hook(
            lambda _m, given, part=part: seen.update({part: given[0]})
        )
    image = torch.rand(2, 3, 32, 32)
    network(image)
    torch.testing.assert_close(seen["encoder"] * GREY_DEVIATION + GREY_MEAN, image)
    assert torch.equal(seen["stem"], image)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hiera", "vit"])
def test_at_224_pixels_the_encoder_is_timms_own(kind: str, request: pytest.FixtureRequest) -> None:
    """Where windows keep their 14 tokens, nothing but the tables of the whole picture is made anew."""
    candidate = candidate_of(request.getfixturevalue(kind))
    encoder = build_network(candidate, 224).get_submodule("encoder").eval()
    theirs = timm.create_model(candidate.encoder, num_classes=0).eval()
    theirs.load_state_dict(published(candidate.encoder))
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    indices = [2, 5, 8, 11] if kind == "vit" else None
    with torch.inference_mode():
        expected = theirs.forward_intermediates(image, indices=indices, intermediates_only=True)
        found = encoder(image)
    assert len(found) == 4
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted)


@pytest.mark.slow
def test_a_smaller_window_takes_the_middle_of_its_table_and_the_whole_picture_a_stretched_one(vit: Path) -> None:
    state = build_network(candidate_of(vit), 64).get_submodule("encoder").state_dict()
    file = published("samvit_base_patch16")
    window = file["blocks.0.attn.rel_pos_h"]  # 14 tokens: distances -13 to 13
    assert torch.equal(state["model.blocks.0.attn.rel_pos_h"], window[10:17])  # 4 tokens: -3 to 3
    whole = file["blocks.2.attn.rel_pos_h"]
    middle = state["model.blocks.2.attn.rel_pos_h"]
    assert middle.shape == (7, 64)
    torch.testing.assert_close(middle[3], whole[63])  # distance 0 of 64 tokens is distance 0 of 4
    assert state["model.pos_embed"].shape == (1, 4, 4, 768)


@pytest.mark.slow
@pytest.mark.parametrize("slices", [1, 5])
def test_three_colours_become_slices(hiera: Path, slices: int) -> None:
    colours = published("sam2_hiera_tiny")["patch_embed.proj.weight"]
    network = build_network(candidate_of(hiera, slices_in=slices), 32)
    first = network.get_parameter("encoder.model.patch_embed.proj.weight")
    torch.testing.assert_close(
        first.sum(1), colours.sum(1) if slices == 1 else (colours[:, [0, 1, 2, 0, 1]]).sum(1) * 0.6
    )


@pytest.mark.slow
def test_a_file_with_the_names_of_sam_itself_loads_too(hiera: Path, tmp_path: Path) -> None:
    state = {f"image_encoder.trunk.{key}": value for key, value in published("sam2_hiera_tiny").items()}
    state = {k.replace("mlp.fc1", "mlp.layers.0").replace("mlp.fc2", "mlp.layers.1"): v for k, v in state.items()}
    state = {key: value for key, value in state.items() if ".head." not in key}
    extra = {
        "image_encoder.neck.convs.0.conv.weight": torch.zeros(1),
        "sam_mask_decoder.iou_token.weight": torch.ones(1),
    }
    path = tmp_path / "hiera_of_sam.safetensors"
    save_file({**state, **extra}, path)
    ours = build_network(candidate_of(path), 32).get_submodule("encoder").state_dict()
    expected = build_network(candidate_of(hiera), 32).get_submodule("encoder").state_dict()
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


@pytest.mark.slow
def test_an_encoder_saved_from_our_network_loads_again(hiera: Path, tmp_path: Path) -> None:
    state = build_network(candidate_of(hiera), 32).get_submodule("encoder").state_dict()
    save_file(state, tmp_path / "hiera_again.safetensors")
    again = build_network(candidate_of(tmp_path / "hiera_again.safetensors"), 32).get_submodule("encoder").state_dict()
    assert all(torch.equal(again[key], state[key]) for key in state)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["sam2_hiera_small", "samvit_base_patch16"])
def test_weights_of_another_encoder_are_refused_in_one_line(hiera: Path, encoder: str) -> None:
    candidate = candidate_of(hiera, encoder=encoder)
    with pytest.raises(InputError, match=f"weights file {hiera} does not fit encoder '{encoder}': ") as caught:
        check_weights(candidate, 32)
    assert "\n" not in str(caught.value)
    check_weights(candidate_of(hiera), 32)


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_training_changes_no_frozen_weight_and_every_other(hiera: Path, tuning: str) -> None:
    training = fit_of(candidate_of(hiera, tuning))
    kept = frozen_values(training.network)
    before = {name: p.detach().clone() for name, p in training.network.named_parameters() if p.requires_grad}
    training.run(3, lambda step, loss: True)
    after = dict(training.network.named_parameters())
    averaged = dict(training.averaged.named_parameters())
    assert len(kept) > 100
    assert all(torch.equal(after[name], value) and torch.equal(averaged[name], value) for name, value in kept.items())
    assert [name for name, value in before.items() if torch.equal(after[name], value)] == []


@pytest.mark.slow
def test_an_encoder_with_lora_begins_as_published(hiera: Path) -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain, adapted = (
            build_network(candidate_of(hiera, tuning), 64).get_submodule("encoder").eval()(image)
            for tuning in ("full", "lora")
        )
    for one, other in zip(plain, adapted, strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_folded_factors_give_the_same_logits_in_a_network_that_has_none(hiera: Path) -> None:
    training = fit_of(candidate_of(hiera, "lora", lora_rank=2))
    training.run(3, lambda step, loss: True)
    network = training.averaged.eval()
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = network(image)
        fold_lora(network)
        after = network(image)
    plain = build_network(candidate_of(hiera, "lora").folded(), 32, pretrained=False).eval()
    plain.load_state_dict(network.state_dict())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        assert torch.equal(plain(image), after)


@pytest.mark.slow
def test_an_interrupted_training_with_lora_resumes_exactly(hiera: Path, tmp_path: Path) -> None:
    unbroken, broken = fit_of(candidate_of(hiera, "lora")), fit_of(candidate_of(hiera, "lora"))
    unbroken.run(4, lambda step, loss: True)
    broken.run(2, lambda step, loss: True)
    broken.save(tmp_path)
    again = fit_of(candidate_of(hiera, "lora"))
    assert again.resume(tmp_path)
    again.run(4, lambda step, loss: True)
    expected = unbroken.averaged.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.averaged.state_dict().items())


def test_a_candidate_of_family_sam_survives_json() -> None:
    candidate = SamCandidate(tuning="lora", encoder_weights="sa1b")
    assert (candidate.encoder, candidate.lora_rank) == ("samvit_base_patch16", 8)
    assert CANDIDATES.validate_json(candidate.model_dump_json()) == candidate


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"family": "unet", "tuning": "frozen"}, "unknown key of family unet 'tuning'"),
        ({"family": "sam", "tuning": "frozen"}, "tuning frozen keeps the encoder's weights: set encoder_weights"),
        ({"family": "sam", "lora_rank": 4}, "lora_rank goes with tuning lora"),
        ({"family": "sam", "tuning": "lora", "lora_rank": 0, "encoder_weights": "sa1b"}, "greater than 0"),
        ({"family": "sam", "decoder": "Unet"}, "unknown key of family sam 'decoder'; did you mean 'encoder'"),
        ({"family": "sam", "encoder": "sam2_hiera_tin"}, "unknown encoder of family sam 'sam2_hiera_tin'; did you"),
        ({"family": "sam", "encoder": "resnet18"}, "unknown encoder of family sam 'resnet18'"),
    ],
)
def test_incompatible_fields_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_candidate(values)


def test_lora_without_peft_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam, "find_spec", lambda name: None)
    candidate = SamCandidate(tuning="lora", encoder_weights="sa1b")
    with pytest.raises(
        InputError, match=r"needs peft: pip install 'vessel-nas\[lora\]'; or remove lora from space\.sam\.tuning"
    ):
        check_buildable(candidate, 64)
