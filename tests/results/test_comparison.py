import numpy as np
import pytest

from results.leaderboard.comparison import compare, interval


def test_a_clear_leader_is_surely_best() -> None:
    found = compare([{1: 0.8, 2: 0.81, 3: 0.79}, {1: 0.5, 2: 0.52, 3: 0.51}, {1: 0.4, 2: 0.41, 3: 0.40}])
    assert found.best()[0] > 0.99
    assert found.better(0, 1) > 0.99
    assert found.better(1, 0) < 0.01
    assert list(np.argsort(-found.means)) == [0, 1, 2]


def test_what_a_seed_gives_to_all_does_not_hide_a_difference() -> None:
    levels = {1: 0.0, 2: -0.2, 3: 0.15}
    paired = compare([{seed: q + level for seed, level in levels.items()} for q in (0.52, 0.50, 0.47)])
    assert paired.better(0, 1) > 0.95


def test_designs_within_the_margin_are_both_best() -> None:
    scores = [{seed: q + seed / 100 for seed in range(1, 7)} for q in (0.502, 0.500, 0.3)]
    assert compare(scores).best(0.005)[:2].min() > 0.9
    assert compare(scores).best().sum() == pytest.approx(1.0)


def test_noise_makes_a_leader_unsure() -> None:
    quiet = compare([{1: 0.60, 2: 0.61}, {1: 0.55, 2: 0.56}, {1: 0.50, 2: 0.51}])
    noisy = compare([{1: 0.60, 2: 0.40}, {1: 0.55, 2: 0.71}, {1: 0.50, 2: 0.30}])
    assert quiet.best()[0] > 0.9 > noisy.best().max()


def test_a_design_without_scores_may_be_anything() -> None:
    found = compare([{1: 0.6, 2: 0.62, 3: 0.61}, {1: 0.5, 2: 0.51, 3: 0.52}, {}])
    assert 0.1 < found.best()[2] < 0.9


@pytest.mark.parametrize("scores", [[{}, {}], [{1: 0.5}, {}], [{1: 0.5}], [{1: 0.5}, {2: 0.9}]])
def test_what_cannot_be_compared_is_undecided(scores: list[dict[int, float]]) -> None:
    chances = compare(scores).best()
    assert chances.sum() == pytest.approx(1.0)
    assert np.ptp(chances) < 0.1


def test_designs_that_were_trained_with_other_seeds_are_not_compared_across_seeds() -> None:
    # All trainings of the second seed are far worse: that says nothing about the designs.
    found = compare([{1: 0.60, 3: 0.60}, {2: 0.20, 3: 0.61}])
    assert found.better(0, 1) < 0.8


def test_equal_scores_are_equally_likely_best() -> None:
    assert compare([{1: 0.5, 2: 0.5}, {1: 0.5, 2: 0.5}]).best() == pytest.approx([0.5, 0.5], abs=0.05)


def test_the_same_scores_give_the_same_answer() -> None:
    scores = [{1: 0.6, 2: 0.4}, {1: 0.5, 2: 0.45}]
    assert (compare(scores).drawn == compare(scores).drawn).all()


def test_the_interval_of_seeds_pools_the_spread_of_all_designs() -> None:
    scores = [{1: 0.60, 2: 0.62}, {1: 0.40, 2: 0.44}, {1: 0.50}]
    low, high = interval(scores, 2) or (0.0, 0.0)
    # Two degrees of freedom; pooled variance (2 * 0.01² + 2 * 0.02²) / 2; Student's t is 4.303.
    assert (low, high) == pytest.approx((0.5 - 4.3027 * 0.05**0.5 / 10, 0.5 + 4.3027 * 0.05**0.5 / 10), abs=1e-4)


@pytest.mark.parametrize(("scores", "place"), [([{1: 0.5}, {1: 0.6}], 0), ([{1: 0.5, 2: 0.6}, {}], 1)])
def test_an_interval_of_seeds_needs_scores_and_a_repeated_one(scores: list[dict[int, float]], place: int) -> None:
    assert interval(scores, place) is None


@pytest.mark.slow
def test_intervals_of_seeds_cover_the_truth() -> None:
    rng, covered = np.random.default_rng(0), []
    for _ in range(1000):
        truth = rng.normal(0.5, 0.05, 4)
        scores = [{s: float(q + rng.normal(0, 0.02)) for s in range(int(rng.integers(1, 4)))} for q in truth]
        found = interval(scores, 0)
        if found is not None:
            covered.append(found[0] <= truth[0] <= found[1])
    assert 0.93 <= np.mean(covered) <= 0.97


def test_two_seeds_that_agree_by_chance_are_not_believed() -> None:
    """Deviations of 0.0005 between seeds are rare, so what two seeds say is believed as far as seeds usually agree."""
    lucky = [{1: 0.600, 2: 0.700}, {1: 0.5905, 2: 0.6895}]
    assert 0.5 < compare(lucky).better(0, 1) < 0.9
    often = [{seed: value + seed / 10 for seed in range(1, 9)} for value in (0.100, 0.090)]
    assert compare(often).better(0, 1) > 0.99


@pytest.mark.slow
def test_intervals_of_differences_hold_the_truth_as_often_as_they_say() -> None:
    inside = []
    for case in range(200):
        rng = np.random.default_rng(case)
        quality = rng.normal(0.6, 0.04, 4)
        scores = quality[:, None] + rng.normal(0, 0.01, 3) + rng.normal(0, 0.03, (4, 3))
        drawn = compare([dict(enumerate(own)) for own in scores.tolist()]).drawn
        low, high = np.quantile(drawn[:, 1] - drawn[:, 0], [0.025, 0.975])
        inside.append(low <= quality[1] - quality[0] <= high)
    assert 0.91 <= np.mean(inside) <= 0.99
