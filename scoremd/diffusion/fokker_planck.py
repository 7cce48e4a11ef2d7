"""Fokker–Planck consistency of the family of energies.

With dx = f x dt + g dW the densities of noised samples obey d ln p / dt = -f (D + x.s) + g^2/2 (div s + |s|^2) along fixed x. In the
variance-preserving variables, and with lambda = ln(alpha / sigma) for the time, this is

    d ln p / d lambda + sigma^2 (D + x.s + div s + |s|^2) = 0 ,      ln p = -E,  s = -grad E,

whose left side is the residual R of this module (Deveney et al., arXiv 2311.15996; Plainer et al., arXiv 2506.17139, eq. 9, times
2 sigma^2 / beta). Integrated over lambda, R is the error of ln p that builds up between noise levels: a difference of R between two
basins is a drift of their relative weight. D, the number of degrees of freedom, makes it hold for normalised densities.

Estimates: div s = <v.(s(x + h v) - s(x - h v))> / 2h with random probes v; two independent probes give two unbiased estimates R_1
and R_2, and R_1 R_2 is unbiased for R^2 where R_1^2 is not.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from scoremd.diffusion.quadratic_form import QuadraticForm
from scoremd.nn.noise_level import signal_and_noise
from scoremd.nn.score import EnergyFunction, energy_and_score

#: Displacement in units of the noise, and step in lambda, of the finite differences.
DISPLACEMENT, LAMBDA_STEP = 0.03, 0.02


def displaced_points(x: Tensor, log_snr: Tensor, probes: Tensor) -> Tensor:
    """x + h v_1, x - h v_1, x + h v_2, x - h v_2 stacked along the batch.

    Parameters
    ----------
    x : (batch, bead, dimension)
    log_snr : (batch,)
    probes : (2, batch, bead, dimension)
    """
    h = _step(log_snr)
    return torch.cat([x + h * probes[0], x - h * probes[0], x + h * probes[1], x - h * probes[1]])


def _step(log_snr: Tensor) -> Tensor:
    return DISPLACEMENT * signal_and_noise(log_snr)[1][:, None, None]


def rate(energy: EnergyFunction, x: Tensor, log_snr: Tensor) -> Tensor:
    """d ln p / d lambda by central differences, (batch,); there is no end of the range in lambda."""
    lam = torch.cat([log_snr + LAMBDA_STEP, log_snr - LAMBDA_STEP])
    later, earlier = energy(torch.cat([x, x]), lam).split(len(x))
    return -(later - earlier) / (2 * LAMBDA_STEP)


def residual_estimates(
    energy: EnergyFunction, scores: Tensor, x: Tensor, log_snr: Tensor, probes: Tensor, degrees_of_freedom: Tensor
) -> tuple[Tensor, Tensor]:
    """Two independent estimates of R at x, each (batch,), from the scores at `displaced_points` (4 batch, bead, dimension)."""
    batch, change = len(x), rate(energy, x, log_snr)
    sigma2 = signal_and_noise(log_snr)[1] ** 2
    h = _step(log_snr)
    estimates = []
    for k in range(2):
        plus, minus = scores[2 * k * batch : (2 * k + 1) * batch], scores[(2 * k + 1) * batch : (2 * k + 2) * batch]
        mean = 0.5 * (plus + minus)
        divergence = (probes[k] * (plus - minus) / (2 * h)).sum((1, 2))
        rest = ((x + mean) * mean).sum((1, 2))
        estimates.append(change + sigma2 * (degrees_of_freedom + divergence + rest))
    return estimates[0], estimates[1]


def fokker_planck_loss(estimates: tuple[Tensor, Tensor], degrees_of_freedom: Tensor) -> Tensor:
    """Mean of R_1 R_2 / D, a scalar."""
    return (estimates[0] * estimates[1] / degrees_of_freedom).mean()


def exact_residual(energy: EnergyFunction, x: Tensor, log_snr: Tensor, basis: Tensor) -> Tensor:
    """R at x with the exact trace, (batch,): for tests and reports, D evaluations of the score's derivative.

    Parameters
    ----------
    x : (batch, bead, dimension)
    log_snr : (batch,)
    basis : (D, bead, dimension) orthonormal vectors of the space
    """
    x, lam = x.detach().requires_grad_(), log_snr.detach().requires_grad_()
    e, s = energy_and_score(energy, x, lam, create_graph=True)
    (rate,) = torch.autograd.grad(e.sum(), lam, retain_graph=True)
    divergence = torch.zeros_like(e)
    for v in basis:
        (row,) = torch.autograd.grad((s * v).sum(), x, retain_graph=True)
        divergence = divergence + (row * v).sum((1, 2))
    sigma2 = signal_and_noise(lam)[1] ** 2
    rest = ((x + s) * s).sum((1, 2))
    return (-rate + sigma2 * (len(basis) + divergence + rest)).detach()


def basis_points(x: Tensor, log_snr: Tensor, directions: Tensor) -> Tensor:
    """x, and x displaced along each direction, stacked along the batch: ((K + 1) batch, bead, dimension).

    Parameters
    ----------
    x : (batch, bead, dimension)
    log_snr : (batch,)
    directions : (K, batch, bead, dimension) orthonormal, with random signs so that the one-sided difference has no bias to first order
    """
    return torch.cat([x[None], x + _step(log_snr) * directions]).flatten(0, 1)


def divergence(scores: Tensor, log_snr: Tensor, directions: Tensor) -> Tensor:
    """div s at x, (batch,), from the scores at `basis_points` along a whole basis of D directions.

    A single probe's estimate has a variance of order two for each stiff coordinate; the whole basis has none. For a few beads it costs
    little more.
    """
    here, there = scores.unflatten(0, (-1, len(log_snr))).tensor_split([1])
    return (directions * (there - here) / _step(log_snr)).sum((0, 2, 3))


class Stencil(NamedTuple):
    """Where energies and scores are needed for R at each point of a batch.

    Attributes
    ----------
    points : (batch, K + 3, bead, dimension) x, x displaced along each direction, and x twice more
    log_snr : (3 batch,) the levels of x, those a step above and those a step below, one after the other
    copies : how many of the points of each are at the first, second and third of its levels
    """

    points: Tensor
    log_snr: Tensor
    copies: tuple[int, ...]


def stencil(x: Tensor, log_snr: Tensor, directions: Tensor) -> Stencil:
    """The points for R along a whole basis.

    Parameters
    ----------
    x : (batch, bead, dimension)
    log_snr : (batch,)
    directions : (K, batch, bead, dimension), see `basis_points`
    """
    n, k = len(x), len(directions)
    points = torch.cat([basis_points(x, log_snr, directions).unflatten(0, (k + 1, n)), x[None], x[None]])
    levels = torch.cat([log_snr, log_snr + LAMBDA_STEP, log_snr - LAMBDA_STEP])
    return Stencil(points.transpose(0, 1), levels, (k + 1, 1, 1))


def residual(x: Tensor, log_snr: Tensor, directions: Tensor, degrees_of_freedom: Tensor) -> QuadraticForm:
    """R at x, (batch,), as a form of the energies (batch, K + 3) and scores (batch, K + 3, bead, dimension) at its `stencil`.

    A single probe's estimate of the divergence would drown the gradient of R_1 R_2, however small R is: this one takes a whole basis.

    Parameters
    ----------
    x : (batch, bead, dimension)
    log_snr : (batch,)
    directions : (K, batch, bead, dimension) those of the stencil
    degrees_of_freedom : (batch,) or (1,)
    """
    n, k = len(x), len(directions)
    sigma2 = signal_and_noise(log_snr)[1] ** 2
    there = directions / _step(log_snr)
    score = sigma2[:, None, None] * torch.cat([(x - there.sum(0))[None], there, x.new_zeros(2, *x.shape)])
    slope = x.new_full((n, 1), 1 / (2 * LAMBDA_STEP))
    energy = torch.cat([x.new_zeros(n, k + 1), -slope, slope], 1)
    square = torch.cat([2 * sigma2[:, None], x.new_zeros(n, k + 2)], 1)
    return QuadraticForm(sigma2 * degrees_of_freedom, energy, score.transpose(0, 1), square)
