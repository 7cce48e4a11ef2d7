"""Distances, noise level and pair type, turned into the weights of the tensor products."""

import math

import torch
from torch import Tensor, nn

from scoremd.nn.noise_level import signal_and_noise


def freeze(log_snr: Tensor, ceiling: float, sharpness: float = 4.0) -> Tensor:
    """Smooth minimum of the half log signal-to-noise ratio and `ceiling`: below that noise the network no longer sees the time."""
    return ceiling - nn.functional.softplus(ceiling - log_snr, beta=sharpness)


def time_basis(log_snr: Tensor) -> Tensor:
    """Bounded and slowly growing functions of the half log signal-to-noise ratio, (batch,) -> (batch, 5)."""
    lam = log_snr
    basis = [lam / 4, torch.tanh(lam), torch.sigmoid(-2 * lam), torch.sigmoid(2 * lam), torch.cos(lam)]
    return torch.stack(basis, -1)


class TimeEmbedding(nn.Module):
    """Half log signal-to-noise ratio -> features.

    Parameters
    ----------
    width : number of features
    frozen_above : half log signal-to-noise ratio above which the features are constant, None for never
    """

    def __init__(self, width: int, frozen_above: float | None) -> None:
        super().__init__()
        self.frozen_above = frozen_above
        self.mlp = nn.Sequential(nn.Linear(5, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, log_snr: Tensor) -> Tensor:
        """(batch or 1,) -> (batch or 1, width)."""
        return self.mlp(time_basis(log_snr if self.frozen_above is None else freeze(log_snr, self.frozen_above)))


class Normaliser(nn.Module):
    """The part of the energy that depends on the noise and on the molecule, not on the configuration: it makes exp(-E) a density.

    Scores do not see it, only the Fokker–Planck term trains it. It sees the noise at every level: the volume that stiff coordinates
    have shrinks with the noise also where the rest of the network is frozen.
    """

    def __init__(self, molecule_width: int, width: int = 32) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(5 + molecule_width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, log_snr: Tensor, molecule: Tensor) -> Tensor:
        """Noise level (batch or 1,) and mean embedding of the beads (batch or 1, width) -> (batch or 1,)."""
        n = max(len(log_snr), len(molecule))
        return 10 * self.mlp(torch.cat([time_basis(log_snr).expand(n, -1), molecule.expand(n, -1)], -1))[..., 0]


def noised_statistics(mean: Tensor, deviation: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of noised distances.

    If a distance in the data is normal with `mean` and `deviation`, and is much longer than the noise, then the noised distance is normal
    with alpha * mean and sqrt(alpha^2 deviation^2 + 2 sigma^2): standardised by them, stiff bonds are of unit size at every time.

    Parameters
    ----------
    mean, deviation : (batch or 1, offset, bead), of the clean distances
    log_snr : (batch or 1,)
    """
    alpha, sigma = (q[:, None, None] for q in signal_and_noise(log_snr))
    return alpha * mean, torch.rsqrt((alpha * deviation) ** 2 + 2 * sigma**2)


def saturate(z: Tensor) -> Tensor:
    """Standardised distances as the network sees them: bounded, smooth, as they are near zero.

    Data hardly reach |z| = 4. If features changed fast beyond, the energy there would have curvatures that no datum has bounded, many
    times those of the springs: a bond that strays there is heated by the integrator and does not come back.
    """
    return 4 * torch.tanh(z / 4)


class RadialFeatures(nn.Module):
    """Hidden features of each pair, from which every layer makes its weights by one linear map.

    The distance enters twice: standardised (fine, for stiff pairs) and bare (coarse, comparable between pairs).
    """

    fine: Tensor
    coarse: Tensor

    def __init__(self, n_pair_types: int, n_basis: int, width: int, time_width: int) -> None:
        super().__init__()
        self.register_buffer("fine", torch.linspace(-4, 4, n_basis), persistent=False)
        self.register_buffer("coarse", torch.linspace(0, 6, n_basis), persistent=False)
        self.fine_map = nn.Linear(n_basis, width)
        self.coarse_map = nn.Linear(n_basis, width, bias=False)
        self.time_map = nn.Linear(time_width, width, bias=False)
        self.pair = nn.Embedding(n_pair_types, width)
        nn.init.normal_(self.pair.weight, std=1 / math.sqrt(2))

    def context(self, pair: Tensor, time: Tensor) -> Tensor:
        """What pair types (batch or 1, offset, bead) and time (batch or 1, time width) add before the nonlinearity."""
        return self.pair(pair) + self.time_map(time)[:, None, None] + self.fine_map.bias

    def forward(self, z: Tensor, distance: Tensor, context: Tensor) -> Tensor:
        """Features of standardised and bare distances (batch, offset, bead), with the context of each pair."""
        fine = torch.exp(-0.5 * ((saturate(z)[..., None] - self.fine) / 0.8) ** 2)
        coarse = torch.exp(-0.5 * ((distance[..., None] - self.coarse) / 0.5) ** 2)
        return nn.functional.silu(nn.functional.linear(fine, self.fine_map.weight) + self.coarse_map(coarse) + context)
