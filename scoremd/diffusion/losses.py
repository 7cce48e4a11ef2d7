"""Denoising score matching, with force labels mixed in where there are any.

With x = alpha x_0 + sigma eps and the scaled force f = F / kT at x_0, two targets have the score at x as their mean: -eps / sigma,
with variance 1 / sigma^2 in each dimension (Vincent 2011), and f / alpha, with variance at most A / alpha^2 where A is the mean
square of f (De Bortoli et al., arXiv 2402.08667). Their mixture y = w f / alpha - (1 - w) eps / sigma with w = 1 / (1 + sigma^2 A /
alpha^2) has variance at most 1 / (sigma^2 + alpha^2 / A); dividing the squared error by that bound makes the loss of order one at
every noise level. Without forces A is infinite, w = 0, and the loss is sigma^2 |s + eps / sigma|^2.

Scores say little about the weights of basins against each other where noise is small: what lies between basins is hardly ever seen. How
ln p of a noised sample changes with the noise level says it, from the noise where basins are one down to that where they are apart. That
derivative, too, has an unbiased target, that of ln N(x; alpha x_0, sigma): dual score matching (Guth et al., arXiv 2506.05310).
"""

import torch
from torch import Tensor

from scoremd.diffusion.schedule import SMALLEST_TIME, Schedule
from scoremd.nn.noise_level import signal_and_noise


def stratified(n: int, generator: torch.Generator | None) -> Tensor:
    """One random number in each n-th of [0, 1], in rising order, on the generator's device; shape (n,)."""
    device = None if generator is None else generator.device
    return (torch.arange(n, device=device) + torch.rand(n, generator=generator, device=device)) / max(n, 1)


def draw_times(n: int, t_range: tuple[float, float], generator: torch.Generator | None) -> Tensor:
    """Times for n samples, half uniform and half log-uniform on `t_range`, each half stratified; shape (n,)."""
    low, high = max(t_range[0], SMALLEST_TIME), t_range[1]
    k = n // 2
    uniform = stratified(k, generator)
    logarithmic = stratified(n - k, generator)
    return torch.cat([low + (high - low) * uniform, low * (high / low) ** logarithmic])


def draw_levels(
    n: int, schedule: Schedule, t_range: tuple[float, float], focus: tuple[float, float] | None, generator: torch.Generator | None
) -> Tensor:
    """Half log signal-to-noise ratios for n samples at times in `t_range`, (n,).

    Without `focus` those of `draw_times`. With it, its mean and standard deviation, the first half is normal instead, within the range: the
    weights of basins show where basins part, not at more noise, nor at less.
    """
    if focus is None:
        return schedule.log_snr(draw_times(n, t_range, generator).double()).float()
    (mean, deviation), k = focus, n // 2
    low, high = max(t_range[0], SMALLEST_TIME), t_range[1]
    device = None if generator is None else generator.device
    ends = schedule.log_snr(torch.tensor([high, low], dtype=torch.float64, device=device))
    share = torch.special.ndtr((ends - mean) / deviation)
    normal = mean + deviation * torch.special.ndtri(share[0] + (share[1] - share[0]) * stratified(k, generator).double())
    logarithmic = schedule.log_snr(low * (high / low) ** stratified(n - k, generator).double())
    return torch.cat([torch.clamp(normal, ends[0], ends[1]), logarithmic]).float()


def add_noise(x0: Tensor, eps: Tensor, log_snr: Tensor) -> Tensor:
    """alpha x_0 + sigma eps of the variance-preserving process; x0, eps (batch, bead, dimension), log_snr (batch,)."""
    alpha, sigma = (q[:, None, None] for q in signal_and_noise(log_snr))
    return alpha * x0 + sigma * eps


def mixed_target(eps: Tensor, force: Tensor | None, force_square: float, log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """The target of least variance, and the bound on its variance per dimension.

    Parameters
    ----------
    eps : (batch, bead, dimension) the noise
    force : F / kT in scaled units at the clean sample, or None
    force_square : A, the mean square of `force` per degree of freedom
    log_snr : (batch,)

    Returns
    -------
    target (batch, bead, dimension) and variance (batch,)
    """
    alpha, sigma = signal_and_noise(log_snr)
    a, s = alpha[:, None, None], sigma[:, None, None]
    if force is None:
        return -eps / s, sigma**-2
    w = 1 / (1 + s**2 * force_square / a**2)
    return w * force / a - (1 - w) * eps / s, 1 / (sigma**2 + alpha**2 / force_square)


def score_matching_loss(score: Tensor, target: Tensor, variance: Tensor, degrees_of_freedom: Tensor) -> Tensor:
    """Squared error of the score per degree of freedom in units of the target's variance bound, (batch,)."""
    return ((score - target) ** 2).sum((1, 2)) / (degrees_of_freedom * variance)


def level_target(clean: Tensor, eps: Tensor, log_snr: Tensor, degrees_of_freedom: Tensor) -> tuple[Tensor, Tensor]:
    """Target of d ln p / d lambda at fixed x = alpha x_0 + sigma eps, and a bound on its variance.

    With lambda = ln(alpha / sigma) in the variance-preserving process, d alpha / d lambda = alpha sigma^2, d sigma / d lambda = -sigma
    alpha^2, and d ln N(x; alpha x_0, sigma) / d lambda = alpha^2 (D - |eps|^2) + alpha sigma eps . x_0. Normal coordinates of unit
    variance reach the bound; stiff ones, which give away what their noise was, do not.

    Parameters
    ----------
    clean, eps : (batch, bead, dimension)
    log_snr : (batch,)
    degrees_of_freedom : D, (batch,) or (1,)

    Returns
    -------
    target and variance, both (batch,)
    """
    alpha, sigma = signal_and_noise(log_snr)
    target = alpha**2 * (degrees_of_freedom - (eps * eps).sum((1, 2))) + alpha * sigma * (eps * clean).sum((1, 2))
    return target, degrees_of_freedom * alpha**2 * (2 * alpha**2 + sigma**2)


def dual_score_matching_loss(rate: Tensor, target: Tensor, variance: Tensor, degrees_of_freedom: Tensor) -> Tensor:
    """Squared error of d ln p / d lambda in units of the target's variance bound and, as that of the score, of D, (batch,)."""
    return (rate - target) ** 2 / (variance * degrees_of_freedom)


def mean_square_force(force: Tensor, degrees_of_freedom: Tensor) -> float:
    """A of the module's docstring: mean square of the scaled force per degree of freedom."""
    return float(torch.mean((force**2).sum((1, 2)) / degrees_of_freedom))
