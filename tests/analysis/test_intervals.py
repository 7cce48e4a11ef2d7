from statistics import NormalDist

import numpy as np
import pytest

from scoremd.analysis.intervals import Estimate, blocks, difference, fraction, grouped, jackknife, student_t, transform, weighted_fraction
from scoremd.errors import ScoreMDError


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (15, 2.131), (1000, 1.962)])
def test_student_t_is_the_tables(freedom, t):
    assert student_t(freedom) == pytest.approx(t, rel=2e-3)


def test_jackknife_of_a_mean_is_the_standard_error():
    x = np.random.default_rng(0).normal(size=40)
    bias, variance = jackknife(x.mean(), (x.sum() - x) / 39, np.ones(40))
    assert bias == pytest.approx(0, abs=1e-12)
    assert variance == pytest.approx(x.var(ddof=1) / 40)


def test_jackknife_finds_the_bias_of_the_plug_in_variance():
    x = np.random.default_rng(1).normal(size=20)
    without = np.array([np.delete(x, i).var() for i in range(20)])
    bias, _ = jackknife(x.var(), without, np.ones(20))
    assert x.var() - bias == pytest.approx(x.var(ddof=1))


def test_groups_are_merged_whole():
    groups = np.repeat(np.arange(250), 3)
    block = blocks(groups, 750, np.random.default_rng(0))
    assert len(np.unique(block)) == 100
    assert (block.reshape(250, 3) == block.reshape(250, 3)[:, :1]).all()
    assert np.bincount(block).min() >= 6


def test_groups_of_another_length_are_refused():
    with pytest.raises(ScoreMDError, match="each of the 10 frames"):
        blocks(np.zeros(9), 10, np.random.default_rng(0))


def scattering(rng, mean, n_groups=20, size=50):
    """Hits in groups whose own probabilities scatter: correlated frames."""
    p = rng.beta(2 * mean, 2 * (1 - mean), n_groups)
    return (rng.random((n_groups, size)) < p[:, None]).ravel(), np.repeat(np.arange(n_groups), size)


def test_fraction_covers_the_truth_over_groups_and_not_over_frames():
    rng = np.random.default_rng(2)
    by_group = by_frame = 0
    for _ in range(200):
        hits, groups = scattering(rng, 0.3)
        for_groups, for_frames = fraction(hits, groups), fraction(hits, None)
        by_group += for_groups.low <= 0.3 <= for_groups.high
        by_frame += for_frames.low <= 0.3 <= for_frames.high
    assert by_group >= 180
    assert by_frame <= 120


def test_a_fraction_of_none_has_an_upper_end():
    none = fraction(np.zeros(1000, bool), None)
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(3.84 / 1003.84, rel=0.01)
    assert fraction(np.zeros(1000, bool), np.arange(1000) % 10).high > 0.2


@pytest.mark.parametrize("n_groups", range(2, 30))
def test_a_fraction_of_all_is_that_of_none_from_above(n_groups):
    groups = np.repeat(np.arange(n_groups), 3)
    none, every = (fraction(np.full(len(groups), hit), groups) for hit in (False, True))
    assert (every.value, every.high) == (1, 1)
    assert every.low == pytest.approx(1 - none.high)


def test_a_single_group_has_no_interval():
    assert fraction(np.array([True, False]), np.zeros(2)) == Estimate(0.5)
    assert grouped(np.ones((5, 1)), np.zeros(5, int), lambda m: m[..., 0]) == Estimate(1.0)
    assert difference(Estimate(0.5), Estimate(0.2, 0.1, 0.3)) == Estimate(0.3)


def test_differences_join_by_squares_and_transforms_keep_the_ends():
    joined = difference(Estimate(5, 2, 8), Estimate(1, -3, 5))
    assert joined == Estimate(4, -1, 9)
    assert transform(Estimate(0, -1, 1), np.exp) == Estimate(1.0, np.exp(-1), np.exp(1))


def test_weighted_fraction_covers_the_truth_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    truth = 1 - NormalDist(0.5).cdf(1.5)
    for _ in range(400):
        x = rng.standard_normal(400)
        found = weighted_fraction(x > 1.5, 5 * np.exp(0.5 * x))  # makes of a normal distribution that of mean 0.5
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 400 <= 0.985


def test_equal_weights_change_nothing():
    hits = np.arange(1000) < 30
    found, plain = weighted_fraction(hits, np.full(1000, 0.1)), fraction(hits, None)
    assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high), rel=1e-6)


def test_a_weighted_fraction_stays_a_fraction():
    w = np.full(1000, 1e-6)
    w[0] = 1.0  # as good as a single frame
    for hits in (np.arange(1000) == 0, np.arange(1000) > 0, np.zeros(1000, bool), np.ones(1000, bool)):
        found = weighted_fraction(hits, w)
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.high - found.low > 0.9
    none = weighted_fraction(np.zeros(1000, bool), np.ones(1000))
    assert none.low == 0 < none.high < 0.01
