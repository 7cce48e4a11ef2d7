"""Ensembles from trajectories of one's own: any files that mdtraj reads, or our ensembles; the beads by a selection, forces beside them.

Frames are read in parts, and of each only the beads are kept, so that the trajectories may be larger than the memory: those of all formats
but PDB, which mdtraj reads whole, and our own ensembles, which we do.
"""

import functools
import itertools
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import h5py
import mdtraj
import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from scoremd.coarse_graining import molecule_of, select_beads
from scoremd.data import Ensemble, read_ensemble, write_ensemble
from scoremd.errors import ScoreMDError
from scoremd.files import make_folder, write_text
from scoremd.forces import force_map
from scoremd.molecules import first_difference
from scoremd.progress import progress
from scoremd.system import System, standard_residue
from scoremd.systems import is_known, load_system
from scoremd.units import thermal_energy

_log = logging.getLogger("scoremd")

#: What a force in each unit is multiplied by to be in kJ/mol/nm.
FORCE_UNITS = {"kJ/mol/nm": 1.0, "kcal/mol/angstrom": 41.84}
_PART = 1000
#: Endings of files of frames that say which atoms they have.
SELF_DESCRIBING = (".h5", ".pdb", ".gro")
#: Frames of the reference that a trained model carries with it, at most.
_REFERENCE = 50000
#: nm. No bond between atoms is longer, nor is the distance of two beads that three bonds join.
_LONGEST_BOND = 0.7
#: nm. The length of a bond that no constraint holds has a larger standard deviation; XTC files round away a third of this.
_RIGID = 1e-3
#: nm. Coordinates in multiples of this do not tell which bonds are rigid.
_COARSE = 0.01
#: nm. C-alphas of neighbours are 0.38 nm apart, 0.29 nm where the peptide bond between them is cis.
_SHORTEST_CALPHA_BOND = 0.28
#: How far the virial may be from one, besides its error: simulations are short.
_VIRIAL = 0.5
#: Frames that tell constrained bonds from others.
_ENOUGH = 50


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ForceSource(_Section):
    """Forces on atoms.

    Attributes
    ----------
    files : .npy, or HDF5 with a dataset `forces`, of shape (frame, atom, 3): one for each trajectory; of all atoms, or of the beads alone
    unit : of the forces
    """

    files: tuple[Path, ...] = Field(min_length=1)
    unit: Literal["kJ/mol/nm", "kcal/mol/angstrom"]


class TrajectorySource(_Section):
    """Trajectories of one molecule in equilibrium.

    Attributes
    ----------
    trajectories : files in any format of mdtraj, each of which counts as an independent trajectory; or ensembles in the format of
        `scoremd.data`, whose walkers do
    topology : file with the atoms: PDB, PRMTOP, GRO, HDF5, ..., or an ensemble, whose residues get their standard bonds; None where the
        molecule is a known system and the files hold its beads alone
    select : which atoms are beads, in mdtraj's language: `name CA`, `not element H`
    temperature : of the simulation, K
    native : file with atoms and coordinates of the native structure, which folding is measured by, or None
    masses : of each bead, Da; by default those of the atoms
    forces : on the atoms, or None
    stride : every so many frames are taken
    """

    trajectories: tuple[Path, ...] = Field(min_length=1)
    topology: Path | None = None
    select: str = "name CA"
    temperature: PositiveFloat
    native: Path | None = None
    masses: tuple[PositiveFloat, ...] = ()
    forces: ForceSource | None = None
    stride: int = Field(1, ge=1)

    def below(self, folder: Path) -> "TrajectorySource":
        """With relative paths taken from a folder."""
        forces = self.forces and self.forces.model_copy(update={"files": tuple(folder / path for path in self.forces.files)})
        paths: dict[str, Any] = {"trajectories": tuple(folder / path for path in self.trajectories)}
        paths |= {name: folder / path for name in ("topology", "native") if (path := getattr(self, name)) is not None}
        return self.model_copy(update=paths | {"forces": forces})


@functools.lru_cache(maxsize=1)
def read_source(name: str, source: TrajectorySource) -> tuple[System, Ensemble]:
    """The molecule of trajectories, and their frames reduced to its beads.

    Parameters
    ----------
    name : of the molecule
    source : with paths that can be read

    Raises
    ------
    ScoreMDError
        If a file is missing or damaged, is of other atoms, has no frames, values that are not finite, coordinates in ångström or bonds that
        cross a periodic box, the selection makes no molecule, or forces have another shape than the trajectory or cannot be its own.
    """
    for path in source.trajectories:
        if not path.exists():
            raise ScoreMDError(f"{path}: there is no such file")
    topology = load_system(name).topology() if source.topology is None else read_topology(source.topology)
    beads = select_beads(topology, source.select)
    twice = next((path for k, path in enumerate(source.trajectories) if path in source.trajectories[:k]), None)
    if twice is not None:
        raise ScoreMDError(f"{twice}: is given twice")
    if source.masses and len(source.masses) != len(beads):
        raise ScoreMDError(f"masses must be one for each of {len(beads)} beads, not {len(source.masses)}")
    system = molecule_of(name, topology, beads.tolist(), source.temperature, source.masses)
    if source.native is not None:
        system = system.model_copy(update={"native": _native(source.native, source.select, system)})
    forces = None if source.forces is None else _Forces(source, topology, beads)
    positions, gathered, walkers, n_walkers = [], [], [], 0
    with progress(f"read {name}", len(source.trajectories), "trajectories") as bar:
        for k, path in enumerate(source.trajectories):
            _require_same_beads(path, topology, beads)
            if _is_ensemble(path) and not np.isclose(found := read_ensemble(path).temperature, source.temperature):
                raise ScoreMDError(f"{path}: is at {found:g} K, not at {source.temperature:g} K")
            parts = [_whole(part, system, path) for part in _frames(path, topology, source.stride, beads)]
            n = sum(map(len, parts))
            if n == 0:
                raise ScoreMDError(f"{path}: holds no frames")
            positions += parts
            walkers.append(n_walkers + _walkers(path, n, source.stride))
            n_walkers = 1 + int(walkers[-1].max())
            if forces is not None:
                gathered += forces.of(k, n)
            bar.advance(1)
    ensemble = Ensemble(
        name,
        source.temperature,
        system.atoms,
        np.concatenate(positions),
        np.concatenate(gathered) if forces is not None else None,
        np.concatenate(walkers),
    )
    _check_lengths(ensemble.name, ensemble.positions, system)
    _tell_of_rigid_bonds(ensemble, system)
    _check_virial(ensemble)
    return system, ensemble


def own_molecule(name: str, source: TrajectorySource) -> tuple[System, Ensemble]:
    """As `read_source`; of a molecule that is known by the name, as it is known.

    Raises
    ------
    ScoreMDError
        As `read_source`; if another molecule, or the same at another temperature, is known by the name, too.
    """
    system, ensemble = read_source(name, source)
    if not is_known(name):
        return system, ensemble
    known = load_system(name)
    wanted, found = (
        [*(f"{_described(a)} {a.residue.index + 1}" for a in s.topology().atoms), f"at {s.temperature:g} K"] for s in (known, system)
    )
    if (differing := first_difference(wanted, found)) is not None:
        a, b = differing
        raise ScoreMDError(f"{name} is a known system, and the trajectories are of another: {b} where it has {a}; choose another name")
    changes = {"bead_masses": source.masses, "native": system.native or known.native}
    return known.model_copy(update=changes), replace(ensemble, name=known.name)


def _described(atom: Any) -> str:
    return f"{atom.name} of {standard_residue(atom.residue.name)}"


def _require_same_beads(path: Path, topology: mdtraj.Topology, beads: NDArray[np.int64]) -> None:
    """Refuse a file that says which atoms it has, if its beads are others; another number of atoms shows in the coordinates."""
    end = path.suffix.lower()
    if end not in SELF_DESCRIBING or (end == ".h5" and not _is_ensemble(path) and not _holds(path, "topology")):
        return
    own = read_topology(path)
    if own.n_atoms != topology.n_atoms:
        return
    wanted, found = ([_described(q.atom(int(k))) for k in beads] for q in (topology, own))
    if (differing := first_difference(wanted, found)) is not None:
        raise ScoreMDError(f"{path}: is of another molecule than the topology: it has {differing[1]}, where {differing[0]} is needed")


def _native(path: Path, select: str, system: System) -> tuple[tuple[float, float, float], ...]:
    """Position of each bead in the first frame of a file that says which atoms it has, nm, to four digits."""
    topology = read_topology(path)
    chosen = [topology.atom(int(k)) for k in select_beads(topology, select)]
    differing = first_difference([_described(a) for a in system.topology().atoms], [_described(a) for a in chosen])
    if differing is not None:
        wanted, found = differing
        raise ScoreMDError(f"{path}: is no structure of {system.name}: {select!r} chooses {found} of it, where {wanted} is needed")
    part = next(_frames(path, topology, 1, np.array([a.index for a in chosen])), None)
    if part is None or len(part) == 0:
        raise ScoreMDError(f"{path}: holds no frames")
    positions = _whole(part[:1], system, path)
    _check_lengths(str(path), positions, system)
    x, y, z = (column.round(4).tolist() for column in positions[0].astype(float).T)
    return tuple(zip(x, y, z, strict=True))


def write_own_system(folder: Path, system: System, ensemble: Ensemble) -> None:
    """Write a molecule as a system's file, and its frames, few enough to be carried about, as the reference beside it.

    Parameters
    ----------
    folder : made if need be
    system, ensemble : as `read_source` gives them
    """
    every = -(-ensemble.n_frames // _REFERENCE)
    frames = replace(ensemble.select(slice(None, None, every)), forces=None)
    write_ensemble(make_folder(folder) / f"{system.name}.h5", frames)
    described = system.model_copy(update={"reference": f"{system.name}.h5"}).model_dump(mode="json", exclude_defaults=True)
    write_text(folder / f"{system.name}.yaml", yaml.safe_dump(described, sort_keys=False, allow_unicode=True))


def read_topology(path: Path) -> mdtraj.Topology:
    """The topology in a file.

    Raises
    ------
    ScoreMDError
        If the file is missing or holds none.
    """
    if not path.is_file():
        raise ScoreMDError(f"{path}: there is no such file")
    try:
        if _is_ensemble(path):
            return read_ensemble(path).topology()
        return _hdf5_topology(path) if path.suffix.lower() == ".h5" else mdtraj.load_topology(str(path))
    except Exception as error:  # noqa: BLE001  mdtraj's readers raise whatever their formats do
        raise ScoreMDError(f"{path}: cannot be read as a topology ({' '.join(str(error).split())[:120]})") from None


def _is_ensemble(path: Path) -> bool:
    """Whether a file is an HDF5 file in the format of `scoremd.data`, not in mdtraj's."""
    return path.suffix.lower() == ".h5" and _holds(path, "atom_names")


def _holds(path: Path, name: str) -> bool:
    """Whether an HDF5 file holds something of this name."""
    if not path.is_file():
        raise ScoreMDError(f"{path}: there is no such file")
    try:
        with h5py.File(path) as file:
            return name in file
    except OSError:
        raise ScoreMDError(f"{path}: is no HDF5 file, or a damaged one") from None


def _walkers(path: Path, n: int, stride: int) -> NDArray[np.int64]:
    """The independent trajectory, from 0, of each of the n frames that are taken of a file."""
    walker = read_ensemble(path).walker if _is_ensemble(path) else None
    return np.zeros(n, np.int64) if walker is None else np.unique(walker, return_inverse=True)[1][::stride]


def _hdf5_topology(path: Path) -> mdtraj.Topology:
    """From mdtraj's HDF5, with h5py alone: mdtraj reads through PyTables, which unpickles attributes, and files come from strangers."""
    with h5py.File(path) as file:
        found = json.loads(np.asarray(file["topology"]).item())
    topology, atoms = mdtraj.Topology(), {}
    for one in found["chains"]:
        chain = topology.add_chain()
        for r in one["residues"]:
            residue = topology.add_residue(r["name"], chain, resSeq=r.get("resSeq"), segment_id=r.get("segmentID", ""))
            for a in r["atoms"]:
                element = mdtraj.element.get_by_symbol(a["element"]) if a["element"] else mdtraj.element.virtual
                atoms[a["index"]] = topology.add_atom(a["name"], element, residue)
    for a, b in found["bonds"]:
        topology.add_bond(atoms[a], atoms[b])
    return topology


def _frames(path: Path, topology: mdtraj.Topology, stride: int, atoms: NDArray[np.int64]) -> Iterator[mdtraj.Trajectory]:
    """Parts of a trajectory, of these atoms alone."""
    if not path.is_file():
        raise ScoreMDError(f"{path}: there is no such file")
    chosen = topology.subset(atoms)
    try:
        if _is_ensemble(path):
            x = read_ensemble(path).positions[::stride]
            _check_atoms(x.shape, topology)
            for first in range(0, len(x), _PART):
                yield mdtraj.Trajectory(x[first : first + _PART, atoms], chosen)
        elif path.suffix.lower() == ".h5":
            yield from _hdf5_frames(path, topology, stride, atoms, chosen)
        else:
            named = {} if path.suffix.lower() in SELF_DESCRIBING else {"top": topology}
            for part in mdtraj.iterload(str(path), chunk=_PART, stride=stride, **named):
                _check_atoms(part.xyz.shape, topology)
                yield mdtraj.Trajectory(part.xyz[:, atoms], chosen, None, part.unitcell_lengths, part.unitcell_angles)
    except Exception as error:  # noqa: BLE001  mdtraj's readers raise whatever their formats do
        raise ScoreMDError(f"{path}: cannot be read as a trajectory of the topology ({' '.join(str(error).split())[:120]})") from None


def _hdf5_frames(
    path: Path, topology: mdtraj.Topology, stride: int, atoms: NDArray[np.int64], chosen: mdtraj.Topology
) -> Iterator[mdtraj.Trajectory]:
    with h5py.File(path) as file:
        xyz = file["coordinates"]
        _check_atoms(xyz.shape, topology)
        box = [file.get(key) for key in ("cell_lengths", "cell_angles")]
        for first in range(0, len(xyz), stride * _PART):
            rows = slice(first, first + stride * _PART, stride)
            yield mdtraj.Trajectory(xyz[rows][:, atoms], chosen, None, *(None if q is None else q[rows] for q in box))


def _check_atoms(shape: tuple[int, ...], topology: mdtraj.Topology) -> None:
    if shape[1:] != (topology.n_atoms, 3):
        raise ScoreMDError(f"coordinates have shape {shape}, where (frame, {topology.n_atoms}, 3) are needed: the topology has other atoms")


def _whole(part: mdtraj.Trajectory, system: System, path: Path) -> NDArray[np.float32]:
    """Positions of the beads, (frame, bead, 3), each molecule in one piece, centred."""
    if not np.isfinite(part.xyz).all():
        raise ScoreMDError(f"{path}: holds coordinates that are not finite")
    whole = mdtraj.Trajectory(part.xyz, system.topology(), None, part.unitcell_lengths, part.unitcell_angles)
    if whole.unitcell_lengths is not None:
        whole.make_molecules_whole(inplace=True)
    return np.asarray(whole.xyz - whole.xyz.mean(1, keepdims=True))


def _check_lengths(name: str, positions: NDArray[np.float32], system: System) -> None:
    """Refuse coordinates that are not in nm, and molecules that a periodic box has cut."""
    a, b = np.array(system.bonds).T
    lengths = np.linalg.norm(positions[:, a] - positions[:, b], axis=-1)
    middle = np.median(lengths, axis=0)
    if np.median(middle) > _LONGEST_BOND:
        hint = "they are probably in ångström: divide them by 10" if np.median(middle / 10) < _LONGEST_BOND else "is the topology theirs?"
        raise ScoreMDError(f"{name}: bonds are {np.median(middle):.2f} nm long by its coordinates, which must be in nm; {hint}")
    if {bead.name for bead in system.atoms} == {"CA"} and np.median(middle) < _SHORTEST_CALPHA_BOND:
        raise ScoreMDError(f"{name}: its C-alphas are {np.median(middle):.2f} nm apart, where 0.38 nm are usual; is the topology theirs?")
    torn = lengths > 2 * np.maximum(middle, 0.1)
    if torn.any():
        frame, bond = map(int, np.argwhere(torn)[0])
        ends = " and ".join(str(system.atoms[k]) for k in system.bonds[bond])
        raise ScoreMDError(
            f"{name}: {int(torn.any(1).sum())} of {len(lengths)} frames have broken bonds, first frame {frame}, "
            f"{lengths[frame, bond]:.2f} nm between {ends}: molecules that a periodic box has cut must be made whole first"
        )


def _tell_of_rigid_bonds(ensemble: Ensemble, system: System) -> None:
    """Constraints between beads become springs so stiff that no usual time step follows them."""
    a, b = np.array(system.bonds).T
    spread = np.linalg.norm(ensemble.positions[:, a] - ensemble.positions[:, b], axis=-1).std(0)
    rigid = np.flatnonzero(spread < _RIGID)
    if ensemble.n_frames >= _ENOUGH and len(rigid):
        ends = " and ".join(str(system.atoms[k]) for k in system.bonds[rigid[0]])
        _log.warning(
            "%s: %d of %d bonds between beads are rigid, first that of %s: the model will sample, but simulate only with a much smaller "
            "time step; choose beads without constraints between them",
            *(ensemble.name, len(rigid), len(spread), ends),
        )


def _check_virial(ensemble: Ensemble) -> None:
    """Refuse forces that cannot be those of the frames: in equilibrium the mean of -F.x is kT for each degree of freedom."""
    if ensemble.forces is None:
        return
    freedom = 3 * (len(ensemble.atoms) - 1)
    virial = -(ensemble.positions * ensemble.forces).sum((1, 2), dtype=float) / (freedom * thermal_energy(ensemble.temperature))
    mean, error = float(virial.mean()), float(virial.std() / np.sqrt(len(virial)))
    if abs(mean - 1) > _VIRIAL + 5 * error:
        raise ScoreMDError(
            f"{ensemble.name}: forces and positions do not belong together: the mean of -F.x is {mean:.2f} kT for each degree of freedom, "
            "where equilibrium has 1; are their unit, the temperature and the order of the files right?"
        )


class _Forces:
    """Forces on the beads from those on atoms, of one trajectory after the other."""

    def __init__(self, source: TrajectorySource, topology: mdtraj.Topology, beads: NDArray[np.int64]) -> None:
        assert source.forces is not None  # as the caller makes sure
        self._files, self._factor, self._stride = source.forces.files, FORCE_UNITS[source.forces.unit], source.stride
        if len(self._files) != len(source.trajectories):
            raise ScoreMDError(
                f"there are {len(source.trajectories)} trajectories and {len(self._files)} files of forces; one each is needed"
            )
        counts = {_forces_of_atoms(path) for path in self._files}
        if counts not in ({topology.n_atoms}, {len(beads)}):
            raise ScoreMDError(
                f"forces are of {' and '.join(map(str, sorted(counts)))} atoms, where {topology.n_atoms}, of all, or {len(beads)}, "
                "of the beads, are needed"
            )
        self._map = None
        if counts != {len(beads)}:
            # solvent and other molecules are left alone: their forces would have to be gathered with weights of their own
            self._atoms = _molecule(source, topology, beads)
            place = {int(atom): k for k, atom in enumerate(self._atoms)}
            rigid = [(place[a], place[b]) for a, b in _constraints(source, topology, self._atoms)]
            parts = (part[:, self._atoms] for path in self._files for part in self._parts(path))
            self._map = force_map(len(self._atoms), [place[int(k)] for k in beads], parts, rigid)

    def of(self, number: int, frames: int) -> list[NDArray[np.float32]]:
        """Of one trajectory, in parts, kJ/mol/nm."""
        path = self._files[number]
        parts = list(self._gathered(path))
        if sum(map(len, parts)) != frames:
            raise ScoreMDError(
                f"{path}: holds forces of {sum(map(len, parts))} frames, its trajectory has {frames} (stride {self._stride})"
            )
        return parts

    def _gathered(self, path: Path) -> Iterator[NDArray[np.float32]]:
        for part in self._parts(path):
            yield part.astype(np.float32) if self._map is None else self._map(part[:, self._atoms])

    def _parts(self, path: Path) -> Iterator[NDArray[np.float64]]:
        with _forces_in(path) as array:
            for first in range(0, len(array), self._stride * _PART):
                part = np.asarray(array[first : first + self._stride * _PART : self._stride], np.float64)
                if not np.isfinite(part).all():
                    raise ScoreMDError(f"{path}: holds forces that are not finite")
                yield self._factor * part


@contextmanager
def _forces_in(path: Path) -> Iterator[Any]:
    """The array in a file, which is read from as it is asked for."""
    if not path.is_file():
        raise ScoreMDError(f"{path}: there is no such file")
    with ExitStack() as stack:
        try:
            if path.suffix.lower() == ".npy":
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                array = stack.enter_context(h5py.File(path))["forces"]
        except Exception as error:  # noqa: BLE001  numpy's reader raises whatever it meets, the end of the file among it
            reason = " ".join(str(error).split())[:120]
            raise ScoreMDError(f"{path}: cannot be read as forces, .npy or HDF5 with a dataset forces ({reason})") from None
        if not isinstance(array, np.ndarray | h5py.Dataset) or array.dtype.kind not in "fiu":
            raise ScoreMDError(f"{path}: its forces are no array of real numbers")
        if array.ndim != 3 or array.shape[2] != 3:
            raise ScoreMDError(f"{path}: forces have shape {array.shape}; (frame, atom, 3) is needed")
        yield array


def _forces_of_atoms(path: Path) -> int:
    """Of how many atoms a file holds forces."""
    with _forces_in(path) as array:
        return int(array.shape[1])


def _molecule(source: TrajectorySource, topology: mdtraj.Topology, beads: NDArray[np.int64]) -> NDArray[np.int64]:
    """Atoms of the molecule that the beads are of, rising."""
    if topology.n_bonds == 0:
        raise ScoreMDError(f"{source.topology}: has no bonds, which forces on all atoms need: constrained bonds share their forces")
    first = topology.atom(int(beads[0]))  # the others hang together with it
    found = {atom.index for molecule in topology.find_molecules() if first in molecule for atom in molecule}
    residues = {topology.atom(int(k)).residue.index for k in beads}
    lost = next((a for a in topology.atoms if a.residue.index in residues and a.index not in found), None)
    if lost is not None:
        raise ScoreMDError(
            f"{source.topology}: atom {lost} has no bond, which forces on all atoms need: constrained bonds share their forces"
        )
    return np.array(sorted(found))


def _constraints(source: TrajectorySource, topology: mdtraj.Topology, atoms: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Bonded atoms of a molecule that keep their distance over the first frames."""
    mine = set(atoms.tolist())
    pairs = np.array([(a.index, b.index) for a, b in topology.bonds if a.index in mine])
    everything = np.arange(topology.n_atoms)
    parts: list[NDArray[np.float64]] = []
    for part in itertools.chain.from_iterable(_frames(path, topology, source.stride, everything) for path in source.trajectories):
        multiples = part.xyz / _COARSE
        if np.abs(multiples - multiples.round()).max() < 1e-3:
            raise ScoreMDError(
                f"coordinates are rounded to {_COARSE} nm, too coarsely to see which bonds are constrained: do without forces"
            )
        parts.append(np.linalg.norm(part.xyz[:, pairs[:, 0]] - part.xyz[:, pairs[:, 1]], axis=-1))
        if sum(map(len, parts)) >= _ENOUGH:
            break
    lengths = np.concatenate(parts)
    if len(lengths) < _ENOUGH:
        raise ScoreMDError(
            f"{len(lengths)} frames are too few to see which bonds are constrained: {_ENOUGH} are needed; or do without forces"
        )
    whole = np.where(lengths < 1.0, lengths, np.nan)  # bonds that a periodic box cuts look longer in some frames
    return [tuple(pair) for pair in pairs[np.nanstd(whole, axis=0) < _RIGID].tolist()]
