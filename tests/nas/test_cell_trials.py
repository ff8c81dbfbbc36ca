"""Families with cells in the study: which searches a run needs, what is suggested, refused and shown."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from kidneys import tube
from optuna.trial import TrialState

from nas.config.difference import merge
from nas.config.read import parse_config, read_config
from nas.config.search_config import SearchConfig
from nas.config.study_config import GIVEN_UP
from nas.config.write import write_config
from nas.jobs.cell_search import plan_for, plans
from nas.search.preflight import preflight
from nas.study.buildable import find_buildable
from nas.study.study import ask, cells_needed, count_candidates, job_of, open_study
from nas.study.suggest import cells_wanted, known_parameters, suggest
from results.record import describe
from results.run_folder import create
from search_spaces.any_candidate import CANDIDATES
from search_spaces.cells.genotype import Genotype
from search_spaces.cells.hand_made import hand_made
from search_spaces.errors import InputError
from search_spaces.families.cells import CellsCandidate
from search_spaces.families.hybrid import HybridCandidate
from search_spaces.network import check_buildable
from trainers.cell_search.run import CellPlan
from trainers.data.folds import Fold

ENCODERS = ["tu-resnet10t", "tu-vit_tiny_patch16_224"]
VALUES: dict[str, dict[str, Any]] = {
    "study": {"trials": 4},
    "space": {
        "families": ["unet", "cells", "hybrid"],
        "fit": {"loss": ["dice", "bce"], "crop": [64, 96], "batch_size": [2]},
        "unet": {"encoder": ENCODERS, "decoder": ["Unet", "DPT"], "slices_in": [3]},
        "hybrid": {"encoder": ENCODERS, "slices_in": [3], "width": [4, 8]},
        "cells": {"slices_in": [8], "width": [4, 8], "fit": {"crop": [16], "batch_size": [1, 2]}},
    },
    "cell_space": {"level": "L1", "levels": 3, "nodes": 2},
    "cell_search": {
        "steps": 10,
        "supernets": {
            "cells": {"crops": [16], "candidate": {"slices_in": 8, "width": 4}},
            "hybrid": {"crops": [64, 96], "candidate": {"encoder": "tu-resnet10t", "slices_in": 3, "width": 4}},
        },
        "perturbations": 1,
        "samples": 1,
        "randoms": 1,
    },
    "fit": {"crop": 32, "batch_size": 2, "augmentation": "flips"},
}
FOLD = Fold((tube("a"), tube("b")), (tube("c"),))


def _config(**sections: dict[str, Any]) -> SearchConfig:
    return parse_config(merge(VALUES, sections), "test")


ONE_CROP = {"supernets": {"hybrid": {"crops": [64]}}}


def _genotypes(family: str, crop: int) -> Mapping[str, Genotype]:
    first, second = (hand_made(name, family, 3) for name in ("plain", "residual"))
    return {"likeliest": first, "perturbation-1": second, "sample-1": first, "random-1": second}


def test_a_run_searches_one_supernet_for_each_family_and_class_of_crops() -> None:
    assert [plan.id for plan in plans(_config())] == ["cells-16", "hybrid-64", "hybrid-96"]
    assert plans(_config(space={"families": ["unet"]})) == ()
    only_fixed = {**VALUES, "study": {"trials": 0}, "fixed": [{"name": "f", "candidate": {"slices_in": 3}}]}
    assert plans(parse_config(only_fixed, "test")) == ()


def test_no_cells_are_searched_for_a_family_whose_genotypes_the_space_names() -> None:
    config = _config(space={"cells": {"genotype": ["plain/3", "residual/3"]}})
    assert [plan.id for plan in plans(config)] == ["hybrid-64", "hybrid-96"]
    config = _config(space={"families": ["cells"], "cells": {"genotype": ["plain/3", "residual/3"]}})
    study, possible = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)), find_buildable(config)
    found = set()
    for _ in range(10):
        trial = study.ask()
        assert cells_wanted(trial, config, possible) is None
        candidate = suggest(trial, config, possible).candidate
        found.add((trial.params["cells.genotype"], candidate.decided_cells))
    assert found == {(name, hand_made(name, "cells")) for name in ("plain/3", "residual/3")}


@pytest.mark.parametrize(("crop", "nearest"), [(32, 64), (64, 64), (80, 64), (96, 96), (128, 96)])
def test_a_trial_takes_the_cells_of_the_supernet_with_the_nearest_crop(crop: int, nearest: int) -> None:
    assert plan_for(_config(), "hybrid", crop) == CellPlan(family="hybrid", crop=nearest)


@pytest.mark.slow
def test_all_families_are_suggested_and_each_candidate_can_be_built() -> None:
    config = _config()
    study, possible = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)), find_buildable(config)
    families = set()
    for _ in range(40):
        trial = study.ask()
        wanted = cells_wanted(trial, config, possible)
        design = suggest(trial, config, possible, _genotypes)
        candidate, fit = design.candidate, design.fit
        families.add(candidate.family)
        assert wanted == (None if candidate.family == "unet" else (candidate.family, fit.crop))
        assert CANDIDATES.validate_json(candidate.model_dump_json()) == candidate
        known = known_parameters(config, possible, design)
        assert known.items() <= trial.params.items()
        assert set(trial.params) - set(known) == {f"{candidate.family}.genotype"} & set(trial.params)
        check_buildable(candidate, fit.crop, fit.batch_size)
    assert families == {"unet", "cells", "hybrid"}


@pytest.mark.slow
def test_every_genotype_to_be_found_is_queued_once(tmp_path: Path) -> None:
    config = _config(study={"trials": 9}, cell_search=ONE_CROP)
    folder, possible = create(tmp_path), find_buildable(config)
    open_study(folder, config)
    study = open_study(folder, config)  # again, as after a stop: nothing is queued twice
    jobs = []
    for _ in range(9):
        trial = ask(study, config)
        plan = cells_needed(trial, config, possible)
        job = job_of(trial, config, possible, _genotypes)
        jobs.append((plan.id if plan else None, trial.params.get(f"{job.candidate.family}.genotype")))
        assert job.candidate.family == (plan.family if plan else "unet")
    names = ("perturbation-1", "likeliest", "sample-1", "random-1")
    assert jobs[:8] == [(search, name) for name in names for search in ("cells-16", "hybrid-64")]
    assert len(study.trials) == 9


@pytest.mark.slow
def test_every_encoder_and_every_genotype_is_suggested_to_every_family(tmp_path: Path) -> None:
    """What is asked before the cells are known must not decide what is asked afterwards."""
    encoders = ["tu-resnet10t", "tu-mobilenetv3_small_100", "resnet18"]
    config = _config(
        study={"trials": 200, "random_trials": 200},
        space={"unet": {"encoder": encoders, "decoder": ["Unet"]}, "hybrid": {"encoder": encoders}},
        cell_search=ONE_CROP,
    )
    possible = find_buildable(config)
    study = open_study(create(tmp_path), config)
    seen = set()
    for _ in range(100):
        trial = ask(study, config)
        cells_needed(trial, config, possible)
        family = job_of(trial, config, possible, _genotypes).candidate.family
        seen.add((family, trial.params.get(f"{family}.encoder"), trial.params.get(f"{family}.genotype")))
    for family in ("unet", "hybrid"):
        assert {encoder for found, encoder, _ in seen if found == family} == set(encoders)
    for family in ("cells", "hybrid"):
        assert len({name for found, _, name in seen if found == family}) == 4


@pytest.mark.slow
def test_trials_whose_cells_could_not_be_found_are_not_counted_and_are_queued_again(tmp_path: Path) -> None:
    config = _config(study={"trials": 4}, cell_search=ONE_CROP)
    study = open_study(create(tmp_path), config)
    trial = ask(study, config)
    assert count_candidates(study) == 1
    trial.set_user_attr(GIVEN_UP, True)
    study.tell(trial.number, state=TrialState.FAIL)
    assert count_candidates(study) == 0
    again = open_study(create(tmp_path), config)
    assert [t.user_attrs["found"] for t in again.trials].count("cells/perturbation-1") == 2


def test_a_search_of_fixed_trials_alone_searches_no_cells() -> None:
    fixed = [{"name": "f", "candidate": {"slices_in": 3}}]
    config = parse_config({**VALUES, "study": {"trials": 0}, "fixed": fixed}, "test")
    assert plans(config) == ()
    assert plan_for(config, "cells", 16).id == "cells-16"


def test_what_is_off_stays_off_in_the_file_of_a_run() -> None:
    off = {"gradient_clip": "none", "alpha_clip": "none", "shrink_every": "none"}
    config = _config(cell_search=off)
    assert config.cell_search.shrink_every is config.cell_search.gradient_clip is config.cell_search.alpha_clip is None
    assert parse_config(tomllib.loads(write_config(config)), "again") == config
    changed = read_config("demo", ["cell_search.shrink_every=none"])
    assert changed.cell_search.shrink_every is None


def test_the_name_of_an_algorithm_or_of_a_level_wins_over_the_numbers_of_a_preset() -> None:
    config = read_config("sennet", ["cell_search.algorithm=darts", "cell_space.level=L3"])
    assert (config.cell_search.estimator, config.cell_search.warm_up) == ("mixture", 0.0)
    assert config.cell_space.skips == ("identity", "attention")
    assert config.cell_space.nodes == read_config("sennet").cell_space.nodes
    steps = read_config("sennet").cell_search.steps
    assert config.cell_search.steps == steps


def test_the_queue_does_not_exceed_the_budget(tmp_path: Path) -> None:
    config = _config(study={"trials": 3}, cell_search=ONE_CROP)
    study = open_study(create(tmp_path), config)
    ask(study, config)
    assert [t.system_attrs["fixed_params"] for t in study.trials] == [
        {"family": "cells", "cells.genotype": "perturbation-1"},
        {"family": "hybrid", "hybrid.genotype": "perturbation-1"},
        {"family": "cells", "cells.genotype": "likeliest"},
    ]


def test_a_hybrid_takes_only_encoders_that_give_a_pyramid() -> None:
    config = _config(space={"families": ["hybrid"]})
    study, possible = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)), find_buildable(config)
    drawn = [suggest(study.ask(), config, possible, _genotypes).candidate for _ in range(10)]
    assert {candidate.encoder for candidate in drawn if isinstance(candidate, HybridCandidate)} == {"tu-resnet10t"}
    assert len(drawn) == 10


def test_a_row_says_how_its_genotype_was_found() -> None:
    values = {"genotype": "plain", "width": 8, "slices_in": 16}
    candidate = CellsCandidate.model_validate(values)
    fit = _config().fit
    assert describe(candidate, fit, "sample-1") == "cells sample-1 c8 · dice · 16x32 · flips"
    assert candidate.genotype.hash in describe(candidate, fit)
    hybrid = HybridCandidate.model_validate({**values, "slices_in": 3, "encoder": "tu-resnet10t"})
    assert describe(hybrid, fit, "likeliest") == "resnet10t · cells likeliest c8 · dice · 3x32 · flips"


def test_a_configuration_with_cells_passes() -> None:
    preflight(_config(), FOLD)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"cell_space": {"same": ["conv3", "conf3"]}}, "unknown operation 'conf3'; did you mean 'conv3'"),
        ({"cell_space": {"up": ["conv3"]}}, "operation 'conv3' is listed under 'up' but belongs under 'same'"),
        ({"cell_search": {"estimator": "two-paths"}}, "unknown estimator 'two-paths'; did you mean 'two-path'"),
        ({"cell_search": {"estimator": "sampled"}}, "unknown estimator 'sampled'"),
        (
            {"cell_search": {"supernets": {"cells": {"candidate": {"width": 14}}}}},
            "cells of width 14 cannot be built: use a multiple of 4; set it to 12 or 16",
        ),
        (
            {"space": {"cells": {"width": [6]}}},
            "cells of width 6 cannot be built: use a multiple of 4; set it to 4 or 8",
        ),
        ({"cell_search": {"loss": "dise"}}, "unknown loss 'dise'; did you mean 'dice' or 'cldice'"),
        (
            {"cell_search": {"supernets": {"cells": {"candidate": {"slices_in": 10}}}}},
            "slices_in 10 of family 'cells' must be a multiple of 4",
        ),
        (
            {"cell_search": {"supernets": {"hybrid": {"crops": [32]}}}},
            "a supernet of family 'hybrid' at crop 32 cannot be built: its maps need multiples of 32 of at least 64; "
            "set the crop to 64",
        ),
        (
            {"cell_search": {"supernets": {"hybrid": {"crops": [48]}}}},
            "at crop 48 cannot be built: its maps need multiples of 32 of at least 64",
        ),
        ({"space": {"cells": {"fit": {"crop": [18]}}}}, "crop 18 of family 'cells' must be a multiple of 4"),
        (
            {"space": {"cells": {"slices_in": [64]}}},
            "c of (24, 48, 48) voxels is too small to be read with boxes of 64 x 16 x 16",
        ),
        (
            {"space": {"families": ["hybrid"], "hybrid": {"encoder": ["tu-vit_tiny_patch16_224"]}}},
            "no network of family hybrid in this space can be built",
        ),
    ],
)
def test_a_mistake_about_cells_is_one_line_that_names_it(sections: dict[str, dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError) as caught:
        preflight(_config(**sections), FOLD)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_few_kidneys_for_both_sides_of_a_cell_search_are_named() -> None:
    one = Fold((tube("a", (12, 48, 48)),), FOLD.held_out)
    with pytest.raises(InputError, match=r"cells cannot be searched on a: .* add a kidney, or use smaller boxes"):
        preflight(_config(), one)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"cell_space": {"level": "L7"}}, "unknown level of cell space 'L7'; did you mean"),
        ({"cell_search": {"algorithm": "scnass"}}, "unknown algorithm 'scnass'; did you mean 'scnas'"),
        ({"cell_search": {"stepps": 3}}, "unknown key 'cell_search.stepps'; did you mean 'cell_search.steps'"),
        ({"space": {"families": ["cels"]}}, "space: unknown family 'cels'; did you mean 'cells'"),
        ({"cell_search": {"supernets": {"unet": {"crops": [64]}}}}, "unknown family with cells 'unet'"),
        ({"cell_search": {"supernets": {"cells": {"batch_size": 2}}}}, "cell_search.supernets.cells.crops is missing"),
        (
            {"cell_search": {"supernets": {"hybrid": {"crops": [64], "candidate": {"encoder": "tu-resnet10"}}}}},
            "unknown encoder 'tu-resnet10'; did you mean 'tu-resnet10t'",
        ),
        (
            {"cell_search": {"supernets": {"cells": {"crops": [16], "candidate": {"encoder": "resnet18"}}}}},
            "unknown key of family cells 'encoder'",
        ),
        (
            {"cell_search": {"supernets": {"hybrid": {"crops": [64], "candidate": {"family": "cells"}}}}},
            "cell_search.supernets: hybrid.candidate names a family, which is not a choice here",
        ),
        (
            {"cell_search": {"supernets": {"cells": {"crops": [16], "candidate": {"genotype": "plain"}}}}},
            "cell_search.supernets: cells.candidate names a genotype, which is not a choice here",
        ),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_the_nearest(section: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_config(section, "test")
    assert message in str(caught.value)
