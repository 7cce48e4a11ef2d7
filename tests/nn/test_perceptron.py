"""Networks for toy particles: limits, scales, forces and what they can learn."""

from itertools import pairwise

import pytest
import torch

from scoremd.diffusion.fokker_planck import exact_residual
from scoremd.diffusion.space import Space
from scoremd.nn.perceptron import PerceptronEnergy, PerceptronScore
from scoremd.nn.score import energy_and_score

MEAN, LENGTH = torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.5])


@pytest.fixture
def energy():
    torch.manual_seed(0)
    return PerceptronEnergy(MEAN, LENGTH).double()


@pytest.fixture
def x():
    return torch.randn(6, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_shapes(energy, x):
    torch.manual_seed(0)
    score = PerceptronScore(MEAN, LENGTH).double()
    for log_snr in (torch.linspace(-4, 6, 6, dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)):
        assert energy(x, log_snr).shape == (6,)
        assert score(x, log_snr).shape == x.shape


def test_members_of_a_batch_do_not_see_each_other(energy, x):
    log_snr = torch.linspace(-4, 6, 6, dtype=torch.float64)
    alone = torch.cat([energy(x[k : k + 1], log_snr[k : k + 1]) for k in range(6)])
    torch.testing.assert_close(energy(x, log_snr), alone)


def test_gaussian_limit_at_high_noise(energy, x):
    """At t = 1 (alpha^2 = 4e-5) the energy is the normal density's, to alpha^2; with no signal at all exactly."""
    torch.testing.assert_close(energy(x, torch.tensor([-5.025], dtype=torch.float64)), 0.5 * (x**2).sum((1, 2)), rtol=0, atol=1e-4)
    torch.testing.assert_close(energy(x, torch.tensor([-40.0], dtype=torch.float64)), 0.5 * (x**2).sum((1, 2)), rtol=0, atol=1e-12)
    torch.manual_seed(0)
    score = PerceptronScore(MEAN, LENGTH).double()
    torch.testing.assert_close(score(x, torch.tensor([-40.0], dtype=torch.float64)), -x, rtol=0, atol=1e-12)


def test_perceptron_of_nothing_is_the_exact_normal(energy, x):
    """With its read-out at zero it solves the Fokker–Planck equation at every noise level: D and the drift agree with it."""
    torch.nn.init.zeros_(energy.read_out.weight)
    space = Space(torch.ones(1, 1, dtype=torch.float64), 2, centred=False)
    residual = exact_residual(energy, x, torch.linspace(-4, 6, 6, dtype=torch.float64), space.basis())
    assert residual.abs().max() < 1e-12


@pytest.mark.parametrize("log_snr", [-1.0, 2.0, 6.9])
def test_forces_are_minus_the_gradient(energy, x, log_snr):
    lam = torch.tensor([log_snr], dtype=torch.float64)
    score = energy_and_score(energy, x, lam)[1]
    for axis in range(2):
        h = torch.zeros_like(x)
        h[..., axis] = 1e-6
        torch.testing.assert_close(score[:, 0, axis], -(energy(x + h, lam) - energy(x - h, lam)) / 2e-6, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [PerceptronEnergy, PerceptronScore])
def test_time_is_visible_at_every_noise(kind, x):
    """Also between the smallest two: nothing is frozen here."""
    torch.manual_seed(0)
    network = kind(MEAN, LENGTH).double()
    levels = torch.tensor([-1.0, 1.0, 4.0, 5.0, 6.9], dtype=torch.float64)
    outputs = [network._outputs(x, lam[None]) for lam in levels]
    for before, after in pairwise(outputs):
        assert (before - after).abs().max() > 1e-3


def test_scale_travels_with_the_model(energy, x):
    torch.testing.assert_close(energy.scale(energy.positions(x)), x)
    torch.testing.assert_close(energy.positions(torch.zeros_like(x)), MEAN.double().expand_as(x))
    torch.testing.assert_close(energy.scale(MEAN.double() + LENGTH.double()), torch.ones(2, dtype=torch.float64))
    other = PerceptronEnergy(torch.zeros(2), torch.ones(2)).double()
    other.load_state_dict(energy.state_dict())
    torch.testing.assert_close(other.scale(x), energy.scale(x))
