"""Backbone atoms that a model leaves out, placed by ideal geometry: other tools want hydrogens on N and a terminal oxygen.

Lengths and angles are those of Engh and Huber (Acta Cryst. A 47, 392, 1991) for heavy atoms, 0.101 nm and tetrahedral or planar angles
for hydrogens.
"""

from collections.abc import Callable, Iterator

import mdtraj
import numpy as np
from mdtraj.core.topology import Atom, Residue
from numpy.typing import NDArray

from scoremd.errors import ScoreMDError

_N_H, _C_O, _C_OXT = 0.101, 0.1231, 0.125  # nm
_TETRAHEDRAL = np.deg2rad(109.5)

Positions = NDArray[np.float64]


def _unit(vector: Positions) -> Positions:
    return np.asarray(vector / np.linalg.norm(vector, axis=-1, keepdims=True))


def _opposite(centre: Positions, a: Positions, b: Positions, length: float) -> Positions:
    """The third substituent of a planar centre whose others are `a` and `b`."""
    return centre - length * _unit(_unit(a - centre) + _unit(b - centre))


def _turned(a: Positions, b: Positions, centre: Positions, torsion: float, length: float) -> Positions:
    """A tetrahedral substituent of `centre` at this torsion a-b-centre-substituent, radians."""
    axis = _unit(centre - b)
    normal = _unit(np.cross(b - a, axis))
    across = np.cos(torsion) * np.cross(normal, axis) + np.sin(torsion) * normal
    return np.asarray(centre + length * (-np.cos(_TETRAHEDRAL) * axis + np.sin(_TETRAHEDRAL) * across))


def add_backbone(traj: mdtraj.Trajectory) -> mdtraj.Trajectory:
    """Add the hydrogens of backbone nitrogens and the oxygens of backbone carbonyls where they are missing and can be placed.

    A nitrogen with a carbon before it gets H, none in proline; the first nitrogen of an uncapped chain three hydrogens, in proline two. A
    carbon with a nitrogen after it gets O; the last one, if it has O, gets OXT. Atoms whose neighbours are not there are left out.

    Parameters
    ----------
    traj : beads of one chain of residues with their Protein Data Bank names, nm

    Returns
    -------
    the frames with the atoms added, each after those of its residue, bonded

    Raises
    ------
    ScoreMDError
        If there is no residue with N, CA and C.
    """
    topology, columns, places = mdtraj.Topology(), [], {}
    chain = topology.add_chain()
    residues = list(traj.topology.residues)
    if not any({"N", "CA", "C"} <= {atom.name for atom in residue.atoms} for residue in residues):
        raise ScoreMDError("there is no residue with N, CA and C to add a backbone to")
    x = traj.xyz.astype(np.float64)
    for k, residue in enumerate(residues):
        new = topology.add_residue(residue.name, chain, residue.resSeq, residue.segment_id)
        for atom in residue.atoms:
            places[atom] = topology.add_atom(atom.name, atom.element, new)
            columns.append(x[:, atom.index])
        before, after = (residues[j] if 0 <= j < len(residues) else None for j in (k - 1, k + 1))
        for name, parent, position in _missing(residue, before, after, lambda atom: x[:, atom.index]):
            added = topology.add_atom(name, mdtraj.element.hydrogen if name[0] == "H" else mdtraj.element.oxygen, new)
            topology.add_bond(places[parent], added)
            columns.append(position)
    for a, b in traj.topology.bonds:
        topology.add_bond(places[a], places[b])
    positions = np.stack(columns, 1).astype(np.float32)
    return mdtraj.Trajectory(positions, topology, traj.time, traj.unitcell_lengths, traj.unitcell_angles)


def _missing(
    residue: Residue, before: Residue | None, after: Residue | None, at: Callable[[Atom], Positions]
) -> Iterator[tuple[str, Atom, Positions]]:
    """Name, bonded atom and positions (frame, 3) of what a residue lacks."""
    own = {atom.name: atom for atom in residue.atoms}
    earlier = {} if before is None else {atom.name: atom for atom in before.atoms}
    later = {} if after is None else {atom.name: atom for atom in after.atoms}
    proline = residue.name == "PRO"
    if {"N", "CA"} <= own.keys():
        n, ca = own["N"], own["CA"]
        if "C" in earlier and not proline:
            yield "H", n, _opposite(at(n), at(earlier["C"]), at(ca), _N_H)
        elif before is None and "C" in own and not proline:
            for j in range(3):
                yield f"H{j + 1}", n, _turned(at(own["C"]), at(ca), at(n), np.pi / 3 + 2 * np.pi / 3 * j, _N_H)
        elif before is None and {"C", "CB"} <= own.keys():
            # the ring is nearly flat: its carbon on N lies at torsion 0 from CB
            for j in (1, 2):
                yield f"H{j + 1}", n, _turned(at(own["CB"]), at(ca), at(n), 2 * np.pi / 3 * j, _N_H)
    if {"CA", "C"} <= own.keys():
        ca, c = own["CA"], own["C"]
        if "O" not in own and "N" in later:
            yield "O", c, _opposite(at(c), at(ca), at(later["N"]), _C_O)
        elif "O" in own and after is None and "OXT" not in own:
            yield "OXT", c, _opposite(at(c), at(ca), at(own["O"]), _C_OXT)
