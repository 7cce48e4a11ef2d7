"""The public object: a trained model, to load, save, sample from, simulate with, and hand to OpenMM."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mdtraj
import numpy as np
import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from scoremd import resources
from scoremd.bound_model import SAMPLING_BATCH, BoundModel
from scoremd.description import ModelDescription
from scoremd.errors import ScoreMDError
from scoremd.files import replacing
from scoremd.nn.energy import MoleculeEnergy
from scoremd.progress import progress
from scoremd.resources import Search
from scoremd.simulation.engine import SimulationResult, SimulationSettings, simulate
from scoremd.systems import System, list_systems, load_system

if TYPE_CHECKING:
    import openmm

_WEIGHTS, _CONFIG = "model.safetensors", "config.yaml"


class ForceField:
    """A trained model.

    Parameters
    ----------
    description : everything but the weights
    experts : its networks, the least noisy first
    """

    def __init__(self, description: ModelDescription, experts: Sequence[MoleculeEnergy]) -> None:
        self.description = description
        self.experts = [expert.requires_grad_(False).eval() for expert in experts]
        self._bound: dict[str, BoundModel] = {}

    @classmethod
    def load(cls, name: str | os.PathLike[str], search: Search = ()) -> "ForceField":
        """Load a model by the name of its folder (shipped, or below SCOREMD_PATH), or by the path of the folder.

        Raises
        ------
        ScoreMDError
            If there is none of that name, or the folder is not a model of ours or is damaged.
        """
        folder = find_model(name, search)
        try:
            content = yaml.safe_load((folder / _CONFIG).read_text(encoding="utf-8"))
            description = ModelDescription.model_validate(content)
        except OSError as error:
            raise ScoreMDError(f"{folder}: is not a ScoreMD model ({_CONFIG}: {error.strerror})") from None
        except (yaml.YAMLError, UnicodeDecodeError):
            raise ScoreMDError(f"{folder / _CONFIG}: not valid YAML") from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ScoreMDError(f"{folder / _CONFIG}: {place}: {first['msg']}") from None
        try:
            tensors = load_file(folder / _WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise ScoreMDError(f"{folder / _WEIGHTS}: cannot be read as safetensors ({error})") from None
        return cls(description, networks_from(description, tensors, str(folder / _WEIGHTS)))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `model.safetensors` and `config.yaml` into a folder that exists."""
        folder = Path(folder)
        with replacing(folder / _WEIGHTS) as temporary:
            temporary.write_bytes(save(self.tensors()))
        with replacing(folder / _CONFIG) as temporary:
            temporary.write_text(self.config_text(), encoding="utf-8")

    def tensors(self) -> dict[str, Tensor]:
        """All weights and statistics by name, those of expert k below "k."."""
        return {
            f"{k}.{name}": t.contiguous()
            for k, expert in enumerate(self.experts)
            for name, t in expert.state_dict().items()
        }

    def config_text(self) -> str:
        """The description as YAML."""
        return yaml.safe_dump(self.description.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of weights and description."""
        digest = hashlib.sha256(save(self.tensors()))
        shown = self.description.model_dump(mode="json", exclude={"trained"})
        digest.update(json.dumps(shown, sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def bind(self, system: System | str) -> BoundModel:
        """The model bound to a system, given as such or by name.

        Raises
        ------
        ScoreMDError
            If there is no such system, or the model does not cover it.
        """
        system = load_system(system) if isinstance(system, str) else system
        if system.name not in self._bound:
            if not np.isclose(system.temperature, self.description.temperature):
                raise ScoreMDError(
                    f"{system.name} is at {system.temperature} K, but model {self.description.name} was trained at "
                    f"{self.description.temperature} K"
                )
            self._bound[system.name] = BoundModel(self.description, self.experts, system)
        return self._bound[system.name]

    def sample(self, system: System | str, n: int, seed: int = 0) -> mdtraj.Trajectory:
        """Independent samples of the Boltzmann distribution.

        Parameters
        ----------
        system : or its name
        n : number of samples, at least 1
        seed : the same seed gives the same samples

        Returns
        -------
        n frames, which have no order

        Raises
        ------
        ScoreMDError
            If n is not positive, the system is unknown or not covered, or samples are not finite.
        """
        if n < 1:
            raise ScoreMDError(f"the number of samples must be at least 1, not {n}")
        model = self.bind(system)
        generator = torch.Generator().manual_seed(seed)
        parts = []
        with progress(f"sample {model.system.name}", n, "samples") as bar:
            for done in range(0, n, SAMPLING_BATCH):
                parts.append(model.sample(SAMPLING_BATCH, generator))
                bar.advance(min(SAMPLING_BATCH, n - done))
        positions = torch.cat(parts)[:n].numpy()
        if not np.isfinite(positions).all():
            bad = int((~np.isfinite(positions).all((1, 2))).sum())
            raise ScoreMDError(f"{bad} of {n} samples are not finite: model {self.description.name} is damaged")
        return mdtraj.Trajectory(positions, model.system.topology())

    def simulate(
        self,
        system: System | str,
        output: str | os.PathLike[str],
        *,
        settings: SimulationSettings,
        start: mdtraj.Trajectory | None = None,
    ) -> SimulationResult:
        """Langevin dynamics of many replicas, streamed to disk; an interrupted run goes on when it is called again.

        Parameters
        ----------
        system : or its name
        output : trajectory file (.h5, .xtc, .dcd, .pdb)
        settings : length, replicas, seed, time step
        start : one frame for each replica; by default samples of the model with the same seed

        Raises
        ------
        ScoreMDError
            If a setting makes no sense, the system is not covered, or the output cannot be written.
        """
        settings.check()
        model = self.bind(system)
        if start is None:
            start = self.sample(model.system, settings.replicas, settings.seed)
        if start.n_frames != settings.replicas:
            raise ScoreMDError(f"{settings.replicas} replicas need as many starting frames, not {start.n_frames}")
        return simulate(model, settings, Path(output), start.xyz, self.hash)

    def create_openmm(self, system: System | str) -> "tuple[openmm.System, openmm.app.Topology]":
        """A plain OpenMM System with this force, and its Topology; see `scoremd.simulation.openmm_force`."""
        from scoremd.simulation.openmm_force import create_system

        return create_system(self, self.bind(system).system)


def networks_from(description: ModelDescription, tensors: dict[str, Tensor], source: str) -> list[MoleculeEnergy]:
    """Networks of a description with the given weights.

    Raises
    ------
    ScoreMDError
        If the weights do not fit the description, or are not finite; `source` says where they came from.
    """
    experts = []
    for k in range(len(description.time_ranges)):
        network = description.make_network()
        prefix = f"{k}."
        mine = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        try:
            network.load_state_dict(mine)
        except RuntimeError as error:
            raise ScoreMDError(f"{source}: does not fit its {_CONFIG} ({str(error).splitlines()[-1].strip()})") from None
        if not all(bool(torch.isfinite(t).all()) for t in mine.values()):
            raise ScoreMDError(f"{source}: holds weights that are not finite")
        experts.append(network)
    return experts


def find_model(name: str | os.PathLike[str], search: Search = ()) -> Path:
    """Folder of a model; see `ForceField.load`."""
    if Path(name).is_dir() and (Path(name) / _CONFIG).exists():
        return Path(name)
    known = list_models(search)
    if str(name) in known:
        return known[str(name)]
    if os.sep in str(name):
        raise ScoreMDError(f"{name}: is not the folder of a ScoreMD model (it has no {_CONFIG})")
    raise ScoreMDError(f"there is no model {str(name)!r}; known are {', '.join(sorted(known)) or 'none'}")


def list_models(search: Search = ()) -> dict[str, Path]:
    """Folders of all models that can be found, by name."""
    found: dict[str, Path] = {}
    for folder in resources.folders("force_fields", search):
        for config in sorted(folder.glob(f"*/{_CONFIG}")):
            found.setdefault(config.parent.name, config.parent)
    return found


def model_for(system: System) -> str:
    """Name of the shipped model that covers a system.

    Raises
    ------
    ScoreMDError
        If none does.
    """
    for name, folder in list_models().items():
        content = yaml.safe_load((folder / _CONFIG).read_text(encoding="utf-8"))
        if system.name in content.get("systems", ()):
            return name
    covered = ", ".join(s.name for s in list_systems() if isinstance(s, System))
    raise ScoreMDError(f"no model covers {system.name}; give one by --model (systems: {covered})")
