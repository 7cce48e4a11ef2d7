"""The public object: a trained model, to load, save, sample from, simulate with, and hand to OpenMM."""

import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray

from scoremd import resources
from scoremd.bound_model import SAMPLING_BATCH, BoundModel
from scoremd.description import ModelDescription
from scoremd.errors import ScoreMDError
from scoremd.files import make_folder
from scoremd.model_files import CONFIG, load_model, model_hash, read_description, save_model
from scoremd.molecules import require_molecule
from scoremd.nn.energy import MoleculeEnergy
from scoremd.progress import progress
from scoremd.resources import Search
from scoremd.simulation.engine import Simulation, SimulationSettings, run_replicas
from scoremd.systems import System, ToySystem, list_systems, load_system
from scoremd.trajectory_files import Origin, check_output
from scoremd.units import thermal_energy
from scoremd.weighted import Likelihoods, WeightedSamples

if TYPE_CHECKING:
    import openmm

_log = logging.getLogger("scoremd")
#: Molecules that a model stays bound to: what it knows of one at all noise levels takes 100 to 300 MB.
_KEPT = 4
#: More samples than fit any memory are a mistake.
_MOST_SAMPLES = 10**9


class ForceField:
    """A trained model.

    Parameters
    ----------
    description : everything but the weights
    experts : its networks, the least noisy first
    """

    def __init__(self, description: ModelDescription, experts: Sequence[MoleculeEnergy]) -> None:
        self.description = description
        self.experts = [expert.requires_grad_(requires_grad=False).eval() for expert in experts]
        #: Folder of the systems that it brings with it: none unless it was loaded, and trained on trajectories of one's own.
        self.systems: tuple[Path, ...] = ()
        self._bound: dict[str, BoundModel] = {}

    def __repr__(self) -> str:
        """Name, hash, temperature and systems."""
        d = self.description
        return f"<ForceField {d.name} ({self.hash}): {', '.join(d.systems)} at {d.temperature:g} K>"

    @classmethod
    def load(cls, name: str | os.PathLike[str], search: Search = ()) -> "ForceField":
        """Load a model by the name of its folder (shipped, or below SCOREMD_PATH), or by the path of the folder.

        Raises
        ------
        ScoreMDError
            If there is none of that name, or the folder is not a model of ours or is damaged.
        """
        folder = find_model(name, search)
        loaded = cls(*load_model(folder))
        loaded.systems = own_systems(folder)
        return loaded

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `model.safetensors` and `config.yaml` into a folder, which `load` reads, and the systems that the model brings with it.

        Parameters
        ----------
        folder : made if need be; files of these names are replaced

        Raises
        ------
        ScoreMDError
            If it is a file or cannot be written to.
        """
        folder = make_folder(Path(folder))
        for brought in self.systems:
            if brought != (folder / brought.name).resolve():
                shutil.copytree(brought, folder / brought.name, dirs_exist_ok=True)
        save_model(folder, self.description, self.experts)

    @property
    def hash(self) -> str:
        """Identifies weights and description: 16 hexadecimal digits."""
        return model_hash(self.description, self.experts)

    def origin_of_samples(self, system: System, n: int, seed: int, of: str = "the reverse SDE") -> Origin:
        """What a file of samples says of how it was made.

        Parameters
        ----------
        system, n, seed : as of `sample`
        of : what was integrated
        """
        return Origin(f"{system.name}, {n} independent samples of {of}, seed {seed}", self.description.label(self.hash))

    def find(self, name: str) -> System:
        """The molecule of this name.

        Parameters
        ----------
        name : of one that the model brings with it, or of any that `load_system` finds

        Raises
        ------
        ScoreMDError
            If there is none.
        """
        return load_system(name, self.systems)

    def bind(self, system: System | str) -> BoundModel:
        """The model bound to a system, given as such or by name.

        Raises
        ------
        ScoreMDError
            If there is no such system, or the model does not cover it.
        """
        system = self.find(system) if isinstance(system, str) else system
        bound = self._bound.get(system.name)
        if bound is None or bound.system != system:
            if not self.description.covers(system):
                names = ", ".join(self.description.systems)
                raise ScoreMDError(f"model {self.description.name} does not cover {system.name}, only {names}")
            if not np.isclose(system.temperature, self.description.temperature):
                raise ScoreMDError(
                    f"{system.name} is at {system.temperature} K, but model {self.description.name} was trained at "
                    f"{self.description.temperature} K"
                )
            self._bound[system.name] = BoundModel(self.description, self.experts, system)
            if len(self._bound) > _KEPT:
                del self._bound[next(iter(self._bound))]
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
            If n is not from 1 to 10^9, the system is unknown or not covered, or samples are not finite.
        """
        model = self.bind(system)
        (positions,) = self._drawn(n, seed, f"sample {model.system.name}", lambda _, seeds: (model.sample(SAMPLING_BATCH, seeds),))
        return mdtraj.Trajectory(positions, model.system.topology())

    def weighted_samples(self, system: System | str, n: int, seed: int = 0) -> WeightedSamples:
        """Independent samples of the probability flow, with weights that make them an ensemble of the forces.

        Parameters
        ----------
        system, n, seed : as of `sample`

        Returns
        -------
        n frames, their likelihood, energy and weights

        Raises
        ------
        ScoreMDError
            As `sample`.
        """
        model = self.bind(system)
        positions, log_p, energy = self._drawn(n, seed, f"sample and weigh {model.system.name}", model.flow)
        return WeightedSamples(mdtraj.Trajectory(positions, model.system.topology()), *self._likelihoods(log_p, energy))

    def weigh(self, system: System | str, trajectory: mdtraj.Trajectory, seed: int = 0) -> Likelihoods:
        """Likelihood of conformations under the probability flow (Song et al., arXiv 2011.13456, eq. 39), and their energy.

        Parameters
        ----------
        system : or its name
        trajectory : frames of its beads
        seed : of the signs of the differences that the divergence of the score is taken from

        Returns
        -------
        the frames, their likelihood and energy

        Raises
        ------
        ScoreMDError
            If the system is unknown or not covered, the trajectory is of another molecule, or a likelihood is not finite.
        """
        model = self.bind(system)
        require_molecule(trajectory, model.system.topology(), "trajectory")
        positions, seeds, found = torch.from_numpy(trajectory.xyz).float(), _seeds(seed), []
        with progress(f"weigh {model.system.name}", len(positions), "frames") as bar:
            for part in positions.split(SAMPLING_BATCH):
                found.append(model.log_likelihood(part, seeds))
                bar.advance(len(part))
        log_p, energy = (torch.cat(q).numpy() for q in zip(*found, strict=True))
        bad = int((~np.isfinite(log_p + energy)).sum())
        if bad:
            raise ScoreMDError(
                f"{bad} of {len(log_p)} frames have no finite likelihood: they, or model {self.description.name}, are damaged"
            )
        return Likelihoods(trajectory, *self._likelihoods(log_p, energy))

    def _likelihoods(
        self, log_p: NDArray[np.float32], energy: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Of what `Likelihoods` holds all but the frames; `energy` is in kT."""
        temperature = self.description.temperature
        return log_p.astype(float), energy.astype(float) * thermal_energy(temperature), temperature

    def _drawn(
        self, n: int, seed: int, title: str, draw: Callable[[int, Iterator[int]], tuple[torch.Tensor, ...]]
    ) -> tuple[NDArray[np.float32], ...]:
        """What `draw` gives of n samples, in batches of at most `SAMPLING_BATCH`, of which it may give more than are asked for."""
        check_samples(n)
        seeds, parts = _seeds(seed), []
        with progress(title, n, "samples") as bar:
            for done in range(0, n, SAMPLING_BATCH):
                parts.append(draw(min(SAMPLING_BATCH, n - done), seeds))
                bar.advance(min(SAMPLING_BATCH, n - done))
        drawn = tuple(torch.cat(q)[:n].numpy() for q in zip(*parts, strict=True))
        good = np.logical_and.reduce([np.isfinite(q.reshape(n, -1)).all(1) for q in drawn])
        if not good.all():
            raise ScoreMDError(f"{int((~good).sum())} of {n} samples are not finite: model {self.description.name} is damaged")
        return drawn

    def simulate(
        self,
        system: System | str,
        *,
        ns: float = 0.1,
        replicas: int = 256,
        seed: int = 0,
        time_step_fs: float = 2.0,
        friction: float = 1.0,
        frame_interval_ps: float = 1.0,
        start: mdtraj.Trajectory | None = None,
        output: str | os.PathLike[str] | None = None,
    ) -> Simulation:
        """Langevin dynamics of many replicas at once (LangevinMiddle) with the forces of the network.

        Parameters
        ----------
        system : or its name
        ns : length of each replica
        replicas : their number
        seed : of starting points, velocities and noise
        time_step_fs, friction, frame_interval_ps : fs, 1/ps, ps between frames
        start : one frame for each replica; by default samples of the model with the same seed
        output : file (.h5, .xtc, .dcd, .pdb), written at the end from the frames that are kept in OUTPUT.part meanwhile; a run that was
            interrupted goes on when it is called again

        Returns
        -------
        the frames of all replicas; those of a replica that blew up end before it did, and it is counted as lost

        Raises
        ------
        ScoreMDError
            If a setting makes no sense, the system is not covered, or the output cannot be written.
        """
        settings = SimulationSettings(ns, replicas, seed, time_step_fs, friction, frame_interval_ps)
        settings.check()
        model = self.bind(system)
        if output is not None:
            check_output(output)
        if start is None:
            start = self.sample(model.system, replicas, seed)
        if start.n_frames != replicas:
            raise ScoreMDError(f"{replicas} replicas need as many starting frames, not {start.n_frames}")
        require_molecule(start, model.system.topology(), "start")
        if output is not None:
            return run_replicas(model, settings, Path(output), start.xyz, self.hash)
        with tempfile.TemporaryDirectory() as folder:
            return run_replicas(model, settings, Path(folder) / "run.h5", start.xyz, self.hash)

    def calibrated(self, system: System | str, *, seed: int = 0) -> "ForceField":
        """The model for one molecule, its forces calibrated by its samples (`scoremd.calibration`): a minute or two for ten beads.

        Parameters
        ----------
        system : or its name, with phi and psi
        seed : the same seed gives the same model

        Raises
        ------
        ScoreMDError
            As `scoremd.calibration.calibrate`.
        """
        from scoremd.calibration import CalibrationSettings, calibrate

        return calibrate(self, self.bind(system).system, CalibrationSettings(seed=seed))

    def create_openmm(
        self, system: System | str, *, temperature: "float | openmm.unit.Quantity | None" = None
    ) -> "tuple[openmm.System, openmm.app.Topology]":
        """A plain OpenMM System with this force, and its Topology; `scoremd.openmm.add_force` adds the force to a System that is there.

        Its energy is a potential of mean force at the model's temperature, `description.temperature`: dynamics is to be at that one, too.

        Parameters
        ----------
        system : or its name
        temperature : of the dynamics, K or with its unit, which has to be the model's. None leaves it unchecked

        Returns
        -------
        System and Topology of the beads: particles in their order, masses in Da, no constraints; energies in kJ/mol

        Raises
        ------
        ScoreMDError
            If there is no such system, the model does not cover it, or the temperature is another one.
        """
        from scoremd.openmm import create_system

        return create_system(self, self.bind(system).system, temperature)


def check_samples(n: int, least: int = 1) -> None:
    """Refuse a number of samples that makes no sense, by a ScoreMDError."""
    if not (isinstance(n, int | np.integer) and least <= n <= _MOST_SAMPLES):
        raise ScoreMDError(f"the number of samples must be from {least} to {_MOST_SAMPLES}, not {n!r}")


def _seeds(seed: int) -> Iterator[int]:
    """Consecutive numbers, so that no two parts have the same noise."""
    return itertools.count(int(torch.randint(2**32, (), generator=torch.Generator().manual_seed(seed))))


def find_model(name: str | os.PathLike[str], search: Search = ()) -> Path:
    """Folder of a model; see `ForceField.load`."""
    known = list_models(search)
    if str(name) in known:
        return known[str(name)]
    if Path(name).is_dir() and (Path(name) / CONFIG).exists():
        return Path(name)
    if os.sep in str(name):
        raise ScoreMDError(f"{name}: is not the folder of a ScoreMD model (it has no {CONFIG})")
    raise ScoreMDError(f"there is no model {str(name)!r}; known are {', '.join(sorted(known)) or 'none'}")


def own_systems(folder: Path) -> tuple[Path, ...]:
    """Folder of the systems that a model's folder brings with it, if it does; absolute, for workers that were started in another folder."""
    return ((folder / "systems").resolve(),) if (folder / "systems").is_dir() else ()


def list_models(search: Search = ()) -> dict[str, Path]:
    """Folders of all models that can be found, by name."""
    found: dict[str, Path] = {}
    for folder in resources.folders("force_fields", search):
        for config in sorted(folder.glob(f"*/{CONFIG}")):
            found.setdefault(config.parent.name, config.parent)
    return found


def model_for(system: System) -> str:
    """Name of a model that covers a system: shipped, or below SCOREMD_PATH, where damaged ones are passed over with a line of notice.

    Raises
    ------
    ScoreMDError
        If none does.
    """
    for name, folder in list_models().items():
        try:
            description = read_description(folder)
        except ScoreMDError as error:
            _log.warning("passed over: %s", error)
            continue
        if description.covers(system):
            return name
    covered = ", ".join(s.name for s in list_systems() if not isinstance(s, ToySystem))
    raise ScoreMDError(f"no model covers {system.name}; give one by --model (systems: {covered})")
