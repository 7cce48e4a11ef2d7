"""Toy potentials whose exact answers are known: energies, forces, exact Boltzmann densities and exact samples.

A toy particle has positions (replica, 1, dimension), like a molecule with one bead, so that engines and networks take both.

Errors of the exact answers
---------------------------
Everything is computed in `Potential.box`, outside of which the energy is more than `CUT_OFF` kT above the minimum: the probability
that is left out is of the order of exp(-30), 1e-13. Cell probabilities are Gauss–Legendre sums within each cell, converged to 1e-10.
Samples come by rejection from a grid whose cells bound the density from above: they follow the density itself, not the grid's steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from scoremd.errors import ScoreMDError
from scoremd.systems import ToySystem

#: Energy in kT above the minimum from which on the density is neglected.
CUT_OFF = 30.0
#: Cells along each axis of the grid for samples, by dimension.
_CELLS = {1: 4096, 2: 768}
#: What is added to the rise of the density from a cell's centre to its corners to bound it everywhere in the cell, kT.
_MARGIN = 0.1


class Potential(ABC):
    """U(x) of a toy system; `toy_potential` makes the right one.

    Attributes
    ----------
    system
        Its description.
    """

    def __init__(self, system: ToySystem) -> None:
        self.system = system

    def _parameter(self, key: str, shape: tuple[int, ...]) -> Tensor:
        """A parameter as float64; -1 in `shape` stands for any length; ScoreMDError if the shape is another."""
        try:
            value = torch.tensor(self.system.parameters[key], dtype=torch.float64)
        except ValueError:  # rows of different length
            value = torch.empty(0, 0, 0)
        if value.ndim != len(shape) or any(n not in (-1, m) for n, m in zip(shape, value.shape, strict=True)):
            form = "a number" if not shape else "x".join("n" if n == -1 else str(n) for n in shape) + " numbers"
            raise ScoreMDError(f"{self.system.name}: {key} must be {form}")
        return value

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """U / kT at points (..., dimension), shape (...)."""

    @abstractmethod
    def search_region(self) -> NDArray[np.float64]:
        """(dimension, 2) ends of a region that certainly holds the density."""

    @cached_property
    def box(self) -> NDArray[np.float64]:
        """(dimension, 2) ends of the smallest region that holds all points less than `CUT_OFF` kT above the minimum."""
        region, cells = self.search_region(), 1024
        axes = [np.linspace(low, high, cells + 1) for low, high in region]
        energy = self.energy(torch.from_numpy(np.stack(np.meshgrid(*axes, indexing="ij"), -1))).numpy()
        inside = np.nonzero(energy < energy.min() + CUT_OFF)
        if any(i.min() == 0 or i.max() == cells for i in inside):
            raise ScoreMDError(f"{self.system.name}: its density reaches beyond {region.tolist()}")
        return np.array([[axis[i.min() - 1], axis[i.max() + 1]] for axis, i in zip(axes, inside, strict=True)])

    def force(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (replica,) and forces (replica, 1, dimension) in the system's units at `positions`, for the Langevin engine."""
        with torch.enable_grad():
            x = positions.detach().requires_grad_()
            energies = self.system.thermal_energy * self.energy(x[:, 0])
            (gradient,) = torch.autograd.grad(energies.sum(), x)
        return energies.detach(), -gradient

    def cell_probabilities(self, limits: ArrayLike, bins: int) -> NDArray[np.float64]:
        """Boltzmann probabilities of the cells of a regular grid, laid out as `scoremd.analysis.histograms.cell_index` numbers them.

        Parameters
        ----------
        limits
            (dimension, 2) ends of each axis.
        bins
            Cells along each axis.

        Returns
        -------
        (bins**dimension + 1,) row-major, the probability outside of the grid last; the sum is one.
        """
        cells = cell_integrals(self.energy, limits, bins)
        total = max(cell_integrals(self.energy, self.box, 128).sum(), cells.sum())
        return np.asarray(np.append(cells, total - cells.sum()) / total)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Independent exact samples, (n, 1, dimension) float64.

        A cell is drawn with the probability of its bound, a point in it uniformly, and accepted with density / bound. The bound is the
        density's largest value at the cell's corners and centre, with a margin; a point where the density were above it raises an error
        instead of biasing the samples.

        Raises
        ------
        ScoreMDError
            If n is negative, or the potential varies too fast for the grid.
        """
        if n < 0:
            raise ScoreMDError(f"the number of samples must not be negative, not {n}")
        accepted = [x := self._envelope.draw(n, generator)]
        found = len(x)
        while found < n:
            accepted.append(x := self._envelope.draw(n, generator))
            found += len(x)
        return torch.cat(accepted)[:n, None]

    @cached_property
    def _envelope(self) -> "_Envelope":
        return _Envelope(self)


class _Envelope:
    """Piecewise constant bound of a Boltzmann density."""

    def __init__(self, potential: Potential) -> None:
        cells, dimension = _CELLS[potential.system.dimension], potential.system.dimension
        self.energy = potential.energy
        self.low, high = torch.from_numpy(potential.box).unbind(1)
        self.width = (high - self.low) / cells
        index = _product(torch.arange(cells, dtype=torch.float64), dimension)
        centre = self.energy(self.low + (index + 0.5) * self.width)
        kept = centre < centre.min() + CUT_OFF
        self.corner, lowest = self.low + index[kept] * self.width, centre[kept]
        for side in _product(torch.tensor([0.0, 1.0], dtype=torch.float64), dimension):
            lowest = torch.minimum(lowest, self.energy(self.corner + side * self.width))
        self.lowest = lowest - _MARGIN
        self.cumulative = torch.softmax(-self.lowest, 0).cumsum(0)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """At most n points, (accepted, dimension)."""
        uniform = torch.rand(n, dtype=torch.float64, generator=generator) * self.cumulative[-1]
        cell = torch.searchsorted(self.cumulative, uniform)
        place = torch.rand(n, len(self.low), dtype=torch.float64, generator=generator)
        x = self.corner[cell] + place * self.width
        log_ratio = self.lowest[cell] - self.energy(x)
        if (log_ratio > 0).any():
            raise ScoreMDError("the potential varies too fast for the grid that samples are drawn from")
        return x[torch.rand(n, dtype=torch.float64, generator=generator).log() < log_ratio]


def _product(axis: Tensor, dimension: int) -> Tensor:
    """All points with coordinates from `axis`, (len(axis)**dimension, dimension)."""
    return torch.cartesian_prod(*[axis] * dimension).reshape(-1, dimension)


def cell_integrals(energy: Callable[[Tensor], Tensor], limits: ArrayLike, bins: int, order: int = 6) -> NDArray[np.float64]:
    """Integrals of exp(-energy) over the cells of a regular grid by Gauss–Legendre sums, (bins**dimension,), row-major.

    Parameters
    ----------
    energy
        In kT, maps points (..., dimension) to (...).
    limits
        (dimension, 2) ends of each axis.
    bins
        Cells along each axis.
    order
        Nodes along each axis of a cell.
    """
    nodes, weights = np.polynomial.legendre.leggauss(order)
    low, high = np.asarray(limits, dtype=np.float64).T
    width = (high - low) / bins
    place = (np.arange(bins)[:, None] + 0.5 + 0.5 * nodes).ravel()
    axes = [a + w * place for a, w in zip(low, width, strict=True)]
    density = torch.exp(-energy(torch.from_numpy(np.stack(np.meshgrid(*axes, indexing="ij"), -1)))).numpy()
    for k, w in enumerate(width):
        shape = (*density.shape[:k], bins, order, *density.shape[k + 1 :])
        density = np.tensordot(density.reshape(shape), 0.5 * w * weights, axes=(k + 1, 0))
    return density.ravel()


class DoubleWell(Potential):
    """U = barrier (x^2 - 1)^2 in one dimension."""

    def __init__(self, system: ToySystem) -> None:
        super().__init__(system)
        self.height = float(self._parameter("barrier", ())) / system.thermal_energy

    def energy(self, x: Tensor) -> Tensor:
        """U / kT."""
        return (self.height * (x**2 - 1) ** 2).sum(-1)

    def search_region(self) -> NDArray[np.float64]:
        """Three times as far as where the quartic wall reaches the cut-off."""
        return np.asarray(3 * np.sqrt(1 + np.sqrt(CUT_OFF / self.height)) * np.array([[-1.0, 1.0]]))


class GaussianMixturePotential(Potential):
    """U = -kT ln sum_k w_k exp(-|x - m_k|^2 / 2 v): the density is the mixture at every kT."""

    def __init__(self, system: ToySystem) -> None:
        super().__init__(system)
        self.variance = float(self._parameter("variance", ()))
        self.weights = self._parameter("weights", (-1,))
        self.means = self._parameter("means", (len(self.weights), system.dimension))

    def energy(self, x: Tensor) -> Tensor:
        """U / kT."""
        distance = ((x[..., None, :] - self.means.to(x)) ** 2).sum(-1)
        return -torch.logsumexp(self.weights.to(x).log() - 0.5 * distance / self.variance, -1)

    def search_region(self) -> NDArray[np.float64]:
        """Twelve standard deviations around the means."""
        means, reach = self.means.numpy(), 12 * self.variance**0.5
        return np.stack([means.min(0) - reach, means.max(0) + reach], -1)


class MuellerBrown(Potential):
    """U = sum_k A_k exp(a_k dx^2 + b_k dx dy + c_k dy^2) with dx = x - x0_k, dy = y - y0_k."""

    def __init__(self, system: ToySystem) -> None:
        super().__init__(system)
        terms = (len(self._parameter("A", (-1,))),)
        self.terms = torch.stack([self._parameter(key, terms) for key in ("A", "a", "b", "c", "x0", "y0")])

    def energy(self, x: Tensor) -> Tensor:
        """U / kT."""
        A, a, b, c, x0, y0 = self.terms.to(x)
        dx, dy = x[..., 0, None] - x0, x[..., 1, None] - y0
        total: Tensor = (A * torch.exp(a * dx**2 + b * dx * dy + c * dy**2)).sum(-1)
        return total / self.system.thermal_energy

    def search_region(self) -> NDArray[np.float64]:
        """Where the three wells are, with much room."""
        return np.array([[-4.5, 3.0], [-3.0, 4.5]])


_POTENTIALS: dict[str, type[Potential]] = {
    "double-well": DoubleWell,
    "gaussian-mixture": GaussianMixturePotential,
    "mueller-brown": MuellerBrown,
}


def toy_potential(system: ToySystem) -> Potential:
    """The potential that a toy system's file describes."""
    return _POTENTIALS[system.potential](system)
