"""Reference ensembles by classical molecular dynamics: temperature replica exchange in implicit solvent, with OpenMM.

Amber ff14SB with OBC2 or GBn2, no cutoff, no constraints (so that the forces of all atoms are known), hydrogens of 4 Da. The replicas
exchange temperatures by `openmm.app.ReplicaExchangeSampler`; frames are those at the lowest, one for each attempt to exchange.
"""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app, unit
from torch import Tensor

from scoremd.data import Bead, Ensemble, write_ensemble
from scoremd.errors import ScoreMDError
from scoremd.files import exclusive
from scoremd.frame_store import FrameStore
from scoremd.progress import progress
from scoremd.trajectory_files import check_output

SOLVENTS = ("obc2", "gbn2")
#: Share of the time that is dropped from the beginning.
EQUILIBRATION = 0.1
_HYDROGEN_MASS = 4 * unit.dalton
_MINIMISATION = 500
#: Beyond these a number is a slip, or nobody lives to see the end.
_HOTTEST, _MOST_REPLICAS, _LONGEST_NS = 5000, 1000, 1e6


@dataclass(frozen=True)
class ReferenceSettings:
    """What fixes a reference simulation.

    Attributes
    ----------
    temperature : of the ensemble, K
    ns : length of each replica
    replicas : their number, at as many temperatures in a geometric series
    hottest : the highest temperature, K
    exchange_ps : time between attempts to exchange, and between frames
    solvent : implicit, "obc2" or "gbn2"
    time_step_fs, friction : fs, 1/ps
    platform : of OpenMM; for less than about a hundred atoms Reference is the fastest without a GPU
    seed : of velocities, noise and exchanges
    """

    temperature: float
    ns: float
    replicas: int = 6
    hottest: float = 600.0
    exchange_ps: float = 1.0
    solvent: str = "obc2"
    time_step_fs: float = 2.0
    friction: float = 1.0
    platform: str = "Reference"
    seed: int = 0

    def check(self) -> None:
        """Raise a ScoreMDError if a number makes no sense."""
        if not 0 < self.temperature < self.hottest:
            raise ScoreMDError(f"the temperature must be positive and below the hottest, {self.hottest:g} K, not {self.temperature:g} K")
        if self.hottest > _HOTTEST:
            raise ScoreMDError(f"the hottest temperature must be at most {_HOTTEST} K, not {self.hottest:g} K")
        if not 2 <= self.replicas <= _MOST_REPLICAS:
            raise ScoreMDError(f"replica exchange needs 2 to {_MOST_REPLICAS} replicas, not {self.replicas}")
        for name in ("ns", "exchange_ps", "time_step_fs", "friction"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ScoreMDError(f"{name} must be positive, not {getattr(self, name)}")
        if self.ns > _LONGEST_NS:
            raise ScoreMDError(f"ns must be at most {_LONGEST_NS:g}, not {self.ns:g}")
        if self.time_step_fs > 1000 * self.exchange_ps:
            raise ScoreMDError(f"exchange_ps must be at least a time step of {self.time_step_fs:g} fs, not {self.exchange_ps:g} ps")
        if self.iterations < 2:
            raise ScoreMDError(f"ns must be at least twice the time between exchanges, {2e-3 * self.exchange_ps:g}, not {self.ns:g}")
        if self.solvent not in SOLVENTS:
            raise ScoreMDError(f"the solvent must be {' or '.join(SOLVENTS)}, not {self.solvent}")
        names = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]
        if self.platform not in names:
            raise ScoreMDError(f"OpenMM has no platform {self.platform} here, only {', '.join(names)}")

    @property
    def iterations(self) -> int:
        """Number of attempts to exchange."""
        return round(1000 * self.ns / self.exchange_ps)

    @property
    def steps(self) -> int:
        """Time steps between attempts."""
        return round(1000 * self.exchange_ps / self.time_step_fs)

    @property
    def temperatures(self) -> NDArray[np.float64]:
        """The ladder, K."""
        return np.geomspace(self.temperature, self.hottest, self.replicas)


@dataclass(frozen=True)
class Mixing:
    """How well replicas exchanged: few round trips mean few independent visits to the ensemble's temperature.

    Attributes
    ----------
    states : (iteration, replica) which temperature each replica had, from 0, the lowest
    """

    states: NDArray[np.int64]

    @property
    def acceptance(self) -> float:
        """Share of iterations after which a replica had another temperature."""
        return float((np.diff(self.states, axis=0) != 0).mean())

    @property
    def round_trips(self) -> int:
        """Number of times that replicas went from the lowest temperature to the highest and back."""
        top, found = self.states.max(), 0
        for column in self.states.T:
            ends = column[(column == 0) | (column == top)]
            turns = ends[np.flatnonzero(np.diff(ends, prepend=-1))]
            found += max(0, int((turns == 0).sum()) - 1)
        return found


def solvated(topology: app.Topology, positions: unit.Quantity, solvent: str) -> tuple[app.Topology, unit.Quantity, openmm.System]:
    """Hydrogens at pH 7, and the System of a molecule in implicit solvent.

    Raises
    ------
    ScoreMDError
        If the force field has no parameters for a residue.
    """
    force_field = app.ForceField("amber14-all.xml", f"implicit/{solvent}.xml")
    try:
        modeller = app.Modeller(topology, positions)
        modeller.delete([a for a in modeller.topology.atoms() if a.element is app.element.hydrogen])
        modeller.addHydrogens(force_field, pH=7.0, platform=openmm.Platform.getPlatformByName("Reference"))
        system = force_field.createSystem(
            modeller.topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False, hydrogenMass=_HYDROGEN_MASS
        )
    except (ValueError, KeyError, ArithmeticError, openmm.OpenMMException) as error:
        raise ScoreMDError(f"Amber ff14SB cannot describe the structure ({' '.join(str(error).split())[:160]})") from None
    if solvent == "obc2":
        _use_fast_obc2(system)
    return modeller.topology, modeller.positions, system


def _use_fast_obc2(system: openmm.System) -> None:
    """Replace the CustomGBForce of implicit/obc2.xml by the GBSAOBCForce of the same energy, which a CPU computes much faster."""
    index = next(k for k, force in enumerate(system.getForces()) if isinstance(force, openmm.CustomGBForce))
    custom = system.getForce(index)
    names = [custom.getPerParticleParameterName(k) for k in range(custom.getNumPerParticleParameters())]
    fast = openmm.GBSAOBCForce()
    fast.setSoluteDielectric(1.0)
    fast.setSolventDielectric(78.5)
    fast.setNonbondedMethod(openmm.GBSAOBCForce.NoCutoff)
    for k in range(custom.getNumParticles()):
        of = dict(zip(names, custom.getParticleParameters(k), strict=True))
        # the file has radii less the dielectric offset, 0.009 nm, and scale factors times that
        fast.addParticle(of["charge"], of["or"] + 0.009, of["sr"] / of["or"])
    system.removeForce(index)
    system.addForce(fast)


def read_structure(path: Path) -> tuple[app.Topology, unit.Quantity]:
    """Topology and positions of a PDB file.

    Raises
    ------
    ScoreMDError
        If it cannot be read.
    """
    try:
        pdb = app.PDBFile(str(path))
    except Exception as error:  # noqa: BLE001  the reader raises whatever the file makes it
        raise ScoreMDError(f"{path}: cannot be read as a PDB file ({' '.join(str(error).split())[:120]})") from None
    return pdb.topology, pdb.positions


def run_reference(
    name: str, structure: tuple[app.Topology, unit.Quantity], output: Path, settings: ReferenceSettings
) -> tuple[Ensemble, Mixing]:
    """Simulate a molecule by replica exchange, or go on with an interrupted run, and write the ensemble at the lowest temperature.

    Parameters
    ----------
    name : of the molecule
    structure : topology and positions of its atoms, from `build_peptide` or `read_structure`; hydrogens are added anew
    output : HDF5 file in the format of `scoremd.data`: all atoms, with forces, potential energy, and the replica of each frame as its
        walker. What is done lies in OUTPUT.part meanwhile; a run that was interrupted goes on, or ends if it is asked for less than that
    settings : of the run

    Returns
    -------
    the ensemble, and how well the replicas exchanged

    Raises
    ------
    ScoreMDError
        If a setting makes no sense, the force field does not know the molecule, the output cannot be written or is of an interrupted run
        with other settings, or the simulation blows up.
    """
    settings.check()
    check_output(output, (".h5",))
    before = random.getstate()
    random.seed(settings.seed)
    try:
        topology, positions, system = solvated(*structure, settings.solvent)
        atoms = _atoms(topology)
        # not its length: a run that takes too long may be ended earlier
        fixed = {key: value for key, value in vars(settings).items() if key != "ns"}
        store = FrameStore(output, (6 * len(atoms) + 1 + settings.replicas,), json.dumps([name, [str(a) for a in atoms], fixed]))
        with exclusive(store.folder):
            replicas = _Replicas(topology, system, settings)
            saved = store.resume()
            if saved is None:
                replicas.start(positions)
            else:
                replicas.restore(saved, store.frames())
            unit_of_progress = f"ps of {settings.replicas} replicas"
            with progress(f"simulate {name}", settings.iterations, unit_of_progress, replicas.done) as bar:
                while replicas.done < settings.iterations:
                    store.append(replicas.advance(), replicas.to_tensors())
                    bar.advance(1)
            ensemble = _ensemble(name, atoms, store, settings)
            write_ensemble(output, ensemble)
            store.remove()
    finally:
        random.setstate(before)  # OpenMM draws from the numbers of the whole process
    return ensemble, Mixing(np.array(replicas.states))


def _atoms(topology: app.Topology) -> tuple[Bead, ...]:
    found = []
    for atom in topology.atoms():
        if atom.element is None:
            raise ScoreMDError(f"atom {atom.name} of {atom.residue.name} has no element")
        found.append(Bead(atom.name, atom.element.symbol, atom.residue.name, atom.residue.index))
    return tuple(found)


def _ensemble(name: str, atoms: tuple[Bead, ...], store: FrameStore, settings: ReferenceSettings) -> Ensemble:
    frames, n = store.frames(), 3 * len(atoms)
    frames = frames[int(EQUILIBRATION * len(frames)) :]
    positions, forces = (frames[:, k * n : (k + 1) * n].reshape(-1, len(atoms), 3) for k in range(2))
    walker = frames[:, 2 * n + 1 :].argmin(1)
    return Ensemble(name, settings.temperature, atoms, positions - positions.mean(1, keepdims=True), forces, walker, frames[:, 2 * n])


class _Replicas:
    """A sampler of OpenMM that can be saved.

    Attributes
    ----------
    states : which temperature each replica had in each iteration
    """

    def __init__(self, topology: app.Topology, system: openmm.System, settings: ReferenceSettings) -> None:
        self.settings = settings
        integrator = openmm.LangevinMiddleIntegrator(
            settings.temperature * unit.kelvin, settings.friction / unit.picosecond, settings.time_step_fs * unit.femtosecond
        )
        integrator.setRandomNumberSeed(1 + settings.seed % (2**31 - 1))  # 0 would be a seed of the clock's
        self.simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName(settings.platform))
        self.states: list[list[int]] = []

    @property
    def done(self) -> int:
        """Number of iterations."""
        return len(self.states)

    def _make_sampler(self) -> app.ReplicaExchangeSampler:
        ladder = [{"temperature": t * unit.kelvin} for t in self.settings.temperatures]
        return app.ReplicaExchangeSampler(ladder, self.simulation, self.settings.steps)

    def start(self, positions: unit.Quantity) -> None:
        """Begin all replicas at the minimum of energy next to `positions`."""
        context = self.simulation.context
        context.setPositions(positions)
        self.simulation.minimizeEnergy(maxIterations=_MINIMISATION)
        context.setVelocitiesToTemperature(self.settings.temperature * unit.kelvin, 1 + self.settings.seed % (2**31 - 1))
        self.sampler = self._make_sampler()

    def advance(self) -> Tensor:
        """One iteration: positions, forces and energy of the replica at the lowest temperature, nm, kJ/mol/nm, kJ/mol; and all `states`."""
        found: list[NDArray[np.float64]] = []

        def report(sampler: app.ReplicaExchangeSampler) -> None:
            self.states.append(list(sampler.replicaStateIndex))
            context = self.simulation.context
            context.setState(sampler.replicaConformation[sampler.replicaStateIndex.index(0)])
            state = context.getState(positions=True, forces=True, energy=True)
            energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
            forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
            positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
            found.append(np.concatenate([positions.ravel(), forces.ravel(), [energy], self.states[-1]]))

        self.sampler.reporters = [report]
        try:
            self.sampler.simulate(1)
        except (openmm.OpenMMException, ArithmeticError) as error:  # energies beyond all bounds overflow where exchanges are decided
            raise ScoreMDError(f"the simulation blew up ({error}): take a smaller time step, or mend the structure") from None
        if not np.isfinite(found).all():
            raise ScoreMDError("the simulation blew up: take a smaller time step, or mend the structure")
        return torch.from_numpy(found[0]).float()

    def to_tensors(self) -> dict[str, Tensor]:
        """All that is needed to go on, with the number of frames."""
        texts = [openmm.XmlSerializer.serialize(state) for state in self.sampler.replicaConformation]
        noise = self.simulation.context.createCheckpoint()
        # by what a replica's temperature was before, the sampler scales its velocities
        previous = self.sampler._previousReplicaStateIndex  # noqa: SLF001
        kept = json.dumps([texts, self.sampler.replicaStateIndex, previous, random.getstate()])
        return {
            "frames": torch.tensor(self.done),
            "kept": torch.frombuffer(bytearray(kept.encode()), dtype=torch.uint8),
            "noise": torch.frombuffer(bytearray(noise), dtype=torch.uint8),
        }

    def restore(self, saved: dict[str, Tensor], frames: NDArray[np.float32]) -> None:
        """Go on from `to_tensors` and what `advance` gave so far."""
        self.states = frames[:, -self.settings.replicas :].astype(int).tolist()
        texts, indices, previous, drawn = json.loads(saved["kept"].numpy().tobytes())
        self.simulation.context.loadCheckpoint(saved["noise"].numpy().tobytes())
        self.sampler = self._make_sampler()
        self.sampler.replicaConformation = [openmm.XmlSerializer.deserialize(text) for text in texts]
        self.sampler.replicaStateIndex = indices
        self.sampler._previousReplicaStateIndex = previous  # noqa: SLF001
        random.setstate((drawn[0], tuple(drawn[1]), drawn[2]))
