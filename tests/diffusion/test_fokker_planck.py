"""The residual of exact densities is zero; that of every wrong one is what mathematics says it is."""

import math

import pytest
import torch

from scoremd.diffusion.fokker_planck import (
    displaced_points,
    exact_residual,
    fokker_planck_loss,
    residual,
    residual_estimates,
    stencil,
)
from scoremd.diffusion.gaussian_mixture import GaussianMixture
from scoremd.diffusion.space import Space
from scoremd.nn.noise_level import signal_and_noise
from scoremd.nn.score import energy_and_score

D = torch.tensor([2.0], dtype=torch.float64)


def estimates(energy, x, log_snr, generator, space):
    probes = torch.stack([space.probe(len(x), generator), space.probe(len(x), generator)])
    points = displaced_points(x, log_snr, probes)
    scores = energy_and_score(energy, points, log_snr.repeat(4))[1]
    return residual_estimates(energy, scores, x, log_snr, probes, space.degrees_of_freedom)


def shifting_weights(mixture):
    """A mixture whose modes change their weight with the noise: normalised at each level, but no diffusion does that."""

    def energy(x, log_snr):
        weight = torch.sigmoid(0.5 * log_snr)
        first, second = (
            GaussianMixture(w, m[None], v[None])(x, log_snr)
            for w, m, v in zip(mixture.weights[:, None], mixture.means, mixture.variances, strict=True)
        )
        return -torch.logaddexp(weight.log() - first, (1 - weight).log() - second)

    return energy


@pytest.mark.parametrize("case", ["gaussian", "mixture"])
def test_exact_residual_vanishes(case, request, noised, plane):
    residual = exact_residual(request.getfixturevalue(case), *noised, plane.basis())
    assert residual.abs().max() < 1e-8


@pytest.mark.parametrize("case", ["gaussian", "mixture"])
def test_estimates_vanish_on_average(case, request, noised, plane, generator):
    energy = request.getfixturevalue(case)
    x, log_snr = (q.repeat_interleave(200, 0) for q in noised)
    for estimate in estimates(energy, x, log_snr, generator, plane):
        probes = estimate.view(400, 200)
        assert (probes.mean(1).abs() < 5 * probes.std(1) / 200**0.5 + 1e-3).all()


def test_estimates_of_a_gaussian_are_free_of_noise(gaussian, noised, plane, generator):
    """With a diagonal Jacobian one probe gives the exact divergence: only finite differences remain."""
    first, _ = estimates(gaussian, *noised, generator, plane)
    assert first.abs().max() < 2e-3


def test_shifting_weights_are_found(mixture, noised, plane, generator):
    energy = shifting_weights(mixture)
    exact = exact_residual(energy, *noised, plane.basis())
    assert exact.square().mean().sqrt() > 0.1
    first, second = estimates(energy, *noised, generator, plane)
    assert abs(float((first - exact).mean())) < 0.02
    assert float(fokker_planck_loss((first, second), D)) == pytest.approx(float(exact.square().mean() / 2), rel=0.2)


def test_normalisation_must_not_drift(mixture, noised, plane):
    """Without D in the equation this one would not be seen: adding 0.7 lambda to E changes R by -0.7, and not the score."""

    def drifting(x, log_snr):
        return mixture(x, log_snr) + 0.7 * log_snr

    residual = exact_residual(drifting, *noised, plane.basis())
    torch.testing.assert_close(residual, torch.full_like(residual, -0.7))


def test_missing_normalisation_is_found(gaussian, noised, plane):
    """E without ln det: R is half the rate of the logarithm of the determinant."""

    def unnormalised(x, log_snr):
        alpha, sigma = (q[:, None, None] for q in signal_and_noise(log_snr))
        variance = alpha**2 * gaussian.variances[0] + sigma**2
        return 0.5 * ((x - alpha * gaussian.means[0]) ** 2 / variance).sum((1, 2))

    x, log_snr = noised
    alpha, sigma = (q[:, None, None] for q in signal_and_noise(log_snr))
    variance = alpha**2 * gaussian.variances[0] + sigma**2
    rate = 2 * alpha**2 * sigma**2 * (gaussian.variances[0] - 1)  # d variance / d lambda
    residual = exact_residual(unnormalised, x, log_snr, plane.basis())
    torch.testing.assert_close(residual, 0.5 * (rate / variance).sum((1, 2)))


@pytest.mark.parametrize("change", ["mean", "width"])
def test_wrong_shapes_are_found(gaussian, noised, plane, change):
    """A mean that does not fall with the signal, and a width that does not grow with the noise."""

    def energy(x, log_snr):
        alpha, sigma = (q[:, None, None] for q in signal_and_noise(log_snr))
        mean = gaussian.means[0] * (1.0 if change == "mean" else alpha)
        variance = gaussian.variances[0] * (alpha**2 if change == "mean" else 1.0) + sigma**2
        return 0.5 * ((x - mean) ** 2 / variance + torch.log(2 * math.pi * variance)).sum((1, 2))

    assert exact_residual(energy, *noised, plane.basis()).square().mean().sqrt() > 0.1


def test_product_is_unbiased_where_the_square_is_not(mixture, plane, generator):
    """At fixed points, averaged over probes: <R1 R2> = R^2 < <R1^2>."""
    log_snr = torch.tensor([0.0, 0.3, 0.6, 0.9], dtype=torch.float64)
    x = torch.tensor([[[-0.3, 0.0]], [[0.0, -0.2]], [[0.1, 0.2]], [[-0.2, -0.2]]], dtype=torch.float64)
    energy = shifting_weights(mixture)
    exact = exact_residual(energy, x, log_snr, plane.basis())
    n = 20_000
    first, second = (e.view(4, n) for e in estimates(energy, *(q.repeat_interleave(n, 0) for q in (x, log_snr)), generator, plane))
    product, square = first * second, first**2
    error = product.std(1) / n**0.5
    assert ((product.mean(1) - exact**2).abs() < 4.5 * error + 2e-3).all()
    assert (square.mean(1) > exact**2 + 10 * error).all()


@pytest.mark.parametrize("exact_energy", [True, False])
def test_residual_over_a_whole_basis(mixture, noised, plane, generator, exact_energy):
    """The exact residual, but for one-sided differences whose bias of first order random signs turn round."""
    energy = mixture if exact_energy else shifting_weights(mixture)
    x, log_snr = (q.repeat_interleave(100, 0) for q in noised)
    signs = 2 * torch.randint(0, 2, (2, len(x), 1, 1), generator=generator).double() - 1
    directions = signs * plane.basis()[:, None]
    points, levels, copies = stencil(x, log_snr, directions)
    level = torch.cat([q[:, None].expand(-1, n) for q, n in zip(levels.split(len(x)), copies, strict=True)], 1)
    values = energy_and_score(energy, points.flatten(0, 1), level.flatten())
    found = residual(x, log_snr, directions, D)(*(q.unflatten(0, level.shape) for q in values)).view(400, 100)
    exact = exact_residual(energy, *noised, plane.basis())
    assert ((found.mean(1) - exact).abs() < 5 * found.std(1) / 10 + 2e-3).all()
    assert found.std(1).max() < 0.1


def test_in_the_space_without_a_centre(generator):
    """A molecule's normal density with its centre fixed: D = 3 (N - 1) makes the residual vanish, 3 N does not."""
    mask = torch.tensor([[1, 1, 1, 0]], dtype=torch.float64)
    space = Space(mask, 3)

    def energy(x, log_snr):
        alpha, sigma = signal_and_noise(log_snr)
        variance = 0.2 * alpha**2 + sigma**2
        return 0.5 * (x**2).sum((1, 2)) / variance + 0.5 * space.degrees_of_freedom * variance.log()

    log_snr = torch.linspace(-3, 3, 40, dtype=torch.float64)
    x = space.noise(40, generator)
    assert exact_residual(energy, x, log_snr, space.basis()).abs().max() < 1e-10
    first, _ = estimates(energy, x, log_snr, generator, space)
    assert first.abs().max() < 1e-3
