"""Reverse diffusion: independent samples from the score.

All samplers work in the variance-preserving variables on a falling grid of noise levels, given as rising lambda = ln(alpha / sigma).
There the reverse process is

    SDE:  dx = sigma^2 (x + 2 s) d lambda + sqrt(2) sigma dW          (Song et al., arXiv 2011.13456, eq. 6)
    ODE:  dx = sigma^2 (x + s) d lambda                                (their eq. 13)

with s the score at (x, lambda). One entry of the grid costs one call of the network.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torchdiffeq import odeint

from scoremd.diffusion.space import Space
from scoremd.nn.noise_level import signal_and_noise

#: x (batch, bead, dimension), log_snr (1,) -> score, shape of x
ScoreFunction = Callable[[Tensor, Tensor], Tensor]


def denoised(score: Tensor, x: Tensor, log_snr: Tensor) -> Tensor:
    """Mean of the clean sample given the noisy one (Tweedie): (x + sigma^2 s) / alpha."""
    alpha, sigma = signal_and_noise(log_snr)
    return (x + sigma**2 * score) / alpha


def second_order_sde(score: ScoreFunction, space: Space, batch: int, grid: Tensor, generator: torch.Generator | None) -> Tensor:
    """Second-order multistep solver of the reverse SDE (SDE-DPM-Solver++(2M), Lu et al., arXiv 2211.01095): the default.

    The linear part of the SDE is solved exactly, and the denoised mean is extrapolated linearly in lambda from the last two calls. The
    last call returns the denoised mean.

    Parameters
    ----------
    grid : (calls,) rising lambda, one call of the network each

    Returns
    -------
    clean samples, (batch, bead, dimension)
    """
    x = space.noise(batch, generator)
    before, step_before = None, 1.0
    for k, lam in enumerate(grid):
        mean = denoised(score(x, lam[None]), x, lam)
        if k + 1 == len(grid):
            return mean
        step = grid[k + 1] - lam
        ahead = mean if before is None else mean + 0.5 * step / step_before * (mean - before)
        (_, sigma), (alpha_next, sigma_next) = signal_and_noise(lam), signal_and_noise(grid[k + 1])
        gain = -torch.expm1(-2 * step)
        noise = space.noise(batch, generator)
        x = sigma_next / sigma * torch.exp(-step) * x + alpha_next * gain * ahead + sigma_next * gain.sqrt() * noise
        before, step_before = mean, step
    raise ValueError("the grid of noise levels is empty")


def euler_maruyama(score: ScoreFunction, space: Space, batch: int, grid: Tensor, generator: torch.Generator | None) -> Tensor:
    """First-order solver of the reverse SDE, the baseline; arguments and result as in `second_order_sde`."""
    x = space.noise(batch, generator)
    for lam, following in pairwise(grid):
        _, sigma = signal_and_noise(lam)
        step = following - lam
        drift = sigma**2 * (x + 2 * score(x, lam[None]))
        x = x + step * drift + (2 * step).sqrt() * sigma * space.noise(batch, generator)
    return denoised(score(x, grid[-1:]), x, grid[-1])


def probability_flow(score: ScoreFunction, space: Space, batch: int, grid: Tensor, generator: torch.Generator | None) -> Tensor:
    """Fourth-order solver of the probability-flow ODE (three eighths rule); four calls for each interval of `grid`."""
    start = space.noise(batch, generator)

    def velocity(lam: Tensor, x: Tensor) -> Tensor:
        return signal_and_noise(lam)[1] ** 2 * (x + score(x, lam[None]))

    end = odeint(velocity, start, grid[[0, -1]], method="rk4", options={"grid_constructor": lambda *_: grid})[-1]
    return denoised(score(end, grid[-1:]), end, grid[-1])


def langevin_corrector(
    score: ScoreFunction,
    space: Space,
    x: Tensor,
    log_snr: Tensor,
    steps: int,
    size: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Unadjusted Langevin steps at one noise level, x += h s + sqrt(2 h) noise with h = size * sigma^2 (Song et al., algorithm 5).

    Parameters
    ----------
    x : (batch, bead, dimension) at `log_snr` (1,)
    steps, size : number of steps, and their length in units of the variance of the noise
    """
    h = size * signal_and_noise(log_snr)[1] ** 2
    for _ in range(steps):
        x = x + h * score(x, log_snr) + (2 * h).sqrt() * space.noise(len(x), generator)
    return x
