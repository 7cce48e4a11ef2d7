"""The contrastive loss is least for the right energy: a case that can be integrated."""

import torch

from scoremd.training.contrast import contrastive_loss


def loss(stiffness, n=200_000):
    """For data that are standard normal, and the energy k x^2 / 2."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    moved = x + 2 * torch.randn(n, generator=generator, dtype=torch.float64)
    k = torch.tensor(stiffness, dtype=torch.float64, requires_grad=True)
    value = contrastive_loss(0.5 * k * x**2, 0.5 * k * moved**2)
    (slope,) = torch.autograd.grad(value, k)
    return float(value.detach()), float(slope)


def test_is_least_for_the_right_energy():
    (low, down), (right, flat), (high, up) = loss(0.8), loss(1.0), loss(1.25)
    assert right < low
    assert right < high
    assert abs(flat) < 0.005
    assert down < -0.02
    assert up > 0.01


def test_an_additive_constant_changes_nothing_and_a_large_gap_is_finite():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([1.5, 1.0])
    torch.testing.assert_close(contrastive_loss(a + 7, b + 7), contrastive_loss(a, b))
    assert float(contrastive_loss(a, b + 1e8)) == 0
