"""Samplers against a mixture whose score is exact: what is wrong with the samples is the sampler's fault."""

import math

import pytest
import torch

from scoremd.diffusion.gaussian_mixture import GaussianMixture
from scoremd.diffusion.samplers import denoised, euler_maruyama, langevin_corrector, probability_flow, second_order_sde
from scoremd.diffusion.schedule import VariancePreserving
from scoremd.diffusion.space import Space

N = 20_000


def grid(calls, t_end=1e-4):
    schedule = VariancePreserving()
    return schedule.log_snr(schedule.steps(calls - 1, t_end))


def split(x):
    """Coordinates (n, 2), and which of them belong to the left mode."""
    x = x[:, 0]
    return x, x @ torch.tensor([2.0, 1.0], dtype=x.dtype) < -0.7


def mode_variances(x):
    x, left = split(x)
    return torch.stack([x[left].var(0), x[~left].var(0)])


def deviation(x, reference):
    """Largest Kolmogorov distance over four projections, in units of its value at a probability of one in a million."""
    directions = torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, -1]], dtype=x.dtype)
    worst = 0.0
    for d in directions:
        a, b = (torch.sort(y[:, 0] @ d).values for y in (x, reference))
        points = torch.cat([a, b])
        difference = torch.searchsorted(a, points, right=True) / len(a) - torch.searchsorted(b, points, right=True) / len(b)
        worst = max(worst, float(difference.abs().max()))
    return worst / math.sqrt(-math.log(0.5e-6) * 0.5 * (1 / len(x) + 1 / len(reference)))


@pytest.mark.parametrize(("sampler", "calls"), [(second_order_sde, 60), (euler_maruyama, 250), (probability_flow, 25)])
def test_samples_have_the_right_law(mixture, plane, generator, sampler, calls):
    x = sampler(mixture.score, plane, N, grid(calls), generator)
    exact = mixture.sample(4 * N, generator)
    assert deviation(x, exact) < 1
    assert float(split(x)[1].double().mean()) == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / N) + 2e-3)
    torch.testing.assert_close(x.mean(0), (mixture.weights[:, None, None] * mixture.means).sum(0), rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(x[:, 0].T), torch.cov(exact[:, 0].T), rtol=0.05, atol=0.02)
    torch.testing.assert_close(mode_variances(x), mode_variances(exact), rtol=0.06, atol=0)


def test_ode_and_sde_give_one_law(mixture, plane, generator):
    ode = probability_flow(mixture.score, plane, N, grid(25), generator)
    sde = second_order_sde(mixture.score, plane, N, grid(100), generator)
    assert deviation(ode, sde) < 1


def test_wrong_scores_give_a_wrong_law(mixture, plane, generator):
    """The tests above would notice: a score that is a fifth too large."""
    x = second_order_sde(lambda y, lam: 1.2 * mixture.score(y, lam), plane, N, grid(60), generator)
    assert deviation(x, mixture.sample(4 * N, generator)) > 2


def variance_error(sampler, calls):
    """Relative error of the variance of a normal coordinate, measured on 400,000 of them (0.2 %)."""
    v = torch.tensor([[0.3]], dtype=torch.float64)
    law = GaussianMixture(torch.ones(1, dtype=v.dtype), torch.zeros(1, 1, 20, dtype=v.dtype), v)
    space = Space(torch.ones(1, 1, dtype=v.dtype), dimension=20, centred=False)
    x = sampler(law.score, space, N, grid(calls), torch.Generator().manual_seed(0))
    return float((x**2).mean() / v - 1)


def test_second_order_beats_first_at_equal_calls():
    first, second = (abs(variance_error(sampler, 50)) for sampler in (euler_maruyama, second_order_sde))
    assert second < first / 2.5


def test_second_order_converges_as_the_square_of_the_step():
    assert 3 < variance_error(second_order_sde, 25) / variance_error(second_order_sde, 50) < 5


def test_calls_are_counted(mixture, plane, generator):
    count = 0

    def score(x, log_snr):
        nonlocal count
        count += 1
        assert log_snr.shape == (1,)
        return mixture.score(x, log_snr)

    for sampler, expected in ((second_order_sde, 12), (euler_maruyama, 12), (probability_flow, 45)):
        count = 0
        sampler(score, plane, 3, grid(12), generator)
        assert count == expected, sampler.__name__


def test_denoised_is_the_posterior_mean(gaussian, generator):
    """Of a Gaussian: regression of x_0 on x."""
    lam = torch.tensor([0.3], dtype=torch.float64)
    alpha2, sigma2 = torch.sigmoid(2 * lam), torch.sigmoid(-2 * lam)
    x = torch.randn(5, 1, 2, generator=generator, dtype=torch.float64)
    m, v = gaussian.means[0], gaussian.variances[0]
    expected = m + alpha2.sqrt() * v / (alpha2 * v + sigma2) * (x - alpha2.sqrt() * m)
    torch.testing.assert_close(denoised(gaussian.score(x, lam), x, lam), expected)


def test_corrector_leaves_the_law_alone(mixture, plane, generator):
    lam = torch.tensor([1.0], dtype=torch.float64)
    alpha, sigma = torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt()
    start, fresh = (alpha * mixture.sample(N, generator) + sigma * plane.noise(N, generator) for _ in range(2))
    moved = langevin_corrector(mixture.score, plane, start, lam, 100, 0.05, generator)
    assert (moved - start).square().mean() > 0.05
    assert deviation(moved, fresh) < 1


def test_corrector_is_the_unadjusted_langevin_chain(gaussian, plane, generator):
    """Its stationary variance for a normal coordinate of variance v is v / (1 - h / 2v), h = size sigma^2."""
    lam, size = torch.tensor([0.0], dtype=torch.float64), 0.8
    v = 0.5 * (gaussian.variances[0, 0] + 1)
    x = langevin_corrector(gaussian.score, plane, plane.noise(N, generator), lam, 60, size, generator)[:, 0]
    expected = v / (1 - 0.5 * size * 0.5 / v)
    torch.testing.assert_close(x.var(0), expected, rtol=6 * math.sqrt(2 / N), atol=0)
