"""The yardstick itself: normalisation, convolution and score against independent computations."""

import math

import pytest
import torch

from scoremd.diffusion.gaussian_mixture import GaussianMixture
from scoremd.diffusion.losses import add_noise
from scoremd.nn.score import energy_and_score


@pytest.mark.parametrize("log_snr", [-3.0, 0.0, 1.5])
def test_density_is_normalised(mixture, log_snr):
    axis = torch.linspace(-8, 8, 801, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)[:, None]
    density = torch.exp(-mixture(x, torch.tensor([log_snr], dtype=torch.float64)))
    assert float(density.sum() * 0.02**2) == pytest.approx(1, abs=1e-9)


def test_density_of_noised_samples(mixture, generator):
    """Moments of alpha x_0 + sigma eps agree with those of the density at the same noise level."""
    lam = torch.full((200_000,), 0.4, dtype=torch.float64)
    x0 = mixture.sample(len(lam), generator)
    x = add_noise(x0, torch.randn(x0.shape, generator=generator, dtype=x0.dtype), lam)[:, 0]
    axis = torch.linspace(-7, 7, 561, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    p = torch.exp(-mixture(grid[:, None], lam[:1])) * (axis[1] - axis[0]) ** 2
    for moment in (lambda y: y[:, 0], lambda y: y[:, 1], lambda y: y[:, 0] * y[:, 1], lambda y: y[:, 0] ** 3):
        measured = moment(x)
        error = 5 * float(measured.std()) / math.sqrt(len(x))
        assert float(measured.mean()) == pytest.approx(float((p * moment(grid)).sum()), abs=error)


def test_score_is_minus_the_gradient(mixture, noised):
    torch.testing.assert_close(mixture.score(*noised), energy_and_score(mixture, *noised)[1])


def test_clean_limit_and_weights(generator):
    """Weights are normalised; without noise a point mass is sampled exactly; component frequencies are the weights."""
    mixture = GaussianMixture(torch.tensor([1.0, 3.0]), torch.tensor([[[-1.0]], [[2.0]]]), torch.zeros(1, 1, 1))
    x = mixture.sample(40_000, generator)
    assert set(x.flatten().tolist()) == {-1.0, 2.0}
    assert float((x > 0).float().mean()) == pytest.approx(0.75, abs=5 * math.sqrt(0.75 * 0.25 / 40_000))
