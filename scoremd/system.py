"""What one system is: a molecule at one resolution, or a toy potential. `scoremd.systems` finds and reads their files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import mdtraj
import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from scoremd.data import Bead, Ensemble, read_ensemble, topology_of
from scoremd.errors import ScoreMDError

Pair = tuple[NonNegativeInt, NonNegativeInt]
Quadruple = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, NonNegativeInt]

#: What the name of a system may be.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
#: Standard atomic weights, Da, of the elements that shipped models are made of; mdtraj, which has the others, gives further digits.
_MASSES = {"C": 12.011, "N": 14.007, "O": 15.999, "S": 32.06}
#: What force fields call residues whose hydrogens they want to tell apart; heavy atoms are the same.
_SAME_RESIDUE = {"HID": "HIS", "HIE": "HIS", "HSD": "HIS", "HSE": "HIS", "HSP": "HIS", "HIP": "HIS", "CYX": "CYS"}


def standard_residue(name: str) -> str:
    """The Protein Data Bank's name of a residue that a force field may call otherwise (HIE is HIS)."""
    return _SAME_RESIDUE.get(name, name)


def mass_of(element: str) -> float:
    """Mass of an atom in Da; a ValueError if there is no such element."""
    if element in _MASSES:
        return _MASSES[element]
    try:
        mass = float(mdtraj.element.get_by_symbol(element).mass)
    except KeyError:
        mass = 0.0
    if not mass > 0:
        raise ValueError(f"{element!r} is not the symbol of an element, such as C")
    return mass


def check_indices(groups: Iterable[tuple[int, ...]], n_beads: int) -> None:
    """Raise a ValueError unless each group holds different indices of `n_beads` beads."""
    for group in groups:
        if max(group) >= n_beads or len(set(group)) != len(group):
            raise ValueError(f"{list(group)} must be different bead indices from 0 to {n_beads - 1}")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Named(_Model):
    """What every system has.

    Attributes
    ----------
    name, aliases
        What `load_system` finds it by, in any case.
    title, description
        One line and a paragraph for people.
    """

    name: str = Field(pattern=NAME)
    aliases: tuple[str, ...] = ()
    title: str
    description: str
    _folder: Path = PrivateAttr(default_factory=Path)


class Agreement(_Model):
    """Excess of the Jensen–Shannon divergence on (φ, ψ), nats, up to which two ensembles of a system are called the same.

    Attributes
    ----------
    samples, simulation : against the reference
    between : samples against simulation
    """

    samples: PositiveFloat = 0.002
    simulation: PositiveFloat = 0.004
    between: PositiveFloat = 0.004


class BeadSite(_Model):
    """Where a bead sits: the name of an atom and its residue's index from 0; the element where it is not the first letter of the name."""

    name: str = Field(pattern=r"^[A-Z0-9*'+-]{1,8}$")
    residue: NonNegativeInt
    element: str | None = None

    @model_validator(mode="after")
    def _check_element(self) -> Self:
        mass_of(self.symbol)
        return self

    @property
    def symbol(self) -> str:
        """The element's symbol."""
        return self.element or self.name[0]

    @model_serializer(mode="wrap")
    def _shortest(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The element is left out where the name says it: descriptions, and hashes of models, stay what they were."""
        return {key: value for key, value in handler(self).items() if key != "element" or value not in (None, self.name[0])}


class System(Named):
    """A molecule at one resolution.

    Attributes
    ----------
    temperature
        K.
    residues
        Their names in order, caps included.
    beads
        The atoms that are kept, in the order of every array of the model.
    bead_masses
        Da, of each bead; if there are none, those of its atoms.
    bonds, torsions
        Pairs and quadruples of bead indices.
    collective_variables
        Torsions to look at, by name: quadruples of bead indices.
    achiral
        Whether a configuration and its mirror image have the same energy.
    agreement
        What is good enough for reports.
    family
        Name of the family that it is a member of, or None.
    reference
        Name of the reference ensemble's file, beside the YAML file; None if there is none.
    native
        Position of each bead in the native structure, nm, if there is one.
    protocol, licence, origin
        How the reference was made, what one may do with it, where it comes from.
    """

    kind: Literal["molecule"]
    temperature: PositiveFloat
    residues: tuple[str, ...] = Field(min_length=1)
    beads: tuple[BeadSite, ...] = Field(min_length=2)
    bead_masses: tuple[PositiveFloat, ...] = ()
    bonds: tuple[Pair, ...]
    torsions: tuple[Quadruple, ...] = ()
    collective_variables: dict[str, Quadruple] = {}
    achiral: bool = False
    agreement: Agreement = Agreement()
    family: str | None = None
    reference: str | None = Field(default=None, pattern=r"^[^/\\]+$")
    native: tuple[tuple[float, float, float], ...] = ()
    protocol: str
    licence: str
    origin: str

    @model_validator(mode="after")
    def _check_indices(self) -> Self:
        for bead in self.beads:
            if bead.residue >= len(self.residues):
                raise ValueError(f"bead {bead.name} is in residue {bead.residue}, but there are {len(self.residues)}")
        check_indices([*self.bonds, *self.torsions, *self.collective_variables.values()], len(self.beads))
        if self.bead_masses and len(self.bead_masses) != len(self.beads):
            raise ValueError(f"bead_masses must be one for each of {len(self.beads)} beads, not {len(self.bead_masses)}")
        if self.native and len(self.native) != len(self.beads):
            raise ValueError(f"native must be one position for each of {len(self.beads)} beads, not {len(self.native)}")
        self.topology()  # raises if a bead comes twice or residues are out of order
        return self

    @property
    def atoms(self) -> tuple[Bead, ...]:
        """The beads as atoms."""
        return tuple(Bead(b.name, b.symbol, self.residues[b.residue], b.residue) for b in self.beads)

    @property
    def masses(self) -> NDArray[np.float64]:
        """(bead,), Da: a bead has the mass of its atom unless the system gives another."""
        return np.array(self.bead_masses or [mass_of(bead.symbol) for bead in self.beads])

    def topology(self) -> mdtraj.Topology:
        """The beads and their bonds."""
        return topology_of(self.atoms, self.bonds)

    def bead_indices(self, ensemble: Ensemble) -> list[int]:
        """Which atom of an ensemble of this molecule each bead is.

        Parameters
        ----------
        ensemble
            Of all heavy atoms, or of any choice of atoms that contains the beads.

        Returns
        -------
        An atom index per bead.

        Raises
        ------
        ScoreMDError
            If the ensemble is of another molecule, or a bead's atom is not in it.
        """
        places = {(a.name, standard_residue(a.residue_name), a.residue_index): i for i, a in enumerate(ensemble.atoms)}
        found = [places.get((b.name, standard_residue(b.residue_name), b.residue_index)) for b in self.atoms]
        residues = {atom.residue_index: atom.residue_name for atom in ensemble.atoms}
        sequence = tuple(residues[index] for index in sorted(residues))
        missing = [str(bead) for bead, index in zip(self.atoms, found, strict=True) if index is None]
        if missing or [*map(standard_residue, sequence)] != [*map(standard_residue, self.residues)]:
            lacks = f" (bead {missing[0]} is missing)" if missing else ""
            raise ScoreMDError(
                f"{ensemble.name} is not {self.name}: its residues are {'-'.join(sequence)},"
                f" where {'-'.join(self.residues)} is needed{lacks}",
            )
        return [index for index in found if index is not None]

    def reference_ensemble(self) -> Ensemble | None:
        """The reference reduced to the beads, in their order; None if the system has none.

        Raises
        ------
        ScoreMDError
            If the file cannot be read or is of another molecule or temperature.
        """
        if self.reference is None:
            return None
        return self.beads_of(read_ensemble(self._folder / self.reference))

    def beads_of(self, ensemble: Ensemble) -> Ensemble:
        """An ensemble of this molecule reduced to the beads, in their order.

        Raises
        ------
        ScoreMDError
            If it is of another molecule or temperature.
        """
        indices = self.bead_indices(ensemble)
        if not np.isclose(ensemble.temperature, self.temperature):
            raise ScoreMDError(f"ensemble {ensemble.name}: at {ensemble.temperature} K, but {self.name} is at {self.temperature} K")
        return ensemble.beads(indices)


class ToySystem(Named):
    """A potential in few dimensions whose exact answers are known; units are arbitrary but consistent.

    Attributes
    ----------
    potential
        Which formula.
    parameters
        Its numbers: `barrier`; or `weights`, `means`, `variance`; or `A`, `a`, `b`, `c`, `x0`, `y0`.
    dimension
        Of the space.
    thermal_energy
        kT.
    mass, friction, time_step
        For Langevin dynamics; friction is a rate.
    """

    _PARAMETERS: ClassVar[dict[str, set[str]]] = {
        "double-well": {"barrier"},
        "gaussian-mixture": {"weights", "means", "variance"},
        "mueller-brown": {"A", "a", "b", "c", "x0", "y0"},
    }

    kind: Literal["toy"]
    potential: Literal["double-well", "gaussian-mixture", "mueller-brown"]
    parameters: dict[str, float | tuple[float, ...] | tuple[tuple[float, ...], ...]]
    dimension: int = Field(ge=1)
    thermal_energy: PositiveFloat
    mass: PositiveFloat
    friction: PositiveFloat
    time_step: PositiveFloat

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        needed = self._PARAMETERS[self.potential]
        if set(self.parameters) != needed:
            raise ValueError(f"{self.potential} needs the parameters {', '.join(sorted(needed))} and no others")
        return self
