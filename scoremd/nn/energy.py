"""The energy network E(x, lambda): prior + alpha^2 (equivariant network + local term + normaliser).

x are scaled coordinates of the variance-preserving process (see `scoremd.diffusion.schedule`), lambda is the half log
signal-to-noise ratio, alpha^2 = sigmoid(2 lambda) the share of signal. -E is the logarithm of the density of the noised beads, up to a
constant. The density of centred beads departs from the standard normal by terms of order alpha^2, so with that factor the network's
output stays of order one, and E is exactly the Gaussian's as lambda -> -inf.
"""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from scoremd.nn.interaction import Features, InteractionBlock
from scoremd.nn.molecule import MoleculeBatch, remove_centre
from scoremd.nn.noise_level import signal_and_noise
from scoremd.nn.pairs import PairTable, pair_table, partners
from scoremd.nn.radial import Normaliser, RadialFeatures, TimeEmbedding, standardise
from scoremd.nn.torsion import TorsionTerm

#: Pair distances (scaled) beyond which messages fade out, slowly: small molecules are dense.
ENVELOPE_LENGTH = 6.0


class NetworkConfig(BaseModel):
    """Sizes of the network and what it knows of its systems.

    Attributes
    ----------
    scalars, vectors : multiplicities of 0e, and of each of 0o, 1o and 1e
    layers : number of interaction blocks
    radial_basis, radial_width : Gaussians for each distance, and hidden features of each pair
    torsion_width : width of the local term's perceptron
    frozen_above : half log signal-to-noise ratio above which the network no longer sees the time (3: noise of 0.05); None for never
    achiral : read the energy out from 0e only, so that mirror images have the same
    """

    model_config = ConfigDict(extra="forbid")

    scalars: int = Field(32, ge=1)
    vectors: int = Field(16, ge=1)
    layers: int = Field(2, ge=1)
    radial_basis: int = Field(12, ge=2)
    radial_width: int = Field(48, ge=1)
    torsion_width: int = Field(128, ge=2)
    frozen_above: float | None = 3.0
    achiral: bool = False


class MoleculeEnergy(nn.Module):
    """E(x, lambda) of molecules with at most `n_beads` beads.

    Parameters
    ----------
    config : sizes
    n_beads : bead slots of the model
    n_bead_types, n_residue_types : vocabulary sizes, padding included
    pair_statistics : (pair type, 3) mean and standard deviation of the scaled distance, and 1 where the pair is bonded (stiff); row 0 is
        the padding
    torsions : (group, torsion, 4) bead indices of the local term; no groups, no local term
    """

    pair_statistics: Tensor
    pair_partner: Tensor
    pair_source: Tensor
    pair_weight: Tensor

    def __init__(
        self,
        config: NetworkConfig,
        n_beads: int,
        n_bead_types: int,
        n_residue_types: int,
        pair_statistics: Tensor,
        torsions: Tensor,
    ) -> None:
        super().__init__()
        c = config
        self.config, self.n_beads = c, n_beads
        self.register_buffer("pair_statistics", pair_statistics.clone())
        for name, table in pair_table(n_beads)._asdict().items():
            self.register_buffer(f"pair_{name}", table, persistent=False)
        self.time = TimeEmbedding(c.scalars, c.frozen_above)
        self.bead = nn.Embedding(n_bead_types, c.scalars, padding_idx=0)
        self.residue = nn.Embedding(n_residue_types, c.scalars, padding_idx=0)
        self.radial = RadialFeatures(len(pair_statistics), c.radial_basis, c.radial_width, c.scalars)
        self.blocks = nn.ModuleList(
            InteractionBlock(c.scalars, c.vectors, c.radial_width, first=k == 0, last=k == c.layers - 1) for k in range(c.layers)
        )
        inputs = c.scalars if c.achiral else c.scalars + c.vectors
        self.read_out = nn.Sequential(nn.Linear(inputs, c.scalars), nn.SiLU(), nn.Linear(c.scalars, 1, bias=False))
        self.normaliser = Normaliser(c.scalars)
        self.torsion = (
            TorsionTerm(torsions, n_beads, n_residue_types, c.scalars, c.torsion_width, achiral=c.achiral) if len(torsions) else None
        )

    def forward(self, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> Tensor:
        """Energy in kT, shape (batch,).

        Parameters
        ----------
        x : (batch, bead, 3) scaled coordinates
        log_snr : (batch,) or (1,)
        molecule : types, one row for each of the batch or one for all
        """
        mask = molecule.mask(x.dtype)
        table = PairTable(self.pair_partner, self.pair_source, self.pair_weight)
        edge = partners(x, table) - x[:, None]
        distance = torch.sqrt((edge * edge).sum(-1) + 1e-6)
        mean, deviation, bonded = self.pair_statistics[molecule.pair].unbind(-1)
        z = standardise(distance, mean, deviation, log_snr)
        present = mask[:, None] * partners(mask, table) * table.weight

        time = self.time(log_snr)
        radial = self.radial(z, distance, molecule.pair, time)
        envelope = present / (1 + (distance / ENVELOPE_LENGTH) ** 4)
        unit = (edge / distance[..., None])[..., None]
        kind = self.bead(molecule.bead) + self.residue(molecule.residue)
        features = self._initial_features(x, kind, time, mask)
        scale = torch.rsqrt(mask.sum(1))[:, None, None]
        for block in self.blocks:
            features = block(features, unit, radial, envelope, table, scale)
        scalars = [features.scalar] if self.config.achiral else [features.scalar, features.pseudoscalar]
        energy = (self.read_out(torch.cat(scalars, -1))[..., 0] * mask).sum(1)
        if self.torsion is not None:
            energy = energy + self.torsion(x, log_snr, molecule.residue, mask, time)
        energy = energy + self.normaliser(log_snr, kind.sum(1) / mask.sum(1, keepdim=True))
        return torch.sigmoid(2 * log_snr) * energy + self._prior(x, z, mean, bonded * present, log_snr, mask)

    def _initial_features(self, x: Tensor, kind: Tensor, time: Tensor, mask: Tensor) -> Features:
        scalar = (kind + time[:, None]) * mask[..., None]
        batch, n_beads, v = len(x), self.n_beads, self.config.vectors
        scalar = scalar.expand(batch, -1, -1)
        pseudoscalar, vector = x.new_zeros(batch, n_beads, v), x.new_zeros(batch, n_beads, 3, v)
        return Features(scalar, pseudoscalar, vector, vector)

    def _prior(self, x: Tensor, z: Tensor, mean: Tensor, bonded: Tensor, log_snr: Tensor, mask: Tensor) -> Tensor:
        """Springs of the stiff pairs, convolved with the noise and faded out with their signal, and the Gaussian limit."""
        alpha, sigma = (q[:, None, None] for q in signal_and_noise(log_snr))
        signal = (alpha * mean) ** 2 / ((alpha * mean) ** 2 + 2 * sigma**2)
        springs = 0.5 * (bonded * (signal * z) ** 2).sum((1, 2))
        return springs + 0.5 * sigma[:, 0, 0] ** 2 * (remove_centre(x, mask) ** 2).sum((1, 2))
