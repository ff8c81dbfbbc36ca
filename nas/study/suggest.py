"""From an Optuna trial to a Candidate and a FitConfig."""

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

from nas.config.search_config import SearchConfig
from nas.study.buildable import buildable
from search_spaces.candidate import CELLS, LIGHT, Candidate, Family
from search_spaces.cells.cell_space import CellFamily
from search_spaces.cells.genotype import Genotype
from search_spaces.space import SCANNED, tunings_for, upsamplings_for, voxel_size_um, weights_for
from trainers.cell_search.run import genotype_names
from trainers.fit import FitConfig

# (family, crop) -> the genotypes that a cell search found for it, by how they were found.
Genotypes = Callable[[CellFamily, int], Mapping[str, Genotype]]


def no_genotypes(family: CellFamily, crop: int) -> Mapping[str, Genotype]:
    """For spaces without cells."""
    raise ValueError(f"no cells of family {family} were searched")


def suggest(
    trial: optuna.Trial, config: SearchConfig, genotypes: Genotypes = no_genotypes
) -> tuple[Candidate, FitConfig]:
    """One point of the search space, asked of Optuna parameter by parameter.

    Only what can be built is offered. The same trial always gives the same point. genotypes: where those of cell
    searches are looked up.
    """

    def choose(name: str, *given: Any) -> Any:
        return _ask(trial, *_parameter(config, name, *given))

    family = _family(choose, config)
    crop_of, point = _FAMILIES[family]
    crop = crop_of(choose)
    candidate, batch_size = point(choose, crop, genotypes)
    recipe = {
        "crop": crop,
        "loss": choose("loss"),
        "batch_size": batch_size,
        "learning_rate": choose("learning_rate"),
        "vessel_share": choose("vessel_share"),
    }
    if config.space.augmentations is not None:
        recipe["augmentation"] = choose("augmentation")
    if config.space.voxel_sizes is not None:
        recipe["voxel_size_um"] = voxel_size_um(choose("voxel_size"))
    return candidate, config.fit.model_copy(update=recipe)


def cells_wanted(trial: optuna.Trial, config: SearchConfig) -> tuple[CellFamily, int] | None:
    """Family and crop whose cells a trial is going to need; None where it needs none."""

    def choose(name: str, *given: Any) -> Any:
        return _ask(trial, *_parameter(config, name, *given))

    family = _family(choose, config)
    return (family, _FAMILIES[family][0](choose)) if family in ("cells", "hybrid") else None


def _family(choose: "Choose", config: SearchConfig) -> Family:
    families = config.space.families
    family: Family = choose("family") if len(families) > 1 else families[0]
    return family


def _unet(choose: "Choose", crop: int, genotypes: Genotypes) -> tuple[Candidate, int]:
    encoder = choose("encoder")
    decoder, slices_in = choose("decoder", encoder), choose("slices_in")
    candidate = Candidate(
        encoder=encoder,
        decoder=decoder,
        encoder_weights=choose("encoder_weights", encoder),
        slices_in=slices_in,
        slices_out=slices_in if choose("slices_out") == "all" else 1,
        resolution=choose("resolution"),
        decoder_norm=choose("decoder_norm"),
        upsampling=choose("upsampling", decoder),
    )
    return candidate, choose("batch_size")


def _hybrid(choose: "Choose", crop: int, genotypes: Genotypes) -> tuple[Candidate, int]:
    encoder = choose("hybrid_encoder")
    slices_in = choose("slices_in")
    candidate = Candidate(
        family="hybrid",
        encoder=encoder,
        decoder=CELLS,
        encoder_weights=choose("encoder_weights", encoder),
        slices_in=slices_in,
        slices_out=slices_in if choose("slices_out") == "all" else 1,
        genotype=genotypes("hybrid", crop)[choose("genotype")],
        width=choose("cell_width"),
    )
    return candidate, choose("batch_size")


def _sam(choose: "Choose", crop: int, genotypes: Genotypes) -> tuple[Candidate, int]:
    encoder = choose("sam_encoder")
    slices_in = choose("slices_in")
    weights = choose("encoder_weights", encoder)
    tuning = choose("tuning", weights)
    candidate = Candidate(
        family="sam",
        encoder=encoder,
        decoder=LIGHT,
        encoder_weights=weights,
        slices_in=slices_in,
        slices_out=slices_in if choose("slices_out") == "all" else 1,
        tuning=tuning,
        lora_rank=choose("lora_rank") if tuning == "lora" else None,
    )
    return candidate, choose("batch_size")


def _cells(choose: "Choose", crop: int, genotypes: Genotypes) -> tuple[Candidate, int]:
    slices = choose("box_slices")
    candidate = Candidate(
        family="cells",
        encoder=CELLS,
        decoder=CELLS,
        slices_in=slices,
        slices_out=slices,
        genotype=genotypes("cells", crop)[choose("genotype")],
        width=choose("cell_width"),
    )
    return candidate, choose("box_batch_size")


def _unet_crop(choose: "Choose") -> int:
    encoder = choose("encoder")
    crop: int = choose("crop", encoder, choose("decoder", encoder))
    return crop


def _hybrid_crop(choose: "Choose") -> int:
    crop: int = choose("crop", choose("hybrid_encoder"), CELLS)
    return crop


def _sam_crop(choose: "Choose") -> int:
    crop: int = choose("crop", choose("sam_encoder"), LIGHT)
    return crop


def _cells_crop(choose: "Choose") -> int:
    crop: int = choose("box_crop")
    return crop


Choose = Callable[..., Any]
# How a family's crop is asked for, and then the rest of its candidate with the batch size.
_FAMILIES: dict[Family, tuple[Callable[[Choose], int], Callable[[Choose, int, Genotypes], tuple[Candidate, int]]]] = {
    "unet": (_unet_crop, _unet),
    "cells": (_cells_crop, _cells),
    "hybrid": (_hybrid_crop, _hybrid),
    "sam": (_sam_crop, _sam),
}
# The parameter that chooses a family's encoder.
_ENCODER: dict[Family, str] = {"unet": "encoder", "hybrid": "hybrid_encoder", "sam": "sam_encoder"}


def known_parameters(config: SearchConfig, candidate: Candidate, fit: FitConfig) -> dict[str, Any]:
    """The parameters of a fixed trial that the space could have suggested, by their names in the study."""
    return {name: value for name, (_, value) in _known(config, candidate, fit).items()}


def genotype_parameters(config: SearchConfig, family: CellFamily, name: str) -> dict[str, Any]:
    """The parameters that make a trial train one kind of genotype, by their names in the study."""
    parameters: dict[str, Any] = {"genotype": name}
    if len(config.space.families) > 1:
        parameters["family"] = family
    return parameters


def register(trial: optuna.Trial, config: SearchConfig, candidate: Candidate, fit: FitConfig) -> None:
    """Enter a fixed trial's known parameters as if they had been suggested, so that the sampler learns from them."""
    for name, (distribution, _) in _known(config, candidate, fit).items():
        _ask(trial, name, distribution)


def _known(
    config: SearchConfig, candidate: Candidate, fit: FitConfig
) -> dict[str, tuple[CategoricalDistribution | FloatDistribution, Any]]:
    family, encoder, decoder = candidate.family, candidate.encoder, candidate.decoder
    wanted: list[tuple[str, tuple[str, ...], Any]] = [
        *([("family", (), family)] if len(config.space.families) > 1 else []),
        ("loss", (), fit.loss),
        ("learning_rate", (), fit.learning_rate),
        ("vessel_share", (), fit.vessel_share),
    ]
    if config.space.augmentations is not None:
        wanted += [("augmentation", (), fit.augmentation)]
    if config.space.voxel_sizes is not None:
        wanted += [("voxel_size", (), fit.voxel_size_um or SCANNED)]
    if family == "unet":
        wanted += [("resolution", (), candidate.resolution), ("decoder_norm", (), candidate.decoder_norm)]
        wanted += [("upsampling", (decoder,), candidate.upsampling)]
    if family == "cells":
        wanted += [("box_crop", (), fit.crop), ("box_slices", (), candidate.slices_in)]
        wanted += [("box_batch_size", (), fit.batch_size)]
    else:
        wanted += [
            (_ENCODER[family], (), encoder),
            ("encoder_weights", (encoder,), candidate.encoder_weights),
            ("crop", (encoder, decoder), fit.crop),
            ("slices_in", (), candidate.slices_in),
            ("slices_out", (), "middle" if candidate.slices_out == 1 else "all"),
            ("batch_size", (), fit.batch_size),
        ]
    if family == "unet":
        wanted += [("decoder", (encoder,), decoder)]
    elif family == "sam":
        wanted += [("tuning", (candidate.encoder_weights,), candidate.tuning), ("lora_rank", (), candidate.lora_rank)]
    else:
        wanted += [("cell_width", (), candidate.width)]
    if family not in config.space.families:
        return {}  # the sampler has nothing to learn for a family that it never suggests
    found = {}
    for name, given, value in wanted:
        parameter, distribution = _parameter(config, name, *given)
        inside = (
            value in distribution.choices
            if isinstance(distribution, CategoricalDistribution)
            else distribution.low <= value <= distribution.high
        )
        if inside:
            found[parameter] = (distribution, value)
    return found


def _ask(trial: optuna.Trial, name: str, distribution: CategoricalDistribution | FloatDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def _parameter(config: SearchConfig, name: str, *given: str) -> tuple[str, CategoricalDistribution | FloatDistribution]:
    """A parameter's name in the study and its values, after the choices `given` that it depends on.

    Where these leave it only some of its values (a decoder that an encoder has no features for, a crop that it cannot
    take) the name tells which: Optuna wants one set of values a name, and the sampler then learns about each set apart.
    """
    space = config.space
    if name == "learning_rate":
        return name, FloatDistribution(*space.learning_rate, log=True)
    if name == "vessel_share":
        return name, FloatDistribution(*space.vessel_share)
    possible = buildable(space)
    table: dict[str, tuple[tuple[Any, ...], Callable[..., tuple[Any, ...]]]] = {
        "family": (space.families, lambda: space.families),
        "encoder": (space.encoders, possible.encoders),
        "hybrid_encoder": (space.encoders, lambda: possible.encoders("hybrid")),
        "sam_encoder": (space.sam_encoders, lambda: possible.encoders("sam")),
        "tuning": (space.sam_tunings, lambda weights: tunings_for(space, weights)),
        "lora_rank": (space.lora_ranks, lambda: space.lora_ranks),
        "decoder": (space.decoders, possible.decoders),
        "encoder_weights": (space.encoder_weights, lambda encoder: weights_for(space, encoder)),
        "crop": (space.crops, possible.crops),
        "slices_in": (space.slices_in, lambda: space.slices_in),
        "slices_out": (space.slices_out, lambda: space.slices_out),
        "resolution": (space.resolutions, lambda: space.resolutions),
        "decoder_norm": (space.decoder_norms, lambda: space.decoder_norms),
        "upsampling": (space.upsamplings, lambda decoder: upsamplings_for(space, decoder)),
        "augmentation": (space.augmentations or (), lambda: space.augmentations or ()),
        "voxel_size": (space.voxel_sizes or (), lambda: space.voxel_sizes or ()),
        "loss": (space.losses, lambda: space.losses),
        "batch_size": (space.batch_sizes, lambda: space.batch_sizes),
        "cell_width": (space.cell_widths, lambda: space.cell_widths),
        "box_crop": (space.box_crops, lambda: space.box_crops),
        "box_slices": (space.box_slices, lambda: space.box_slices),
        "box_batch_size": (space.box_batch_sizes, lambda: space.box_batch_sizes),
        "genotype": (names := genotype_names(config.cell_search), lambda: names),
    }
    every, some = table[name]
    values = some(*given) or ("none",)
    return (name if values == every else f"{name} of {', '.join(map(str, values))}"), CategoricalDistribution(values)
