"""Trajectories on disk: mdtraj HDF5, XTC, DCD and PDB, of one or many replicas."""

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import h5py
import mdtraj
import numpy as np
from mdtraj.formats import DCDTrajectoryFile, HDF5TrajectoryFile, XTCTrajectoryFile
from numpy.typing import NDArray

from scoremd.errors import ScoreMDError
from scoremd.files import replacing
from scoremd.molecules import bead_names, require_beads

FORMATS = (".h5", ".xtc", ".dcd", ".pdb")


@dataclass(frozen=True)
class Origin:
    """What made the frames of a file, for the attributes that mdtraj's HDF5 format has for it.

    Attributes
    ----------
    title : what the frames are, seed included
    forcefield : the model, its hash and its temperature
    """

    title: str
    forcefield: str


#: positions (frame, bead, 3) in nm, times (frame,) in ps, number of the replica
Block = tuple[NDArray[np.float32], NDArray[np.float32], int]


def check_output(path: str | os.PathLike[str], formats: Sequence[str] = FORMATS) -> Path:
    """The path, if a trajectory can be written there in one of the formats.

    Raises
    ------
    ScoreMDError
        If the ending is none of these, the path is a folder, or its folder is missing or not writable.
    """
    path = Path(path)
    if path.suffix.lower() not in formats:
        ends = f"one of {', '.join(formats)}" if len(formats) > 1 else f"{formats[0]} where there is more to a frame than coordinates"
        raise ScoreMDError(f"{path}: a trajectory file ends in {ends}")
    if path.is_dir():
        raise ScoreMDError(f"{path}: is a folder, where a file is to be written")
    if not path.parent.is_dir():
        raise ScoreMDError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ScoreMDError(f"{path}: the folder {path.parent} cannot be written to")
    return path


def write_trajectory(
    path: str | os.PathLike[str],
    topology: mdtraj.Topology,
    blocks: Iterator[Block],
    asked: tuple[int, int] | None = None,
    columns: Mapping[str, NDArray[np.float64]] | None = None,
    origin: Origin | None = None,
) -> Path:
    """Write blocks of frames, one replica after the other.

    HDF5 files say what made them (`title`, `forcefield` and `application` of `mdtraj.formats.HDF5TrajectoryFile`). Those of a simulation
    also hold `replica`, the replica of each frame, with what was asked for as attributes, which mdtraj passes over. XTC and DCD files get
    their topology beside them, as FILE.xtc.pdb or FILE.dcd.pdb.

    Parameters
    ----------
    path : ends in one of `FORMATS`; replaced as a whole
    topology : of the beads
    blocks : see `Block`
    asked : numbers of replicas and of frames of each that a simulation was to have, whatever was lost; None for independent samples
    columns : further numbers (frame,) by the name of their dataset, which only HDF5 files can hold
    origin : what made the frames, or None where that is not known

    Raises
    ------
    ScoreMDError
        As `check_output`, or if there are columns for another format.
    """
    path = check_output(path, (".h5",) if columns else FORMATS)
    kind = path.suffix.lower()
    with replacing(path) as temporary:
        if kind == ".h5":
            _write_hdf5(temporary, topology, blocks, asked, columns or {}, origin)
        elif kind == ".xtc":
            frames = 0
            with XTCTrajectoryFile(str(temporary), "w", force_overwrite=True) as file:
                for xyz, time, _ in blocks:
                    file.write(xyz, time=time, step=np.arange(len(time)))
                    frames += len(xyz)
            _require_frames(path, temporary, frames)
        elif kind == ".dcd":
            frames = 0
            with DCDTrajectoryFile(str(temporary), "w", force_overwrite=True) as file:
                for xyz, _, _ in blocks:
                    file.write(10 * xyz)
                    frames += len(xyz)
            _require_frames(path, temporary, frames)
        else:
            parts = [mdtraj.Trajectory(xyz, topology, time) for xyz, time, _ in blocks]
            _write_pdb(temporary, mdtraj.join(parts, check_topology=False))
        if kind in (".xtc", ".dcd"):
            _write_topology(topology_file(path), topology, temporary)
    return path


def _require_frames(path: Path, written: Path, frames: int) -> None:
    """Refuse a file of fewer frames than were written: these formats do not always say that the disk is full."""
    with mdtraj.open(str(written)) as file:
        found = len(file)
    if found != frames:
        raise ScoreMDError(f"{path}: cannot be written ({os.strerror(errno.ENOSPC)}: {found} of {frames} frames are there)")


def write_samples(
    path: str | os.PathLike[str],
    samples: mdtraj.Trajectory,
    columns: Mapping[str, NDArray[np.float64]] | None = None,
    origin: Origin | None = None,
) -> Path:
    """Write independent samples; arguments and errors as of `write_trajectory`."""
    return write_trajectory(path, samples.topology, iter([(samples.xyz, samples.time, 0)]), columns=columns, origin=origin)


def _write_pdb(path: Path, trajectory: mdtraj.Trajectory) -> None:
    """A PDB file of one chain with all bonds as CONECT records, which mdtraj writes for residues that are not standard only."""
    trajectory.save_pdb(str(path))
    partners: dict[int, list[int]] = {}
    for a, b in trajectory.topology.bonds:
        for one, other in ((a, b), (b, a)):
            partners.setdefault(one.index + 1, []).append(other.index + 1)
    lines = [line for line in path.read_text(encoding="ascii").splitlines() if not line.startswith(("CONECT", "END "))]
    records = [f"CONECT{k:5d}" + "".join(f"{p:5d}" for p in sorted(partners[k])) for k in sorted(partners)]
    at = len(lines) - (lines[-1] == "END")
    path.write_text("\n".join([*lines[:at], *records, "END", ""]), encoding="ascii")


def _write_hdf5(
    path: Path,
    topology: mdtraj.Topology,
    blocks: Iterator[Block],
    asked: tuple[int, int] | None,
    columns: Mapping[str, NDArray[np.float64]],
    origin: Origin | None,
) -> None:
    replicas = []
    with HDF5TrajectoryFile(str(path), "w", force_overwrite=True) as file:
        file.topology = topology
        for xyz, time, replica in blocks:
            file.write(xyz, time=time)
            replicas.append(np.full(len(xyz), replica, np.int32))
    with h5py.File(path, "r+") as file:
        if asked is not None:
            dataset = file.create_dataset("replica", data=np.concatenate(replicas), compression="gzip")
            dataset.attrs["replicas"], dataset.attrs["frames_each"] = asked
        for name, values in columns.items():
            file.create_dataset(name, data=values)
        file.attrs.update({"application": f"ScoreMD {version('scoremd')}"} | ({} if origin is None else vars(origin)))


def topology_file(path: Path) -> Path:
    """The PDB beside an XTC or DCD file."""
    return path.with_name(path.name + ".pdb")


def _write_topology(path: Path, topology: mdtraj.Topology, trajectory: Path) -> None:
    with replacing(path) as temporary:
        _write_pdb(temporary, mdtraj.load_frame(str(trajectory), 0, top=topology))


class TrajectoryFile(NamedTuple):
    """What a trajectory file holds.

    Attributes
    ----------
    trajectory : one replica after the other
    replica : (frame,) replica of each frame, from the file or from where the time starts again; None if the file has neither
    lost : number of replicas with fewer frames than were asked for; None if the file does not say how many were
    """

    trajectory: mdtraj.Trajectory
    replica: NDArray[np.int64] | None
    lost: int | None


def read_trajectory(path: str | os.PathLike[str], topology: mdtraj.Topology) -> TrajectoryFile:
    """Read a trajectory of known beads, and which replica each frame is of.

    Parameters
    ----------
    path : in any of `FORMATS`
    topology : the beads that are expected

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
            trajectory, names, replica, lost = _read_hdf5(path, topology)
        else:
            replica, lost = None, None
            # XTC and DCD hold no names; the PDB that is written beside them does
            beside = path if path.suffix.lower() == ".pdb" else topology_file(path)
            named = mdtraj.load_topology(str(beside)) if beside.exists() else topology
            trajectory, names = mdtraj.load(str(path), top=named), bead_names(named)
        if replica is None and path.suffix.lower() in (".h5", ".xtc"):
            replica = _restarts(trajectory.time)
    except Exception as error:  # noqa: BLE001  mdtraj and its readers raise whatever their formats do
        raise ScoreMDError(f"{path}: cannot be read as a trajectory ({' '.join(str(error).split())[:120]})") from None
    if trajectory.n_frames == 0:
        raise ScoreMDError(f"{path}: holds no frames")
    require_beads(names, topology, str(path))
    if not np.isfinite(trajectory.xyz).all():
        raise ScoreMDError(f"{path}: holds coordinates that are not finite")
    return TrajectoryFile(trajectory, replica, lost)


def _read_hdf5(
    path: Path, topology: mdtraj.Topology
) -> tuple[mdtraj.Trajectory, list[tuple[str, str]], NDArray[np.int64] | None, int | None]:
    """Read with h5py alone: mdtraj reads through PyTables, which unpickles attributes, and files come from strangers."""
    with h5py.File(path) as file:
        text = np.asarray(file["topology"]).item()
        chains = json.loads(text)["chains"]
        names = [(a["name"], r["name"]) for chain in chains for r in chain["residues"] for a in r["atoms"]]
        xyz = np.asarray(file["coordinates"], np.float32)
        time = np.asarray(file["time"], np.float32) if "time" in file else None
        replica, lost = _read_replica(file["replica"], len(xyz)) if "replica" in file else (None, None)
    if len(names) == topology.n_atoms:
        return mdtraj.Trajectory(xyz, topology, time), names, replica, lost
    return mdtraj.Trajectory(np.zeros((len(xyz), topology.n_atoms, 3)), topology), names, replica, lost


def _read_replica(dataset: h5py.Dataset, n_frames: int) -> tuple[NDArray[np.int64], int | None]:
    replica = np.asarray(dataset)
    if replica.dtype.kind not in "iu" or replica.shape != (n_frames,) or (n_frames and replica.min() < 0):
        raise ScoreMDError("its dataset 'replica' does not hold a number of zero or more for each frame")
    if not {"replicas", "frames_each"} <= set(dataset.attrs):
        return replica.astype(np.int64), None
    asked, frames = int(dataset.attrs["replicas"]), int(dataset.attrs["frames_each"])
    return replica.astype(np.int64), asked - int((np.bincount(replica)[:asked] >= frames).sum())


def _restarts(time: NDArray[np.float32]) -> NDArray[np.int64] | None:
    again = np.diff(time) <= 0
    return np.concatenate([[0], np.cumsum(again)]).astype(np.int64) if again.any() else None
