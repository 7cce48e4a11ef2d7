"""Toy potentials against published and closed-form numbers, and their exact samples against their exact densities."""

import math

import numpy as np
import pytest
import torch

from scoremd.analysis.histograms import cell_index
from scoremd.errors import ScoreMDError
from scoremd.systems import load_toy
from scoremd.toys import toy_potential

NAMES = ("double-well", "two-gaussians", "mueller-brown")


@pytest.fixture(scope="module", params=NAMES)
def potential(request):
    return toy_potential(load_toy(request.param))


def changed(name, **parameters):
    system = load_toy(name)
    return toy_potential(system.model_copy(update={"parameters": {**system.parameters, **parameters}}))


def energy_at(potential, *point):
    return potential.system.thermal_energy * float(potential.energy(torch.tensor(point, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("point", "energy"),
    [
        ((-0.558224, 1.441726), -146.69952),
        ((0.623499, 0.028038), -108.16672),
        ((-0.050011, 0.466694), -80.76782),
        ((-0.822002, 0.624314), -40.66484),
        ((0.212487, 0.292988), -72.24894),
    ],
)
def test_stationary_points_of_mueller_brown(point, energy):
    """The published three minima and two saddle points."""
    potential = toy_potential(load_toy("mueller-brown"))
    assert energy_at(potential, *point) == pytest.approx(energy, abs=1e-4)
    assert potential.force(torch.tensor([[point]], dtype=torch.float64))[1].abs().max() < 2e-2


def test_double_well_has_its_barrier():
    potential = changed("double-well", barrier=5.5)
    assert [energy_at(potential, x) for x in (-1.0, 0.0, 1.0)] == pytest.approx([0, 5.5, 0])


def test_forces_are_minus_the_gradient(potential):
    x = potential.sample(50, torch.Generator().manual_seed(1))
    energies, forces = potential.force(x)
    assert energies.shape == (50,)
    torch.testing.assert_close(energies, potential.system.thermal_energy * potential.energy(x[:, 0]))
    for axis in range(x.shape[-1]):
        h = torch.zeros_like(x)
        h[..., axis] = 1e-6
        slope = (potential.force(x + h)[0] - potential.force(x - h)[0]) / 2e-6
        torch.testing.assert_close(forces[:, 0, axis], -slope, rtol=1e-6, atol=1e-5)


def test_cells_of_the_mixture_in_closed_form():
    """Products of normal distribution functions."""
    potential = toy_potential(load_toy("two-gaussians"))
    limits, bins = np.array([[-7.0, 6.0], [-6.5, 6.5]]), 16

    def normal(axis, mean):
        edges = np.linspace(*limits[axis], bins + 1)
        return np.diff([0.5 * (1 + math.erf((e - mean) / math.sqrt(2))) for e in edges])

    expected = sum(w * np.outer(normal(0, m), normal(1, m)) for w, m in ((0.2, -5), (0.8, 5))).ravel()
    found = potential.cell_probabilities(limits, bins)
    np.testing.assert_allclose(found[:-1], expected, atol=1e-9)
    assert found[-1] == pytest.approx(1 - expected.sum(), abs=1e-9)


def test_cells_do_not_depend_on_the_grid(potential):
    """Coarse cells are the sums of fine ones: the quadrature is converged."""
    d = potential.system.dimension
    fine, coarse = (potential.cell_probabilities(potential.box, bins) for bins in (64, 32))
    summed = fine[:-1].reshape([32, 2] * d).sum(tuple(range(1, 2 * d, 2))).ravel()
    np.testing.assert_allclose(coarse[:-1], summed, atol=1e-9)
    assert coarse.sum() == pytest.approx(1, abs=1e-12)
    assert coarse[-1] < 1e-9


def test_box_is_where_the_energy_is_high(potential):
    """Beyond every face of the box the energy is 30 kT above the minimum, and just inside it is not."""
    axes = [torch.linspace(low, high, 401, dtype=torch.float64) for low, high in potential.box]
    energy = potential.energy(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1))
    for axis in range(len(axes)):
        for face in (0, 400):
            assert float(energy.select(axis, face).min() - energy.min()) > 29
        assert float(energy.movedim(axis, 0)[[8, 392]].min() - energy.min()) < 30


def test_samples_follow_the_density(potential):
    """Chi-squared over all cells that expect ten samples or more."""
    n, bins = 200_000, 24
    x = potential.sample(n, torch.Generator().manual_seed(0))
    assert x.shape == (n, 1, potential.system.dimension)
    expected = n * potential.cell_probabilities(potential.box, bins)
    found = np.bincount(cell_index(x[:, 0].numpy(), potential.box, bins), minlength=len(expected))
    filled = expected >= 10
    chi2 = ((found - expected)[filled] ** 2 / expected[filled]).sum()
    freedom = filled.sum()
    assert abs(chi2 - freedom) < 4.5 * math.sqrt(2 * freedom)
    assert found[~filled].sum() == pytest.approx(expected[~filled].sum(), abs=5 * math.sqrt(expected[~filled].sum()) + 3)


def test_samples_do_not_show_the_grid():
    """Within the cells of the sampler's grid the density's slope is there: a steep wall, where it matters."""
    potential = changed("double-well", barrier=4.0)
    x = potential.sample(400_000, torch.Generator().manual_seed(0))[:, 0, 0].numpy()
    width = float(potential._envelope.width)
    offset = (x - potential.box[0, 0]) / width % 1
    beyond = x > 1.2
    slope = (16 * x * (x**2 - 1) * width)[beyond]
    # in a cell of width w the mean of a density exp(-g x) lies g w / 12 cells below its centre
    assert offset[beyond].mean() - 0.5 == pytest.approx(-slope.mean() / 12, abs=4.5 / math.sqrt(12 * beyond.sum()))


def test_samples_repeat_with_their_seed(potential):
    first, second, third = (potential.sample(20, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_no_samples():
    potential = toy_potential(load_toy("mueller-brown"))
    assert potential.sample(0, torch.Generator()).shape == (0, 1, 2)
    with pytest.raises(ScoreMDError, match="must not be negative, not -1"):
        potential.sample(-1, torch.Generator())


def test_potential_too_steep_for_the_grid():
    with pytest.raises(ScoreMDError, match="varies too fast"):
        changed("two-gaussians", variance=1e-5).sample(100_000, torch.Generator().manual_seed(0))


def test_density_beyond_the_region():
    with pytest.raises(ScoreMDError, match="reaches beyond"):
        _ = changed("mueller-brown", A=(-1.0, -1.0, -1.0, 0.01)).box


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("double-well", {"barrier": (4.0,)}, "double-well: barrier must be a number"),
        ("two-gaussians", {"weights": 1.0}, "two-gaussians: weights must be n numbers"),
        ("two-gaussians", {"means": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))}, "two-gaussians: means must be 2x2 numbers"),
        ("two-gaussians", {"means": ((0.0, 0.0), (1.0,))}, "two-gaussians: means must be 2x2 numbers"),
        ("mueller-brown", {"c": (1.0, 2.0)}, "mueller-brown: c must be 4 numbers"),
    ],
)
def test_parameters_of_the_wrong_shape(name, parameters, message):
    with pytest.raises(ScoreMDError, match=message):
        changed(name, **parameters)
