"""What something else wrote into a study is named, and not believed."""

import optuna
import pytest

from nas.study.attributes import check_attributes
from search_spaces.errors import InputError


def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(study_name="s")


@pytest.mark.parametrize("value", ["x", [1], True, -1.0, float("nan"), float("inf"), 10**400, None])
def test_a_time_that_is_no_number_is_named(value: object) -> None:
    made = study()
    made.set_user_attr("seconds", value)
    with pytest.raises(
        InputError, match=r"study 's' has .* as seconds, where a search writes a number: something else"
    ):
        check_attributes(made)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("repeats", "0", "a whole number"),
        ("rung", 1.5, "a whole number"),
        ("steps", 0, "a whole number above 0"),
        ("repeats", 10**400, "a whole number"),
        ("found", 3, "text"),
        ("paused", {}, "a number"),
    ],
)
def test_a_mark_of_a_trial_of_another_kind_is_named(name: str, value: object, kind: str) -> None:
    made = study()
    made.ask()
    made.ask().set_user_attr(name, value)
    with pytest.raises(InputError, match=rf"trial 1 of study 's' has .* as {name}, where a search writes {kind}"):
        check_attributes(made)


@pytest.mark.parametrize(("name", "value", "most"), [("fixed", 4, 3), ("continues", 1, 0), ("repeats", 99, 0)])
def test_a_mark_beyond_what_a_search_has_is_named(name: str, value: int, most: int) -> None:
    made = study()
    made.ask().set_user_attr("fixed", 3)
    trial = made.ask()
    trial.set_user_attr(name, most)
    check_attributes(made, fixed=4)
    trial.set_user_attr(name, value)
    with pytest.raises(InputError, match=rf"has {value} as {name}, where this search writes at most {most}: it is of"):
        check_attributes(made, fixed=4)


def test_what_others_note_under_other_names_is_theirs() -> None:
    made = study()
    made.set_user_attr("dashboard:note", ["anything"])
    made.ask().set_user_attr("comment", None)
    check_attributes(made)
