"""Score matching targets: unbiased, of bounded variance, at times that are spread as promised."""

import pytest
import torch

from scoremd.diffusion.losses import (
    add_noise,
    draw_levels,
    draw_times,
    dual_score_matching_loss,
    level_target,
    mean_square_force,
    mixed_target,
    score_matching_loss,
)
from scoremd.diffusion.schedule import VariancePreserving
from scoremd.nn.score import energy_and_score

D = torch.tensor([2.0], dtype=torch.float64)
CLEAN = torch.tensor([torch.inf], dtype=torch.float64)


def noising(mixture, log_snr, generator, n=100_000):
    """Clean samples, their exact forces, noise, and noised samples at one noise level."""
    x0 = mixture.sample(n, generator)
    eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    lam = torch.full((n,), log_snr, dtype=torch.float64)
    return energy_and_score(mixture, x0, CLEAN)[1], eps, add_noise(x0, eps, lam), lam


@pytest.mark.parametrize("log_snr", [-2.0, 0.5, 3.0])
@pytest.mark.parametrize("with_force", [False, True])
def test_target_is_unbiased(mixture, generator, log_snr, with_force):
    """Its mean against any function of x is the exact score's."""
    force, eps, x, lam = noising(mixture, log_snr, generator)
    square = mean_square_force(force, D)
    target, _ = mixed_target(eps, force if with_force else None, square, lam)
    difference = target - mixture.score(x, lam[:1])
    for test in (torch.ones_like(x), x, torch.tanh(3 * x), (x > 0).double()):
        product = (difference * test).sum((1, 2))
        assert abs(float(product.mean())) < 4.5 * float(product.std()) / len(x) ** 0.5


@pytest.mark.parametrize("log_snr", [-3.0, -1.0, 0.0, 1.0, 2.0, 4.0, 6.0])
def test_variance_is_within_its_bound(mixture, generator, log_snr):
    force, eps, x, lam = noising(mixture, log_snr, generator)
    square, score = mean_square_force(force, D), mixture.score(x, lam[:1])
    for labels in (None, force):
        target, bound = mixed_target(eps, labels, square, lam)
        variance = ((target - score) ** 2).sum((1, 2)) / D
        assert float(variance.mean()) < float(bound[0]) + 4.5 * float(variance.std()) / len(x) ** 0.5


def exact_rate(mixture, x, lam):
    """d ln p / d lambda at fixed x."""
    lam = lam.clone().requires_grad_()
    return -torch.autograd.grad(mixture(x, lam).sum(), lam)[0]


@pytest.mark.parametrize("log_snr", [-2.0, 0.5, 3.0])
def test_target_of_the_derivative_by_the_noise_level_is_unbiased(mixture, generator, log_snr):
    """Its mean against any function of x is that of the exact derivative."""
    x0 = mixture.sample(100_000, generator)
    eps, lam = torch.randn(x0.shape, generator=generator, dtype=x0.dtype), torch.full((100_000,), log_snr, dtype=x0.dtype)
    x = add_noise(x0, eps, lam)
    target, _ = level_target(x0, eps, lam, D)
    difference = target - exact_rate(mixture, x, lam)
    for test in (torch.ones_like(x), x, torch.tanh(3 * x), (x > 0).double()):
        product = difference[:, None] * test.sum(1)
        assert (product.mean(0).abs() < 4.5 * product.std(0) / len(x) ** 0.5).all()


@pytest.mark.parametrize("log_snr", [-3.0, 0.0, 2.0, 5.0])
def test_derivative_by_the_noise_level_has_the_variance_that_its_error_is_divided_by(generator, log_snr):
    """Of coordinates with unit variance, whose noised density is the same at all levels: the loss of the exact derivative, 0, is 1 / D."""
    shape = (400_000, 1, 2)
    x0, eps = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    lam = torch.full(shape[:1], log_snr, dtype=torch.float64)
    target, variance = level_target(x0, eps, lam, D)
    loss = dual_score_matching_loss(torch.zeros_like(target), target, variance, D)
    assert abs(float(loss.mean()) - 1 / float(D)) < 4.5 * float(loss.std()) / len(loss) ** 0.5


def test_bound_is_the_least_of_all_mixtures():
    """min over w of w^2 A / alpha^2 + (1 - w)^2 / sigma^2, found by trying."""
    lam, square = torch.linspace(-3, 6, 10, dtype=torch.float64), 7.0
    alpha2, sigma2 = torch.sigmoid(2 * lam), torch.sigmoid(-2 * lam)
    w = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None]
    least = (w**2 * square / alpha2 + (1 - w) ** 2 / sigma2).min(0).values
    noise = torch.zeros(10, 1, 2, dtype=torch.float64)
    torch.testing.assert_close(mixed_target(noise, noise, square, lam)[1], least, rtol=1e-4, atol=0)


def test_forces_lower_the_variance_where_noise_is_small(mixture, generator):
    force, eps, x, lam = noising(mixture, 4.0, generator)
    score, square = mixture.score(x, lam[:1]), mean_square_force(force, D)
    with_force, without = (((mixed_target(eps, f, square, lam)[0] - score) ** 2).mean() for f in (force, None))
    assert with_force < without / 50


def test_loss_is_in_units_of_the_bound(mixture, generator):
    """The exact score has a loss of at most one; an error of one standard deviation of the target adds one."""
    _, eps, x, lam = noising(mixture, 0.0, generator)
    target, bound = mixed_target(eps, None, 0.0, lam)
    score = mixture.score(x, lam[:1])
    exact = score_matching_loss(score, target, bound, D).mean()
    wrong = score_matching_loss(score + bound.sqrt()[:, None, None], target, bound, D).mean()
    assert float(exact) < 1
    assert float(wrong - exact) == pytest.approx(1, abs=0.03)


def test_mean_square_force_of_a_gaussian(gaussian, generator):
    """<f^2> of a normal coordinate of variance v is 1 / v."""
    force = energy_and_score(gaussian, gaussian.sample(200_000, generator), CLEAN)[1]
    assert mean_square_force(force, D) == pytest.approx((1 / 0.3 + 1 / 1.6) / 2, rel=0.01)


def test_times_are_half_uniform_half_logarithmic(generator):
    t = draw_times(20_001, (0.0, 1.0), generator)
    first, second = t[:10_000], t[10_000:]
    assert float(t.min()) >= 1e-5
    assert float(t.max()) <= 1
    assert float(first.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(second.log10().mean()) == pytest.approx(-2.5, abs=1e-3)
    assert float(second.log10().std()) == pytest.approx(5 / 12**0.5, abs=1e-2)


def test_times_are_stratified(generator):
    """Each tenth of the range holds a tenth of each half, in every draw."""
    for _ in range(20):
        t = draw_times(40, (0.1, 0.6), generator)
        uniform = (t[:20] - 0.1) / 0.5
        logarithmic = (t[20:] / 0.1).log() / torch.tensor(6.0).log()
        for half in (uniform, logarithmic):
            assert torch.equal(torch.histc(half, 10, 0, 1), torch.full((10,), 2.0))


def test_one_time_alone(generator):
    assert draw_times(1, (0.0, 1.0), generator).shape == (1,)


def test_focused_levels_are_half_normal_within_the_range_half_logarithmic_in_time(generator):
    schedule, (mean, deviation) = VariancePreserving(), (1.25, 1.5)
    ends = schedule.log_snr(torch.tensor([0.9, 1e-4], dtype=torch.float64))
    lam = draw_levels(20_001, schedule, (1e-4, 0.9), (mean, deviation), generator).double()
    first, second = lam[:10_000], lam[10_000:]
    assert ends[0] - 1e-5 <= lam.min()
    assert lam.max() <= ends[1] + 1e-5
    low, high = torch.special.ndtr((ends - mean) / deviation)
    ranks = (torch.special.ndtr((first - mean) / deviation) - low) / (high - low)
    torch.testing.assert_close(ranks, torch.linspace(0, 1, 10_000, dtype=torch.float64), atol=2e-4, rtol=0)
    logarithms = schedule.time(second.numpy())
    torch.testing.assert_close(
        torch.from_numpy(logarithms).log().sort().values,
        torch.linspace(*torch.tensor([1e-4, 0.9]).log(), 10_001).double(),
        atol=2e-3,
        rtol=0,
    )


def test_levels_without_focus_are_those_of_the_drawn_times():
    schedule = VariancePreserving()
    lam = draw_levels(50, schedule, (0.0, 1.0), None, torch.Generator().manual_seed(3))
    t = draw_times(50, (0.0, 1.0), torch.Generator().manual_seed(3))
    assert torch.equal(lam, schedule.log_snr(t.double()).float())
