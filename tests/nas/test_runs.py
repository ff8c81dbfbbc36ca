"""Which configuration and which run folder a command is about."""

from pathlib import Path

import optuna
import pytest
import torch

from nas.config.presets import PRESETS
from nas.config.read import parse_config, read_config
from nas.config.runs import default_preset, open_run, read_run, read_run_to_train
from nas.config.study_config import REPEATS
from nas.config.write import write_config
from nas.search.status import read_status
from nas.study.storage import open_storage
from results.leaderboard.ranking import rank
from results.record import Job, Outcome, Record
from results.run_folder import RUNS, RunFolder
from search_spaces.errors import InputError
from search_spaces.families.unet import UnetCandidate
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import ScoreConfig

FIXED = """
[[fixed]]
name = "plain"
candidate = { encoder = "tu-resnet10t" }
"""


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a search that has begun."""
    source = tmp_path / "mine.toml"
    source.write_text('[study]\nname = "mine"\n[space.fit]\nloss = ["dice", "dice + bce"]\n[fit]\nsteps = 9\n' + FIXED)
    config, folder = open_run(source, None, tmp_path / "run", [], has_data=False)
    folder.config.write_text(write_config(config))
    return folder.path


def test_without_arguments_the_demo_is_run_below_results() -> None:
    config, folder = open_run(None, None, None, [], has_data=False)
    assert config == read_config("demo")
    assert folder.path == RUNS / "demo"
    assert folder.trials.is_dir()


def test_with_data_the_preset_is_one_that_this_machine_can_run() -> None:
    assert default_preset(has_data=False) == "demo"
    assert default_preset(has_data=True) == ("sennet" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_runs_under_its_own_name(preset: str) -> None:
    config, folder = open_run(None, preset, None, [], has_data=True)
    assert config == read_config(preset)
    assert folder.path == RUNS / config.study.name


def test_a_file_and_a_preset_are_too_much(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give a configuration file \(my.toml\) or --preset demo, not both"):
        open_run(Path("my.toml"), "demo", None, [], has_data=False)
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_alone_goes_on_with_its_own_configuration(run: Path) -> None:
    config, folder = open_run(None, None, run, [], has_data=True)
    assert (config.study.name, config.fit.steps) == ("mine", 9)
    assert folder.path == run
    assert read_run(run) == (config, folder)


def test_a_data_folder_means_the_same_from_everywhere(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "scans.toml"
    source.write_text('[data]\nroot = "scans"\nhold_out = "kidney_3"\n' + FIXED)
    config, folder = open_run(source, None, tmp_path / "elsewhere", [], has_data=False)
    assert config.data.root == tmp_path / "scans"
    folder.config.write_text(write_config(config).replace(str(tmp_path / "scans"), "scans"))  # as it was once written
    assert open_run(source, None, folder.path, [], has_data=False)[0] == config


def test_a_new_run_folder_gets_the_default_preset(tmp_path: Path) -> None:
    config, folder = open_run(None, None, tmp_path / "new", [], has_data=False)
    assert config == read_config("demo")
    assert folder.path == tmp_path / "new"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("study.trials", 99),
        ("study.minutes", 3.5),
        ("study.leaders", 7),
        ("study.seeds", 5),
        ("study.kept_weights", 2),
        ("data.cache", Path("elsewhere")),
        ("inference.batch_voxels", 1000),
        ("retrain.steps", 5),
        ("device", "cpu"),
    ],
)
def test_how_long_and_where_to_search_may_change(run: Path, override: str, value: object) -> None:
    config, _ = open_run(None, None, run, [f"{override}={value}"], has_data=False)
    found: object = config
    for part in override.split("."):
        found = getattr(found, part)
    assert found == (value.absolute() if isinstance(value, Path) else value)


def _cache_of(*arguments: Path | None, said: list[str] | None = None) -> Path | None:
    source, run = arguments
    return open_run(source, None, run, said or [], has_data=False)[0].data.cache


def test_a_cache_that_only_a_run_folder_names_is_not_used(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = tmp_path / "theirs" / "config.toml"
    (stranger.parent / "trials").mkdir(parents=True)
    before = (run / "config.toml").read_text()
    stranger.write_text(before.replace("[data]", f'[data]\ncache = "{tmp_path}/victim"', 1))
    for command in ((None, stranger.parent), (stranger, tmp_path / "other")):
        assert _cache_of(*command) is None
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        assert f"{tmp_path}/victim is not used for converted volumes, because only the run folder names it" in printed
    assert read_run_to_train(stranger.parent, ["retrain.steps=5"])[0].data.cache is None


def test_a_cache_that_its_user_named_once_is_used(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f'[data]\ncache = "{tmp_path}/first"\n' + (tmp_path / "mine.toml").read_text())
    assert _cache_of(tmp_path / "mine.toml", run) == tmp_path / "first"
    assert _cache_of(None, run, said=[f"data.cache={tmp_path}/second"]) == tmp_path / "second"
    for named in ("first", "second"):
        text = (run / "config.toml").read_text().replace("[data]", f'[data]\ncache = "{tmp_path / named}"', 1)
        theirs = tmp_path / named / "run"
        (theirs / "trials").mkdir(parents=True)
        (theirs / "config.toml").write_text(text)
        assert _cache_of(None, theirs) == tmp_path / named
        assert read_run_to_train(theirs, [])[0].data.cache == tmp_path / named


def test_none_is_a_name_where_a_name_is_asked_for_and_off_elsewhere() -> None:
    overrides = ["study.promotion=none", "fit.augmentation=none", "study.minutes=none"]
    config, _ = open_run(None, "demo", None, overrides, has_data=False)
    assert (config.study.promotion, config.fit.augmentation, config.study.minutes) == ("none", "none", None)
    with pytest.raises(InputError, match=r"fit.steps = 'none'"):
        open_run(None, "demo", None, ["fit.steps=none"], has_data=False)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("study.seed=3", "study.seed was 0 and is now 3"),
        ("study.name=other", "study.name was mine and is now other"),
        ("study.promotion=none", "study.promotion was halving and is now none"),
        ("study.rungs=1", "study.rungs was 2 and is now 1"),
        ("fit.steps=10", "fit.steps was 9 and is now 10"),
        ("fit.gradient_clip=1.0", "fit.gradient_clip was not set and is now 1.0"),
        ('space.fit.loss=["bce"]', "space.fit.loss was ['dice', 'dice + bce'] and is now ['bce']"),
        ("space.fit.loss=none", "space.fit.loss was ['dice', 'dice + bce'] and is now not set"),
        ('space.unet.encoder=["resnet18"]', "space.unet.encoder was not set and is now ['resnet18']"),
        ("space.fit.warm_up={low=0.1,high=0.2}", "space.fit.warm_up was not set and is now {'low': 0.1, 'high': 0.2"),
        ("cell_search.supernets.cells.crops=[32]", "cell_search.supernets.cells.crops was [64] and is now [32]"),
        ("data.hold_out=kidney_3", "data.hold_out was  and is now kidney_3"),
        ("phantom.kidneys=4", "phantom.kidneys was 3 and is now 4"),
        ("inference.overlap=0.5", "inference.overlap was 0.25 and is now 0.5"),
        ("score.slabs=4", "score.slabs was 8 and is now 4"),
        ("fixed=[]", "fixed was"),
    ],
)
def test_what_decides_the_result_may_not_change(run: Path, override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        open_run(None, None, run, [override], has_data=False)
    assert message in str(caught.value)
    assert f"nas search --run {run}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_many_differences_the_first_three_are_named(run: Path) -> None:
    overrides = [
        f"fit.{key}" for key in ("steps=1", "crop=64", "batch_size=2", "learning_rate=1.0", "weight_decay=0.5")
    ]
    with pytest.raises(InputError, match=r"fit.steps was .*; fit.crop was .*; fit.batch_size was .* \(and 2 more\)"):
        open_run(None, None, run, overrides, has_data=False)


def test_another_preset_on_the_folder_of_a_run_is_refused_and_changes_nothing(run: Path) -> None:
    before = (run / "config.toml").read_text()
    with pytest.raises(InputError, match="holds a search with other settings"):
        open_run(None, "cpu", run, [], has_data=True)
    assert (run / "config.toml").read_text() == before


def test_reading_a_run_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a run folder"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../evil", "/abs", ".hidden", "a/b", "a\\b", "", "a\nb", "\x1b[31m"])
def test_a_study_s_name_stays_in_its_folder(name: str) -> None:
    with pytest.raises(InputError, match=r"study\.name"):
        parse_config({"study": {"name": name}}, "test")


@pytest.mark.parametrize("latest", ["../elsewhere", "/etc", "..", ""])
def test_the_pointer_to_the_latest_run_stays_below_the_runs(latest: str) -> None:
    RUNS.mkdir(parents=True)
    (RUNS / "latest").write_text(latest)
    with pytest.raises(InputError, match="does not name a folder below"):
        read_run(None)


def test_a_password_in_the_settings_is_not_printed(run: Path) -> None:
    with pytest.raises(InputError, match=r"study\.storage was not set and is now postgresql://h/d") as caught:
        open_run(None, None, run, ["study.storage=postgresql://u:secret@h/d"], has_data=False)
    assert "secret" not in str(caught.value)


def test_a_run_that_was_killed_before_its_study_was_written_has_a_status(run: Path) -> None:
    (run / "study.journal").touch()
    assert read_status(run).candidates == 0


def test_a_repeated_training_that_failed_is_no_candidate_but_is_reported(run: Path) -> None:
    folder = RunFolder(run)
    study = optuna.create_study(study_name="mine", storage=open_storage(folder, None))
    study.tell(study.ask(), 0.5)
    study.enqueue_trial({}, user_attrs={REPEATS: 0})
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    job = Job(
        trial=1, name="n", candidate=UnetCandidate(), fit=FitConfig(), inference=InferenceConfig(), seed=1, repeats=0
    )
    ended = Record(job=job, outcome=Outcome(state="failed", reason="why\x1b[2J"), version="0")
    folder.leaderboard_json.write_text(rank([ended], "mine", "k", ScoreConfig()).model_dump_json())
    status = read_status(run)
    assert (status.candidates, status.failed, status.repeats) == (1, 0, 1)
    assert "trial 1 failed: why\N{REPLACEMENT CHARACTER}[2J" in status.text()
