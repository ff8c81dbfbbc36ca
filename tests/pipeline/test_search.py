"""The whole pipeline on phantoms, through the command line: search, resume, retrain, predict, score."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import nas
from filelock import FileLock

from results.bundles.bundle import read_architecture


def _board(run: Path) -> dict:  # type: ignore[type-arg]
    return json.loads((run / "leaderboard.json").read_text())  # type: ignore[no-any-return]


pytestmark = pytest.mark.slow


def test_a_search_ranks_its_candidates_and_repeats_the_leader(run: Path) -> None:
    board = _board(run)
    assert board["held_out"] == "phantom_3"
    complete = [row for row in board["rows"] if row["state"] == "complete"]
    assert len(complete) == 3
    # What was confirmed comes first, even if another seed has shown that its first score was luck.
    reached = [(row["seeds"] > 1, row["surface_dice"]) for row in complete]
    assert reached == sorted(reached, reverse=True)
    assert complete[0]["seeds"] == 2
    assert sum(row["baseline"] for row in complete) == 1
    assert (run / "best" / "weights.safetensors").is_file()
    assert (run / "LEADERBOARD.md").is_file()


def test_every_trial_leaves_its_job_its_record_its_curve_and_a_picture(run: Path) -> None:
    for trial in sorted((run / "trials").iterdir()):
        names = {p.name for p in trial.iterdir()}
        assert {"candidate.json", "record.json", "overlay.png"} <= names
        again = json.loads((trial / "record.json").read_text())["job"]["repeats"] is not None
        assert ("scores.jsonl" in names) != again  # nothing depends on what a finalist scores before its end
        assert "checkpoint" not in names


def test_trials_differ_in_the_fields_that_the_space_names(run: Path) -> None:
    jobs = [json.loads(path.read_text())["job"] for path in sorted((run / "trials").glob("*/record.json"))]
    suggested = [job for job in jobs if not job["baseline"]]
    for name, low, high in (("learning_rate", 1e-4, 1e-2), ("weight_decay", 1e-4, 1e-1), ("cooldown", 0.1, 0.5)):
        values = {job["fit"][name] for job in suggested}
        assert len(values) == 2 and low <= min(values) < max(values) <= high
    assert {job["inference"]["overlap"] for job in suggested} <= {0.0, 0.25, 0.5}
    (baseline,) = {(job["fit"]["weight_decay"], job["inference"]["overlap"]) for job in jobs if job["baseline"]}
    assert baseline == (0.01, 0.25)


def test_a_finished_search_run_again_changes_nothing(run: Path, config: Path, cache: Path) -> None:
    before = _board(run)
    nas("search", config, "--run", run, cache=cache)
    assert _board(run) == before


def test_more_trials_continue_where_the_search_stopped(run: Path, config: Path, cache: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "tiny"
    shutil.copytree(run, copy)
    before = {row["trial"]: row["surface_dice"] for row in _board(copy)["rows"]}
    nas("search", "--run", copy, "--trials", "3", cache=cache)
    after = {row["trial"]: row["surface_dice"] for row in _board(copy)["rows"]}
    assert len(after) == 4
    assert {trial: value for trial, value in after.items() if trial in before and trial != _board(run)["best"]} == {
        trial: value for trial, value in before.items() if trial != _board(run)["best"]
    }


def test_other_settings_on_the_same_folder_are_refused(run: Path, config: Path, cache: Path) -> None:
    answer = nas("search", config, "--run", run, "--set", "fit.steps=10", cache=cache, expect=1)
    assert "fit.steps was 9 and is now 10" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_trial_is_resumed_after_the_time_ran_out(config: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "short"
    # Lengths that are searched are not planned.
    long = ["--set", "fit.steps=100000", "--set", "space.fit.steps=[100000, 100001]", "--set", "study.rungs=0"]
    nas("search", config, "--run", folder, *long, "--minutes", "0.1", cache=cache, expect=1)
    rows = _board(folder)["rows"]
    assert [row["state"] for row in rows] == ["interrupted"]
    assert list((folder / "trials" / "0000" / "checkpoint").iterdir())
    again = nas("search", config, "--run", folder, *long, "--minutes", "0.2", cache=cache, expect=1)
    assert "trial 0: plain, resumed" in again.stdout
    assert [row["trial"] for row in _board(folder)["rows"]] == [0]


def test_a_search_with_a_time_limit_says_its_plan_and_what_came_of_it(
    config: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "planned"
    done = nas("search", config, "--run", folder, "--minutes", "1", "--set", "study.trials=none", cache=cache)
    assert "measuring: complete" in done.stdout and "plan " in done.stdout
    assert _board(folder)["rows"][0]["rank"] == 1
    status = json.loads(nas("status", "--run", folder, "--json", cache=cache).stdout)
    first = status["plan"][0]
    assert (first["what"], first["came"]) == ("default and other fixed trials", 1)
    assert status["minutes_used"] < 1.0
    kept = nas("retrain", "best", "--run", folder, "--minutes", "0.3", "--json", cache=cache)
    assert json.loads(kept.stdout)["record"]["outcome"]["state"] == "complete"


def test_retraining_the_best_writes_a_bundle_that_predicts_its_own_score(
    run: Path, cache: Path, tmp_path: Path
) -> None:
    done = json.loads(nas("retrain", "best", "--run", run, "--json", cache=cache).stdout)
    bundle = Path(done["bundle"])
    expected = done["record"]["outcome"]["score"]
    scan = run / "phantoms" / "train" / "phantom_3"
    found = json.loads(
        nas("predict", bundle, scan, "--score", "--json", "--out", tmp_path / "mask.npy", cache=cache).stdout
    )
    assert found["score"]["values"]["surface_dice"] == pytest.approx(expected["values"]["surface_dice"], abs=1e-6)
    assert found["mask_values"]["surface_dice"] == pytest.approx(expected["best"], abs=1e-6)
    again = nas("retrain", "best", "--run", run, cache=cache, expect=1)
    assert f"{bundle} already exists" in again.stderr
    alone = json.loads(nas("score", tmp_path / "mask.npy", scan / "labels", "--json", cache=cache).stdout)
    assert alone["surface_dice"] == pytest.approx(found["mask_values"]["surface_dice"], abs=1e-9)


def test_another_seed_trains_another_network_beside_the_first(run: Path, cache: Path) -> None:
    trial = _board(run)["best"]
    ask = ("retrain", str(trial), "--run", run, "--steps", "4")
    done = [json.loads(nas(*ask, "--seed", str(seed), "--json", cache=cache).stdout) for seed in (7, 8)]
    assert [Path(one["bundle"]).name for one in done] == [f"trial-{trial:04d}-seed-{seed}" for seed in (7, 8)]
    assert [read_architecture(Path(one["bundle"])).provenance.seed for one in done] == [7, 8]
    reached = [one["record"]["outcome"]["score"]["mean_over_thresholds"] for one in done]
    assert reached[0] != reached[1]
    answer = nas(*ask, "--seed", "8", cache=cache, expect=1)
    assert f"{done[1]['bundle']} already exists" in answer.stderr
    # From the bundle itself: the seed replaces the one in its name.
    third = json.loads(nas("retrain", done[1]["bundle"], *ask[2:], "--seed", "9", "--json", cache=cache).stdout)
    assert Path(third["bundle"]).name == f"trial-{trial:04d}-seed-9"


def test_two_commands_do_not_train_one_bundle(run: Path, cache: Path) -> None:
    trial = _board(run)["best"]
    (run / "retrained").mkdir(exist_ok=True)
    with FileLock(run / "retrained" / f".trial-{trial:04d}-seed-5.lock"):  # as the other one holds it
        answer = nas("retrain", "best", "--seed", "5", "--run", run, cache=cache, expect=1)
    assert answer.stderr.startswith("nas: another command is training ")
    assert not list((run / "retrained").glob("trial-*-seed-5*"))


def test_an_unknown_target_is_one_line(run: Path, cache: Path) -> None:
    answer = nas("retrain", "²", "--run", run, cache=cache, expect=1)
    assert answer.stderr.startswith("nas: cannot retrain '²': give `best`")


def test_a_seed_for_several_trainings_is_refused(run: Path, cache: Path) -> None:
    answer = nas("retrain", "top2", "--seed", "1", "--run", run, cache=cache, expect=1)
    assert answer.stderr.strip() == "nas: --seed is for one training, but top2 trains several: give a trial's number"


def test_a_submission_decodes_to_the_predicted_mask(run: Path, cache: Path, tmp_path: Path) -> None:
    from trainers.data.masks import read_mask

    csv = tmp_path / "submission.csv"
    scan = run / "phantoms" / "train" / "phantom_3"
    nas("predict", run / "best", scan, "--out", tmp_path / "mask", "--submission", csv, cache=cache)
    mask = read_mask(tmp_path / "mask")
    assert csv.read_text().splitlines()[0] == "id,rle"
    assert csv.read_text().splitlines()[1].startswith("phantom_3_0000,")
    np.testing.assert_array_equal(read_mask(csv, "phantom_3", (24, 48, 48)), mask)


def test_the_best_bundle_gives_the_leaderboards_score_again(run: Path, cache: Path, tmp_path: Path) -> None:
    best = _board(run)["rows"][0]
    found = json.loads(
        nas(
            "predict", run / "best", run / "phantoms", "--held-out", "--score", "--json", "--out", tmp_path / "m",
            cache=cache,
        ).stdout
    )  # fmt: skip
    assert found["score"]["values"]["surface_dice"] == pytest.approx(best["seed_scores"][0], abs=1e-6)


def test_status_and_leaderboard_speak_json(run: Path, cache: Path) -> None:
    status = json.loads(nas("status", "--run", run, "--json", cache=cache).stdout)
    assert (status["candidates"], status["complete"], status["running"]) == (2, 3, False)
    board = _board(run)
    assert status["repeats"] == sum(row["seeds"] - 1 for row in board["rows"]) > 0
    assert json.loads(nas("leaderboard", "--run", run, "--json", cache=cache).stdout) == board
    assert status["best_metrics"]["surface_dice"] == board["rows"][0]["surface_dice"]
    text = nas("status", "--run", run, cache=cache).stdout
    assert "3 complete" in text
    assert "surface dice 0." in text


def test_a_dry_run_builds_every_choice_and_trains_nothing(config: Path, cache: Path, tmp_path: Path) -> None:
    done = nas("search", config, "--run", tmp_path / "dry", "--dry-run", cache=cache)
    assert "mobilenetv3_small_100 · PSPNet · 3x32" in done.stdout
    assert "1 fixed trials and 2 candidates of 9 steps" in done.stdout
    assert not list((tmp_path / "dry" / "trials").iterdir())
    # The most expensive of the resolutions that the space offers must fit.
    large = ("--set", 'space.unet.resolution=["plain", "upscaled", "stem"]')
    longer = ("--set", "space.fit.steps=[9,30]")
    done = nas("search", config, "--run", tmp_path / "dry", "--dry-run", *large, *longer, cache=cache)
    assert "1 fixed trials and 2 candidates of up to 30 steps" in done.stdout
    assert "mobilenetv3_small_100 · PSPNet upscaled · 3x32" in done.stdout
