"""What the network sees of distances that data do not reach."""

import torch

from scoremd.nn.radial import RadialFeatures, noised_statistics, saturate


def test_standardised_distances_are_seen_as_they_are_in_the_data_and_bounded_beyond():
    z = torch.linspace(-30, 30, 6001, dtype=torch.float64)
    seen = saturate(z)
    assert torch.all(seen.diff() >= 0)
    assert seen.abs().max() <= 4
    inner = z.abs() < 1
    torch.testing.assert_close(seen[inner], z[inner], rtol=0.025, atol=0)


def test_features_bend_less_beyond_the_data_than_within():
    """Else bonds that stray there meet curvatures that nothing has bounded, and the integrator heats them."""
    torch.manual_seed(0)
    features = RadialFeatures(2, 12, 32, 16).double()
    z = torch.linspace(-15, 15, 3001, dtype=torch.float64)
    distance = torch.full_like(z, 1.5) + 0.015 * z  # a bond's: mean 1.5, standard deviation 0.015
    log_snr = torch.tensor([20.0], dtype=torch.float64)
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    mean, inverse_deviation = noised_statistics(1.5 * one, 0.015 * one, log_snr)
    standard = (distance[:, None, None] - mean) * inverse_deviation
    torch.testing.assert_close(standard[:, 0, 0], z, rtol=1e-6, atol=1e-6)
    pair = torch.ones(len(z), 1, 1, dtype=torch.long)
    time = torch.zeros(len(z), 16, dtype=torch.float64)
    out = features(standard, distance[:, None, None], features.context(pair, time))[:, 0, 0]
    bend = ((out[2:] - 2 * out[1:-1] + out[:-2]) / (z[1] - z[0]) ** 2).abs().amax(1)
    z = z[1:-1].abs()
    assert bend[z > 4].max() < 0.5 * bend[z < 3].max()
    assert bend[z > 8].max() < 0.1 * bend[z < 3].max()
