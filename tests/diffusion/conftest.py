"""Exact cases: a mixture of two beads' worth of coordinates in two dimensions, and a single Gaussian, in double precision."""

import pytest
import torch

from scoremd.diffusion.gaussian_mixture import GaussianMixture
from scoremd.diffusion.space import Space


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def plane():
    """The space of one particle in two dimensions."""
    return Space(torch.ones(1, 1, dtype=torch.float64), dimension=2, centred=False)


@pytest.fixture
def mixture():
    """Two modes of unequal weight and shape, together of about unit size."""
    means = doubles([[-1.2, -0.6]], [[0.8, 0.5]])
    variances = doubles([[0.05, 0.3]], [[0.2, 0.1]])
    return GaussianMixture(doubles(0.3, 0.7), means, variances)


@pytest.fixture
def gaussian():
    return GaussianMixture(doubles(1.0), doubles([[0.4, -0.3]]), doubles([[0.3, 1.6]]))


@pytest.fixture
def noised(mixture, plane, generator):
    """Noised mixture samples at many noise levels: x (400, 1, 2), log_snr (400,)."""
    from scoremd.diffusion.losses import add_noise

    log_snr = torch.linspace(-4, 6, 400, dtype=torch.float64)
    return add_noise(mixture.sample(400, generator), plane.noise(400, generator), log_snr), log_snr
