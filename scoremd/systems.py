"""What is modelled: molecules and toy potentials, described by YAML files that hold data and no logic.

A file describes one system. `kind: molecule` gives a `System`, `kind: toy` a `ToySystem`; the fields of these classes
are the keys of the file, and no other key is allowed. `scoremd.resources.folders` says where files are looked for.
"""

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import mdtraj
import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from scoremd import resources
from scoremd.data import Bead, Ensemble, read_ensemble, topology_of
from scoremd.errors import ScoreMDError
from scoremd.resources import Search

Pair = tuple[NonNegativeInt, NonNegativeInt]
Quadruple = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, NonNegativeInt]

#: Standard atomic weights of the elements that beads are made of, Da.
_MASSES = {"C": 12.011, "N": 14.007, "O": 15.999, "S": 32.06}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Named(_Model):
    """What every system has.

    Attributes
    ----------
    name, aliases
        What `load_system` finds it by, in any case.
    title, description
        One line and a paragraph for people.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    aliases: tuple[str, ...] = ()
    title: str
    description: str
    _folder: Path = PrivateAttr(default_factory=Path)


class BeadSite(_Model):
    """Where a bead sits: the name of an atom and its residue's index from 0."""

    name: str = Field(pattern=r"^[CNOS][A-Z0-9]*$")
    residue: NonNegativeInt


class System(_Named):
    """A molecule at one resolution.

    Attributes
    ----------
    temperature
        K.
    residues
        Their names in order, caps included.
    beads
        The atoms that are kept, in the order of every array of the model.
    bonds, torsions
        Pairs and quadruples of bead indices.
    collective_variables
        Torsions to look at, by name: quadruples of bead indices.
    achiral
        Whether a configuration and its mirror image have the same energy.
    reference
        Name of the reference ensemble's file, beside the YAML file; None if there is none.
    protocol, licence, origin
        How the reference was made, what one may do with it, where it comes from.
    """

    kind: Literal["molecule"]
    temperature: PositiveFloat
    residues: tuple[str, ...] = Field(min_length=1)
    beads: tuple[BeadSite, ...] = Field(min_length=2)
    bonds: tuple[Pair, ...]
    torsions: tuple[Quadruple, ...] = ()
    collective_variables: dict[str, Quadruple] = {}
    achiral: bool = False
    reference: str | None = Field(default=None, pattern=r"^[^/\\]+$")
    protocol: str
    licence: str
    origin: str

    @model_validator(mode="after")
    def _check_indices(self) -> Self:
        for bead in self.beads:
            if bead.residue >= len(self.residues):
                raise ValueError(f"bead {bead.name} is in residue {bead.residue}, but there are {len(self.residues)}")
        groups = [*self.bonds, *self.torsions, *self.collective_variables.values()]
        for group in groups:
            if max(group) >= len(self.beads) or len(set(group)) != len(group):
                raise ValueError(f"{list(group)} must be different bead indices from 0 to {len(self.beads) - 1}")
        self.topology()  # raises if a bead comes twice or residues are out of order
        return self

    @property
    def atoms(self) -> tuple[Bead, ...]:
        """The beads as atoms."""
        return tuple(Bead(b.name, b.name[0], self.residues[b.residue], b.residue) for b in self.beads)

    @property
    def masses(self) -> NDArray[np.float64]:
        """(bead,), Da: a bead has the mass of its atom."""
        return np.array([_MASSES[atom.element] for atom in self.atoms])

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
        places = {(a.name, a.residue_name, a.residue_index): i for i, a in enumerate(ensemble.atoms)}
        found = [places.get((b.name, b.residue_name, b.residue_index)) for b in self.atoms]
        residues = {atom.residue_index: atom.residue_name for atom in ensemble.atoms}
        sequence = tuple(residues[index] for index in sorted(residues))
        missing = [str(bead) for bead, index in zip(self.atoms, found, strict=True) if index is None]
        if missing or sequence != self.residues:
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


class ToySystem(_Named):
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


_ADAPTER: TypeAdapter[System | ToySystem] = TypeAdapter(Annotated[System | ToySystem, Field(discriminator="kind")])


def list_systems(search: Search = ()) -> list[System | ToySystem]:
    """All systems that can be found, sorted by name; of two with one name the first in the order of folders.

    Parameters
    ----------
    search
        The user's folder or folders, looked through first.

    Raises
    ------
    ScoreMDError
        If a folder is missing, or a file in one is not a valid system.
    """
    systems = _by_precedence(search)
    return [systems[name] for name in sorted(systems)]


def _by_precedence(search: Search) -> dict[str, System | ToySystem]:
    found: dict[str, System | ToySystem] = {}
    for folder in resources.folders("systems", search):
        for path in sorted(folder.glob("*.yaml")):
            system = read_system(path)
            found.setdefault(system.name.lower(), system)
    return found


def load_system(name: str, search: Search = ()) -> System:
    """The molecule of this name or alias, in any case.

    Parameters
    ----------
    name
        Such as "alanine-dipeptide" or "ALDP".
    search
        The user's folder or folders, looked through first.

    Raises
    ------
    ScoreMDError
        If there is none of that name (the message lists those that are known), or it is a toy potential.
    """
    system = _find(name, search)
    if not isinstance(system, System):
        raise ScoreMDError(f"{system.name} is a toy potential, where a molecule is needed")
    return system


def load_toy(name: str, search: Search = ()) -> ToySystem:
    """The toy potential of this name or alias, in any case; otherwise as `load_system`."""
    system = _find(name, search)
    if not isinstance(system, ToySystem):
        raise ScoreMDError(f"{system.name} is a molecule, where a toy potential is needed")
    return system


def _find(name: str, search: Search) -> System | ToySystem:
    by_name = _by_precedence(search)
    known = ", ".join(sorted(system.name for system in by_name.values()))
    for system in list(by_name.values()):
        for alias in system.aliases:
            by_name.setdefault(alias.lower(), system)
    if name.lower() in by_name:
        return by_name[name.lower()]
    close = difflib.get_close_matches(name.lower(), by_name, n=1)
    hint = f"did you mean {by_name[close[0]].name}? " if close else ""
    raise ScoreMDError(f"there is no system {name!r}; {hint}known are {known}")


def read_system(path: str | os.PathLike[str]) -> System | ToySystem:
    """Read one system's YAML file.

    Raises
    ------
    ScoreMDError
        If the file is missing, is not YAML, or lacks, misspells or mistypes a key; the message begins with the path.
    """
    path = Path(path)
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        system = _ADAPTER.validate_python(content)
    except OSError as error:
        raise ScoreMDError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ScoreMDError(f"{path}: not a text file") from None
    except yaml.YAMLError as error:
        raise ScoreMDError(f"{path}: not valid YAML ({_one_line(str(error))})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("molecule", "toy"))
        message = _one_line(first["msg"]).removeprefix("Value error, ")
        raise ScoreMDError(f"{path}: {place}: {message}" if place else f"{path}: {message}") from None
    system._folder = path.parent  # noqa: SLF001
    return system


def _one_line(message: str) -> str:
    return " ".join(message.split())
