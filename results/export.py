"""Bundle: a trained network as a folder of data, which loads without running code from a file."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from results.record import Record
from results.text import escape
from search_spaces.candidate import Candidate
from search_spaces.errors import InputError
from search_spaces.network import build_network
from search_spaces.sam import folded
from trainers.checkpoint import save_tensors, sync_folder, write_atomically
from trainers.data.folds import Fold
from trainers.data.soft_labels import LabelSource
from trainers.data.volume import CLIP_HIGH, CLIP_LOW, HIGH_PERCENTILE, LOW_PERCENTILE, Spacing
from trainers.evaluate import Score, ScoreConfig
from trainers.fit import FitConfig
from trainers.reader import InferenceConfig, Reader, make_reader

ARCHITECTURE, WEIGHTS, CARD, ONNX = "architecture.json", "weights.safetensors", "MODEL_CARD.md", "model.onnx"


class Normalisation(BaseModel, frozen=True, extra="forbid"):
    """How grey values were stretched before the network saw them: by percentiles of all volumes of a kidney."""

    low_percentile: float = LOW_PERCENTILE  # falls on 0
    high_percentile: float = HIGH_PERCENTILE  # falls on 1
    clip_low: float = CLIP_LOW
    clip_high: float = CLIP_HIGH


class Provenance(BaseModel, frozen=True, extra="forbid"):
    """Where the weights come from."""

    study: str
    trial: int
    seed: int
    version: str
    train_volumes: dict[str, str]  # name -> content hash
    held_out_volumes: dict[str, str]
    kidneys: dict[str, str] = {}  # name -> kidney of all these volumes; older bundles do not say
    teachers: tuple[LabelSource, ...] = ()  # makers of the soft labels it was trained on
    libraries: dict[str, str]

    @property
    def known_volumes(self) -> dict[str, str]:
        """Name -> content hash of the volumes that the weights know: trained on, or by way of a teacher's labels."""
        taught = {name: content for teacher in self.teachers for name, content in teacher.volumes.items()}
        return {**taught, **self.train_volumes}


class Architecture(BaseModel, frozen=True, extra="forbid"):
    """Everything that rebuilds the network and its prediction, weights apart."""

    format: Literal[1] = 1
    name: str
    candidate: Candidate
    fit: FitConfig
    normalisation: Normalisation = Normalisation()
    voxel_spacing_um: tuple[Spacing, ...]  # of the training volumes
    grey_scales: dict[str, tuple[float, float]]  # content hash of a volume -> its grey_low and grey_high then
    threshold: float  # probability from which a voxel is vessel
    inference: InferenceConfig
    score_config: ScoreConfig
    score: Score | None  # on the held-out kidney; None if it was trained on
    parameters: PositiveInt
    provenance: Provenance
    tuned_on: dict[str, str] = {}  # volumes that chose symmetries and smallest component; name -> content hash


@dataclass(frozen=True)
class Bundle:
    """A bundle read from disk."""

    path: Path
    architecture: Architecture
    network: nn.Module

    @property
    def reader(self) -> Reader:
        """The network, ready to read volumes."""
        return make_reader(self.network, self.architecture.candidate, self.architecture.fit)


def write_bundle(path: Path, architecture: Architecture, weights: dict[str, Tensor]) -> Path:
    """Write a bundle as one act: the folder appears whole, replacing one that was there."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_tensors(weights, aside / WEIGHTS)
    write_atomically(aside / ARCHITECTURE, architecture.model_dump_json(indent=2) + "\n")
    write_atomically(aside / CARD, model_card(architecture))
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    aside.rename(path)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)
    return path


def rewrite_description(path: Path, architecture: Architecture) -> None:
    """Give a bundle another description of the same network: how it reads, its threshold, its score."""
    write_atomically(path / CARD, model_card(architecture))
    write_atomically(path / ARCHITECTURE, architecture.model_dump_json(indent=2) + "\n")


def read_architecture(path: Path) -> Architecture:
    """The description in a bundle's folder; InputError where it is none."""
    file = path / ARCHITECTURE
    try:
        return Architecture.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(f"{path} is not a bundle: {file.name} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{file} does not describe a bundle: {where}: {first['msg']}") from error


def read_bundle(path: Path) -> Bundle:
    """Rebuild the network of a bundle, on the CPU. Raises InputError where a part is missing or does not fit."""
    architecture = read_architecture(path)
    if architecture.normalisation != Normalisation():
        raise InputError(f"{path} was trained on grey values stretched in another way than this version does")
    network = build_network(folded(architecture.candidate), architecture.fit.crop, pretrained=False)
    try:
        network.load_state_dict(load_file(path / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path / WEIGHTS} cannot be read: {error}") from error
    except RuntimeError as error:
        raise InputError(
            f"{path / WEIGHTS} does not fit its architecture.json: {str(error).splitlines()[-1].strip()}"
        ) from error
    return Bundle(path, architecture, network.eval())


def architecture_of(
    record: Record,
    inference: InferenceConfig,
    score_config: ScoreConfig,
    fold: Fold,
    provenance: Provenance,
    threshold: float | None = None,
) -> Architecture:
    """The description of a trial's network. `threshold` stands in where it was not scored.

    ValueError if the trial has no parameters on record, or no threshold is known.
    """
    outcome, job = record.outcome, record.job
    if outcome.parameters is None:
        raise ValueError(f"trial {job.trial} was not trained")
    threshold = outcome.score.threshold if outcome.score else threshold
    if threshold is None:
        raise ValueError(f"trial {job.trial} was never scored, so no threshold is known")
    return Architecture(
        name=job.name,
        candidate=job.candidate,
        fit=job.fit,
        voxel_spacing_um=tuple(sorted({volume.spacing_um for volume in fold.train})),
        grey_scales={v.content_hash: (v.grey_low, v.grey_high) for v in (*fold.train, *fold.held_out)},
        threshold=threshold,
        inference=inference,
        score_config=score_config,
        score=outcome.score,
        parameters=outcome.parameters,
        provenance=provenance,
    )


def library_versions() -> dict[str, str]:
    """The versions that numbers depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "segmentation-models-pytorch", "timm", "numpy", "numba")}


def model_card(architecture: Architecture) -> str:
    """The bundle described for people."""
    score, fit = architecture.score, architecture.fit
    spacing = ", ".join("x".join(f"{s:g}" for s in spacing) for spacing in architecture.voxel_spacing_um)
    result = (
        f"Surface dice {score.surface_dice:.4f} (95 % interval {score.ci_low:.3f} to {score.ci_high:.3f}, tolerance 0, "
        f"threshold cross-fitted over slabs), voxel dice {score.voxel_dice:.4f}, on "
        f"{', '.join(map(escape, architecture.provenance.held_out_volumes))}.\n\nThe interval says how the score "
        "depends on which part of that kidney was scored. It does not say how kidneys differ: expect less on another "
        "one, above all at another voxel spacing."
        if score
        else "Trained on all kidneys: there is no held-out score."
    )
    inference = architecture.inference
    smallest = inference.smallest_component
    removed = "none are removed" if smallest is None else f"those below {smallest} voxels are removed"
    tuned = (
        f" Symmetries and components were chosen on {', '.join(map(escape, architecture.tuned_on))}, for each half of "
        "its slabs on the other, so the score above does not profit from the choice."
        if architecture.tuned_on
        else ""
    )
    return f"""# {escape(architecture.name)}

Segments vessels in 3D kidney scans, slice by slice along three axes ({architecture.candidate.slices_in} neighbouring
slices at once). Found by vessel-nas {architecture.provenance.version}, study {escape(architecture.provenance.study)},
trial {architecture.provenance.trial}, seed {architecture.provenance.seed}.

## Result
{result}

## Use
`nas predict {{this folder}} VOLUME` writes a mask at threshold {architecture.threshold:.3f}. Grey values are stretched
for each kidney so that its percentiles {LOW_PERCENTILE:g} and {HIGH_PERCENTILE:g} fall on 0 and 1; give pieces of one
kidney together. Trained at a voxel spacing of {spacing} µm{_read_at(fit)}. Symmetries averaged:
{inference.symmetries}. Connected components: {removed}.{tuned}

## Network and training
| | |
|---|---|
| encoder, decoder | {escape(architecture.candidate.encoder)}, {escape(architecture.candidate.decoder)} |
| parameters | {architecture.parameters:,} |
| encoder weights at the start | {escape(architecture.candidate.encoder_weights)} |
| trained of the encoder | {_trained(architecture.candidate)} |
| loss | {escape(fit.loss)} |
| training | {fit.steps} steps of {fit.batch_size} crops of {fit.crop} pixels, AdamW, peak rate {fit.learning_rate:g} |
| trained on | {", ".join(map(escape, architecture.provenance.train_volumes))} |
"""


def _trained(candidate: Candidate) -> str:
    factors = f"factors of rank {candidate.lora_rank} (LoRA), folded into the weights"
    return {"full": "all", "frozen": "nothing", "lora": factors}[candidate.tuning]


def _read_at(fit: FitConfig) -> str:
    """What the recipe does with voxel sizes, to go on a sentence."""
    if fit.voxel_size_um is not None:
        return f", read at {fit.voxel_size_um:g} µm, to which every scan is brought"
    return "" if fit.target_um is None else f", with samples made to look like scans of {fit.target_um:g} µm"


def require_onnx() -> None:
    """Raise InputError where ONNX cannot be written, before hours are spent on what should be."""
    if any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
        raise InputError("ONNX export needs the extra: pip install 'vessel-nas[onnx]'")


def to_onnx(bundle: Bundle) -> tuple[Path, float]:
    """Write model.onnx into a bundle; its path and the largest difference to torch's output.

    The graph takes float (B, slices_in, crop, crop) with any B and gives logits. The difference is measured with
    onnxruntime on random input. Raises InputError where the extra `onnx` is not installed.
    """
    require_onnx()
    import onnxruntime

    architecture = bundle.architecture
    shape = (2, architecture.candidate.slices_in, architecture.fit.crop, architecture.fit.crop)
    example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    path = bundle.path / ONNX
    with _attention_written_out(bundle.network):
        program = torch.onnx.export(
            bundle.network,
            (example,),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            verbose=False,
        )
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = bundle.network(example)
    found = torch.from_numpy(session.run(None, {"image": example.numpy()})[0])
    return path, float((found - expected).abs().max())


@contextmanager
def _attention_written_out(network: nn.Module) -> Iterator[None]:
    """Without torch's fused attention, which the exporter only knows for four dimensions; SAM's has three."""
    fused: list[Any] = [module for module in network.modules() if getattr(module, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True
