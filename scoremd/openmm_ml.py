"""Models as a potential of openmm-ml (github.com/openmm/openmm-ml), by its entry points: `MLPotential("scoremd")`.

    potential = MLPotential("scoremd")
    system = potential.createSystem(topology, temperature=300 * unit.kelvin)

The topology is that of the beads, in their order; which molecule it is follows from its residues. An interpolation with a conventional
force field (`createMixedSystem`) acts on the beads of a System of beads, too: a potential of mean force knows of no other atoms.
"""

from collections.abc import Iterable

import openmm
from openmm import app, unit
from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

from scoremd.errors import ScoreMDError
from scoremd.family import Family
from scoremd.force_field import ForceField, model_for
from scoremd.molecules import require_beads
from scoremd.openmm import add_force
from scoremd.systems import System, ToySystem, list_systems


class ScoreMDPotentialFactory(MLPotentialImplFactory):
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


class ScoreMDPotential(MLPotentialImpl):
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
        chosen = list(range(topology.getNumAtoms()) if atoms is None else atoms)
        molecule = molecule_of(topology, chosen)
        force_field = self._force_field or ForceField.load(model_for(molecule))
        add_force(system, force_field, molecule, chosen, temperature=temperature, force_group=forceGroup)


def molecule_of(topology: app.Topology, particles: list[int]) -> System:
    """The system whose beads these particles of a topology are, by the names of their residues and atoms.

    Raises
    ------
    ScoreMDError
        If there is none, or its beads have other names or another order.
    """
    atoms = list(topology.atoms())
    beads = [(atoms[k].name, atoms[k].residue.name) for k in particles]
    residues = tuple({atoms[k].residue.index: atoms[k].residue.name for k in particles}.values())
    for system in list_systems():
        if isinstance(system, ToySystem):
            continue
        found = _member(system, residues) if isinstance(system, Family) else system
        if found is not None and tuple(found.residues) == residues:
            require_beads(beads, found.topology(), "topology")
            return found
    raise ScoreMDError(f"no system has the residues {'-'.join(residues)}; scoremd list shows those that are known")


def _member(family: Family, residues: tuple[str, ...]) -> System | None:
    if len(residues) != family.length or not set(residues) <= set(family.residues.values()):
        return None
    return family.member(residues)
