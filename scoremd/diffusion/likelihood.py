"""Samples and their likelihood by the probability-flow ODE (Song et al., arXiv 2011.13456, eqs 13 and 39).

The flow dx = sigma^2 (x + s) d lambda carries noised data from one noise level to another, and ln p of what it carries changes by
-sigma^2 (D + div s) d lambda. From the standard normal end it gives samples whose density is known; the other way it gives the density of
samples that are known. The density is that of the flow: of the data, if the score is exact.
"""

import math

import torch
from torch import Tensor
from torchdiffeq import odeint

from scoremd.diffusion.fokker_planck import basis_points, divergence
from scoremd.diffusion.samplers import ScoreFunction
from scoremd.diffusion.space import Space
from scoremd.nn.noise_level import signal_and_noise

#: Beads up to which the divergence is exact, and number of random probes that estimate it beyond.
WHOLE_BASIS, PROBES = 64, 32


def flow_samples(score: ScoreFunction, space: Space, batch: int, grid: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Samples at the last level of a rising grid, (batch, bead, dimension), and ln p of each, normalised over the space, (batch,).

    Parameters
    ----------
    score : of one molecule at one noise level
    space : of that molecule
    grid : (n,) rising lambda from the normal end; four calls of the score for an interval, each at D + 1 points, of more than `WHOLE_BASIS`
        beads at `PROBES` + 1
    """
    x = space.noise(batch, generator)
    end, gained = _follow(score, space, x, grid, generator)
    return end, _normal(space, x) + gained


def log_likelihood(score: ScoreFunction, space: Space, x: Tensor, grid: Tensor, generator: torch.Generator | None) -> Tensor:
    """ln p of `x`, (batch, bead, dimension), at the first level of a falling grid that leads to the normal end, (batch,).

    Arguments and cost as of `flow_samples`.
    """
    end, gained = _follow(score, space, x, grid, generator)
    return _normal(space, end) - gained


def _follow(score: ScoreFunction, space: Space, x: Tensor, grid: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Where the flow carries `x` from the first to the last level of a grid, and what ln p gains; fourth order (three eighths rule)."""

    def rates(lam: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        here, level = state[0], lam[None].to(x.dtype)
        levels, directions = level.expand(len(here)), _directions(space, len(here), generator)
        scores = score(basis_points(here, levels, directions), level)
        sigma2 = signal_and_noise(level)[1] ** 2
        gained = -sigma2 * (space.degrees_of_freedom + divergence(scores, levels, directions))
        return sigma2 * (here + scores[: len(here)]), gained

    start = x, x.new_zeros(len(x))
    end, gained = odeint(rates, start, grid[[0, -1]], method="rk4", options={"grid_constructor": lambda *_: grid})
    return end[-1], gained[-1]


def _directions(space: Space, batch: int, generator: torch.Generator | None) -> Tensor:
    """Directions whose sum of second derivatives is the divergence: a whole basis, or, of many beads, its estimate by random probes.

    Probes are drawn anew for each call (Hutchinson's estimate, as in Grathwohl et al., arXiv 1810.01367, where one serves a whole path):
    their noise, which then averages over the path, has no bias in ln p. It has one in p: weights scatter more than the densities differ,
    and their effective sample size is too small.
    """
    if space.mask.shape[-1] <= WHOLE_BASIS:
        return space.directions(batch, generator)
    return torch.stack([space.probe(batch, generator) for _ in range(PROBES)]) / math.sqrt(PROBES)


def _normal(space: Space, x: Tensor) -> Tensor:
    return -0.5 * (x**2).sum((1, 2)) - 0.5 * space.degrees_of_freedom * math.log(2 * math.pi)
