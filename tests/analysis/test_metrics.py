import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scoremd.analysis.histograms import EMPTY, cell_index, histogram, js_divergence, pmf_error
from scoremd.analysis.metrics import compare_histograms, compare_pmf
from scoremd.errors import ScoreMDError

UNIT = [[0.0, 1.0]]
TORUS = [[-np.pi, np.pi]] * 2


def two_cells(p, n, rng):
    """Points of which a fraction p is in the right half of [0, 1]."""
    return np.where(rng.random(n) < p, 0.75, 0.25)


def analytic(p, q):
    """JS of two coins, nats."""

    def entropy(x):
        return -x * np.log(x) - (1 - x) * np.log(1 - x)

    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def walkers(p, spread, n_groups, size, rng):
    """Points of trajectories that differ: the weight of the right half scatters around p."""
    own = rng.beta(p * spread, (1 - p) * spread, n_groups)
    return two_cells(np.repeat(own, size), n_groups * size, rng), np.repeat(np.arange(n_groups), size)


def test_js_is_the_square_of_the_distance_in_nats():
    from scipy.spatial.distance import jensenshannon

    p, q = np.random.default_rng(0).random((2, 50))
    q[:10] = 0
    assert js_divergence(p, q) == pytest.approx(jensenshannon(p, q) ** 2)
    assert js_divergence(np.array([1, 0]), np.array([0, 1])) == pytest.approx(np.log(2))
    assert js_divergence(np.array([0.9, 0.1]), np.array([0.6, 0.4])) == pytest.approx(analytic(0.1, 0.4))


counts = arrays(np.int64, 6, elements=st.integers(0, 1000)).filter(lambda c: c.sum() > 0)


@settings(max_examples=50, deadline=None)
@given(counts, counts)
def test_js_and_pmf_are_symmetric_and_zero_only_for_equals(p, q):
    assert js_divergence(p, q) == pytest.approx(js_divergence(q, p))
    assert pmf_error(p, q) == pytest.approx(pmf_error(q, p))
    assert 0 <= js_divergence(p, q) <= np.log(2) + 1e-12
    assert js_divergence(p, 3 * p) == pytest.approx(0, abs=1e-12)
    assert pmf_error(p, 3 * p) == pytest.approx(0, abs=1e-12)


def test_pmf_error_is_its_formula():
    p, q = np.array([0.5, 0.5, 0, 0]), np.array([0.25, 0.25, 0.5, 0])
    w = np.array([0.75, 0.75, 0.5 + EMPTY])
    expected = (w * np.log([2, 2, EMPTY / 0.5]) ** 2).sum() / w.sum()
    assert pmf_error(p, q) == pytest.approx(expected)


def test_cells_hold_both_ends_and_count_what_lies_outside():
    points = np.array([0, 0.49, 0.5, 1.0, 1.1, -0.1])[:, None]
    assert cell_index(points, np.array(UNIT), 2).tolist() == [0, 0, 1, 1, 2, 2]
    pi = np.array([[np.float32(np.pi), np.float32(-np.pi)]], dtype=np.float64)
    assert cell_index(pi, np.array(TORUS), 64).tolist() == [63 * 64]


def test_two_dimensions_are_the_same_as_numpys():
    points = np.random.default_rng(0).uniform(-np.pi, np.pi, (1000, 2))
    expected = np.histogram2d(*points.T, 64, TORUS)[0].ravel()
    np.testing.assert_array_equal(histogram(points, range=TORUS, bins=64).counts[:-1], expected)


def test_the_overflow_counts_as_a_cell():
    inside, outside = np.full(1000, 0.5), np.full(1000, 7.0)
    assert compare_histograms(inside, outside, range=UNIT, bins=1).value == pytest.approx(np.log(2))


def test_equal_laws_have_no_excess():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (5000, 2)), rng.normal(0, 1, (20_000, 2))
    d = compare_histograms(a, b, range=TORUS, bins=64)
    assert d.frames == 5000
    assert d.floor > 0.02
    assert d.value == pytest.approx(d.floor + d.excess)
    assert d.low < 0 < d.high
    assert abs(d.excess) < 0.005
    assert d.scatter == 0


def test_a_known_shift_gives_the_analytic_divergence():
    rng = np.random.default_rng(1)
    d = compare_histograms(two_cells(0.3, 20_000, rng), two_cells(0.5, 80_000, rng), range=UNIT, bins=2)
    assert d.value == pytest.approx(analytic(0.3, 0.5), rel=0.06)
    assert d.low < analytic(0.3, 0.5) < d.high
    assert d.high - d.low < 0.4 * d.value


def test_m_is_the_smaller_of_the_compared_and_half_the_reference():
    rng = np.random.default_rng(2)
    a, b, reference = (two_cells(0.5, n, rng) for n in (300, 500, 400))
    assert compare_histograms(a, b, range=UNIT, bins=2).frames == 250
    assert compare_histograms(a, b, range=UNIT, bins=2, reference=reference).frames == 200
    assert compare_histograms(a[:50], b, range=UNIT, bins=2, reference=reference).frames == 50


def test_the_floor_is_that_of_the_given_reference():
    rng = np.random.default_rng(3)
    a, b = rng.uniform(0, 1, (2, 2000))
    wide = compare_histograms(a, b, range=UNIT, bins=100)
    narrow = compare_histograms(a, b, range=UNIT, bins=100, reference=np.full(4000, 0.5))
    assert wide.floor > 0.005
    assert narrow.floor == 0


@pytest.mark.parametrize(("truth", "spread"), [(0.5, 10), (0.6, 10), (0.7, 3)])
def test_the_interval_covers_the_truth_with_correlated_trajectories(truth, spread):
    rng = np.random.default_rng(4)
    covered, excess, scatter = 0, [], []
    for trial in range(100):
        a, groups = walkers(truth, spread, 20, 200, rng)
        b, other = walkers(0.5, 200, 16, 1000, rng)
        d = compare_histograms(a, b, range=UNIT, bins=2, groups_a=groups, groups_b=other, seed=trial)
        covered += d.low <= analytic(truth, 0.5) <= d.high
        excess.append(d.excess)
        scatter.append(d.scatter)
    assert covered >= 93
    # The excess itself is raised by the scatter, and the scatter says by how much.
    assert np.mean(excess) - analytic(truth, 0.5) == pytest.approx(np.mean(scatter), abs=3 * np.std(excess) / 10)
    assert np.mean(scatter) > 0.0005


def test_the_interval_is_for_what_more_trajectories_would_leave():
    rng = np.random.default_rng(10)
    covered = 0
    for trial in range(60):
        own = rng.dirichlet(np.full(20, 1.0), 30)
        a = np.concatenate([rng.choice(20, 200, p=law) for law in own])
        b = rng.integers(0, 20, 20_000)
        d = compare_histograms(a, b, range=[[-0.5, 19.5]], bins=20, groups_a=np.repeat(np.arange(30), 200), seed=trial)
        covered += d.low <= 0 <= d.high
        assert d.scatter > 0.001
    assert covered >= 54


def test_an_interval_over_frames_alone_would_miss_it():
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(60):
        a, _ = walkers(0.6, 10, 20, 200, rng)
        b = two_cells(0.5, 16_000, rng)
        d = compare_histograms(a, b, range=UNIT, bins=2, seed=trial)
        covered += d.low <= analytic(0.6, 0.5) <= d.high
    assert covered < 40


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_interval_covers_the_truth_on_a_sparse_histogram(shift):
    rng = np.random.default_rng(6)
    p, q = (np.exp(-0.5 * (np.linspace(-4, 4, 64) - m) ** 2) for m in (0, shift))
    p, q = (np.outer(x, x).ravel() / x.sum() ** 2 for x in (p, q))
    m, many = 4000, 300
    draws = [rng.multinomial(m, law, many) for law in (q, p, p)]
    truth = np.mean(js_divergence(draws[0], draws[1]) - js_divergence(draws[1], draws[2]))
    grid = (np.arange(64) + 0.5) / 64
    points = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    covered = 0
    for trial in range(100):
        a, b = points[rng.choice(4096, m, p=q)], points[rng.choice(4096, 20_000, p=p)]
        d = compare_histograms(a, b, range=UNIT * 2, bins=64, groups_b=np.arange(20_000) % 16, seed=trial)
        covered += d.low <= truth <= d.high
    assert covered >= 90


def test_the_same_seed_gives_the_same_numbers():
    rng = np.random.default_rng(7)
    a, b = rng.uniform(0, 1, (2, 3000))
    first, again, other = (compare_histograms(a, b, range=UNIT, bins=50, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_single_trajectory_has_no_interval():
    rng = np.random.default_rng(8)
    a, b = rng.uniform(0, 1, (2, 3000))
    d = compare_histograms(a, b, range=UNIT, bins=50, groups_a=np.zeros(3000))
    assert (d.low, d.high, d.scatter) == (None, None, None)
    assert np.isfinite(d.excess)


def test_pmf_stands_beside_its_floor():
    rng = np.random.default_rng(9)
    a, b, c = (histogram(rng.normal(m, 0.1, n), range=UNIT, bins=20) for m, n in ((0.5, 5000), (0.5, 20_000), (0.55, 5000)))
    same, shifted = compare_pmf(a, b), compare_pmf(c, b)
    assert abs(same.excess) < 0.1
    assert shifted.excess == pytest.approx(0.25, abs=0.1)  # (d mu / sigma)^2 (kT)^2 for a shift of d mu
    assert shifted.low is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": np.array([0.1, np.nan, 0.3])}, "a holds 1 frames that are not finite"),
        ({"b": np.array([0.1, np.inf])}, "b holds 1 frames"),
        ({"a": np.zeros((5, 2))}, r"a must be \(frame, 1\)"),
        ({"a": np.zeros(1)}, "a has 1 frames; at least two"),
        ({"range": [[1.0, 0.0]]}, "low < high"),
        ({"range": [0.0, 1.0]}, "low < high"),
        ({"bins": 0}, "at least one bin"),
        ({"groups_a": np.zeros(3)}, "each of the 5 frames"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"a": np.linspace(0, 1, 5), "b": np.linspace(0, 1, 8), "range": UNIT, "bins": 4} | change
    with pytest.raises(ScoreMDError, match=message):
        compare_histograms(**arguments)
