"""The flow's likelihood against the closed form."""

import torch

from scoremd.diffusion.likelihood import log_likelihood
from scoremd.diffusion.schedule import VariancePreserving


def levels(t_first):
    """Noise levels of the data and of the normal end."""
    return VariancePreserving().log_snr(torch.tensor([t_first, 1.0], dtype=torch.float64))


def test_likelihood_of_a_mixture_is_exact(mixture, plane, generator):
    grid = levels(1e-3)
    lam = grid[:1]
    x = torch.sigmoid(2 * lam).sqrt() * mixture.sample(64, generator) + torch.sigmoid(-2 * lam).sqrt() * plane.noise(64, generator)
    # the normal end is not exactly normal: the signal that is left at t = 1 shifts each point by alpha = 0.0066
    torch.testing.assert_close(log_likelihood(mixture.score, plane, x, grid, rtol=1e-7, atol=1e-7), -mixture(x, lam), rtol=0, atol=0.05)


def test_likelihood_of_a_gaussian_beyond_the_end(gaussian, plane, generator):
    """Followed to where no signal is left, nothing remains but the solver's error."""
    grid = torch.tensor([3.0, -9.0], dtype=torch.float64)
    x = gaussian.sample(32, generator)
    found = log_likelihood(gaussian.score, plane, x, grid, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found, -gaussian(x, grid[:1]), rtol=0, atol=1e-3)


def test_likelihood_of_a_mixture_beyond_the_end(mixture, plane, generator):
    grid = torch.tensor([2.0, -10.0], dtype=torch.float64)
    x = mixture.sample(64, generator)
    found = log_likelihood(mixture.score, plane, x, grid, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found, -mixture(x, grid[:1]), rtol=0, atol=1e-3)


def test_a_wrong_score_has_a_wrong_likelihood(mixture, plane, generator):
    grid = torch.tensor([2.0, -10.0], dtype=torch.float64)
    x = mixture.sample(64, generator)
    found = log_likelihood(lambda y, lam: 1.05 * mixture.score(y, lam), plane, x, grid)
    assert (found + mixture(x, grid[:1])).abs().max() > 0.05
