import numpy as np
import pytest

from scoremd.analysis.free_energy import free_energy_difference, free_energy_map, free_energy_profile


def test_a_harmonic_profile_is_recovered_within_its_band():
    x = np.random.default_rng(0).normal(0, 1, 50_000)
    line = free_energy_profile(x, range=(-2.05, 2.05), bins=41, thermal_energy=2.5, groups=np.arange(50_000) % 20)
    exact = 2.5 * line.centres**2 / 2
    np.testing.assert_allclose(line.energy, exact, atol=0.4)
    width = line.high - line.low
    assert (width > 0).all()
    assert width.max() < 1
    assert np.nanmin(line.energy) == 0


def test_bands_grow_with_the_scatter_of_the_groups():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(20), 500)
    x = rng.normal(0, 1, 10_000) + 0.5 * rng.normal(size=20)[groups]
    narrow, wide = (free_energy_profile(x, range=(-3, 3), bins=12, thermal_energy=1, groups=g) for g in (None, groups))
    assert np.nanmedian((wide.high - wide.low) / (narrow.high - narrow.low)) > 3


def test_empty_bins_have_no_energy_and_a_single_group_no_band():
    line = free_energy_profile(np.full(10, 0.1), range=(0, 1), bins=4, thermal_energy=1, groups=np.zeros(10))
    assert line.energy[0] == 0
    assert np.isnan(line.energy[1:]).all()
    assert np.isnan(line.low).all()


def test_maps_are_minus_kt_ln_p_and_their_difference_needs_frames():
    a, b = np.array([[60, 40, 0]]), np.array([[30, 61, 9]])
    assert free_energy_map(a, 2.0)[0, :2] == pytest.approx(-2 * np.log([0.6, 0.4]))
    change = free_energy_difference(a, b, 2.0)
    assert change[0, 0] == pytest.approx(2 * np.log(0.3 / 0.6))
    assert np.isnan(change[0, 2])
    assert np.isnan(free_energy_difference(np.array([991, 9]), np.array([10, 10]), 1.0)[1])
