"""Runs of many replicas: loop, frames, lost replicas, stop and resume."""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremd.bound_model import BoundModel
from scoremd.description import ModelDescription
from scoremd.errors import ScoreMDError
from scoremd.files import exclusive
from scoremd.frame_store import FrameStore, generator_from
from scoremd.nn.score import ForceFunction
from scoremd.parts import in_parts
from scoremd.progress import progress
from scoremd.simulation.langevin import LangevinParameters, State, middle_step, thermal_velocities
from scoremd.systems import System
from scoremd.trajectory_files import Block, Origin, read_trajectory, write_trajectory
from scoremd.units import thermal_energy

#: A replica is lost when a bond gets longer than this times its median at the start, shorter than the inverse, or anything is not finite.
BOND_STRETCH = 2.0
#: It is lost also when it stays hotter than this times the temperature of the bath, on average over `HEAT_MEMORY` relaxation times (1 /
#: friction): kinetic energies of a few beads fluctuate, but not that long, and nothing but an error of the forces or too long a time step
#: heats a replica against the friction.
HEAT_LIMIT = 2.0
HEAT_MEMORY = 10.0
_MOST_REPLICAS = 10**6
_LONGEST_FS = 1e12  # a millisecond
_ALL = slice(None)
_BLOCK = 50  # steps that threads take between meetings


@dataclass(frozen=True)
class SimulationSettings:
    """What fixes a run.

    Attributes
    ----------
    ns : length of each replica
    replicas : their number
    seed : of starting points, velocities and noise
    time_step_fs : fs
    friction : 1/ps
    frame_interval_ps : between saved frames
    """

    ns: float
    replicas: int
    seed: int = 0
    time_step_fs: float = 2.0
    friction: float = 1.0
    frame_interval_ps: float = 1.0

    def check(self) -> None:
        """Raise a ScoreMDError if a setting makes no sense."""
        for name in ("ns", "time_step_fs", "friction", "frame_interval_ps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ScoreMDError(f"{name} must be a positive number, not {value}")
        if not 1 <= self.replicas <= _MOST_REPLICAS:
            raise ScoreMDError(f"the number of replicas must be from 1 to {_MOST_REPLICAS}, not {self.replicas}")
        length, interval = 1e6 * self.ns, max(1e3 * self.frame_interval_ps, self.time_step_fs)
        if not interval * (1 - 1e-9) <= length <= _LONGEST_FS:
            shortest = f"at least the {interval * 1e-3:g} ps between saved frames"
            raise ScoreMDError(f"the length of a replica must be {shortest} and at most {1e-6 * _LONGEST_FS:g} ns, not {self.ns:g} ns")

    @property
    def steps_per_frame(self) -> int:
        """Steps between frames."""
        return max(1, round(1e3 * self.frame_interval_ps / self.time_step_fs))

    @property
    def frames(self) -> int:
        """Frames of each replica."""
        return round(1e6 * self.ns / self.time_step_fs / self.steps_per_frame)

    @property
    def simulated_ns(self) -> float:
        """Length of each replica as it is run: whole steps and whole intervals between frames."""
        return self.frames * self.steps_per_frame * self.time_step_fs * 1e-6


@dataclass(frozen=True)
class Simulation:
    """A finished run.

    Attributes
    ----------
    trajectory : frames of replica 0, then of replica 1, ...
    replica : (frame,) which replica each frame is of
    lost : numbers of the replicas that blew up and were stopped
    asked : numbers of replicas, and of frames of each, that were asked for
    origin : what files of it say of how it was made
    """

    trajectory: mdtraj.Trajectory
    replica: NDArray[np.int64]
    lost: tuple[int, ...]
    asked: tuple[int, int]
    origin: Origin

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write to a trajectory file of any format that we know, over what is there."""
        trajectory = self.trajectory

        def blocks() -> Iterator[Block]:
            for k in np.unique(self.replica):
                mine = self.replica == k
                yield trajectory.xyz[mine], trajectory.time[mine], int(k)

        return write_trajectory(path, trajectory.topology, blocks(), self.asked, origin=self.origin)


class Replicas:
    """All replicas of a run and what becomes of them.

    Attributes
    ----------
    state : positions, velocities, forces, energies
    good_frames : (replica,) frames saved before a replica was lost (all so far if it was not)
    lost : (replica,) bool
    heat : (replica,) kinetic temperature over that of the bath, averaged over the last `HEAT_MEMORY` relaxation times

    `force` is called with parts of the replicas (`scoremd.parts`). Noise is drawn for all replicas of the run, so that those of `rows`,
    which are whole parts, are what they are in a run of all.
    """

    def __init__(self, model: BoundModel, parameters: LangevinParameters, force: ForceFunction, rows: slice = _ALL) -> None:
        self.model, self.parameters, self.force, self.rows = model, parameters, force, rows
        self.bonds = torch.tensor(model.system.bonds, dtype=torch.long).reshape(-1, 2)
        self.frames = 0

    def start(self, positions: Tensor, generator: torch.Generator) -> None:
        """Begin at `positions` (replica, bead, 3), those of all replicas of the run, with thermal velocities."""
        self.of_run, self.lengths = len(positions), self._bond_lengths(positions).median(0).values
        velocities = thermal_velocities(self.parameters, torch.randn(positions.shape, generator=generator))[self.rows]
        positions = positions[self.rows]
        energies, forces = in_parts(self.force, positions)
        self.state = State(positions, velocities, forces, energies)
        self.lost = torch.zeros(len(positions), dtype=torch.bool)
        self.good_frames = torch.zeros(len(positions), dtype=torch.long)
        self.heat = torch.ones(len(positions))
        self.generator = generator

    def _bond_lengths(self, positions: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(positions[:, self.bonds[:, 0]] - positions[:, self.bonds[:, 1]], dim=-1)
        return lengths

    def _steps(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Steps of some replicas: tensors of a state, sums of twice the kinetic energy, noise (replica, step, bead, 3) -> state, sums."""
        state, twice_kinetic, noise = State(*arguments[:4]), arguments[4], arguments[5]
        for of_step in noise.unbind(1):
            state = middle_step(state, of_step, self.force, self.parameters)
            twice_kinetic = twice_kinetic + (self.parameters.masses * state.velocities**2).sum((1, 2))
        return *state, twice_kinetic

    def advance(self, steps: int) -> Tensor:
        """Take `steps` steps; stop the replicas that blew up where they were before. Returns positions, centred, for the frame."""
        before, p = self.state, self.parameters
        state, twice_kinetic = before, torch.zeros_like(self.heat)
        for done in range(0, steps, _BLOCK):
            noise = torch.randn(min(_BLOCK, steps - done), self.of_run, *state.positions.shape[1:], generator=self.generator)
            *stepped, twice_kinetic = in_parts(self._steps, *state, twice_kinetic, noise[:, self.rows].transpose(0, 1))
            state = State(*stepped)
        temperature = twice_kinetic / (steps * state.velocities[0].numel() * p.thermal_energy)
        keep = math.exp(-steps * p.time_step * p.friction / HEAT_MEMORY)
        self.heat = keep * self.heat + (1 - keep) * temperature
        ratio = self._bond_lengths(state.positions) / self.lengths
        intact = (ratio < BOND_STRETCH).all(1) & (ratio > 1 / BOND_STRETCH).all(1) & torch.isfinite(state.energies)
        intact &= self.heat < HEAT_LIMIT
        self.lost = self.lost | ~intact
        if bool(self.lost.any()):
            state = State(*(torch.where(self.lost.view(-1, *[1] * (b.dim() - 1)), a, b) for a, b in zip(before, state, strict=True)))
        # the energy does not depend on where the molecule is; near the origin float32 is most accurate
        self.state = state._replace(positions=state.positions - state.positions.mean(1, keepdim=True))
        self.frames += 1
        self.good_frames = torch.where(self.lost, self.good_frames, self.frames)
        return self.state.positions

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything needed to go on."""
        extra = {"lost": self.lost, "good_frames": self.good_frames, "lengths": self.lengths, "heat": self.heat}
        counts = {"frames": torch.tensor(self.frames), "generator": self.generator.get_state()}
        return self.state._asdict() | extra | counts

    def restore(self, tensors: dict[str, Tensor], of_run: int) -> None:
        """Continue from `to_tensors`; `of_run` is the number of all replicas of the run."""
        self.of_run = of_run
        self.state = State(*(tensors[name] for name in State._fields))
        self.lost, self.good_frames, self.lengths, self.heat = (tensors[q] for q in ("lost", "good_frames", "lengths", "heat"))
        self.frames, self.generator = int(tensors["frames"]), generator_from(tensors["generator"])


def langevin_parameters(model: BoundModel, settings: SimulationSettings) -> LangevinParameters:
    """Parameters of the dynamics of a model's molecule at the model's temperature."""
    masses = torch.tensor(model.system.masses, dtype=torch.float32)[None, :, None]
    kt = thermal_energy(model.description.temperature)
    return LangevinParameters(settings.time_step_fs * 1e-3, settings.friction, kt, masses)


def origin_of(description: ModelDescription, identity: str, system: System, settings: SimulationSettings) -> Origin:
    """What a file says of how a run was made; `identity` is the model's hash."""
    s = settings
    length = f"{s.replicas} replicas of {s.simulated_ns:g} ns at {s.time_step_fs:g} fs"
    return Origin(f"{system.name}, Langevin dynamics: {length}, friction {s.friction:g}/ps, seed {s.seed}", description.label(identity))


def run_replicas(
    model: BoundModel, settings: SimulationSettings, output: Path, start: NDArray[np.float32], identity: str, rows: slice = _ALL
) -> Simulation:
    """Run the replicas, or go on with an interrupted run, and write the trajectory.

    Parameters
    ----------
    model : gives the forces
    settings : of the run
    output : trajectory file; see `scoremd.frame_store` for what lies beside it meanwhile
    start : (replica, bead, 3) nm
    identity : of the model (a hash of its weights): an interrupted run goes on only with the same
    rows : the replicas that are run here, whole parts (`scoremd.parts`) of all, and numbered from zero; the others are run elsewhere

    Raises
    ------
    ScoreMDError
        If the output cannot be written, or an interrupted run with other settings is in its place.
    """
    topology: mdtraj.Topology = model.system.topology()
    own = len(range(settings.replicas)[rows])
    shape = (own, len(model.system.beads), 3)
    digest = hashlib.sha256(np.ascontiguousarray(start, np.float32).tobytes()).hexdigest()
    store = FrameStore(output, shape, json.dumps([identity, digest, model.system.name, vars(settings)]))
    with exclusive(store.folder):
        replicas = Replicas(model, langevin_parameters(model, settings), model.forces(), rows)
        saved = store.resume()
        if saved is None:
            positions = torch.from_numpy(np.ascontiguousarray(start, np.float32))
            replicas.start(positions, torch.Generator().manual_seed(settings.seed))
        else:
            replicas.restore(saved, settings.replicas)
        done, per_frame = replicas.frames, own * settings.steps_per_frame
        with progress(f"simulate {model.system.name}", settings.frames * per_frame, "replica-steps", done * per_frame) as bar:
            while replicas.frames < settings.frames and not bool(replicas.lost.all()):
                frame = replicas.advance(settings.steps_per_frame)
                store.append(frame, replicas.to_tensors())
                bar.advance(per_frame)
        interval = settings.steps_per_frame * settings.time_step_fs * 1e-3
        origin = origin_of(model.description, identity, model.system, settings)
        path = store.finish(topology, interval, replicas.good_frames.numpy(), settings.frames, origin)
    trajectory = read_trajectory(path, topology).trajectory
    good = replicas.good_frames.numpy()
    lost = tuple(int(k) for k in torch.nonzero(replicas.lost).flatten())
    return Simulation(trajectory, np.repeat(np.arange(own), good), lost, (own, settings.frames), origin)
