"""What a bead, a pair and a torsion are told of the molecule that they are in: nothing here depends on coordinates.

In a family of molecules most of what a bead's surroundings mean depends on the sequence. Perceptrons of types and time are paid once for a
molecule and a noise level, not for each configuration, so they may be as wide as training can bear.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scoremd.nn.pairs import PairTable, partners

_PRODUCTS = 16


class Encoding(NamedTuple):
    """What the molecule does to features.

    Attributes
    ----------
    bead, pair, torsion, molecule : what is added to features of beads (batch or 1, bead, scalars), pairs (..., offset, bead, radial width),
        groups of torsions (..., group, torsion width) and of the molecule as a whole (batch or 1, scalars)
    gates, read_out, torsions : factors of hidden features: of each layer's gates and of the read-out (batch or 1, bead, width of the hidden
        layer), and of each hidden layer of the local term (batch or 1, group, width of the hidden layer)
    """

    bead: Tensor
    pair: Tensor
    torsion: Tensor
    molecule: Tensor
    gates: tuple[Tensor, ...]
    read_out: Tensor
    torsions: tuple[Tensor, ...]


class MoleculeEncoder(nn.Module):
    """Types of all beads and time -> features; zero before training.

    Parameters
    ----------
    scalars, radial_width : sizes of the features that are added to, `scalars` also of the inputs
    torsion_widths : of the hidden layers of the local term
    gate_width, layers : hidden features of the gates of each layer, and number of layers
    width : of the perceptrons
    torsion_beads : (group, torsion) a bead of each torsion
    n_beads : number of beads
    """

    torsion_mean: Tensor

    def __init__(
        self,
        scalars: int,
        radial_width: int,
        torsion_widths: tuple[int, ...],
        gate_width: int,
        layers: int,
        width: int,
        torsion_beads: Tensor,
        n_beads: int,
    ) -> None:
        super().__init__()
        self.bead_splits, self.torsion_splits = [*[gate_width] * layers, scalars], list(torsion_widths)
        # as a matrix: gathers would cost scatters in the gradient
        mean = torch.nn.functional.one_hot(torsion_beads, n_beads).float().mean(1).T if len(torsion_beads) else torch.zeros(n_beads, 0)
        self.register_buffer("torsion_mean", mean, persistent=False)
        self.own = nn.Sequential(nn.Linear(scalars, width), nn.SiLU(), nn.Linear(width, width))
        self.mix = nn.Sequential(nn.Linear(2 * width + scalars, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.bead = nn.Linear(width, scalars)
        # pairs are many: what is done to them is narrow
        self.pair_sum = nn.Linear(width, radial_width)
        self.pair_factor = nn.Linear(width, _PRODUCTS)
        self.pair_product = nn.Linear(_PRODUCTS, radial_width)
        self.torsion = nn.Linear(width, torsion_widths[0])
        self.molecule = nn.Linear(width, scalars)
        self.bead_factor = nn.Linear(width, sum(self.bead_splits))
        self.torsion_factor = nn.Linear(width, sum(torsion_widths))
        for layer in (
            self.bead, self.pair_sum, self.pair_product, self.torsion, self.molecule, self.bead_factor, self.torsion_factor,
        ):  # fmt: skip
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, kind: Tensor, mask: Tensor, time: Tensor, table: PairTable) -> Encoding:
        """Encode molecules.

        Parameters
        ----------
        kind : (batch or 1, bead, scalars) embedded types
        mask : (batch or 1, bead)
        time : (batch or 1, scalars)
        table : of pairs
        """
        own = self.own(kind) * mask[..., None]
        molecule = own.sum(1, keepdim=True) / mask.sum(1)[:, None, None]
        size = max(len(kind), len(time)), kind.shape[1], -1
        h = self.mix(torch.cat([own.expand(size), molecule.expand(size), time[:, None].expand(size)], -1))
        term, factor = self.pair_sum(h), self.pair_factor(h)
        product = self.pair_product(factor[:, None] * partners(factor, table))
        whole = (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        groups = (h.transpose(1, 2) @ self.torsion_mean).transpose(1, 2)
        *gates, read_out = (1 + self.bead_factor(h)).split(self.bead_splits, -1)
        return Encoding(
            self.bead(h),
            term[:, None] + partners(term, table) + product,
            self.torsion(groups),
            self.molecule(whole),
            tuple(gates),
            read_out,
            (1 + self.torsion_factor(groups)).split(self.torsion_splits, -1),
        )
