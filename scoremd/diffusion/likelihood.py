"""Log-likelihood of samples by the probability-flow ODE (Song et al., arXiv 2011.13456, eq. 39)."""

import math

import torch
from torch import Tensor
from torchdiffeq import odeint

from scoremd.diffusion.samplers import ScoreFunction
from scoremd.diffusion.space import Space
from scoremd.nn.noise_level import signal_and_noise


def log_likelihood(score: ScoreFunction, space: Space, x: Tensor, grid: Tensor, *, rtol: float = 1e-5, atol: float = 1e-5) -> Tensor:
    """ln p of `x` at the first (least noisy) level of `grid`, normalised over the space, shape (batch,).

    The flow dx = sigma^2 (x + s) d lambda is followed from the data to the standard normal end with the exact divergence, D derivatives
    of the score for each call; an adaptive solver (dopri5) keeps the local error within `rtol` and `atol`.

    Parameters
    ----------
    score : differentiable in x
    space : of one molecule, without padding in between
    x : (batch, bead, dimension) in the space
    grid : (2,) falling lambda: of `x`, and of the normal end
    """
    basis = space.basis()

    def rates(lam: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            here = state[0].detach().requires_grad_()
            s = score(here, lam[None].to(here.dtype))
            divergence = torch.zeros(len(here), dtype=here.dtype, device=here.device)
            for v in basis:
                (row,) = torch.autograd.grad((s * v).sum(), here, retain_graph=True)
                divergence = divergence + (row * v).sum((1, 2))
        sigma2 = signal_and_noise(lam)[1] ** 2
        return sigma2 * (here + s).detach(), sigma2 * (len(basis) + divergence)

    start = (x, torch.zeros(len(x), dtype=x.dtype, device=x.device))
    end, change = odeint(rates, start, grid, rtol=rtol, atol=atol, method="dopri5")
    normal = -0.5 * (end[-1] ** 2).sum((1, 2)) - 0.5 * len(basis) * math.log(2 * math.pi)
    return normal + change[-1]
