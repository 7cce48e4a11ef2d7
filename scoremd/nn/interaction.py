"""Equivariant features of both parities and their two operations: messages between beads, and products on a bead.

Features are e3nn irreps `C x 0e + V x 0o + V x 1o + V x 1e`, kept as one tensor each, with the three components of the vectors before
the channels, so that every linear map is one matrix product. Messages are the tensor products of the sender's features with the
spherical harmonics (l = 0, 1) of the edge, weighted by functions of distance, pair type and time (NequIP, Batzner et al. 2022; the
gated update on the bead is PaiNN's, Schütt et al. 2021, extended to both parities).
"""

from typing import NamedTuple

import torch
from e3nn import o3
from torch import Tensor, nn

from scoremd.nn.pairs import NearPairs, PairTable


class Features(NamedTuple):
    """Equivariant features of all beads.

    Attributes
    ----------
    scalar : (batch, bead, C), irreps 0e
    pseudoscalar : (batch, bead, V), irreps 0o
    vector : (batch, bead, 3, V), irreps 1o
    pseudovector : (batch, bead, 3, V), irreps 1e
    """

    scalar: Tensor
    pseudoscalar: Tensor
    vector: Tensor
    pseudovector: Tensor

    def flatten(self) -> Tensor:
        """The features in e3nn's layout, (batch, bead, irreps.dim)."""
        vectors = (q.transpose(-1, -2).flatten(-2) for q in (self.vector, self.pseudovector))
        return torch.cat([self.scalar, self.pseudoscalar, *vectors], -1)


def feature_irreps(scalars: int, vectors: int) -> o3.Irreps:
    """The e3nn irreps of `Features`: `scalars` of 0e, `vectors` of each of 0o, 1o and 1e."""
    return o3.Irreps(f"{scalars}x0e + {vectors}x0o + {vectors}x1o + {vectors}x1e")


def unflatten(flat: Tensor, scalars: int, vectors: int) -> Features:
    """Inverse of `Features.flatten`."""
    s, p, v, w = flat.split([scalars, vectors, 3 * vectors, 3 * vectors], -1)
    return Features(s, p, *(q.unflatten(-1, (vectors, 3)).transpose(-1, -2) for q in (v, w)))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product over the last but one axis."""
    return torch.linalg.cross(a, b, dim=-2)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-2)


class Messages(nn.Module):
    """Sum over the other beads of (features of the sender) x (spherical harmonics of the edge) x (radial weight).

    The ten paths are all couplings of {0e, 0o, 1o, 1e} with the harmonics {0e, 1o} into {0e, 0o, 1o, 1e}. In the first layer the
    senders have scalars only, so `scalars_only` keeps the two paths that are not zero.
    """

    def __init__(self, scalars: int, vectors: int, radial_width: int, *, scalars_only: bool) -> None:
        super().__init__()
        self.scalars_only = scalars_only
        self.splits = [scalars, vectors] if scalars_only else [scalars, *[vectors] * 9]
        self.source = nn.Linear(scalars, scalars + vectors)
        self.weights = nn.Linear(radial_width, sum(self.splits), bias=False)
        self.scalars, self.vectors = scalars, vectors

    def forward(self, features: Features, unit: Tensor, radial: Tensor, envelope: Tensor, pairs: PairTable | NearPairs) -> list[Tensor]:
        """Collect the messages.

        Parameters
        ----------
        unit : (batch, offset, bead, 3, 1) unit vectors to the partner; of near pairs (pair, 3, 1), and so on
        radial : (batch, offset, bead, radial_width)
        envelope : (batch, offset, bead) weight of each pair, zero where a bead is missing
        pairs : which these are

        Returns
        -------
        one tensor for each path, in the order 0e, 0e, 0o, 0o, 1o, 1o, 1o, 1e, 1e, 1e (0e and 1o if `scalars_only`)
        """
        weights = (self.weights(radial) * envelope[..., None]).split(self.splits, -1)
        s, s_vector = self.source(features.scalar).split([self.scalars, self.vectors], -1)
        senders = Features(s, *features[1:])
        # every pair carries a message each way: from the partner to bead i, and from bead i to the partner
        there = self._paths(Features(*(pairs.there(q) for q in senders)), pairs.there(s_vector), unit, weights)
        back = self._paths(Features(*(pairs.here(q) for q in senders)), pairs.here(s_vector), -unit, weights)
        return [pairs.total(a, b) for a, b in zip(there, back, strict=True)]

    def _paths(self, q: Features, s_vector: Tensor, unit: Tensor, weights: tuple[Tensor, ...]) -> list[Tensor]:
        vector_weights = [a[..., None, :] for a in weights]
        if self.scalars_only:
            return [weights[0] * q.scalar, vector_weights[1] * s_vector[..., None, :] * unit]
        w, wv = weights, vector_weights
        p, v, a = q.pseudoscalar, q.vector, q.pseudovector
        return [
            w[0] * q.scalar,
            w[1] * (v * unit).sum(-2),
            w[2] * p,
            w[3] * (a * unit).sum(-2),
            wv[4] * s_vector[..., None, :] * unit,
            wv[5] * v,
            wv[6] * _cross(a, unit),
            wv[7] * p[..., None, :] * unit,
            wv[8] * a,
            wv[9] * _cross(v, unit),
        ]


class Update(nn.Module):
    """Products of a bead's own features, gated by its scalars, added to them.

    `scalars_only`: the features before are scalars (first layer); `last`: only scalars and pseudoscalars are read afterwards, so
    vectors are not made.
    """

    def __init__(self, scalars: int, vectors: int, *, scalars_only: bool, last: bool) -> None:
        super().__init__()
        c, v = scalars, vectors
        self.scalars_only, self.last = scalars_only, last
        # three mixtures of the vectors: one to add, two to multiply with each other
        self.mix_vector = nn.Linear(v if scalars_only else 4 * v, 3 * v, bias=False)
        self.mix_pseudovector = None if scalars_only else nn.Linear(4 * v, 2 * v, bias=False)
        self.mix_pseudoscalar = nn.Linear(v if scalars_only else 4 * v, v, bias=False)
        self.mix_axial = nn.Linear(v, v, bias=False)
        inputs = 2 * c + v if scalars_only else 2 * c + 4 * v
        self.splits = [c, v] if last else [c, v, v, v]
        self.gate = nn.Sequential(nn.Linear(inputs, c + v), nn.SiLU(), nn.Linear(c + v, sum(self.splits)))

    def forward(self, features: Features, messages: list[Tensor], scale: Tensor, factor: Tensor | None) -> Features:
        """Features after the messages.

        Parameters
        ----------
        scale : (batch or 1, 1, 1) one over the root of the number of beads, which keeps the messages' variance
        factor : (batch or 1, bead, `scalars` + `vectors`) of the hidden features of the gates
        """
        m = [(scale if q.dim() == 3 else scale[..., None]) * q for q in messages]
        s, p, v, a = features
        if self.mix_pseudovector is None:
            add, left, right = self.mix_vector(m[1]).chunk(3, -1)
            axial = self.mix_axial(_cross(left, right))
            odd = self.mix_pseudoscalar(_dot(axial, add))
            even = torch.cat([s, m[0], _dot(left, right)], -1)
        else:
            add, left, right = self.mix_vector(torch.cat([v, m[4], m[5], m[6]], -1)).chunk(3, -1)
            axial_add, axial_left = self.mix_pseudovector(torch.cat([a, m[7], m[8], m[9]], -1)).chunk(2, -1)
            axial = axial_add + self.mix_axial(_cross(left, right))
            odd = self.mix_pseudoscalar(torch.cat([p, m[2], m[3], _dot(axial_left + axial, add)], -1))
            even = torch.cat([s, m[0], m[1], _dot(left, right), _dot(axial_left, axial_add), p * p], -1)
        first, activation, second = self.gate
        hidden = activation(first(even))
        gates = second(hidden if factor is None else hidden * factor).split(self.splits, -1)
        s, p = s + gates[0], p + gates[1] * odd
        if not self.last:
            v, a = v + gates[2][..., None, :] * add, a + gates[3][..., None, :] * axial
        return Features(s, p, v, a)


class InteractionBlock(nn.Module):
    """Messages, then update: one layer of the network, equivariant under rotation, reflection and permutation."""

    def __init__(self, scalars: int, vectors: int, radial_width: int, *, first: bool = False, last: bool = False) -> None:
        super().__init__()
        self.irreps = feature_irreps(scalars, vectors)
        self.messages = Messages(scalars, vectors, radial_width, scalars_only=first)
        self.update = Update(scalars, vectors, scalars_only=first, last=last)

    def forward(
        self,
        features: Features,
        unit: Tensor,
        radial: Tensor,
        envelope: Tensor,
        pairs: PairTable | NearPairs,
        scale: Tensor,
        factor: Tensor | None = None,
    ) -> Features:
        """Arguments as in `Messages.forward`; `scale` and `factor` as in `Update.forward`."""
        return self.update(features, self.messages(features, unit, radial, envelope, pairs), scale, factor)
