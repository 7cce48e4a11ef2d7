"""Trajectories on disk: mdtraj HDF5, XTC, DCD and PDB, of one or many replicas."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import mdtraj
import numpy as np
from mdtraj.formats import DCDTrajectoryFile, HDF5TrajectoryFile, XTCTrajectoryFile
from numpy.typing import NDArray

from scoremd.errors import ScoreMDError
from scoremd.files import replacing

FORMATS = (".h5", ".xtc", ".dcd", ".pdb")

#: positions (frame, bead, 3) in nm, times (frame,) in ps, number of the replica
Block = tuple[NDArray[np.float32], NDArray[np.float32], int]


def check_output(path: str | os.PathLike[str]) -> Path:
    """The path, if a trajectory can be written there.

    Raises
    ------
    ScoreMDError
        If the ending is none of `FORMATS`, the path is a folder, or its folder is missing or not writable.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ScoreMDError(f"{path}: a trajectory file ends in one of {', '.join(FORMATS)}")
    if path.is_dir():
        raise ScoreMDError(f"{path}: is a folder, where a file is to be written")
    if not path.parent.is_dir():
        raise ScoreMDError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ScoreMDError(f"{path}: the folder {path.parent} cannot be written to")
    return path


def write_trajectory(path: str | os.PathLike[str], topology: mdtraj.Topology, blocks: Iterator[Block]) -> Path:
    """Write blocks of frames, one replica after the other.

    HDF5 files also hold `replica`, the replica of each frame, which mdtraj passes over; XTC and DCD files get their topology
    beside them, as FILE.xtc.pdb or FILE.dcd.pdb.

    Parameters
    ----------
    path : ends in one of `FORMATS`; replaced as a whole
    topology : of the beads
    blocks : see `Block`

    Raises
    ------
    ScoreMDError
        As `check_output`.
    """
    path = check_output(path)
    kind = path.suffix.lower()
    with replacing(path) as temporary:
        if kind == ".h5":
            _write_hdf5(temporary, topology, blocks)
        elif kind == ".xtc":
            with XTCTrajectoryFile(str(temporary), "w", force_overwrite=True) as file:
                for xyz, time, _ in blocks:
                    file.write(xyz, time=time, step=np.arange(len(time)))
        elif kind == ".dcd":
            with DCDTrajectoryFile(str(temporary), "w", force_overwrite=True) as file:
                for xyz, _, _ in blocks:
                    file.write(10 * xyz)
        else:
            parts = [mdtraj.Trajectory(xyz, topology, time) for xyz, time, _ in blocks]
            mdtraj.join(parts, check_topology=False).save_pdb(str(temporary))
        if kind in (".xtc", ".dcd"):
            _write_topology(path.with_name(path.name + ".pdb"), topology, temporary)
    return path


def _write_hdf5(path: Path, topology: mdtraj.Topology, blocks: Iterator[Block]) -> None:
    replicas = []
    with HDF5TrajectoryFile(str(path), "w", force_overwrite=True) as file:
        file.topology = topology
        for xyz, time, replica in blocks:
            file.write(xyz, time=time)
            replicas.append(np.full(len(xyz), replica, np.int32))
    with h5py.File(path, "r+") as file:
        file.create_dataset("replica", data=np.concatenate(replicas), compression="gzip")


def _write_topology(path: Path, topology: mdtraj.Topology, trajectory: Path) -> None:
    with replacing(path) as temporary:
        mdtraj.load_frame(str(trajectory), 0, top=topology).save_pdb(str(temporary))


def read_trajectory(path: str | os.PathLike[str], topology: mdtraj.Topology) -> tuple[mdtraj.Trajectory, NDArray[np.int64] | None]:
    """Read a trajectory of known beads, and which replica each frame is of.

    Parameters
    ----------
    path : in any of `FORMATS`
    topology : the beads that are expected

    Returns
    -------
    the trajectory, and the replica of each frame, from the file or from where the time starts again; None if the file has neither

    Raises
    ------
    ScoreMDError
        If the file is missing, damaged, empty, of other beads, or has coordinates that are not finite.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ScoreMDError(f"{path}: a trajectory file ends in one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise ScoreMDError(f"{path}: there is no such file")
    try:
        if path.suffix.lower() == ".h5":
            trajectory, names = _read_hdf5(path, topology)
        else:
            trajectory = mdtraj.load(str(path)) if path.suffix.lower() == ".pdb" else mdtraj.load(str(path), top=topology)
            names = _names(trajectory.topology)
    except Exception as error:  # noqa: BLE001  mdtraj and its readers raise whatever their formats do
        raise ScoreMDError(f"{path}: cannot be read as a trajectory ({' '.join(str(error).split())[:120]})") from None
    if trajectory.n_frames == 0:
        raise ScoreMDError(f"{path}: holds no frames")
    wanted = _names(topology)
    if names != wanted:
        raise ScoreMDError(f"{path}: is of another molecule: its beads are {_beads(names)}, where {_beads(wanted)} are needed")
    if not np.isfinite(trajectory.xyz).all():
        raise ScoreMDError(f"{path}: holds coordinates that are not finite")
    return trajectory, _replicas(path, trajectory)


def _names(topology: mdtraj.Topology) -> list[tuple[str, str]]:
    return [(atom.name, atom.residue.name) for atom in topology.atoms]


def _read_hdf5(path: Path, topology: mdtraj.Topology) -> tuple[mdtraj.Trajectory, list[tuple[str, str]]]:
    """Read with h5py alone: mdtraj reads through PyTables, which unpickles attributes, and files come from strangers."""
    with h5py.File(path) as file:
        text = np.asarray(file["topology"]).item()
        chains = json.loads(text)["chains"]
        names = [(a["name"], r["name"]) for chain in chains for r in chain["residues"] for a in r["atoms"]]
        xyz = np.asarray(file["coordinates"], np.float32)
        time = np.asarray(file["time"], np.float32) if "time" in file else None
    if len(names) == topology.n_atoms:
        return mdtraj.Trajectory(xyz, topology, time), names
    return mdtraj.Trajectory(np.zeros((len(xyz), topology.n_atoms, 3)), topology), names


def _beads(names: list[tuple[str, str]]) -> str:
    shown = " ".join(f"{residue}:{atom}" for atom, residue in names[:6])
    return shown + (" …" if len(names) > 6 else "")


def _replicas(path: Path, trajectory: mdtraj.Trajectory) -> NDArray[np.int64] | None:
    if path.suffix.lower() == ".h5":
        with h5py.File(path) as file:
            if "replica" in file and len(file["replica"]) == trajectory.n_frames:
                return np.asarray(file["replica"], np.int64)
    if path.suffix.lower() != ".xtc":
        return None
    again = np.diff(trajectory.time) <= 0
    return np.concatenate([[0], np.cumsum(again)]).astype(np.int64) if again.any() else None
