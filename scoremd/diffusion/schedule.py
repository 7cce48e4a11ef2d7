"""Noise schedules: how much signal and how much noise a sample holds at time t.

Contract: a schedule turns clean coordinates x_0 into x_t = alpha(t) x_0 + sigma(t) eps, with t in [0, 1] and eps standard normal.
Everything else in the package works with the half log signal-to-noise ratio lambda = ln(alpha / sigma) and with coordinates
divided by sqrt(alpha^2 + sigma^2): in those variables every schedule is the variance-preserving one, which is what networks see.
"""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

#: The smallest time at which a network is trained or asked: sigma is 1e-3 there (variance-preserving schedule).
SMALLEST_TIME = 1e-5


class Schedule(ABC):
    """The forward process dx = f(t) x dt + g(t) dW; subclasses give alpha, sigma and their rates."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Factor of the signal at `t`, same shape."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at `t`, same shape."""

    @abstractmethod
    def drift(self, t: Tensor) -> Tensor:
        """f(t) = d ln alpha / dt."""

    @abstractmethod
    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g(t)^2 = d sigma^2 / dt - 2 f sigma^2."""

    def log_snr(self, t: Tensor) -> Tensor:
        """Half log signal-to-noise ratio ln(alpha / sigma) at `t`."""
        return self.alpha(t).log() - self.sigma(t).log()

    def norm(self, t: Tensor) -> Tensor:
        """sqrt(alpha^2 + sigma^2): what coordinates are divided by before a network sees them."""
        return (self.alpha(t) ** 2 + self.sigma(t) ** 2).sqrt()

    def time(self, log_snr: np.ndarray) -> np.ndarray:
        """Times at which the half log signal-to-noise ratio is `log_snr`, by interpolation on a fine grid, float64."""
        grid = torch.logspace(math.log10(SMALLEST_TIME) - 1, 0, 40001, dtype=torch.float64)
        rising = self.log_snr(grid).numpy()[::-1]
        return np.interp(log_snr, rising, grid.numpy()[::-1])

    def steps(self, n: int, t_end: float, t_start: float = 1.0) -> Tensor:
        """n + 1 falling times from `t_start` to `t_end`, uniform in the log signal-to-noise ratio, float64."""
        ends = self.log_snr(torch.tensor([t_start, t_end], dtype=torch.float64)).numpy()
        times = self.time(np.linspace(ends[0], ends[1], n + 1))
        times[0], times[-1] = t_start, t_end
        return torch.from_numpy(times)


class VariancePreserving(Schedule):
    """dx = -beta/2 x dt + sqrt(beta) dW with beta(t) = 0.1 + 19.9 t (Song et al., arXiv 2011.13456, eq. 11)."""

    beta_min, beta_max = 0.1, 20.0

    def beta(self, t: Tensor) -> Tensor:
        """The rate of noising at `t`."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta_min * t - 0.25 * (self.beta_max - self.beta_min) * t**2

    def alpha(self, t: Tensor) -> Tensor:
        """exp(-1/2 of the integral of beta)."""
        return torch.exp(self._log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha^2), exact also where alpha is close to one."""
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))

    def drift(self, t: Tensor) -> Tensor:
        """-beta / 2."""
        return -0.5 * self.beta(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """beta."""
        return self.beta(t)


class VarianceExploding(Schedule):
    """dx = g dW with sigma(t) = sigma_min (sigma_max / sigma_min)^t (Song et al., arXiv 2011.13456, eq. 9)."""

    sigma_min, sigma_max = 1e-3, 150.0

    def alpha(self, t: Tensor) -> Tensor:
        """One at every time."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Geometric between sigma_min and sigma_max."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def drift(self, t: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """d sigma^2 / dt."""
        return 2 * math.log(self.sigma_max / self.sigma_min) * self.sigma(t) ** 2


SCHEDULES: dict[str, type[Schedule]] = {"vp": VariancePreserving, "ve": VarianceExploding}
