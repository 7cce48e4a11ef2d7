"""Mixtures of Gaussians, whose diffusion is known in closed form at every noise level: the yardstick for everything that diffuses.

If x_0 is sum_k w_k N(m_k, v_k), then x = alpha x_0 + sigma eps is sum_k w_k N(alpha m_k, alpha^2 v_k + sigma^2): normalised, with an
energy that solves the Fokker–Planck equation exactly.
"""

import math

import torch
from torch import Tensor

from scoremd.nn.noise_level import signal_and_noise


class GaussianMixture:
    """E(x, lambda) = -ln p of a noised mixture with diagonal covariances; an `EnergyFunction` in the variance-preserving variables.

    Parameters
    ----------
    weights : (component,) positive; they are normalised
    means : (component, bead, dimension) of the clean components
    variances : (component, bead, dimension), zero for a component that is a point
    """

    def __init__(self, weights: Tensor, means: Tensor, variances: Tensor) -> None:
        self.weights = weights / weights.sum()
        self.means, self.variances = means, variances.expand_as(means)

    def __call__(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """Energy in kT, normalised: exp(-E) integrates to one; x (batch, bead, dimension), log_snr (batch or 1,) -> (batch,)."""
        alpha, sigma = (q[:, None, None, None] for q in signal_and_noise(log_snr))
        variance = alpha**2 * self.variances + sigma**2
        square = (x[:, None] - alpha * self.means) ** 2 / variance + torch.log(2 * math.pi * variance)
        return -torch.logsumexp(self.weights.log() - 0.5 * square.sum((2, 3)), 1)

    def score(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """-dE/dx by hand, shape of x: the mean of the components' scores over their posterior."""
        alpha, sigma = (q[:, None, None, None] for q in signal_and_noise(log_snr))
        variance = alpha**2 * self.variances + sigma**2
        difference = alpha * self.means - x[:, None]
        square = (difference**2 / variance + variance.log()).sum((2, 3))
        posterior = torch.softmax(self.weights.log() - 0.5 * square, 1)
        return (posterior[:, :, None, None] * difference / variance).sum(1)

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Clean samples, (n, bead, dimension)."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        eps = torch.randn((n, *self.means.shape[1:]), generator=generator, dtype=self.means.dtype)
        return self.means[component] + self.variances[component].sqrt() * eps
