"""Weights against closed forms, where flow and energy are Gaussians."""

import itertools
import math

import mdtraj
import numpy as np
import pytest
import torch

from scoremd import bound_model
from scoremd.bound_model import BoundModel
from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField
from scoremd.nn.noise_level import signal_and_noise
from scoremd.systems import load_system
from scoremd.units import thermal_energy
from scoremd.weighted import WeightedSamples
from tests.models import alanine_dipeptide

LENGTH = 6.0


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(bound_model, "FLOW_INTERVALS", 4)


VARIANCE = 0.3


@pytest.fixture
def gaussian(monkeypatch):
    """Any model, but its data are normally distributed, of this variance in scaled coordinates, and its forces are of 0.8 times that.

    The energy is for the noise of the forces, of which the variance has next to nothing.
    """

    def score_function(self):
        def score(x, log_snr):
            alpha, sigma = signal_and_noise(log_snr)
            return -x / (alpha**2 * VARIANCE + sigma**2)

        return score

    monkeypatch.setattr(BoundModel, "score_function", score_function)
    monkeypatch.setattr(BoundModel, "at_noise", lambda self, log_snr, expert=0: lambda x: (0.5 * (x**2).sum((1, 2)) / (0.8 * VARIANCE),))


def model_of(name):
    return alanine_dipeptide() if name == "ALDP" else ForceField.load("dipeptides")


@pytest.mark.parametrize("name", ["ALDP", "KS", "KG", "GG"])
def test_likelihood_is_normalised_in_nanometres(gaussian, name):
    """Also where beads are missing."""
    system = load_system(name)
    freedom = 3 * (len(system.beads) - 1)
    x = VARIANCE**0.5 * torch.randn(8, len(system.beads), 3, generator=torch.Generator().manual_seed(0))
    x = x - x.mean(1, keepdim=True)
    frames = mdtraj.Trajectory((x / LENGTH).numpy() + 0.5, system.topology())
    expected = -0.5 * (x**2).sum((1, 2)) / VARIANCE - 0.5 * freedom * math.log(2 * math.pi * VARIANCE / LENGTH**2)
    np.testing.assert_allclose(model_of(name).weigh(name, frames).log_likelihood, expected, atol=0.02)


@pytest.mark.parametrize("name", ["ALDP", "KG"])
def test_weights_make_the_ensemble_of_the_forces(gaussian, name):
    drawn = model_of(name).weighted_samples(name, 2000, seed=0)
    x = (LENGTH * drawn.trajectory.xyz).astype(float)
    freedom = 3 * (x.shape[1] - 1)
    np.testing.assert_allclose(x.mean(1), 0, atol=1e-5)
    square = (x**2).sum((1, 2))
    assert np.mean(square) == pytest.approx(freedom * VARIANCE, rel=0.03)
    assert np.sum(drawn.weights * square) == pytest.approx(0.8 * freedom * VARIANCE, rel=0.03)
    # <w>^2 / <w^2> of normal distributions of variance v, weighted to 0.8 v: (1.2 * 0.8)^(D/2)
    assert drawn.effective_sample_size / 2000 == pytest.approx((1.2 * 0.8) ** (freedom / 2), rel=0.06)
    expected = -0.5 * square / VARIANCE - 0.5 * freedom * math.log(2 * math.pi * VARIANCE / LENGTH**2)
    np.testing.assert_allclose(drawn.log_likelihood, expected, atol=0.05)


def test_each_noise_level_has_its_own_expert(monkeypatch):
    """Of two networks, one that knows no molecule: where it rules decides what is likely."""
    monkeypatch.setattr(bound_model, "FLOW_INTERVALS", 4)
    frames = mdtraj.Trajectory(load_system("ALDP").reference_ensemble().positions[:4], load_system("ALDP").topology())
    found = []
    for order in (1, -1):
        model = alanine_dipeptide(time_ranges=((0.0, 0.3), (0.3, 1.0)))
        model.experts = [alanine_dipeptide(seed=5).experts[0], model.experts[0]][::order]
        found.append(model.weigh("ALDP", frames).log_likelihood)
    assert not np.allclose(found[0], found[1], atol=0.1)


def test_samples_and_conformations_have_one_likelihood():
    model = ForceField.load("alanine-dipeptide")
    drawn = model.weighted_samples("ALDP", 6, seed=1)
    again = model.weigh("ALDP", drawn.trajectory, seed=2)
    assert np.median(np.abs(again.log_likelihood - drawn.log_likelihood)) < 0.05
    assert np.abs(again.log_ratio - drawn.log_ratio).max() < 0.5
    assert np.ptp(drawn.log_likelihood) > 1
    energy, _ = model.bind("ALDP").forces()(torch.from_numpy(drawn.trajectory.xyz))
    np.testing.assert_allclose(drawn.energy, energy, rtol=1e-4)
    same = model.weighted_samples("ALDP", 6, seed=1)
    assert np.array_equal(same.log_ratio, drawn.log_ratio)
    more = model.weighted_samples("ALDP", 20, seed=1)
    assert np.array_equal(more.log_likelihood[:6], drawn.log_likelihood)
    assert not np.allclose(model.weighted_samples("ALDP", 6, seed=3).log_likelihood, drawn.log_likelihood)


def test_likelihood_does_not_depend_on_where_a_molecule_is_and_how_it_is_turned(few):
    model = alanine_dipeptide()
    frames = mdtraj.Trajectory(load_system("ALDP").reference_ensemble().positions[:4], load_system("ALDP").topology())
    turned = mdtraj.Trajectory(frames.xyz[:, :, [1, 2, 0]] + 0.5, frames.topology)
    np.testing.assert_allclose(model.weigh("ALDP", turned).log_likelihood, model.weigh("ALDP", frames).log_likelihood, atol=0.1)


def test_equal_energies_and_likelihoods_are_equal_weights():
    drawn = WeightedSamples(mdtraj.Trajectory(np.zeros((3, 1, 3)), None), -np.arange(3.0), thermal_energy(300) * np.arange(3.0), 300.0)
    np.testing.assert_allclose(drawn.weights, 1 / 3)
    assert drawn.effective_sample_size == pytest.approx(3)


def test_what_cannot_be_weighed_is_refused(few, monkeypatch, frames):
    model = alanine_dipeptide()
    with pytest.raises(ScoreMDError, match="from 1 to 1000000000, not 0"):
        model.weighted_samples("ALDP", 0)
    with pytest.raises(ScoreMDError, match="4 beads where the system has 5"):
        model.weigh("ALDP", frames(2, 0).atom_slice(range(4)))
    torn = mdtraj.Trajectory(1e30 * frames(3, 0).xyz, frames(3, 0).topology)
    with pytest.raises(ScoreMDError, match="3 of 3 frames have no finite likelihood"):
        model.weigh("ALDP", torn)
    nothing = torch.full((2, 5, 3), torch.nan)
    monkeypatch.setattr(BoundModel, "flow", lambda self, batch, seeds: (nothing, torch.zeros(2), torch.zeros(2)))
    with pytest.raises(ScoreMDError, match="2 of 2 samples are not finite"):
        model.weighted_samples("ALDP", 2)


def test_parts_have_noise_of_their_own(few):
    model = alanine_dipeptide().bind("ALDP")
    x, _, _ = model.flow(130, itertools.count(7))
    assert len(torch.unique(x[:, 0, 0])) == 130
