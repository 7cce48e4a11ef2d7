"""The main job: sample, simulate with the same network, compare both with the reference, write the report.

If asked to, forces are calibrated for the molecule before they simulate (`scoremd.calibration`).
"""

import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
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
from scoremd.calibration import CalibrationSettings, calibrate, require_calibratable
from scoremd.cluster import Workers, connected, each
from scoremd.data import Ensemble
from scoremd.equilibration import EQUILIBRATION, equilibrated
from scoremd.errors import ScoreMDError
from scoremd.files import PART, claim, exclusive, make_folder
from scoremd.force_field import ForceField, check_samples
from scoremd.frame_store import AllLostError
from scoremd.parts import part_size
from scoremd.progress import progress
from scoremd.simulation.engine import Simulation, SimulationSettings, origin_of, run_replicas
from scoremd.systems import System, load_system
from scoremd.trajectory_files import Block, read_trajectory, write_samples, write_trajectory

SETTINGS = "settings.json"
_FORCES = "forces"
#: Of the replicas that one worker simulates, in a folder of its own.
_BLOCK = "simulation.h5"


@dataclass(frozen=True)
class Emulation:
    """What `emulate` made.

    Attributes
    ----------
    folder : holds samples.h5, simulation.h5, comparison.json, report.html, and in forces the model that simulated, if it was calibrated
    comparison : the measurements
    """

    folder: Path
    comparison: Comparison


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


def provenance(command: str, **extra: Any) -> dict[str, Any]:
    """Where a result comes from: command, what else is known, versions, date."""
    facts: dict[str, Any] = {"command": command, **extra}
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
    calibrated: bool = False,
    reference: Ensemble | None = None,
    workers: Workers | None = None,
) -> Emulation:
    """Draw samples, simulate, compare and report; finished parts of an interrupted run are kept.

    Parameters
    ----------
    force_field, system : the model and the molecule
    folder : to be written, made if need be
    samples : number of independent samples
    settings : of the simulation; its seed is that of the samples, too
    command : to be shown in the report
    calibrated : simulate with forces calibrated by the samples
    reference : of the same beads; by default the system's own, if it has one
    workers : simulate blocks of the replicas each; by default this process does

    Raises
    ------
    ScoreMDError
        If a number makes no sense, workers cannot be had, the folder cannot be written or holds an emulation with other settings, or
        forces that are to be calibrated cannot be.
    """
    if workers is not None:
        with connected(workers):
            pass  # refused before anything is drawn, if they cannot be had
    settings.check()
    check_samples(samples)
    if samples < settings.replicas:
        raise ScoreMDError(f"{settings.replicas} replicas start from as many samples; {samples} are too few")
    ensemble = system.reference_ensemble() if reference is None else reference
    lengths = {"simulation": settings.frames - int(EQUILIBRATION * settings.frames)}
    if ensemble is not None:
        lengths["reference"] = longest(ensemble.n_frames, ensemble.walker)
    require_plane(system, lengths)
    NativeStructure.of(system)  # refused before the work, not after it
    if calibrated:
        require_calibratable(force_field, system)
    make_folder(folder)
    with exclusive(folder):
        claimed = _claimed(force_field, system, samples, settings, calibrated)
        claim(folder / SETTINGS, claimed, "an emulation", ("samples.h5", "simulation.h5"))
        drawn = _samples(force_field, system, folder / "samples.h5", samples, settings.seed)
        forces = force_field
        if calibrated:
            forces = calibrate(force_field, system, CalibrationSettings(samples, seed=settings.seed), folder / _FORCES, drawn)
        run, replicas, lost = _simulation(forces, system, folder, drawn[: settings.replicas], settings, workers)
        comparison = compare_trajectories(system, drawn, run, replicas, reference=ensemble, lost=lost, seed=settings.seed)
        if (note := forces.description.trained.get("calibrated")) is not None:
            comparison = replace(comparison, remark=_calibrated_text(note))
        comparison.to_json(folder / "comparison.json")
        length = f"{settings.replicas} replicas of {settings.simulated_ns:g} ns at {settings.time_step_fs} fs, first tenth dropped"
        model = {"model": force_field.description.name, "model hash": force_field.hash}
        facts = provenance(command, seed=settings.seed, samples=samples, simulation=length, **model)
        write_report(folder / "report.html", comparison, facts)
    return Emulation(folder, comparison)


def is_finished(
    force_field: ForceField, system: System, folder: Path, *, samples: int, settings: SimulationSettings, calibrated: bool
) -> bool:
    """Whether `emulate` came to its end in this folder with these arguments."""
    note = folder / SETTINGS
    same = note.exists() and note.read_text(encoding="utf-8") == _claimed(force_field, system, samples, settings, calibrated)
    return same and (folder / "report.html").exists()


def _samples(force_field: ForceField, system: System, path: Path, n: int, seed: int) -> mdtraj.Trajectory:
    """Those in the file, which is written if it is not there."""
    if not path.exists():
        write_samples(path, force_field.sample(system, n, seed), origin=force_field.origin_of_samples(system, n, seed))
    drawn = read_trajectory(path, system.topology()).trajectory
    if drawn.n_frames != n:
        raise ScoreMDError(f"{path}: holds {drawn.n_frames} frames, not the {n} samples asked for; remove it to start again")
    return drawn


def _simulation(
    force_field: ForceField, system: System, folder: Path, start: mdtraj.Trajectory, settings: SimulationSettings, workers: Workers | None
) -> tuple[mdtraj.Trajectory, NDArray[np.int64], int]:
    """Simulation, the replica of each of its frames, and the number of lost ones: what is there is read, the rest made."""
    simulation_path, blocks = folder / "simulation.h5", folder / "blocks"
    if not simulation_path.exists() and workers is not None:
        _simulate_in_blocks(force_field, system, simulation_path, start, settings, workers, blocks)
    elif not simulation_path.exists():
        force_field.simulate(
            system,
            ns=settings.ns,
            replicas=settings.replicas,
            seed=settings.seed,
            time_step_fs=settings.time_step_fs,
            friction=settings.friction,
            frame_interval_ps=settings.frame_interval_ps,
            start=start,
            output=simulation_path,
        )
    # there if a run was killed after its trajectory was written
    for left in (simulation_path.with_name(simulation_path.name + PART), blocks):
        shutil.rmtree(left, ignore_errors=True)
    run, replicas, lost = read_trajectory(simulation_path, system.topology())
    if replicas is None or lost is None:
        raise ScoreMDError(f"{simulation_path}: does not say which replica its frames are of; remove it to start again")
    return run, replicas, lost


def _simulate_in_blocks(
    force_field: ForceField,
    system: System,
    output: Path,
    start: mdtraj.Trajectory,
    settings: SimulationSettings,
    workers: Workers,
    folder: Path,
) -> None:
    """As `ForceField.simulate`, each part of the replicas by a worker, who keeps it in `folder`; they are put together in the end."""
    size, topology = part_size(settings.replicas), system.topology()
    jobs = [(force_field, (system, first), make_folder(folder) / str(first)) for first in range(0, settings.replicas, size)]
    block = partial(_block, size=size, start=start.xyz, settings=settings)
    with progress(f"simulate {system.name}", len(jobs), "blocks of replicas") as bar:
        for _ in each(workers, block, jobs):
            bar.advance(1)

    whole = [(first, own / _BLOCK) for _, (_, first), own in jobs if (own / _BLOCK).exists()]
    if not whole:
        raise AllLostError

    origin = origin_of(force_field.description, force_field.hash, system, settings)

    def blocks() -> Iterator[Block]:
        for first, path in whole:
            found, replica, _ = read_trajectory(path, topology)
            assert replica is not None  # as the engine writes it
            for k in np.unique(replica):
                yield found.xyz[replica == k], found.time[replica == k], first + int(k)

    write_trajectory(output, topology, blocks(), (settings.replicas, settings.frames), origin=origin)


def _block(
    force_field: ForceField, task: tuple[System, int], folder: Path, *, size: int, start: NDArray[np.float32], settings: SimulationSettings
) -> dict[str, Any]:
    """Simulate the replicas from the first of the task on, if that is not done yet."""
    system, first = task
    with suppress(AllLostError):  # others may not be
        if (make_folder(folder) / _BLOCK).exists():
            return {}
        run_replicas(force_field.bind(system), settings, folder / _BLOCK, start, force_field.hash, slice(first, first + size))
    return {}


def _claimed(force_field: ForceField, system: System, samples: int, settings: SimulationSettings, calibrated: bool) -> str:
    return json.dumps([force_field.hash, system.name, samples, vars(settings), calibrated], default=str)


def _calibrated_text(note: dict[str, Any]) -> str:
    """What is to be known of a simulation with calibrated forces."""
    before = ", ".join(f"{name.partition(' (')[0]} {p['forces']:.3f} ({p['samples']:.3f})" for name, p in note["populations"].items())
    return (
        f"The forces were calibrated by {note['samples']} samples: where simulation and samples agree, that is no evidence for either. "
        f"Populations that the forces had before (that these samples have): {before}."
    )


def compare_run(samples: mdtraj.Trajectory | None, run: Simulation | None, *, system: System | str, seed: int = 0) -> Comparison:
    """Compare samples and a run of a force field with each other and with the system's reference, if it has one.

    Parameters
    ----------
    samples : independent samples, or None
    run : what `ForceField.simulate` gave, or None; the first tenth of each replica is dropped
    system : or its name
    seed : of the random subsamples

    Returns
    -------
    what `scoremd compare` shows: divergences in nats with floors and intervals in `pairs`, each ensemble's own figures in `ensembles`

    Raises
    ------
    ScoreMDError
        If there is nothing to compare, or something is of another molecule.
    """
    system = load_system(system) if isinstance(system, str) else system
    trajectory, replica, lost = (None, None, None) if run is None else (run.trajectory, run.replica, len(run.lost))
    reference = system.reference_ensemble()
    return compare_trajectories(system, samples, trajectory, replica, reference=reference, lost=lost, seed=seed)
