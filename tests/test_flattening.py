import mdtraj
import numpy as np
import pytest
import torch

from scoremd.collective_variables import phi_psi
from scoremd.flattening import bias, flattened, flattening, log_density_of_largest_entropy
from scoremd.force_field import ForceField
from scoremd.nn.energy import NetworkConfig
from scoremd.systems import load_system
from tests.models import alanine_dipeptide

ANGLES = torch.linspace(-torch.pi, torch.pi, 3601, dtype=torch.float64)[:-1]


def series(coefficients):
    orders = range(1, len(coefficients) // 2 + 1)
    return torch.stack([f(k * ANGLES) for k in orders for f in (torch.cos, torch.sin)], 1)


@pytest.mark.parametrize("coefficients", [[0.0, 0.0], [2.0, -1.0], [0.5, 1.0, -0.7, 0.3, 0.2, -1.1]])
def test_a_density_whose_logarithm_is_a_series_is_found_by_its_means(coefficients):
    expected = torch.tensor(coefficients, dtype=torch.float64)
    density = torch.softmax(series(expected) @ expected, 0)
    assert log_density_of_largest_entropy(density @ series(expected)) == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def model():
    """A model, its molecule, and reference frames as its networks see them."""
    force_field, system = alanine_dipeptide(time_ranges=((0.0, 0.006), (0.006, 1.0))), load_system("ALDP")
    ensemble = system.reference_ensemble()
    return force_field, system, ensemble, force_field.bind(system).scaled(torch.from_numpy(ensemble.positions[::10]))


def test_what_flattens_does_not_depend_on_last_digits(model):
    force_field, system, _, x = model
    assert torch.equal(flattening(force_field, system, x), flattening(force_field, system, x * (1 + 1e-6)))


@pytest.mark.parametrize("achiral", [False, True])
def test_energy_and_forces_are_those_of_the_model_and_of_the_bias(model, achiral):
    force_field, system, _, x = model
    if achiral:
        d = force_field.description
        d = d.model_copy(update={"network": d.network.model_copy(update={"achiral": True})})
        force_field = ForceField(d, [d.make_network(expert.pair_statistics) for expert in force_field.experts])
    coefficients = flattening(force_field, system, x)
    biased, x = flattened(force_field, coefficients), x[:20]
    assert biased.description.time_ranges == ((0.0, 1.0),)
    assert biased.description.name == "test with flattened torsions"
    level = force_field.bind(system).level_of_forces
    before, score = force_field.bind(system).energy_and_score(x, level)
    energy, biased_score = biased.bind(system).energy_and_score(x, level)
    here = x.clone().requires_grad_()
    added = bias(force_field, system, here, coefficients)
    (gradient,) = torch.autograd.grad(added.sum(), here)
    assert added.detach().std() > 0.3
    assert energy - before == pytest.approx(added.detach(), abs=1e-3)
    assert biased_score - score == pytest.approx(-gradient, abs=1e-2)
    assert gradient.abs().max() > 1


def test_frames_that_count_by_the_bias_are_spread_over_the_torsions(model):
    force_field, system, ensemble, x = model
    coefficients = flattening(force_field, system, x)
    weights = torch.softmax(-bias(force_field, system, x, coefficients).double(), 0).numpy()
    angles = phi_psi(ensemble.select(np.arange(0, ensemble.n_frames, 10)).to_mdtraj(system.bonds), system)
    for angle in angles.T:
        before, after = (np.histogram(angle, 12, (-np.pi, np.pi), weights=w)[0] for w in (None, weights))
        p, q = before / before.sum(), after / after.sum()
        there = p > 0.01
        assert np.ptp(np.log(q[there])) < 0.6 * np.ptp(np.log(p[there]))


def test_phi_and_psi_alone_are_flattened_and_nothing_where_the_term_does_not_see_them(model):
    force_field, system, _, x = model
    (torsions,) = force_field.description.torsions
    chosen = [k for k, t in enumerate(torsions) if t in set(system.collective_variables.values())]
    nonzero = flattening(force_field, system, x)[0].reshape(len(torsions), -1).abs().amax(1) > 0
    assert nonzero.nonzero().flatten().tolist() == chosen
    d = force_field.description.model_copy(update={"torsions": (((0, 1, 2, 4),),)})
    assert flattening(ForceField(d, [d.make_network()] * 2), system, x) is None


def test_the_bias_of_data_without_spread_is_bounded(model):
    force_field, system, _, x = model
    coefficients = flattening(force_field, system, x[:1].expand(100, -1, -1))
    potential = series(torch.zeros(6)) @ coefficients[0, :6].double()
    assert 2 < float(potential.max() - potential.min()) < 10


def test_models_without_bias_are_described_as_ever():
    assert "torsion_bias" not in NetworkConfig().model_dump(mode="json")
    assert "torsion.bias" not in alanine_dipeptide().experts[0].state_dict()


@pytest.mark.slow
@pytest.mark.compiled
def test_short_simulations_from_one_basin_have_the_populations_of_long_ones():
    force_field, system = ForceField.load("alanine-dipeptide"), load_system("ALDP")
    ensemble = system.reference_ensemble()
    x = force_field.bind(system).scaled(torch.from_numpy(ensemble.positions))

    def alpha(frames):
        phi, psi = phi_psi(frames, system).T
        return (phi < 0) & (psi > -2 * np.pi / 3) & (psi < np.pi / 3)

    (start,) = np.nonzero(alpha(ensemble.to_mdtraj(system.bonds)))
    run = {"ns": 0.02, "replicas": 256, "time_step_fs": 4.0, "start": mdtraj.Trajectory(ensemble.positions[start[:256]], system.topology())}
    coefficients = flattening(force_field, system, x)
    plain, biased = force_field.simulate(system, **run), flattened(force_field, coefficients).simulate(system, **run)
    there = force_field.bind(system).scaled(torch.from_numpy(np.ascontiguousarray(biased.trajectory.xyz)))
    weights = torch.softmax(bias(force_field, system, there, coefficients).double(), 0).numpy()
    late = biased.trajectory.time > 10
    # README, "Likelihood": 0.433 [0.399, 0.468] by the likelihoods of samples
    found = np.average(alpha(biased.trajectory)[late], weights=weights[late]), alpha(plain.trajectory)[plain.trajectory.time > 10].mean()
    assert found[0] == pytest.approx(0.42, abs=0.07)
    assert found[1] > 0.52
