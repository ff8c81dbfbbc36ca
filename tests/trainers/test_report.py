"""Which functions receive the progress of long work, and as what share of a whole."""

from trainers.report import SILENT, Report


def heard() -> tuple[Report, list[object]]:
    """A report, and all that was said to it."""
    said: list[object] = []
    return Report(said.append, lambda *step: said.append(step), said.append), said


def test_parts_follow_each_other_and_end_at_the_whole() -> None:
    report, said = heard()
    for index in range(2):
        for done in (1, 3):
            report.part(index, 2).progress("reading", done, 3)
    assert said == [("reading", 333, 2000), ("reading", 1000, 2000), ("reading", 1333, 2000), ("reading", 2000, 2000)]


def test_a_part_counts_by_its_size() -> None:
    report, said = heard()
    report.part(1, 13, 4).progress("reading", 1, 2)
    report.part(5, 13, 8).progress("reading", 2, 2)
    assert said == [("reading", 3000, 13000), ("reading", 13000, 13000)]


def test_a_part_of_a_part_is_a_part() -> None:
    report, said = heard()
    report.part(1, 2).part(1, 2).progress("reading", 1, 1)
    assert said == [("reading", 2000, 2000)]


def test_work_of_one_of_several_is_named_after_it_and_notes_pass() -> None:
    report, said = heard()
    one = report.of("trial 7").part(0, 1)
    one.progress("train", 1, 1)
    one.note("slow")
    one.remark("loss 0.5")
    assert said == [("trial 7: train", 1000, 1000), "slow", "loss 0.5"]


def test_silence_is_the_default() -> None:
    SILENT.of("a").part(0, 1).progress("reading", 1, 1)
    SILENT.note("nobody hears it")
    SILENT.remark("nor this")
