"""The score of a noised ensemble against quadrature over all orientations, finite differences, and denoising."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from scoremd.diffusion import posterior
from scoremd.diffusion.losses import add_noise, level_target
from scoremd.diffusion.posterior import noised_density, rotation_integral
from scoremd.nn.noise_level import signal_and_noise


def grid_of_rotations(n):
    """(n^3, 3, 3) rotations and their weights: even in two Euler angles, Gauss-Legendre in the cosine of the third."""
    angles = 2 * math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    nodes, weights = np.polynomial.legendre.leggauss(n)
    a, cosine, c = torch.meshgrid(angles, torch.from_numpy(nodes), angles, indexing="ij")
    weight = torch.from_numpy(weights)[None, :, None].expand(n, n, n).flatten() / (2 * n * n)
    about_z = [rotation_about_z(q.flatten().cos(), q.flatten().sin()) for q in (a, c)]
    tilt = rotation_about_z(cosine.flatten(), (1 - cosine**2).sqrt().flatten())[:, [2, 0, 1]][:, :, [2, 0, 1]]
    return about_z[0] @ tilt @ about_z[1], weight


def rotation_about_z(cosine, sine):
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    return torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], -1).unflatten(-1, (3, 3))


@pytest.fixture(scope="module")
def rotations():
    return grid_of_rotations(48)


@pytest.fixture(params=["compiled", "as written"])
def way(request, monkeypatch):
    if request.param == "as written":
        monkeypatch.setattr(posterior, "_program", lambda: None)


def molecules(n, beads=5, seed=0):
    x = torch.randn(n, beads, 3, generator=torch.Generator().manual_seed(seed))
    return x - x.mean(1, keepdim=True)


def random_rotation(seed):
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    return (q * torch.linalg.det(q).sign()).float()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_integral_over_rotations_is_that_of_quadrature_up_to_one_constant(rotations, sign):
    turns, weight = rotations
    singular = torch.tensor([[1e-3, 1e-3, 1e-3], [0.5, 0.2, 0.1], [2, 1, 0.3], [5, 5, 0.1], [8, 2, 1], [20, 10, 3], [30, 1, 0.1]])
    singular[:, 2] *= sign
    a = random_rotation(1).double() @ torch.diag_embed(singular.double()) @ random_rotation(2).double()
    exact = torch.log((weight * torch.exp((turns[None] * a[:, None]).sum((2, 3)))).sum(1))
    exponent, factor = rotation_integral(a)
    offset = exponent + factor.log() - exact
    assert float(offset.max() - offset.min()) < 0.08


def test_the_density_is_that_of_all_frames_in_all_orientations(rotations, way):
    turns, weight = rotations
    frames, x, level = molecules(3), molecules(6, seed=1), torch.tensor([0.3])
    alpha, sigma = (float(q) for q in signal_and_noise(level))
    turned = alpha * torch.einsum("rcd,nkd->nrkc", turns, frames.double())
    distance = ((x.double()[:, None, None] - turned) ** 2).sum((3, 4))
    exact = torch.log((weight * torch.exp(-distance / (2 * sigma**2))).sum((1, 2)))
    offset = noised_density(x, level, frames)[0] - exact
    assert float(exact.max() - exact.min()) > 1
    assert float(offset.max() - offset.min()) < 0.05


def test_the_score_is_the_gradient_of_the_density(way):
    frames, x, levels = molecules(20), molecules(3, seed=1), torch.tensor([-1.0, 0.5, 1.5])
    _, score, _ = noised_density(x, levels, frames)
    direction, h = molecules(3, seed=2), 1e-2
    ends = [noised_density(x + sign * h * direction, levels, frames)[0] for sign in (1, -1)]
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * h), (score * direction).sum((1, 2)), rtol=5e-3, atol=5e-3)


def test_the_rate_is_the_derivative_by_the_noise_level(way):
    frames, x, levels, h = molecules(20), molecules(3, seed=1), torch.tensor([-1.0, 0.5, 1.5]), 1e-2
    _, _, rate = noised_density(x, levels, frames)
    ends = [noised_density(x, levels + sign * h, frames)[0] for sign in (1, -1)]
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * h), rate, rtol=5e-3, atol=5e-3)


def test_turning_samples_or_frames_changes_nothing_but_mirroring_does(way):
    frames, x, level = molecules(4), molecules(3, seed=1), torch.tensor([0.5])
    density, score, _ = noised_density(x, level, frames)
    turn = random_rotation(3)
    turned, turned_score, _ = noised_density(x @ turn, level, frames)
    torch.testing.assert_close(turned, density, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(turned_score, score @ turn, rtol=1e-4, atol=1e-4)
    each = torch.stack([frame @ random_rotation(k) for k, frame in enumerate(frames)])
    torch.testing.assert_close(noised_density(x, level, each)[0], density, rtol=1e-5, atol=1e-4)
    assert float((noised_density(-x, level, frames)[0] - density).abs().max()) > 0.1


def test_it_is_the_mean_of_what_denoising_aims_at():
    """Of the linear functions of the score, that which it is itself: <s . target> = <s . s> over noised samples."""
    frames, n = molecules(8), 40000
    generator = torch.Generator().manual_seed(5)
    for level in (-0.5, 0.5, 1.2):
        log_snr = torch.tensor([level])
        clean = frames[torch.randint(len(frames), (n,), generator=generator)] @ random_rotation(4)
        eps = torch.randn(clean.shape, generator=generator)
        eps -= eps.mean(1, keepdim=True)
        _, sigma = signal_and_noise(log_snr)
        _, score, rate = noised_density(add_noise(clean, eps, log_snr), log_snr, frames)
        products = (score * (-eps / sigma - score)).sum((1, 2)) * sigma**2
        # the integral over rotations is approximate, by a hundredth
        assert_vanishes(products, 0.01 * float(((score * sigma) ** 2).sum((1, 2)).mean()))
        assert float(((score + eps / sigma) ** 2).sum((1, 2)).mean() * sigma**2) > 0.5  # denoising alone scatters
        freedom = torch.tensor([12.0])
        target, variance = level_target(clean, eps, log_snr, freedom)
        change = rate + freedom * signal_and_noise(log_snr)[0] ** 2
        assert_vanishes((target - change) / variance.sqrt(), 0.01)
        assert_vanishes(change * (target - change) / variance, 0.01)
        assert float((target - change).std()) > 0.2 * float(target.std())


def assert_vanishes(values, allowed):
    """The mean of independent values is zero, by four standard errors and what is allowed besides."""
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(len(values)) + allowed


def test_empty_slots_take_no_part(way):
    frames, x, level = molecules(4), molecules(3, seed=1), torch.tensor([0.5])
    density, score, _ = noised_density(x, level, frames)
    with_slot = [torch.cat([q[:, :2], torch.zeros(len(q), 1, 3), q[:, 2:]], 1) for q in (x, frames)]
    padded, padded_score, _ = noised_density(with_slot[0], level, with_slot[1])
    torch.testing.assert_close(padded, density)
    torch.testing.assert_close(padded_score, torch.cat([score[:, :2], torch.zeros(3, 1, 3), score[:, 2:]], 1))


def test_threads_that_ask_for_the_program_at_the_same_time_have_it_traced_once(monkeypatch):
    threads, traced = 4, []

    def compile_program(*_):
        traced.append(threading.get_ident())
        time.sleep(0.05)

    monkeypatch.setattr(posterior, "compile_program", compile_program)
    posterior._compiled.cache_clear()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda seed: noised_density(molecules(2, seed=seed), torch.tensor([0.3]), molecules(5)), range(threads)))
    posterior._compiled.cache_clear()
    assert len(traced) == 1
