"""The energy network E(x, lambda): prior + alpha^2 (equivariant network + local term + normaliser).

x are scaled coordinates of the variance-preserving process (see `scoremd.diffusion.schedule`), lambda is the half log
signal-to-noise ratio, alpha^2 = sigmoid(2 lambda) the share of signal. -E is the logarithm of the density of the noised beads, up to a
constant. The density of centred beads departs from the standard normal by terms of order alpha^2, so with that factor the network's
output stays of order one, and E is exactly the Gaussian's as lambda -> -inf. The prior is the Gaussian limit and the springs of stiff
pairs, convolved with the noise.

What does not depend on the coordinates makes a `Context`; the energy is then a function of real numbers alone.
"""

from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from scoremd.nn.encoder import MoleculeEncoder
from scoremd.nn.interaction import Features, InteractionBlock
from scoremd.nn.molecule import MoleculeBatch, remove_centre
from scoremd.nn.noise_level import signal_and_noise
from scoremd.nn.pairs import NearPairs, PairTable, pair_table, partners
from scoremd.nn.radial import Normaliser, RadialFeatures, TimeEmbedding, noised_statistics
from scoremd.nn.torsion import TorsionContext, TorsionTerm

#: Pair distances (scaled) beyond which messages fade out, slowly, without a cutoff: small molecules are dense.
ENVELOPE_LENGTH = 6.0
#: Of more beads, networks as written compute the pairs within the cutoff alone, if there is one.
ALL_PAIRS = 64
#: More features or layers than anyone trains: a damaged configuration is refused before it fills the memory.
_WIDEST, _DEEPEST = 4096, 64


class NetworkConfig(BaseModel):
    """Sizes of the network and what it knows of its systems.

    Attributes
    ----------
    scalars, vectors : multiplicities of 0e, and of each of 0o, 1o and 1e
    layers : number of interaction blocks
    radial_basis, radial_width : Gaussians for each distance, and hidden features of each pair
    torsion_width : width of the local term's perceptron
    torsion_bias : add an energy that is linear in the sines and cosines of torsions, which is not trained (`scoremd.flattening`)
    encoder_width : width of the perceptrons that tell beads, pairs and torsions which molecule they are in; 0 for none
    frozen_above : half log signal-to-noise ratio above which the network no longer sees the time (3: noise of 0.05); None for never
    achiral : read the energy out from 0e only, so that mirror images have the same
    cutoff : scaled distance beyond which beads send no messages to each other, None for none
    """

    model_config = ConfigDict(extra="forbid")

    scalars: int = Field(32, ge=1, le=_WIDEST)
    vectors: int = Field(16, ge=1, le=_WIDEST)
    layers: int = Field(2, ge=1, le=_DEEPEST)
    radial_basis: int = Field(12, ge=2, le=_WIDEST)
    radial_width: int = Field(48, ge=1, le=_WIDEST)
    torsion_width: int = Field(128, ge=2, le=_WIDEST)
    torsion_bias: bool = False
    encoder_width: int = Field(0, ge=0, le=_WIDEST)
    frozen_above: float | None = 3.0
    achiral: bool = False
    cutoff: float | None = Field(None, gt=0)

    @model_serializer(mode="wrap")
    def _without_later_parts(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What came later is left out where there is none of it: descriptions, and hashes of models, stay what they were."""
        return {key: value for key, value in handler(self).items() if key not in ("torsion_bias", "encoder_width", "cutoff") or value}


class Context(NamedTuple):
    """All that the energy depends on besides the coordinates: the noise level and the molecule. Each (batch or 1, ...).

    Attributes
    ----------
    mask : (batch, bead) one for a bead, zero for padding
    mean, inverse_deviation : (batch, offset, bead) statistics of the noised distance of each pair
    spring : (batch, offset, bead) half the stiffness of stiff pairs, which fades out with their signal
    present : (batch, offset, bead) how much each pair counts, zero where a bead is missing
    pair : (batch, offset, bead, radial width) what the pair's type and the time add to its features
    scalar : (batch, bead, scalars) features of the beads before the first layer
    gates : (batch, bead, scalars + vectors) factor of the hidden features of each layer's gates, None without an encoder
    read_out : (batch, bead, scalars) factor of the hidden features of the read-out, None without an encoder
    torsion : of the local term
    share : (batch,) alpha^2
    confinement : (batch,) half of sigma^2
    normaliser : (batch,) the part of the energy that has no coordinates in it
    """

    mask: Tensor
    mean: Tensor
    inverse_deviation: Tensor
    spring: Tensor
    present: Tensor
    pair: Tensor
    scalar: Tensor
    gates: tuple[Tensor | None, ...]
    read_out: Tensor | None
    torsion: TorsionContext | None
    share: Tensor
    confinement: Tensor
    normaliser: Tensor

    def rows(self, start: int, stop: int) -> "Context":
        """That of a part of the batch; one row goes on to stand for all."""
        return tree_map_only(Tensor, lambda q: q if len(q) == 1 else q[start:stop], self)

    def repeated(self, copies: tuple[int, ...]) -> "Context":
        """That of groups of samples, from that of the first level of each group, of the second of each, and so on.

        `copies` says how many samples of a group are at each of its levels. One row goes on to stand for all.
        """

        def of_samples(q: Tensor) -> Tensor:
            if len(q) == 1 or copies == (1,):
                return q
            levels = q.unflatten(0, (len(copies), -1))  # not gathered by indices: the gradient would be scattered
            return torch.cat([part[:, None].expand(-1, n, *q.shape[1:]) for part, n in zip(levels, copies, strict=True)], 1).flatten(0, 1)

        return tree_map_only(Tensor, of_samples, self)


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

    Attributes
    ----------
    near_only : whether only pairs within the cutoff are computed, which ones depending on the coordinates, and not all: the same numbers
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
        self.near_only = c.cutoff is not None and n_beads > ALL_PAIRS
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
        sizes = n_beads, n_residue_types, c.scalars, c.torsion_width
        self.torsion = TorsionTerm(torsions, *sizes, achiral=c.achiral, biased=c.torsion_bias) if len(torsions) else None
        self.encoder = self._make_encoder(torsions) if c.encoder_width else None

    def _make_encoder(self, torsions: Tensor) -> MoleculeEncoder:
        c, widths = self.config, (1,) if self.torsion is None else self.torsion.widths
        gate_width = c.scalars + c.vectors
        return MoleculeEncoder(c.scalars, c.radial_width, widths, gate_width, c.layers, c.encoder_width, torsions[..., 1], self.n_beads)

    def forward(self, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch, copies: tuple[int, ...] = (1,)) -> Tensor:
        """Energy in kT, shape (batch,).

        Parameters
        ----------
        x : (batch, bead, 3) scaled coordinates
        log_snr : (batch,) or (1,); fewer, if samples share levels
        molecule : types, one row for each noise level or one for all
        copies : how samples share levels, see `Context.repeated`; each has its own by default
        """
        return self.evaluate(x, self.context(log_snr, molecule).repeated(copies))

    def context(self, log_snr: Tensor, molecule: MoleculeBatch) -> Context:
        """What `evaluate` is to be given; arguments as those of `forward`."""
        mask, kind = molecule.mask(log_snr.dtype), self.bead(molecule.bead) + self.residue(molecule.residue)
        sigma = signal_and_noise(log_snr)[1][:, None, None]
        mean, deviation, bonded = self.pair_statistics[molecule.pair].unbind(-1)
        mean, inverse_deviation = noised_statistics(mean, deviation, log_snr)
        present = mask[:, None] * partners(mask, self._table) * self.pair_weight
        signal = mean**2 / (mean**2 + 2 * sigma**2)
        time = self.time(log_snr)
        whole = kind.sum(1) / mask.sum(1, keepdim=True)
        scalar, pair = kind + time[:, None], self.radial.context(molecule.pair, time)
        torsion, gates, read_out = None, tuple[Tensor | None, ...]([None] * self.config.layers), None
        if self.torsion is not None:
            torsion = self.torsion.context(molecule.residue, mask, log_snr, time)
        if self.encoder is not None:
            encoding = self.encoder(kind, mask, time, self._table)
            scalar, pair, whole = scalar + encoding.bead, pair + encoding.pair, whole + encoding.molecule
            gates, read_out = encoding.gates, encoding.read_out
            if torsion is not None:
                torsion = torsion._replace(hidden=torsion.hidden + encoding.torsion, factors=encoding.torsions)
        share = torch.sigmoid(2 * log_snr)
        return Context(
            mask=mask,
            mean=mean,
            inverse_deviation=inverse_deviation,
            spring=0.5 * bonded * present * signal**2,
            present=present,
            pair=pair,
            scalar=scalar * mask[..., None],
            gates=gates,
            read_out=read_out,
            torsion=torsion,
            share=share,
            confinement=0.5 * sigma[:, 0, 0] ** 2,
            normaliser=share * self.normaliser(log_snr, whole),
        )

    def evaluate(self, x: Tensor, c: Context) -> Tensor:
        """Energy in kT, shape (batch,), of scaled coordinates x (batch, bead, 3)."""
        edge = partners(x, self._table) - x[:, None]
        distance = torch.sqrt((edge * edge).sum(-1) + 1e-6)
        z = (distance - c.mean) * c.inverse_deviation
        pairs: PairTable | NearPairs = self._table
        pair, present, stretch = c.pair, c.present, z
        if self.near_only:
            assert self.config.cutoff is not None  # as `near_only` says
            pairs = NearPairs.of(x, self.config.cutoff)
            edge, distance, z, pair, present = (pairs.chosen(q) for q in (edge, distance, z, pair, present))
        radial = self.radial(z, distance, pair)
        envelope = self._fading(present, distance)
        unit = (edge / distance[..., None])[..., None]
        features = self._initial_features(x, c.scalar)
        scale = torch.rsqrt(c.mask.sum(1))[:, None, None]
        for block, factor in zip(self.blocks, c.gates, strict=True):
            features = block(features, unit, radial, envelope, pairs, scale, factor)
        scalars = [features.scalar] if self.config.achiral else [features.scalar, features.pseudoscalar]
        first, activation, second = self.read_out
        hidden = activation(first(torch.cat(scalars, -1)))
        energy = (second(hidden if c.read_out is None else hidden * c.read_out)[..., 0] * c.mask).sum(1)
        if self.torsion is not None:
            assert c.torsion is not None  # as `context` makes it
            energy = energy + self.torsion(x, c.torsion)
        prior = (c.spring * stretch**2).sum((1, 2)) + c.confinement * (remove_centre(x, c.mask) ** 2).sum((1, 2))
        return c.share * energy + c.normaliser + prior

    def _fading(self, present: Tensor, distance: Tensor) -> Tensor:
        """Weight of messages over scaled distances, `present` at none; with two derivatives everywhere."""
        if self.config.cutoff is None:
            return present / (1 + (distance / ENVELOPE_LENGTH) ** 4)
        inside = 1 - (distance / self.config.cutoff) ** 2
        # the positive part, so smoothed that its cube is below 1e-9 at the cutoff and less beyond
        return present * (0.5 * (inside + torch.sqrt(inside * inside + 1e-6))) ** 3

    @property
    def _table(self) -> PairTable:
        return PairTable(self.pair_partner, self.pair_source, self.pair_weight)

    def _initial_features(self, x: Tensor, scalar: Tensor) -> Features:
        batch, n_beads, v = len(x), self.n_beads, self.config.vectors
        pseudoscalar, vector = x.new_zeros(batch, n_beads, v), x.new_zeros(batch, n_beads, 3, v)
        return Features(scalar.expand(batch, -1, -1), pseudoscalar, vector, vector)
