"""The score of an ensemble that was noised and turned at random, which is what denoising score matching estimates, computed.

A noised sample may come from any frame in any orientation. The target of denoising is that of one of them; its mean over all, given the
noised sample and the frames that it may have come from, has the same mean and, where noise is large enough for many frames to count, next
to no variance (Rao and Blackwell; for images, without orientations: stable target field, Xu et al., arXiv 2302.00670).

With A = alpha / sigma^2 x^T x_i the orientations of frame i add up to the integral of exp(tr R^T A) over rotations R. In quaternions that
is the normalisation of a Bingham distribution whose matrix has the characteristic polynomial of superposition problems (Horn, J. Opt. Soc.
Am. A 4, 629, 1987; Theobald, Acta Cryst. A 61, 478, 2005), and is known by the third-order saddle-point approximation (Kume & Wood,
Biometrika 92, 465, 2005), within eight parts in a hundred from no alignment at all to a sharp one.
"""

import functools
import threading

import torch
from torch import Tensor

from scoremd.lanes.program import Program, compile_program
from scoremd.nn.noise_level import signal_and_noise

#: Newton's steps from above; the root is then known to single precision.
_ITERATIONS = 7


def rotation_integral(a: Tensor) -> tuple[Tensor, Tensor]:
    """Integral of exp(tr R^T A) over the rotations R, as factor times exp(exponent).

    Parameters
    ----------
    a : (batch, 3, 3)

    Returns
    -------
    exponent and factor, both (batch,); a common constant in the factor is left out
    """
    rows, columns = a.unbind(1), a.unbind(2)
    gram = [[(u * v).sum(1) for v in columns] for u in columns]
    trace = gram[0][0] + gram[1][1] + gram[2][2]
    square = sum(g * g for line in gram for g in line)
    u, v, w = (r.unbind(1) for r in rows)
    determinant = u[0] * (v[1] * w[2] - v[2] * w[1]) - u[1] * (v[0] * w[2] - v[2] * w[0]) + u[2] * (v[0] * w[1] - v[1] * w[0])
    # P(y) = y^4 + c2 y^2 + c1 y + c0, whose roots are the eigenvalues; the saddle point is the largest root of 2 P = P'
    c2, c1, c0 = -2 * trace, -8 * determinant, 2 * square - trace * trace

    def newton(y: Tensor) -> Tensor:
        p, first, second = ((y * y + c2) * y + c1) * y + c0, (4 * y * y + 2 * c2) * y + c1, 12 * y * y + 2 * c2
        return y - (2 * p - first) / (2 * first - second)

    y = torch.sqrt(3 * trace) + 2
    for _ in range(_ITERATIONS):
        y = newton(y.detach())  # the last step alone has the derivative
    # elementary symmetric functions of 1 / (y - eigenvalue), their power sums, and the cumulants
    e4 = 1 / (((y * y + c2) * y + c1) * y + c0)
    e1, e2, e3 = ((4 * y * y + 2 * c2) * y + c1) * e4, (6 * y * y + c2) * e4, 4 * y * e4
    p2 = e1 * e1 - 2 * e2
    p3 = e1 * p2 - e2 * e1 + 3 * e3
    p4 = e1 * p3 - e2 * p2 + e3 * e1 - 4 * e4
    k2 = 0.5 * p2
    correction = 3 * p4 / (8 * k2 * k2) - 5 * p3 * p3 / (24 * k2 * k2 * k2)
    return y, torch.sqrt(e4 / k2) * torch.exp(correction)


def _with_gradient(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Exponent and factor, (batch,), and the gradient of the integral's logarithm, (batch, 3, 3)."""
    a = a.detach().requires_grad_()
    with torch.enable_grad():
        exponent, factor = rotation_integral(a)
        (gradient,) = torch.autograd.grad((exponent + factor.log()).sum(), a)
    return exponent.detach(), factor.detach(), gradient


_tracing = threading.Lock()  # a function can be traced by one thread at a time


@functools.cache
def _compiled() -> Program | None:
    example = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(0))
    return compile_program(_with_gradient, [], [example])


def _program() -> Program | None:
    with _tracing:
        return _compiled()


def noised_density(x: Tensor, log_snr: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Density, and its derivatives, of frames that are equally likely, as is each of their orientations, after noising.

    Parameters
    ----------
    x : (batch, bead, 3) scaled, centred coordinates of the variance-preserving process
    log_snr : (batch,) or (1,) half log signal-to-noise ratio
    frames : (frame, bead, 3) clean coordinates, scaled and centred, of the same molecule; zero in empty slots

    Returns
    -------
    ln p, (batch,), up to D ln sigma and a constant, its gradient by x, shape of x, and its derivative by the noise level, (batch,), but for
    that of D ln sigma: the mean of `scoremd.diffusion.losses.level_target` is the last one and D alpha^2
    """
    alpha, sigma = signal_and_noise(log_snr)
    ratio, n = alpha / sigma**2, len(frames)
    flat = frames.transpose(0, 1).reshape(frames.shape[1], n * 3)
    a = (x.transpose(1, 2) * ratio[:, None, None] @ flat).unflatten(2, (n, 3)).transpose(1, 2)
    program = None if x.is_cuda else _program()
    function = _with_gradient if program is None else program.bind()
    exponent, factor, gradient = function(a.flatten(0, 1))
    square = (frames * frames).sum((1, 2))
    exponent = exponent.view(-1, n) - 0.5 * (ratio * alpha)[:, None] * square
    highest = exponent.amax(1, keepdim=True)
    weight = factor.view(-1, n) * torch.exp(exponent - highest)
    total = weight.sum(1)
    weight = weight / total[:, None]
    weighted = gradient.view(-1, n, 9) * weight[:, :, None]
    mean = (weighted.view(-1, n, 3, 3).transpose(1, 2).reshape(-1, 3, n * 3) @ flat.T).transpose(1, 2)
    size = (x * x).sum((1, 2))
    density = highest[:, 0] + torch.log(total) - 0.5 * size / sigma**2
    score = mean * ratio[:, None, None] - x / (sigma * sigma)[:, None, None]
    # d alpha / d lambda = alpha sigma^2 and d sigma / d lambda = -sigma alpha^2, so that of ratio is ratio (1 + alpha^2)
    rate = ratio * (1 + alpha**2) * (x * mean).sum((1, 2)) - (alpha / sigma) ** 2 * (size + weight @ square)
    return density, score, rate
