"""What the dashboard shows about a trial: its result or why there is none, its pictures, and no foreign markup."""

from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from optuna.artifacts import get_all_artifact_meta
from optuna_dashboard import get_note
from records import board_of, trained

from nas.config.read import parse_config
from nas.search.dashboard_notes import note, show_in_dashboard, show_reading
from nas.study.buildable import find_buildable
from nas.study.study import ask, job_of, open_study
from results.record import Job, Outcome, Record
from results.run_folder import create
from results.text import escape
from search_spaces.families.unet import UnetCandidate
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import Score, Slab, VolumeScore

SCORE = Score(
    rank_by="surface_dice",
    values={"surface_dice": 0.81234, "voxel_dice": 0.75},
    ci_low=0.7,
    ci_high=0.9,
    threshold=0.5,
    best=0.83,
    mean_over_thresholds=0.6,
    volumes=(VolumeScore(volume="kidney_3_dense", values={"surface_dice": 0.8, "voxel_dice": 0.7}),),
    slabs=(Slab(volume="kidney_3_dense", threshold=0.5, parts={"surface_dice": (0.8, 1.0)}),),
)
JOB = Job(
    trial=4, name="resnet18 · Unet", candidate=UnetCandidate(), fit=FitConfig(), inference=InferenceConfig(), seed=3
)
COMPLETE = Outcome(
    state="complete", score=SCORE, step=9, parameters=1_500_000, train_seconds=90.0, device="NVIDIA H100"
)


def _note(job: Job = JOB, outcome: Outcome = COMPLETE) -> str:
    return note(Record(job=job, outcome=outcome, version="0.1.0"))


def _shown(markdown: str) -> tuple[str, set[str]]:
    """The words a reader of the page sees, and the kinds of its elements."""
    words, kinds = [], set()
    for block in MarkdownIt("commonmark").enable("table").parse(markdown):
        kinds.add(block.type)
        for token in block.children or []:
            kinds.add(token.type)
            words.append(token.content)
    return "".join(words), kinds


def test_a_complete_trial_has_its_score_interval_and_cost() -> None:
    text = _note()
    assert "surface dice 0.8123 (95 % interval 0.700 – 0.900), voxel dice 0.7500" in text
    assert "At the threshold that suits this kidney best: surface dice 0.8300 (optimistic)." in text
    assert "| held-out volume | surface dice | voxel dice |" in text
    assert "90 s of training, seed 3, NVIDIA H100, version 0.1.0." in text
    words, kinds = _shown(text)
    assert "kidney_3_dense" in words
    assert "table_open" in kinds


def test_a_baseline_and_a_repeat_say_so() -> None:
    baseline = JOB.model_copy(update={"baseline": True})
    repeat = JOB.model_copy(update={"repeats": 1, "seed": 5})
    assert "(baseline)" in _note(baseline)
    assert "(baseline)" not in _note()
    assert "Trial 1 trained again with seed 5." in _note(repeat)


@pytest.mark.parametrize("state", ["paused", "failed", "interrupted"])
def test_a_trial_without_a_score_has_its_reason(state: str) -> None:
    outcome = Outcome.model_validate({"state": state, "reason": "out of luck"})
    text = _note(outcome=outcome)
    assert f"**{state}**: out of luck" in text
    assert "surface dice" not in text
    assert "– parameters, – of training, seed 3, no device" in text


MARKUP = [
    "<script>alert(1)</script>",
    "[x](javascript:y)",
    "![p](q)",
    "*a* _b_ `c` ~~d~~",
    r"back\slash",
    "a | b",
    "# h",
]


@pytest.mark.parametrize("text", [*MARKUP, "&lt;b&gt;"])
def test_markup_in_names_and_reasons_is_shown_as_it_is(text: str) -> None:
    volume = SCORE.volumes[0].model_copy(update={"volume": text})
    outcome = COMPLETE.model_copy(update={"reason": text, "score": SCORE.model_copy(update={"volumes": (volume,)})})
    words, kinds = _shown(_note(JOB.model_copy(update={"name": text}), outcome))
    assert words.count(text) == 3
    plain = _shown(_note(JOB, COMPLETE.model_copy(update={"reason": "plain"})))[1]
    assert kinds - {"text_special"} == plain - {"text_special"}


@pytest.mark.parametrize("text", MARKUP)
def test_escaping_is_needed_and_shows_the_text(text: str) -> None:
    assert _shown(escape(text))[0] == text


@pytest.mark.slow
def test_a_trial_has_its_note_and_both_pictures(tmp_path: Path) -> None:
    config = parse_config({"fixed": [{"name": "f", "candidate": {"encoder": "tu-resnet10t", "slices_in": 3}}]}, "test")
    folder, possible = create(tmp_path / "run"), find_buildable(config)
    study = open_study(folder, config)
    trial = ask(study, config)
    record = Record(job=job_of(trial, config, possible), outcome=COMPLETE, version="0")
    place = folder.trial(0)
    place.path.mkdir()
    place.curve.write_bytes(b"curve")
    place.overlay.write_bytes(b"overlay")
    show_in_dashboard(study, trial, record, folder)
    assert get_note(trial) == note(record)
    found = get_all_artifact_meta(trial)
    assert {meta.filename: meta.mimetype for meta in found} == {"curve.png": "image/png", "overlay.png": "image/png"}
    assert {(folder.artifacts / meta.artifact_id).read_bytes() for meta in found} == {b"curve", b"overlay"}


def test_a_trial_without_pictures_has_its_note_alone(tmp_path: Path) -> None:
    config = parse_config({"fixed": [{"name": "f", "candidate": {"encoder": "tu-resnet10t", "slices_in": 3}}]}, "test")
    folder, possible = create(tmp_path / "run"), find_buildable(config)
    study = open_study(folder, config)
    trial = ask(study, config)
    failed = Outcome(state="failed", reason="no luck")
    show_in_dashboard(study, trial, Record(job=job_of(trial, config, possible), outcome=failed, version="0"), folder)
    assert "no luck" in get_note(trial)
    assert get_all_artifact_meta(trial) == []


def test_a_study_has_what_its_leaderboard_says_as_its_note(tmp_path: Path) -> None:
    study = open_study(create(tmp_path / "run"), parse_config({}, "test"))
    show_reading(study, board_of(trained(0, [0.5])))
    assert "There is only one row" in get_note(study)
