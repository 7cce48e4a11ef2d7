"""The force of a model as an ordinary force of OpenMM, and Systems with it as files.

`add_force` puts it into a System, beside whatever forces are there, and `save` and `load` keep such a System in a folder that people can
send to each other: nothing in it is unpickled. OpenMM's own XmlSerializer stores the force as well, with its weights, but by pickling:
reading such an XML runs whatever code its author put there, so read only those that you trust. OpenMM ends the process when it cannot
unpickle, as where scoremd is not installed.

What is wrong with the input is a `ScoreMDError`. One that the force meets while OpenMM computes comes as an `openmm.OpenMMException` with
the same sentence.
"""

import hashlib
import json
import math
import operator
import os
import pickle
import threading
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openmm
import safetensors
import safetensors.torch
import yaml
from numpy.typing import NDArray
from openmm import app, unit
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scoremd.bound_model import BoundModel
from scoremd.description import ModelDescription
from scoremd.errors import ScoreMDError
from scoremd.files import new_folder, write_text
from scoremd.force_field import ForceField
from scoremd.model_files import CONFIG, WEIGHTS, load_model, networks_from, save_model, tensors_of
from scoremd.nn.energy import MoleculeEnergy
from scoremd.nn.score import SingleForceFunction
from scoremd.systems import System
from scoremd.yaml_files import first_fault, read_yaml

__all__ = ["ModelForce", "add_force", "create_system", "load", "save"]

SYSTEM, NOTE = "system.xml", "force.yaml"
#: Da; beads of different elements differ by more, and force fields round masses by less.
_MASS_TOLERANCE = 0.5
_GROUPS = 32  # of forces, in OpenMM
#: What OpenMM makes of nodes of an XML, by the name of the node that they are in.
_KINDS = {"Forces": openmm.Force, "CollectiveVariable": openmm.Force, "Force": openmm.Force, "Functions": openmm.TabulatedFunction}


class ModelForce:
    """Energy and forces of one molecule for `openmm.PythonForce`, which is to give it the positions of the beads alone.

    Parameters
    ----------
    force_field : the model
    system : the molecule
    """

    def __init__(self, force_field: ForceField, system: System) -> None:
        header = {"description": force_field.description.model_dump(mode="json"), "system": system.model_dump(mode="json")}
        content = json.dumps(header).encode() + b"\n" + safetensors.torch.save(tensors_of(force_field.experts))
        self.__setstate__(hashlib.sha256(content).digest() + content)

    def __getstate__(self) -> bytes:
        return self._stored

    def __setstate__(self, stored: bytes) -> None:
        # must not raise, or OpenMM ends the process: that is for `unpack` to do
        self._stored = stored
        self._lock = threading.Lock()
        self._bound: BoundModel | None = None
        self._n_beads = 0
        # Contexts of one System may be used by several threads, some of which OpenMM starts: those lose what is local to a thread
        self._force_of_thread: dict[int, SingleForceFunction] = {}

    def unpack(self) -> tuple[ModelDescription, System, list[MoleculeEnergy]]:
        """Model, molecule and networks.

        Raises
        ------
        ScoreMDError
            If they were damaged in a file, or come from another version.
        """
        digest, content = self._stored[:32], self._stored[32:]
        if hashlib.sha256(content).digest() != digest:
            raise ScoreMDError("the stored ScoreMD force is damaged; get its file again, or make the force anew with add_force")
        header, _, weights = content.partition(b"\n")
        try:
            fields = json.loads(header)
            description, system = ModelDescription.model_validate(fields["description"]), System.model_validate(fields["system"])
            tensors = safetensors.torch.load(weights)
        except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            fault = first_fault(error) if isinstance(error, ValidationError) else str(error)
            raise ScoreMDError(
                f"the stored ScoreMD force is of another version of ScoreMD ({fault}); make it anew with add_force"
            ) from None
        return description, system, networks_from(description, tensors, "PythonForce")

    def __call__(self, state: openmm.State) -> tuple[float, NDArray[np.float32]]:
        """Potential energy in kJ/mol and forces (bead, 3) in kJ/mol/nm.

        Raises
        ------
        ScoreMDError
            If a position is not finite, there are more or fewer than the molecule has beads, or the force was damaged in a file.
        """
        force = self._force_of_thread.get(threading.get_ident()) or self._force_of_this_thread()
        # getPositions goes through all that the state has, and makes a quantity: a tenth of a step
        positions = np.empty((state._getNumParticles(), 3))  # noqa: SLF001
        state._getVectorAsNumpy(openmm.State.Positions, positions)  # noqa: SLF001
        if len(positions) != self._n_beads:
            raise ScoreMDError(f"the ScoreMD force was given {len(positions)} particles; its molecule has {self._n_beads} beads")
        energy, forces = force(positions)
        if not math.isfinite(energy):
            raise ScoreMDError("the energy, or a position, is NaN or infinite: the simulation has blown up; use a smaller time step")
        return energy, forces

    def _force_of_this_thread(self) -> SingleForceFunction:
        with self._lock:
            if self._bound is None:
                description, system, experts = self.unpack()
                self._bound, self._n_beads = BoundModel(description, experts, system), len(system.beads)
            force = self._force_of_thread[threading.get_ident()] = self._bound.force_of_one()
        return force


def add_force(
    system: openmm.System,
    force_field: ForceField,
    molecule: System | str,
    particles: Sequence[int] | None = None,
    *,
    temperature: "float | unit.Quantity | None",
    force_group: int = 0,
) -> int:
    """Add a model's force on one molecule to an OpenMM System, beside the particles and forces that it has.

    The energy is the molecule's potential of mean force at the temperature of the model's data, in kJ/mol, up to a constant.

    Parameters
    ----------
    system : gets the force; without periodic boundary conditions
    force_field : the model
    molecule : or its name
    particles : which particle each bead is, in the order of the molecule's beads, of which only what masses tell is
        checked; by default all particles of the System
    temperature : of the dynamics, K or with its unit, such as `integrator.getTemperature()`; it has to be the model's, since a potential of
        mean force holds for one temperature. None leaves it unchecked: for dynamics without a thermostat, or another temperature on purpose
    force_group : as `openmm.Force.setForceGroup`

    Returns
    -------
    index of the force in the System

    Raises
    ------
    ScoreMDError
        If the temperature is another one, the model does not cover the molecule, the System is periodic, or the particles are not as many
        as the beads, or not there, or one comes twice, or one has another mass than its bead, or there is no such force group.
    """
    return int(system.addForce(create_force(system, force_field, molecule, particles, temperature=temperature, force_group=force_group)))


def create_force(
    system: openmm.System,
    force_field: ForceField,
    molecule: System | str,
    particles: Sequence[int] | None,
    *,
    temperature: "float | unit.Quantity | None",
    force_group: int,
) -> openmm.PythonForce:
    """The force that `add_force` adds, for a System such as the one that is given, which stays as it is; arguments and errors as there."""
    beads = force_field.bind(molecule).system
    _check_temperature(temperature, force_field.description)
    if system.usesPeriodicBoundaryConditions():
        raise ScoreMDError("the System has periodic boundary conditions; a ScoreMD force needs a System without")
    try:
        chosen = [operator.index(k) for k in (range(system.getNumParticles()) if particles is None else particles)]
    except TypeError:
        raise ScoreMDError(f"particles must be a list of numbers of particles, not {particles!r}") from None
    if force_group not in range(_GROUPS):
        raise ScoreMDError(f"force_group must be a whole number from 0 to {_GROUPS - 1}, not {force_group!r}")
    _check_particles(system, chosen, beads)
    force = openmm.PythonForce(ModelForce(force_field, beads))
    force.setName(f"ScoreMD {force_field.description.name}")
    force.setParticles(chosen)  # all of them are named, too, so that the System may get more
    force.setForceGroup(int(force_group))
    return force


def _check_temperature(temperature: "float | unit.Quantity | None", description: ModelDescription) -> None:
    if temperature is None:
        return
    try:
        kelvin = float(temperature.value_in_unit(unit.kelvin) if isinstance(temperature, unit.Quantity) else temperature)
    except (TypeError, ValueError):
        raise ScoreMDError(f"temperature must be a number of kelvin, or have a unit of temperature, not {temperature!r}") from None
    if not np.isclose(kelvin, description.temperature):
        raise ScoreMDError(
            f"the energy of model {description.name} is a potential of mean force at {description.temperature:g} K, not at {kelvin:g} K; "
            "temperature=None uses it at another temperature all the same"
        )


def _check_particles(system: openmm.System, particles: list[int], beads: System) -> None:
    n = system.getNumParticles()
    if len(particles) != len(beads.beads):
        raise ScoreMDError(f"{beads.name} has {len(beads.beads)} beads, but the force is to act on {len(particles)} particles (of {n})")
    if len(set(particles)) < len(particles) or not all(0 <= k < n for k in particles):
        raise ScoreMDError(f"particles must be different numbers from 0 to {n - 1}, not {particles}")
    for k, mass, atom in zip(particles, beads.masses, beads.atoms, strict=True):
        found = system.getParticleMass(k).value_in_unit(unit.dalton)
        if abs(found - mass) > _MASS_TOLERANCE:
            names = " ".join(a.name for a in beads.atoms)
            raise ScoreMDError(
                f"particle {k} has a mass of {found:g} Da, where bead {atom.name} of {beads.name} has {mass:g} Da; "
                f"particles must be in the order of the beads: {names}"
            )


def create_system(
    force_field: ForceField, system: System, temperature: "float | unit.Quantity | None"
) -> tuple[openmm.System, app.Topology]:
    """An OpenMM System of the beads with the model's force, and the Topology.

    Parameters
    ----------
    force_field : the model
    system : the molecule
    temperature : as in `add_force`

    Raises
    ------
    ScoreMDError
        As `add_force`.
    """
    openmm_system = openmm.System()
    for mass in system.masses:
        openmm_system.addParticle(float(mass))
    add_force(openmm_system, force_field, system, temperature=temperature)
    return openmm_system, system.topology().to_openmm()


class _Note(BaseModel):
    """Content of `force.yaml`: how to add the force to the System, and the SHA-256 of the other files."""

    model_config = ConfigDict(extra="forbid")

    molecule: System
    particles: tuple[int, ...]
    force_group: int = Field(ge=0, lt=_GROUPS)
    sha256: dict[str, str]


def save(system: openmm.System, folder: str | os.PathLike[str]) -> None:
    """Write a System that has a force of `add_force`, so that `load` makes it again without unpickling anything.

    Parameters
    ----------
    system : with one such force and no other PythonForce
    folder : made by this function, whole or not at all: `system.xml` (the System without that force), `model.safetensors` and
        `config.yaml` (the model, as `ForceField.load` reads it), `force.yaml` (molecule, particles, force group, check sums)

    Raises
    ------
    ScoreMDError
        If the System has no such force, two, or another PythonForce; if the folder is there already or cannot be written.
    """
    try:
        root = ET.fromstring(openmm.XmlSerializer.serialize(system))  # noqa: S314 (OpenMM has just written it)
    except openmm.OpenMMException as error:
        raise ScoreMDError(f"the System cannot be saved ({error})") from None
    nodes, pickles = root.findall("Forces/Force"), _pickles(root)
    if len(pickles) != 1 or pickles[0] not in nodes:
        raise ScoreMDError(
            f"a System is saved with one PythonForce, that of add_force, not inside another force; this one has {len(pickles)}"
        )
    force = system.getForce(nodes.index(pickles[0]))
    model = pickle.loads(bytes.fromhex(pickles[0].get("function", "")))  # noqa: S301 (pickled by OpenMM a moment ago, in this process)
    if not isinstance(model, ModelForce):
        raise ScoreMDError(f"a System is saved with the PythonForce of add_force, but {force.getName()} is another one")
    description, molecule, experts = model.unpack()
    root.find("Forces").remove(pickles[0])  # type: ignore[union-attr]
    with new_folder(folder) as temporary:
        write_text(temporary / SYSTEM, ET.tostring(root, encoding="unicode"))
        save_model(temporary, description, experts)
        note = _Note(
            molecule=molecule, particles=tuple(force.getParticles()), force_group=force.getForceGroup(), sha256=_digests(temporary)
        )
        write_text(temporary / NOTE, yaml.safe_dump(note.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def load(folder: str | os.PathLike[str], *, temperature: "float | unit.Quantity | None") -> openmm.System:
    """The System that `save` wrote; the model's force is its last.

    Parameters
    ----------
    folder : as it was given to `save`
    temperature : as in `add_force`

    Raises
    ------
    ScoreMDError
        If the folder is not one that `save` wrote, a file in it is damaged, or the temperature is not the model's.
    """
    folder = Path(folder)
    try:
        note = _Note.model_validate(read_yaml(folder / NOTE))
        digests = _digests(folder)
    except OSError as error:
        raise ScoreMDError(f"{folder}: is not a folder that scoremd.openmm.save wrote ({error.filename}: {error.strerror})") from None
    except ValidationError as error:
        raise ScoreMDError(f"{folder / NOTE}: not written by scoremd.openmm.save ({first_fault(error)})") from None
    if changed := [name for name in digests if digests[name] != note.sha256.get(name)]:
        raise ScoreMDError(f"{folder / changed[0]}: was changed or damaged after scoremd.openmm.save; get it again")
    system = _read_system(folder / SYSTEM)
    force_field = ForceField(*load_model(folder))
    add_force(system, force_field, note.molecule, note.particles, temperature=temperature, force_group=note.force_group)
    return system


def _digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (SYSTEM, WEIGHTS, CONFIG)}


def _pickles(root: ET.Element) -> list[ET.Element]:
    """What OpenMM would unpickle, inside other forces, too."""
    return [node for node in root.iter() if node.get("type") == "PythonForce"]


def _misplaced(root: ET.Element) -> list[ET.Element]:
    """What OpenMM would take for something else: it makes what `type` says, without asking whether that is a force."""
    found = []
    for parent in root.iter():
        for node in parent:
            kind = getattr(openmm, node.get("type", ""), None)
            if isinstance(kind, type) and not issubclass(kind, _KINDS.get(parent.tag, ())):
                found.append(node)
    return found


def _read_system(path: Path) -> openmm.System:
    try:
        root = ET.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 (expat bounds the growth of entities)
        if (root.tag, root.get("type")) != ("System", "System") or _pickles(root) or _misplaced(root):
            raise ScoreMDError(f"{path}: must hold a System with OpenMM's own forces and without a PythonForce, which would be unpickled")
        # OpenMM's parser is another one: given what this one writes, it cannot see more than was checked
        return openmm.XmlSerializer.deserialize(ET.tostring(root, encoding="unicode"))
    except (ET.ParseError, UnicodeDecodeError, RecursionError, openmm.OpenMMException) as error:
        raise ScoreMDError(f"{path}: is not a System in XML ({' '.join(str(error).split())})") from None
