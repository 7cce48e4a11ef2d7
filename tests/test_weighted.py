"""Weights against closed forms, where flow and energy are Gaussians."""

import itertools
import math

import mdtraj
import numpy as np
import pytest
import torch

from scoremd import bound_model, force_field
from scoremd.bound_model import BoundModel
from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField
from scoremd.systems import load_system
from scoremd.units import thermal_energy
from scoremd.weighted import WeightedSamples
from tests.models import alanine_dipeptide

FREEDOM, LENGTH = 12, 6.0


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(bound_model, "FLOW_INTERVALS", 4)


@pytest.fixture
def gaussian_model(monkeypatch, few):
    """A model whose data are a standard normal distribution, and whose forces are of one with a variance of 0.8."""
    monkeypatch.setattr(BoundModel, "score_function", lambda self: lambda x, log_snr: -x)
    monkeypatch.setattr(BoundModel, "at_noise", lambda self, log_snr, expert=0: lambda x: (0.5 * (x**2).sum((1, 2)) / 0.8,))
    return alanine_dipeptide()


def test_density_is_normalised_in_nanometres(gaussian_model):
    x = torch.randn(8, 5, 3, generator=torch.Generator().manual_seed(0))
    x = x - x.mean(1, keepdim=True)
    frames = mdtraj.Trajectory((x / LENGTH).numpy() + 3.0, load_system("ALDP").topology())
    expected = -0.5 * (x**2).sum((1, 2)) - 0.5 * FREEDOM * math.log(2 * math.pi) + FREEDOM * math.log(LENGTH)
    np.testing.assert_allclose(gaussian_model.weigh("ALDP", frames).log_likelihood, expected, atol=5e-3)


def test_weights_make_the_ensemble_of_the_forces(gaussian_model):
    drawn = gaussian_model.weighted_samples("ALDP", 4000, seed=0)
    size = (LENGTH * drawn.trajectory.xyz).astype(float)
    square = ((size - size.mean(1, keepdims=True)) ** 2).sum((1, 2))
    assert np.mean(square) == pytest.approx(FREEDOM, rel=0.03)
    assert np.sum(drawn.weights * square) == pytest.approx(0.8 * FREEDOM, rel=0.03)
    # <w>^2 / <w^2> of normal distributions of variance 1, weighted to v: ((2 - v) v)^(D/2)
    assert drawn.effective_sample_size / 4000 == pytest.approx((1.2 * 0.8) ** (FREEDOM / 2), rel=0.05)


def test_samples_and_conformations_have_one_likelihood(monkeypatch):
    monkeypatch.setattr(force_field, "SAMPLING_BATCH", 8)
    monkeypatch.setattr(bound_model, "FLOW_INTERVALS", 24)
    model = ForceField.load("alanine-dipeptide")
    drawn = model.weighted_samples("ALDP", 6, seed=1)
    again = model.weigh("ALDP", drawn.trajectory, seed=2)
    np.testing.assert_allclose(again.log_weights, drawn.log_weights, atol=0.3)
    np.testing.assert_allclose(again.log_likelihood, drawn.log_likelihood, atol=0.2)
    assert np.ptp(drawn.log_likelihood) > 1
    energy, _ = model.bind("ALDP").forces()(torch.from_numpy(drawn.trajectory.xyz))
    np.testing.assert_allclose(drawn.energy, energy, rtol=1e-4)
    same = model.weighted_samples("ALDP", 6, seed=1)
    assert np.array_equal(same.log_weights, drawn.log_weights)
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
    with pytest.raises(ScoreMDError, match="at least 1, not 0"):
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
