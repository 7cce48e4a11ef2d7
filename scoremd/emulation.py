"""The main job: sample, simulate with the same network, compare both with the reference, write the report."""

import json
import platform
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from numpy.typing import NDArray

from scoremd.analysis.compare import Comparison, compare
from scoremd.analysis.fold import NativeStructure
from scoremd.analysis.plane import longest, require_plane
from scoremd.analysis.report import write_report
from scoremd.data import Ensemble
from scoremd.errors import ScoreMDError
from scoremd.files import claim, exclusive, make_folder
from scoremd.force_field import ForceField
from scoremd.simulation.engine import Simulation, SimulationSettings
from scoremd.systems import System, load_system
from scoremd.trajectory_files import read_trajectory, write_samples

SETTINGS = "settings.json"
#: Share of a simulation's frames that is dropped from its beginning before it is compared.
EQUILIBRATION = 0.1


@dataclass(frozen=True)
class Emulation:
    """What `emulate` made.

    Attributes
    ----------
    folder : holds samples.h5, simulation.h5, comparison.json, report.html
    comparison : the measurements
    """

    folder: Path
    comparison: Comparison


def equilibrated(trajectory: mdtraj.Trajectory, replicas: NDArray[np.int64] | None) -> tuple[mdtraj.Trajectory, NDArray[np.int64] | None]:
    """Drop the first tenth of the time from each replica.

    Parameters
    ----------
    trajectory : one replica after the other
    replicas : replica of each frame; None for a single one
    """
    n = trajectory.n_frames
    if replicas is None:
        return trajectory[int(EQUILIBRATION * n) :], None
    first = np.flatnonzero(np.r_[True, np.diff(replicas) != 0])
    lengths = np.diff(np.r_[first, n])
    position = np.arange(n) - np.repeat(first, lengths)
    # the same stretch of time of every replica, also of one that was lost
    kept = position >= int(EQUILIBRATION * lengths.max())
    return trajectory[kept], replicas[kept]


def compare_trajectories(
    system: System,
    samples: mdtraj.Trajectory | None,
    simulation: mdtraj.Trajectory | None,
    replicas: NDArray[np.int64] | None,
    *,
    reference: Ensemble | None,
    lost: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare as `scoremd.analysis.compare.compare` does, without the simulation's first tenth."""
    if simulation is not None:
        simulation, replicas = equilibrated(simulation, replicas)
    return compare(samples, simulation, system, simulation_groups=replicas, reference=reference, lost_replicas=lost, seed=seed)


def provenance(force_field: ForceField | None, command: str, **extra: Any) -> dict[str, Any]:
    """Where a result comes from: command, versions, model and its hash, date."""
    facts: dict[str, Any] = {"command": command, **extra}
    if force_field is not None:
        facts |= {"model": force_field.description.name, "model hash": force_field.hash}
    packages = ("scoremd", "torch", "openmm", "mdtraj", "e3nn", "numpy")
    facts["versions"] = ", ".join(f"{name} {version(name)}" for name in packages) + f", Python {platform.python_version()}"
    facts["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    return facts


def emulate(
    force_field: ForceField,
    system: System,
    folder: Path,
    *,
    samples: int,
    settings: SimulationSettings,
    command: str,
    reference: Ensemble | None = None,
) -> Emulation:
    """Draw samples, simulate, compare and report; finished parts of an interrupted run are kept.

    Parameters
    ----------
    force_field, system : the model and the molecule
    folder : to be written, made if need be
    samples : number of independent samples
    settings : of the simulation; its seed is that of the samples, too
    command : to be shown in the report
    reference : of the same beads; by default the system's own, if it has one

    Raises
    ------
    ScoreMDError
        If a number makes no sense, the folder cannot be written, or holds an emulation with other settings.
    """
    settings.check()
    if samples < settings.replicas:
        raise ScoreMDError(f"{settings.replicas} replicas start from as many samples; {samples} are too few")
    ensemble = system.reference_ensemble() if reference is None else reference
    lengths = {"simulation": settings.frames - int(EQUILIBRATION * settings.frames)}
    if ensemble is not None:
        lengths["reference"] = longest(ensemble.n_frames, ensemble.walker)
    require_plane(system, lengths)
    NativeStructure.of(system)  # refused before the work, not after it
    make_folder(folder)
    with exclusive(folder):
        claimed = _claimed(force_field, system, samples, settings)
        claim(folder / SETTINGS, claimed, "an emulation", ("samples.h5", "simulation.h5"))
        drawn, run, replicas, lost = _trajectories(force_field, system, folder, samples, settings)
        comparison = compare_trajectories(system, drawn, run, replicas, reference=ensemble, lost=lost, seed=settings.seed)
        comparison.to_json(folder / "comparison.json")
        length = f"{settings.replicas} replicas of {settings.simulated_ns:g} ns at {settings.time_step_fs} fs, first tenth dropped"
        facts = provenance(force_field, command, seed=settings.seed, samples=samples, simulation=length)
        write_report(folder / "report.html", comparison, facts)
    return Emulation(folder, comparison)


def is_finished(force_field: ForceField, system: System, folder: Path, *, samples: int, settings: SimulationSettings) -> bool:
    """Whether `emulate` came to its end in this folder with these arguments."""
    note = folder / SETTINGS
    same = note.exists() and note.read_text(encoding="utf-8") == _claimed(force_field, system, samples, settings)
    return same and (folder / "report.html").exists()


def _trajectories(
    force_field: ForceField, system: System, folder: Path, samples: int, settings: SimulationSettings
) -> tuple[mdtraj.Trajectory, mdtraj.Trajectory, NDArray[np.int64], int]:
    """Samples, simulation, the replica of each of its frames, and the number of lost ones: what is there is read, the rest made."""
    sample_path, simulation_path = folder / "samples.h5", folder / "simulation.h5"
    if not sample_path.exists():
        drawn = force_field.sample(system, samples, settings.seed)
        write_samples(sample_path, drawn)
    drawn = read_trajectory(sample_path, system.topology()).trajectory
    if drawn.n_frames != samples:
        raise ScoreMDError(f"{sample_path}: holds {drawn.n_frames} frames, not the {samples} samples asked for; remove it to start again")
    if not simulation_path.exists():
        force_field.simulate(
            system,
            ns=settings.ns,
            replicas=settings.replicas,
            seed=settings.seed,
            time_step_fs=settings.time_step_fs,
            friction=settings.friction,
            frame_interval_ps=settings.frame_interval_ps,
            start=drawn[: settings.replicas],
            output=simulation_path,
        )
    # there if a run was killed after its trajectory was written
    shutil.rmtree(simulation_path.with_name(simulation_path.name + ".part"), ignore_errors=True)
    run, replicas, lost = read_trajectory(simulation_path, system.topology())
    if replicas is None or lost is None:
        raise ScoreMDError(f"{simulation_path}: does not say which replica its frames are of; remove it to start again")
    return drawn, run, replicas, lost


def _claimed(force_field: ForceField, system: System, samples: int, settings: SimulationSettings) -> str:
    return json.dumps([force_field.hash, system.name, samples, vars(settings)], default=str)


def compare_run(samples: mdtraj.Trajectory | None, run: Simulation | None, *, system: System | str, seed: int = 0) -> Comparison:
    """Compare samples and a run of a force field with each other and with the system's reference, if it has one.

    Parameters
    ----------
    samples : independent samples, or None
    run : what `ForceField.simulate` gave, or None; the first tenth of each replica is dropped
    system : or its name
    seed : of the random subsamples

    Raises
    ------
    ScoreMDError
        If there is nothing to compare, or something is of another molecule.
    """
    system = load_system(system) if isinstance(system, str) else system
    trajectory, replica, lost = (None, None, None) if run is None else (run.trajectory, run.replica, len(run.lost))
    reference = system.reference_ensemble()
    return compare_trajectories(system, samples, trajectory, replica, reference=reference, lost=lost, seed=seed)
