"""Equilibrium ensembles of one molecule in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import mdtraj
import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoremd.errors import ScoreMDError
from scoremd.forces import aggregate_forces, check_bead_indices


@dataclass(frozen=True)
class Bead:
    """A particle of the model: an atom that is kept."""

    name: str
    element: str
    residue_name: str
    #: From 0 along the chain.
    residue_index: int

    def __str__(self) -> str:
        return f"{self.name} of residue {self.residue_index + 1} ({self.residue_name})"


@dataclass(eq=False)
class Ensemble:
    """Frames of one molecule in equilibrium; a ScoreMDError if shapes disagree or values are not finite.

    Attributes
    ----------
    name
        Of the molecule.
    temperature
        K.
    atoms
        One entry per particle.
    positions
        (frame, atom, 3), nm, float32.
    forces
        (frame, atom, 3), kJ/mol/nm, float32, or None.
    walker
        (frame,), the independent trajectory that a frame comes from, or None.
    potential_energy
        (frame,), kJ/mol, float32, or None.
    """

    name: str
    temperature: float
    atoms: tuple[Bead, ...]
    positions: NDArray[np.float32]
    forces: NDArray[np.float32] | None = None
    walker: NDArray[np.int64] | None = None
    potential_energy: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        self.atoms = tuple(self.atoms)
        _check_atoms(self.atoms)
        self.positions = np.asarray(self.positions, np.float32)
        if self.positions.ndim != 3 or self.positions.shape[1:] != (len(self.atoms), 3):
            raise ScoreMDError(
                f"positions have shape {self.positions.shape}; (frame, {len(self.atoms)}, 3) is needed for {len(self.atoms)} atoms",
            )
        if self.positions.size == 0:
            raise ScoreMDError("there are no frames or no atoms in it")
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise ScoreMDError(f"the temperature must be a positive number of kelvin, not {self.temperature}")
        self._check_finite("positions", self.positions)
        if self.forces is not None:
            self.forces = self._per_frame("forces", self.forces, np.float32, self.positions.shape)
        if self.walker is not None:
            self.walker = self._per_frame("walker", self.walker, np.int64, (self.n_frames,))
        if self.potential_energy is not None:
            shape = (self.n_frames,)
            self.potential_energy = self._per_frame("potential_energy", self.potential_energy, np.float32, shape)

    def _per_frame(self, what: str, values: ArrayLike, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        array = np.asarray(values)
        if array.shape != shape:
            raise ScoreMDError(f"{what} has shape {array.shape}; {shape} is needed to match the positions")
        self._check_finite(what, array)
        return array.astype(dtype, copy=False)

    @staticmethod
    def _check_finite(what: str, array: NDArray[Any]) -> None:
        finite = np.isfinite(array)
        if not finite.all():
            frame = int(np.argmin(finite.reshape(len(array), -1).all(axis=1)))
            raise ScoreMDError(f"{what} holds values that are not finite (NaN or infinite), first in frame {frame}")

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.positions)

    def topology(self, bonds: Sequence[tuple[int, int]] | None = None) -> mdtraj.Topology:
        """One chain of the atoms; see `topology_of`."""
        return topology_of(self.atoms, bonds)

    def to_mdtraj(self, bonds: Sequence[tuple[int, int]] | None = None) -> mdtraj.Trajectory:
        """The frames as an mdtraj trajectory; its `time` counts frames, which may share a time in the simulation."""
        return mdtraj.Trajectory(self.positions, self.topology(bonds))

    def select(self, frames: ArrayLike | slice) -> "Ensemble":
        """The ensemble of these frames only: indices, a mask or a slice."""
        index: Any = frames if isinstance(frames, slice) else np.asarray(frames)
        return replace(
            self,
            positions=self.positions[index],
            forces=None if self.forces is None else self.forces[index],
            walker=None if self.walker is None else self.walker[index],
            potential_energy=None if self.potential_energy is None else self.potential_energy[index],
        )

    def beads(self, atom_indices: Sequence[int]) -> "Ensemble":
        """The ensemble reduced to these atoms, with the forces aggregated onto them (`aggregate_forces`)."""
        kept = check_bead_indices(atom_indices, len(self.atoms))
        forces = None if self.forces is None else aggregate_forces(self.forces, atom_indices)
        atoms = tuple(self.atoms[i] for i in kept)
        return replace(self, atoms=atoms, positions=self.positions[:, kept], forces=forces)


def _check_atoms(atoms: Sequence[Bead]) -> None:
    for atom, following in pairwise(atoms):
        if following.residue_index < atom.residue_index:
            raise ScoreMDError(f"atoms must be in the order of their residues, but {following} comes after {atom}")
    seen = set()
    for atom in atoms:
        if (atom.name, atom.residue_index) in seen:
            raise ScoreMDError(f"atom {atom} is given twice")
        seen.add((atom.name, atom.residue_index))


def topology_of(atoms: Sequence[Bead], bonds: Sequence[tuple[int, int]] | None = None) -> mdtraj.Topology:
    """An mdtraj topology of one chain.

    Parameters
    ----------
    atoms
        In order; residues are runs of equal `residue_index`.
    bonds
        Pairs of atom indices. None: the bonds that mdtraj knows for the residues' standard atoms.

    Raises
    ------
    ScoreMDError
        If an element is unknown, a bond names an atom that is not there, residues go
        backwards, or an atom comes twice.
    """
    _check_atoms(atoms)
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    residue = None
    for atom in atoms:
        if residue is None or residue.resSeq != atom.residue_index + 1:
            residue = topology.add_residue(atom.residue_name, chain, resSeq=atom.residue_index + 1)
        try:
            element = mdtraj.element.get_by_symbol(atom.element)
        except KeyError:
            raise ScoreMDError(f"{atom.element!r} of atom {atom} is not a chemical element") from None
        topology.add_atom(atom.name, element, residue)
    if bonds is None:
        topology.create_standard_bonds()
        return topology
    for first, second in bonds:
        if not (0 <= first < len(atoms) and 0 <= second < len(atoms) and first != second):
            raise ScoreMDError(f"the bond ({first}, {second}) must join two of the atoms 0 to {len(atoms) - 1}")
        topology.add_bond(topology.atom(first), topology.atom(second))
    return topology


def from_mdtraj(
    trajectory: mdtraj.Trajectory,
    name: str,
    temperature: float,
    forces: ArrayLike | None = None,
    walker: ArrayLike | None = None,
) -> Ensemble:
    """An ensemble of all atoms of a trajectory, each frame made whole and centred on the mean of its atoms.

    Parameters
    ----------
    trajectory
        Of one molecule (`trajectory.atom_slice` leaves solvent or hydrogens out); in a periodic box with its bonds.
    name, temperature
        Of the molecule; K.
    forces
        (frame, atom, 3), kJ/mol/nm, from a simulation without constrained bonds, or None.
    walker
        (frame,), the independent trajectory that a frame comes from, or None.

    Raises
    ------
    ScoreMDError
        If shapes disagree, a value is not finite, or a periodic trajectory has no bonds.
    """
    if trajectory.unitcell_lengths is not None and trajectory.n_atoms > 1:
        if trajectory.topology.n_bonds == 0:
            raise ScoreMDError("a trajectory in a periodic box needs bonds in its topology, to make molecules whole")
        trajectory = trajectory.make_molecules_whole(inplace=False)
    atoms = tuple(
        Bead(atom.name, "" if atom.element is None else atom.element.symbol, atom.residue.name, atom.residue.index)
        for atom in trajectory.topology.atoms
    )
    positions = trajectory.xyz - trajectory.xyz.mean(axis=1, keepdims=True)
    return Ensemble(name, float(temperature), atoms, positions, forces, walker)  # type: ignore[arg-type]
