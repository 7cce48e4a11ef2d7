"""Noise schedules: alpha, sigma, drift and diffusion belong together, and times are the inverse of noise levels."""

import numpy as np
import pytest
import torch

from scoremd.diffusion.schedule import SCHEDULES, SMALLEST_TIME
from scoremd.nn.noise_level import signal_and_noise

TIMES = torch.tensor([2e-5, 1e-3, 0.05, 0.3, 0.7, 0.99], dtype=torch.float64)


@pytest.fixture(params=sorted(SCHEDULES))
def schedule(request):
    return SCHEDULES[request.param]()


def slope(function, t):
    h = 1e-4 * t
    return (function(t + h) - function(t - h)) / (2 * h)


def test_drift_is_the_rate_of_ln_alpha(schedule):
    torch.testing.assert_close(schedule.drift(TIMES), slope(lambda t: schedule.alpha(t).log(), TIMES), rtol=1e-6, atol=1e-9)


def test_diffusion_feeds_the_noise(schedule):
    """g^2 = d sigma^2 / dt - 2 f sigma^2."""
    rate = slope(lambda t: schedule.sigma(t) ** 2, TIMES) - 2 * schedule.drift(TIMES) * schedule.sigma(TIMES) ** 2
    torch.testing.assert_close(schedule.diffusion_squared(TIMES), rate, rtol=1e-6, atol=1e-12)


def test_variance_is_preserved_or_explodes():
    vp, ve = SCHEDULES["vp"](), SCHEDULES["ve"]()
    torch.testing.assert_close(vp.norm(TIMES), torch.ones_like(TIMES))
    assert torch.equal(ve.alpha(TIMES), torch.ones_like(TIMES))
    assert float(ve.sigma(torch.tensor(1.0))) == pytest.approx(ve.sigma_max)


def test_published_rates():
    """beta(t) = 0.1 + 19.9 t: its integral to t = 1 is 10.05, and sigma is 1e-3 at the smallest time."""
    vp = SCHEDULES["vp"]()
    one, small = torch.tensor([1.0, SMALLEST_TIME], dtype=torch.float64)
    assert float(vp.alpha(one)) == pytest.approx(np.exp(-10.05 / 2))
    assert float(vp.sigma(small)) == pytest.approx(1e-3, rel=2e-3)


def test_all_schedules_share_the_variance_preserving_variables(schedule):
    alpha, sigma = signal_and_noise(schedule.log_snr(TIMES))
    torch.testing.assert_close(alpha, schedule.alpha(TIMES) / schedule.norm(TIMES))
    torch.testing.assert_close(sigma, schedule.sigma(TIMES) / schedule.norm(TIMES))


def test_time_inverts_log_snr(schedule):
    np.testing.assert_allclose(schedule.time(schedule.log_snr(TIMES).numpy()), TIMES.numpy(), rtol=1e-6)


def test_steps_are_uniform_in_noise_level(schedule):
    times = schedule.steps(50, 1e-4, 0.9)
    levels = schedule.log_snr(times)
    assert (float(times[0]), float(times[-1]), len(times)) == (0.9, 1e-4, 51)
    torch.testing.assert_close(levels.diff(), levels.diff().mean().expand(50), rtol=1e-4, atol=0)
    assert (times.diff() < 0).all()


def test_signal_and_noise_far_from_one():
    """No cancellation: sigma is exact where alpha rounds to one, and the other way round."""
    alpha, sigma = signal_and_noise(torch.tensor([-12.0, 12.0]))
    torch.testing.assert_close(alpha[0], torch.tensor(-12.0).exp(), rtol=1e-5, atol=0)
    torch.testing.assert_close(sigma[1], torch.tensor(-12.0).exp(), rtol=1e-5, atol=0)
