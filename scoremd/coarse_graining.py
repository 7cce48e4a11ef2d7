"""From the topology of all atoms and a choice of them to a molecule: its beads, the bonds between them, and the torsions to learn."""

import re
from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import mdtraj
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from scoremd.ensemble import Bead
from scoremd.errors import ScoreMDError
from scoremd.system import NAME, BeadSite, System
from scoremd.yaml_files import first_fault

#: Two beads are bonded if so many bonds lead from one to the other over atoms that are left out: three from one C-alpha to the next.
_LONGEST_BOND = 3


def select_beads(topology: mdtraj.Topology, selection: str) -> NDArray[np.int64]:
    """Indices of the atoms that a selection in mdtraj's language chooses, rising.

    Raises
    ------
    ScoreMDError
        If the selection cannot be understood, or chooses fewer than two atoms.
    """
    try:
        chosen = np.asarray(topology.select(selection), np.int64)
    except Exception as error:  # noqa: BLE001  mdtraj's parser raises whatever its parts do
        raise ScoreMDError(f"select {selection!r} is not a selection of mdtraj's language ({' '.join(str(error).split())[:100]})") from None
    if len(chosen) < 2:
        names = " ".join(sorted({atom.name for atom in topology.atoms})[:20])
        raise ScoreMDError(f"select {selection!r} chooses {len(chosen)} of {topology.n_atoms} atoms; two are needed (their names: {names})")
    return chosen


def molecule_of(
    name: str,
    topology: mdtraj.Topology,
    beads: Sequence[int],
    temperature: float,
    masses: Sequence[float] = (),
) -> System:
    """A system of its own, whose beads are some atoms of a topology.

    Bonds join beads that are bonded, or were it but for atoms that are left out. Each bond between two others has one torsion: of a C-alpha
    model those of four consecutive beads. The collective variables are phi and psi of the middlemost residue that has both, where the beads
    have such torsions.

    Parameters
    ----------
    name : of the system
    topology : of the atoms
    beads : (bead,) atom indices, rising
    temperature : K
    masses : (bead,) Da, where they are not those of the atoms

    Raises
    ------
    ScoreMDError
        If the name cannot be one, an atom has no element, two have one name in one residue, or the beads do not hang together.
    """
    if not re.fullmatch(NAME, name):
        raise ScoreMDError(f"{name!r} cannot be the name of a molecule: letters, digits, dots, dashes and underscores can")
    atoms = [topology.atom(int(k)) for k in beads]
    for atom in atoms:
        if atom.element is None or atom.element.symbol == "VS":
            raise ScoreMDError(f"atom {atom} of the topology has no element; select others, or mend the topology")
    residues = list(dict.fromkeys(atom.residue.index for atom in atoms))
    sites = [BeadSite(name=atom.name, residue=residues.index(atom.residue.index), element=atom.element.symbol) for atom in atoms]
    bonds = bonds_between(topology, beads)
    torsions = torsions_of(len(sites), bonds)
    try:
        system = System(
            kind="molecule",
            name=name,
            title=f"{name}, {len(sites)} beads",
            description=f"{len(sites)} of {topology.n_atoms} atoms of {len(residues)} residues.",
            temperature=temperature,
            residues=tuple(topology.residue(k).name for k in residues),
            beads=tuple(sites),
            bead_masses=tuple(masses),
            bonds=tuple(bonds),
            torsions=tuple(torsions),
            collective_variables=_phi_psi(
                [Bead(a.name, a.element.symbol, a.residue.name, s.residue) for a, s in zip(atoms, sites, strict=True)]
            ),
            protocol="A trajectory of one's own.",
            licence="That of the trajectory.",
            origin="Made by scoremd from a trajectory.",
        )
    except ValidationError as error:
        raise ScoreMDError(f"the beads make no system: {first_fault(error)}") from None
    if not bonds or len(system.topology().find_molecules()) > 1:
        raise ScoreMDError(
            f"the {len(sites)} beads do not hang together by bonds: they must be of one molecule, whose bonds the topology must have"
        )
    return system


def bonds_between(topology: mdtraj.Topology, beads: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of beads, by their places in `beads`, that at most `_LONGEST_BOND` bonds join over atoms that are no beads.

    A topology without bonds gets those that mdtraj knows for its residues; if there are none, because all atoms of a residue but one were
    left out before, beads that follow each other in one chain are taken for bonded.
    """
    if topology.n_bonds == 0:
        topology = topology.copy()
        topology.create_standard_bonds()
    places = {int(atom): k for k, atom in enumerate(beads)}
    partners: dict[int, list[int]] = {atom.index: [] for atom in topology.atoms}
    for a, b in topology.bonds:
        partners[a.index].append(b.index)
        partners[b.index].append(a.index)
    found = set()
    for start, place in places.items():
        queue, seen = deque([(start, 0)]), {start}
        while queue:
            atom, length = queue.popleft()
            for other in partners[atom]:
                if other in seen:
                    continue
                seen.add(other)
                if other in places:
                    found.add((min(place, places[other]), max(place, places[other])))
                elif length + 1 < _LONGEST_BOND:
                    queue.append((other, length + 1))
    if topology.n_bonds == 0:
        atoms = [topology.atom(int(k)) for k in beads]
        found = {(k, k + 1) for k, (a, b) in enumerate(pairwise(atoms)) if a.residue.chain.index == b.residue.chain.index}
    return sorted(found)


def torsions_of(n_beads: int, bonds: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """One torsion around each bond that has neighbours on both sides: the one of the lowest indices."""
    partners: list[list[int]] = [[] for _ in range(n_beads)]
    for a, b in bonds:
        partners[a].append(b)
        partners[b].append(a)
    found = []
    for b, c in sorted(bonds):
        ends = [(a, d) for a in sorted(partners[b]) for d in sorted(partners[c]) if len({a, b, c, d}) == 4]
        if ends:
            found.append((ends[0][0], b, c, ends[0][1]))
    return found


def _phi_psi(beads: Sequence[Bead]) -> dict[str, tuple[int, int, int, int]]:
    place = {(bead.residue_index, bead.name): k for k, bead in enumerate(beads)}
    last = max(bead.residue_index for bead in beads)
    both = []
    for residue in range(last + 1):
        wanted = [(residue - 1, "C"), (residue, "N"), (residue, "CA"), (residue, "C"), (residue + 1, "N")]
        found = [place[key] for key in wanted if key in place]
        if len(found) == len(wanted):
            both.append(found)
    if not both:
        return {}
    c, n, ca, c2, n2 = both[len(both) // 2]
    return {"phi": (c, n, ca, c2), "psi": (n, ca, c2, n2)}
