"""The force of a model as an ordinary OpenMM force.

`ModelForce` is the computation of an `openmm.PythonForce`. It is an instance of a class of this module that holds weights as plain arrays
and the description as text, so that OpenMM's XmlSerializer, which pickles it, makes self-contained files. Reading such a file
unpickles: read only those that you trust.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
import torch
import yaml
from numpy.typing import NDArray
from openmm import app, unit

from scoremd.bound_model import BoundModel
from scoremd.description import ModelDescription
from scoremd.errors import ScoreMDError
from scoremd.model_files import config_text, networks_from, tensors_of
from scoremd.nn.score import ForceFunction
from scoremd.systems import System

if TYPE_CHECKING:
    from scoremd.force_field import ForceField


class ModelForce:
    """Energy and forces of one molecule for `openmm.PythonForce`.

    Parameters
    ----------
    force_field : the model
    system : the molecule
    """

    def __init__(self, force_field: "ForceField", system: System) -> None:
        self._set(
            config_text(force_field.description),
            system.model_dump_json(),
            {name: t.numpy() for name, t in tensors_of(force_field.experts).items()},
        )

    def _set(self, description: str, system: str, arrays: dict[str, NDArray[Any]]) -> None:
        self._description, self._system, self._arrays = description, system, arrays
        self._force: ForceFunction | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"description": self._description, "system": self._system, "arrays": self._arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(**state)

    def _make_force(self) -> ForceFunction:
        description = ModelDescription.model_validate(yaml.safe_load(self._description))
        tensors = {name: torch.from_numpy(a) for name, a in self._arrays.items()}
        experts = networks_from(description, tensors, "PythonForce")
        return BoundModel(description, experts, System.model_validate_json(self._system)).forces()

    def __call__(self, state: openmm.State) -> tuple[float, NDArray[np.float32]]:
        """Potential energy in kJ/mol and forces (bead, 3) in kJ/mol/nm.

        Raises
        ------
        ScoreMDError
            If a position is not finite.
        """
        if self._force is None:
            self._force = self._make_force()
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        if not np.isfinite(positions).all():
            raise ScoreMDError("a position is NaN or infinite: the simulation has blown up; use a smaller time step")
        # far from the origin float32 loses digits, and the energy does not depend on where the molecule is
        x = torch.from_numpy((positions - positions.mean(0)).astype(np.float32))[None]
        energy, forces = self._force(x)
        return float(energy), forces[0].numpy()


def create_system(force_field: "ForceField", system: System) -> tuple[openmm.System, app.Topology]:
    """An OpenMM System of the beads with the model's force, and the Topology.

    Parameters
    ----------
    force_field : the model
    system : the molecule
    """
    openmm_system = openmm.System()
    for mass in system.masses:
        openmm_system.addParticle(float(mass))
    force = openmm.PythonForce(ModelForce(force_field, system))
    force.setName(f"ScoreMD {force_field.description.name}")
    openmm_system.addForce(force)
    return openmm_system, system.topology().to_openmm()
