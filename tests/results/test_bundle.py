import json
from pathlib import Path

import pytest
import torch
from records import score
from safetensors.torch import load_file
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn

from results.bundles.architecture import Architecture, Provenance
from results.bundles.bundle import (
    ARCHITECTURE,
    CARD,
    WEIGHTS,
    Bundle,
    read_architecture,
    read_bundle,
    rewrite_description,
    write_bundle,
)
from results.bundles.onnx import to_onnx
from results.bundles.reading import Reading
from search_spaces.any_candidate import read_candidate
from search_spaces.errors import InputError
from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import ScoreConfig

CANDIDATE = UnetCandidate(encoder="tu-resnet10t", slices_in=3)


def architecture() -> Architecture:
    return Architecture(
        name="small",
        candidate=CANDIDATE,
        fit=FitConfig(crop=32),
        voxel_spacing_um=((50.0, 50.0, 50.0),),
        grey_scales={},
        reading=Reading(inference=InferenceConfig(), threshold=0.25, score_config=ScoreConfig()),
        parameters=1,
        provenance=Provenance(
            study="s", trial=3, seed=0, version="0", train_volumes={"a": "1"}, held_out_volumes={}, libraries={}
        ),
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = build_network(CANDIDATE, 32)
    return write_bundle(tmp_path_factory.mktemp("bundles") / "b", architecture(), network.state_dict())


def test_a_bundle_rebuilds_the_same_network(bundle: Path) -> None:
    torch.manual_seed(0)
    original = build_network(CANDIDATE, 32).eval()
    found = read_bundle(bundle)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(found.network(images), original(images))
    assert found.architecture.model_copy(update={"weights_hash": None}) == architecture()


def test_the_card_names_the_trial_the_data_and_the_threshold(bundle: Path) -> None:
    card = (bundle / CARD).read_text()
    assert all(text in card for text in ("trial 3", "trained on | a", "threshold 0.250", "no held-out score"))


def test_a_new_bundle_replaces_the_old_one_whole(bundle: Path, tmp_path: Path) -> None:
    network = build_network(CANDIDATE, 32)
    path = write_bundle(tmp_path / "b", architecture(), network.state_dict())
    (path / "model.onnx").write_text("of the old weights")
    write_bundle(path, architecture(), network.state_dict())
    assert sorted(p.name for p in path.iterdir()) == [CARD, ARCHITECTURE, WEIGHTS]
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_folder_without_a_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing is not a bundle: architecture.json"):
        read_bundle(tmp_path / "nothing")


def _copy(bundle: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy"
    path.mkdir()
    for file in bundle.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def test_a_description_of_another_version_says_so(bundle: Path, tmp_path: Path) -> None:
    path = _copy(bundle, tmp_path)
    (path / ARCHITECTURE).write_text('{"format": 1}')
    with pytest.raises(InputError, match=r"architecture.json has format 1, of another version .*: make it again"):
        read_bundle(path)


@pytest.mark.parametrize("content", ["{", "[]", '{"name": 1}'])
def test_a_damaged_description_is_one_line(bundle: Path, tmp_path: Path, content: str) -> None:
    path = _copy(bundle, tmp_path)
    (path / ARCHITECTURE).write_text(content)
    with pytest.raises(InputError, match=r"architecture.json does not describe a bundle") as caught:
        read_bundle(path)
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_one_line(bundle: Path, tmp_path: Path) -> None:
    path = _copy(bundle, tmp_path)
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(InputError, match=r"copy: its weights are not those that its architecture\.json was written"):
        read_bundle(path)
    rewrite_description(path, read_architecture(path).model_copy(update={"weights_hash": None}))  # of an older version
    with pytest.raises(InputError, match=r"weights\.safetensors cannot be read"):
        read_bundle(path)


def test_a_bundle_that_is_replaced_while_it_is_read_is_one_of_the_two(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the description and the weights another training takes its place."""
    path = _copy(bundle, tmp_path)
    other = {name: tensor + 1 for name, tensor in load_file(path / WEIGHTS).items()}
    changed = read_architecture(path).model_copy(update={"name": "another"})
    read = Path.read_bytes

    def replaced(file: Path) -> bytes:
        if file == path / WEIGHTS:
            monkeypatch.setattr(Path, "read_bytes", read)
            write_bundle(path, changed, other)
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", replaced)
    found = read_bundle(path)
    assert found.architecture.name == "another"
    assert all(torch.equal(tensor, other[name]) for name, tensor in found.network.state_dict().items())


@pytest.mark.parametrize("threshold", ["-5", "1.01", "NaN", "1e999"])
def test_a_threshold_that_is_no_probability_is_refused(bundle: Path, tmp_path: Path, threshold: str) -> None:
    path = _copy(bundle, tmp_path)
    text = (path / ARCHITECTURE).read_text()
    (path / ARCHITECTURE).write_text(text.replace('"threshold": 0.25', f'"threshold": {threshold}'))
    with pytest.raises(InputError, match=r"architecture\.json does not describe a bundle: .*reading.*threshold"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("grey_scales", {"b": [float("nan"), 1.0]}),
        ("voxel_spacing_um", [[50.0, float("inf"), 50.0]]),
        ("normalisation", {"low_percentile": float("nan")}),
    ],
)
def test_what_is_no_number_is_refused_wherever_a_bundle_says_it(
    bundle: Path, tmp_path: Path, field: str, value: object
) -> None:
    path = _copy(bundle, tmp_path)
    described = {**json.loads((path / ARCHITECTURE).read_text()), field: value}
    (path / ARCHITECTURE).write_text(json.dumps(described))
    with pytest.raises(InputError, match=rf"architecture\.json does not describe a bundle: {field}.*finite number"):
        read_bundle(path)


@pytest.mark.parametrize(("field", "value"), [("slices_in", 6_000_001), ("slices_in", 0)])
def test_a_network_of_absurd_size_is_refused_before_it_is_built(
    bundle: Path, tmp_path: Path, field: str, value: int
) -> None:
    path = _copy(bundle, tmp_path)
    described = json.loads((path / ARCHITECTURE).read_text())
    described["candidate"][field] = value
    (path / ARCHITECTURE).write_text(json.dumps(described))
    with pytest.raises(InputError, match=rf"architecture\.json does not describe a bundle: candidate.*{field}"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("int8", r"is int8; a file of float32"),
        ("float8_e4m3fn", r"is float8_e4m3fn; a file of float32"),
        ("nan", r"contains values that are not numbers"),
    ],
)
def test_bad_weights_that_torch_would_load_silently_are_one_line(
    bundle: Path, tmp_path: Path, harm: str, message: str
) -> None:
    path = _copy(bundle, tmp_path)
    weights = load_file(path / WEIGHTS)
    name = next(name for name, tensor in weights.items() if tensor.ndim == 4)
    weights[name] = weights[name] * float("nan") if harm == "nan" else weights[name].to(getattr(torch, harm))
    write_bundle(path, read_architecture(path), weights)
    with pytest.raises(InputError, match=f"{name} {message}"):
        read_bundle(path)


def test_a_bundle_whose_threshold_is_not_known_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = _copy(bundle, tmp_path)
    values = json.loads((path / ARCHITECTURE).read_text())
    values["reading"]["threshold"] = None
    (path / ARCHITECTURE).write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"does not describe a bundle: reading: .*threshold is missing"):
        read_bundle(path)


def test_weights_of_another_network_are_one_line(bundle: Path, tmp_path: Path) -> None:
    path = _copy(bundle, tmp_path)
    values = json.loads((path / ARCHITECTURE).read_text())
    values["candidate"]["slices_in"] = 5
    (path / ARCHITECTURE).write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"does not fit its architecture.json") as caught:
        read_bundle(path)
    assert "\n" not in str(caught.value)


def test_another_normalisation_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = _copy(bundle, tmp_path)
    values = json.loads((path / ARCHITECTURE).read_text())
    values["normalisation"]["low_percentile"] = 10.0
    (path / ARCHITECTURE).write_text(json.dumps(values))
    with pytest.raises(InputError, match="stretched in another way"):
        read_bundle(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's exporter warns about itself
def test_onnx_answers_as_torch_does(bundle: Path, tmp_path: Path) -> None:
    path, difference = to_onnx(read_bundle(_copy(bundle, tmp_path)))
    assert path.name == "model.onnx"
    assert difference < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's exporter warns about itself
def test_attention_in_three_dimensions_is_written_to_onnx_and_left_as_it_was(tmp_path: Path) -> None:
    """SAM's attention, in a network of one block of it."""
    sizes = {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 0, "neck_chans": 8}
    sam = VisionTransformerSAM(**sizes, use_rel_pos=True, window_size=2, global_pool="")
    network = nn.Sequential(sam, nn.Upsample(scale_factor=16)).eval()
    _, difference = to_onnx(Bundle(tmp_path, architecture(), network))
    assert difference < 1e-4
    assert all(block.attn.fused_attn for block in sam.blocks)


def test_the_card_of_a_bundle_without_a_score_claims_none_for_its_tuning(tmp_path: Path) -> None:
    tuned = architecture().reading.model_copy(update={"tuned_on": {"k3": "3"}})
    card = (write_bundle(tmp_path / "b", architecture().model_copy(update={"reading": tuned}), {}) / CARD).read_text()
    assert "Symmetries and components were chosen on k3.\n" in card
    assert "score above" not in card


@pytest.mark.parametrize(("tuning", "text"), [("full", "all"), ("frozen", "nothing"), ("lora", "factors of rank 8")])
def test_the_card_says_how_much_of_the_encoder_was_trained(tuning: str, text: str, tmp_path: Path) -> None:
    candidate = read_candidate({"family": "sam", "tuning": tuning, "encoder_weights": "sa1b"})
    described = architecture().model_copy(update={"candidate": candidate})
    card = (write_bundle(tmp_path / "b", described, {}) / CARD).read_text()
    assert f"trained of the encoder | {text}" in card


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("voxel_spacing_um", 0, 2), 0.0, "voxel_spacing_um.0.2: Input should be greater than or equal to 0.01"),
        (("voxel_spacing_um", 0, 0), 1e9, "voxel_spacing_um.0.0: Input should be less than or equal to 100000"),
        (("voxel_spacing_um", 0, 2), float("inf"), "voxel_spacing_um.0.2: Input should be a finite number"),
        (("reading", "inference", "axes"), [0] * 1_000_000, "axes: Tuple should have at most 3 items"),
        (("reading", "inference", "axes"), [0, 0], r"axes: Value error, \[0, 0\] names an axis twice"),
        (("reading", "inference", "overlap"), 0.999999, "overlap: Input should be less than or equal to 0.9"),
        (("reading", "inference", "largest_tile"), 1, "largest_tile: Input should be greater than or equal to 32"),
        (("reading", "inference", "largest_tile"), 10**9, "largest_tile: Input should be less than or equal to 65536"),
        (("reading", "threshold"), "0.5", "threshold: Input should be a valid number"),
        (("reading", "threshold"), 1.5, "threshold: Input should be less than or equal to 1"),
        (("reading", "score", "values", "surface_dice"), 7.0, "surface_dice: Input should be less than or equal to 1"),
        (("reading", "score", "values", "surface_dice"), float("nan"), "surface_dice: Input should be"),
        (("reading", "score", "threshold"), -5.0, "threshold: Input should be greater than or equal to 0"),
        (("grey_scales", "x"), [5.0, 4.0], "grey_scales.x: Value error, a grey scale cannot run from 5 to 4"),
        (("provenance", "seed"), -1, "provenance.seed: Input should be greater than or equal to 0"),
        (("fit", "voxel_size_um"), 1e9, "fit.voxel_size_um: Input should be less than or equal to 100000"),
    ],
)
def test_a_description_with_values_that_no_training_has_is_refused(
    tmp_path: Path, keys: tuple[str | int, ...], value: object, message: str
) -> None:
    scored = architecture().reading.model_copy(update={"score": score(0.5)})
    described = json.loads(architecture().model_copy(update={"reading": scored}).model_dump_json())
    place = described
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (tmp_path / ARCHITECTURE).write_text(json.dumps(described))
    with pytest.raises(InputError, match=message):
        read_architecture(tmp_path)


def test_a_description_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / ARCHITECTURE).write_text('{"name":' * 5_000)
    with pytest.raises(InputError, match="does not describe a bundle"):
        read_architecture(tmp_path)
