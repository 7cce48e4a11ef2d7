"""Models as a potential of openmm-ml (github.com/openmm/openmm-ml), by its entry points: `MLPotential("scoremd")`.

    potential = MLPotential("scoremd")
    system = potential.createSystem(topology, temperature=300 * unit.kelvin)

The topology is that of the beads, in their order; which molecule it is follows from its residues. `createMixedSystem`, with interpolation
or without, is for a System of beads as well, with others beside them: a potential of mean force knows of no atoms that are not its beads.
"""

from collections.abc import Iterable
from functools import partial

import openmm
from openmm import app, unit
from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

from scoremd.errors import ScoreMDError
from scoremd.family import Family
from scoremd.force_field import ForceField, model_for
from scoremd.molecules import bead_names, require_beads
from scoremd.openmm import create_force
from scoremd.systems import Described, System, list_systems


class ScoreMDPotentialFactory(MLPotentialImplFactory):  # type: ignore[misc]  # without types
    """Makes the potential of `MLPotential("scoremd", model=None)`."""

    def createImpl(self, name: str, model: str | None = None) -> "ScoreMDPotential":  # noqa: ARG002, N802  openmm-ml's names
        """The potential.

        Parameters
        ----------
        name : "scoremd"
        model : name or folder of a model; by default the one that covers the molecule

        Raises
        ------
        ScoreMDError
            If there is no such model.
        """
        return ScoreMDPotential(None if model is None else ForceField.load(model))


class ScoreMDPotential(MLPotentialImpl):  # type: ignore[misc]  # without types
    """A model's force, added to the Systems that openmm-ml makes.

    Parameters
    ----------
    force_field : the model; None for the one that covers the molecule
    """

    def __init__(self, force_field: ForceField | None) -> None:
        self._force_field = force_field

    def addForces(  # noqa: N802
        self,
        topology: app.Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        temperature: "float | unit.Quantity | None" = None,
    ) -> None:
        """Add the force.

        Parameters
        ----------
        topology, system : of the beads, and whatever particles are beside them
        atoms : which of them the beads are, in their order; None for all
        forceGroup : of the force
        temperature : of the dynamics, K or with its unit; another than the model's is refused, None leaves it unchecked

        Raises
        ------
        ScoreMDError
            If the beads are of no molecule that is known, or the topology is periodic; and as `scoremd.openmm.add_force`.
        """
        if topology.getPeriodicBoxVectors() is not None:
            raise ScoreMDError("the topology has a periodic box, in which a ScoreMD force cannot be; topology.setPeriodicBoxVectors(None)")
        n = topology.getNumAtoms()
        chosen = list(range(n) if atoms is None else atoms)
        if not all(0 <= k < n for k in chosen):
            raise ScoreMDError(f"atoms must be numbers from 0 to {n - 1} of the topology, not {chosen}")
        molecule, force_field = _molecule_and_model(topology, chosen, self._force_field)
        # openmm-ml asks for the terms of an interpolation by an empty System
        known = system if system.getNumParticles() else _particles_of(topology)
        system.addForce(create_force(known, force_field, molecule, chosen, temperature=temperature, force_group=forceGroup))


def _particles_of(topology: app.Topology) -> openmm.System:
    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(0 if atom.element is None else atom.element.mass)
    return system


def _molecule_and_model(topology: app.Topology, particles: list[int], model: ForceField | None) -> tuple[System, ForceField]:
    """The system whose beads these particles of a topology are, by the names of their residues and atoms, and a model that covers it.

    Raises
    ------
    ScoreMDError
        If there is none, or its beads have other names or another order.
    """
    atoms = list(topology.atoms())
    beads = [(atoms[k].name, atoms[k].residue.name) for k in particles]
    residues = tuple({atoms[k].residue.index: atoms[k].residue.name for k in particles}.values())
    found = [system for system in map(partial(_with_residues, residues=residues), list_systems()) if system is not None]
    if not found:
        raise ScoreMDError(f"no system has the residues {'-'.join(residues)}; scoremd list shows those that are known")
    same = [system for system in found if bead_names(system.topology()) == beads]
    if not same:
        require_beads(beads, found[0].topology(), "topology")
    if model is None:
        return same[0], ForceField.load(model_for(same[0]))
    # that the model covers none of them is for the model to say
    return next((system for system in same if model.description.covers(system)), same[0]), model


def _with_residues(system: Described, residues: tuple[str, ...]) -> System | None:
    """The system, or the member of a family, that has these residues."""
    if isinstance(system, Family):
        known = len(residues) == system.length and set(residues) <= set(system.residues.values())
        return system.member(residues) if known else None
    return system if isinstance(system, System) and tuple(system.residues) == residues else None
