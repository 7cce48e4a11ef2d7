"""The flow's samples and likelihood against the closed form."""

import torch

from scoremd.diffusion import likelihood
from scoremd.diffusion.likelihood import flow_samples, log_likelihood
from scoremd.diffusion.schedule import VariancePreserving


def levels(first, last, n=41):
    """Noise levels from one half log signal-to-noise ratio to another; the normal end is the lower one."""
    return torch.linspace(first, last, n, dtype=torch.float64)


def test_likelihood_of_a_mixture_is_exact(mixture, plane, generator):
    lam = VariancePreserving().log_snr(torch.tensor([1e-3, 1.0], dtype=torch.float64))
    x = torch.sigmoid(2 * lam[:1]).sqrt() * mixture.sample(64, generator) + torch.sigmoid(-2 * lam[:1]).sqrt() * plane.noise(64, generator)
    found = log_likelihood(mixture.score, plane, x, levels(*lam.tolist()), generator)
    # the normal end is not exactly normal: the signal that is left at t = 1 shifts each point by alpha = 0.0066
    torch.testing.assert_close(found, -mixture(x, lam[:1]), rtol=0, atol=0.05)


def test_likelihood_of_a_gaussian_beyond_the_end(gaussian, plane, generator):
    """Followed to where no signal is left, nothing remains but the solver's error."""
    grid = levels(3.0, -9.0)
    x = gaussian.sample(32, generator)
    found = log_likelihood(gaussian.score, plane, x, grid, generator)
    torch.testing.assert_close(found, -gaussian(x, grid[:1]), rtol=0, atol=1e-3)


def test_likelihood_of_a_mixture_beyond_the_end(mixture, plane, generator):
    grid = levels(2.0, -10.0)
    x = mixture.sample(64, generator)
    found = log_likelihood(mixture.score, plane, x, grid, generator)
    # of the order of the one-sided differences, which have random signs
    torch.testing.assert_close(found, -mixture(x, grid[:1]), rtol=0, atol=0.03)


def test_samples_know_their_likelihood(mixture, plane, generator):
    grid = levels(-10.0, 2.0)
    x, found = flow_samples(mixture.score, plane, 256, grid, generator)
    torch.testing.assert_close(found, -mixture(x, grid[-1:]), rtol=0, atol=0.03)


def test_a_wrong_score_has_a_wrong_likelihood(mixture, plane, generator):
    grid = levels(2.0, -10.0)
    x = mixture.sample(64, generator)
    found = log_likelihood(lambda y, lam: 1.05 * mixture.score(y, lam), plane, x, grid, generator)
    assert (found + mixture(x, grid[:1])).abs().max() > 0.05


def test_probes_of_many_beads_have_no_bias(mixture, plane, generator, monkeypatch):
    grid = levels(2.0, -10.0)
    x = mixture.sample(8, generator)
    exact = log_likelihood(mixture.score, plane, x, grid, generator)
    monkeypatch.setattr(likelihood, "WHOLE_BASIS", 0)
    monkeypatch.setattr(likelihood, "PROBES", 1)
    found = log_likelihood(mixture.score, plane, x.repeat(64, 1, 1), grid, generator).reshape(64, 8)
    assert (found.std(0) > 1e-3).all()
    assert ((found.mean(0) - exact).abs() < 0.03 + 4 * found.std(0) / 8).all()
    monkeypatch.setattr(likelihood, "PROBES", 16)
    fewer = log_likelihood(mixture.score, plane, x.repeat(16, 1, 1), grid, generator).reshape(16, 8)
    assert fewer.std(0).mean() < 0.5 * found.std(0).mean()


def test_of_a_ball_one_probe_is_exact(gaussian, plane, generator, monkeypatch):
    """The score's derivative is a multiple of the identity there."""
    monkeypatch.setattr(likelihood, "WHOLE_BASIS", 0)
    monkeypatch.setattr(likelihood, "PROBES", 1)
    grid = levels(3.0, -9.0)
    x = gaussian.sample(32, generator)
    torch.testing.assert_close(log_likelihood(gaussian.score, plane, x, grid, generator), -gaussian(x, grid[:1]), rtol=0, atol=1e-3)
