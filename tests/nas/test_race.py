import numpy as np
import pytest

from nas.study.race import Finalist, Race


def race(*finalists: Finalist, most: int = 4, sure: float = 0.95) -> Race:
    return Race(finalists, margin=0.005, sure=sure, most=most)


def test_everybody_gets_one_seed_before_anybody_gets_two() -> None:
    assert race(Finalist({1: 0.9}), Finalist({}), Finalist({})).next() == 1
    assert race(Finalist({1: 0.9}), Finalist({}, waiting=1), Finalist({})).next() == 2


def test_who_leads_is_not_known_before_everybody_has_a_score() -> None:
    assert race(Finalist({1: 0.9}), Finalist({}, waiting=1)).next() is None


def test_everybody_gets_as_many_as_are_asked_for_before_anything_is_decided() -> None:
    ahead, behind = Finalist({1: 0.9, 2: 0.9, 3: 0.9}), Finalist({1: 0.1, 2: 0.1})
    assert race(ahead, behind, sure=0.6).next() is None
    assert Race([ahead, behind], margin=0.005, sure=0.6, most=4, least=3).next() == 1
    assert Race([Finalist({1: 0.9}), Finalist({})], margin=0.005, sure=0.6, most=4, least=3).next() == 1
    assert Race([ahead, Finalist({1: 0.1}, failed=3)], margin=0.005, sure=0.6, most=4, least=3).next() is None


def test_one_whose_training_failed_is_tried_with_another_seed_and_then_left_out() -> None:
    assert race(Finalist({1: 0.9}), Finalist({}, failed=1), most=2).next() == 1
    assert race(Finalist({1: 0.9}), Finalist({1: 0.8}), Finalist({}, failed=2), most=2).next() in (0, 1)


def test_the_leader_and_its_closest_rival_take_turns_and_clear_losers_get_no_more() -> None:
    known = [Finalist({1: 0.80, 2: 0.81}), Finalist({1: 0.79, 2: 0.805}), Finalist({1: 0.30, 2: 0.31})]
    first = race(*known).next()
    assert first in (0, 1)
    known[first] = Finalist({**known[first].scores, 3: 0.80})
    assert race(*known).next() == 1 - first


def test_it_ends_when_the_leader_is_surely_best() -> None:
    clear = [Finalist({seed: value + seed / 1000 for seed in (1, 2, 3)}) for value in (0.8, 0.5, 0.4)]
    assert race(*clear).next() is None


def test_equally_good_designs_end_it_too_because_either_may_be_taken() -> None:
    same = Finalist({1: 0.8000, 2: 0.8101, 3: 0.7899, 4: 0.8000, 5: 0.8099})
    also = Finalist({1: 0.8001, 2: 0.8099, 3: 0.7901, 4: 0.8000, 5: 0.8101})
    assert race(same, also, Finalist({1: 0.78, 2: 0.79, 3: 0.77}), most=8).next() is None


def test_nobody_gets_more_seeds_than_the_limit() -> None:
    assert race(Finalist({1: 0.80, 2: 0.70}), Finalist({1: 0.79, 2: 0.72}), most=2).next() is None


@pytest.mark.parametrize("finalists", [[], [Finalist({1: 0.5})]])
def test_a_race_without_rivals_is_over(finalists: list[Finalist]) -> None:
    assert race(*finalists).next() is None


@pytest.mark.slow
def test_a_race_finds_the_best_with_fewer_trainings_than_all_seeds_of_all() -> None:
    rng, found, used = np.random.default_rng(0), [], []
    for _ in range(20):
        qualities = rng.normal(0.6, 0.04, 8)
        scores = qualities[:, None] + rng.normal(0, 0.01, (8, 10))
        known = [Finalist({}) for _ in qualities]
        while (place := race(*known, most=10).next()) is not None:
            seed = known[place].asked
            known[place] = Finalist({**known[place].scores, seed: float(scores[place, seed])})
        means = [float(np.mean(list(f.scores.values()))) for f in known]
        found.append(qualities[int(np.argmax(means))] >= qualities.max() - 0.01)
        used.append(sum(f.asked for f in known))
    assert np.mean(found) >= 0.9
    assert np.mean(used) < 40  # of 80
