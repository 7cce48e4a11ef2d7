"""Training samples in the model's slots and scaled units."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremd.collective_variables import dihedrals
from scoremd.data import Ensemble, read_ensemble
from scoremd.description import ModelDescription
from scoremd.diffusion.losses import mean_square_force
from scoremd.diffusion.space import Space
from scoremd.errors import ScoreMDError
from scoremd.nn.molecule import MoleculeBatch
from scoremd.statistics import pair_statistics
from scoremd.systems import Family, System
from scoremd.units import thermal_energy

#: Cells of each torsion, and the number of frames below which a cell is drawn in proportion to them.
_CELLS, _SPARSE = 36, 20


@dataclass(frozen=True)
class TrainingSet:
    """Samples of one or more molecules.

    Attributes
    ----------
    positions : (frame, slot, 3), scaled and centred, zero in empty slots
    forces : F / kT in scaled units, same shape, or None
    molecules : one row for each molecule
    index : (frame,) long, the molecule of each frame
    pair_statistics : see `scoremd.statistics`, scaled
    flat : (frame,) cumulative probability of each frame when all regions of the torsions are drawn alike; see `flattened`
    """

    positions: Tensor
    forces: Tensor | None
    molecules: MoleculeBatch
    index: Tensor
    pair_statistics: Tensor
    flat: Tensor

    @property
    def force_square(self) -> float:
        """Mean square of the scaled force for each degree of freedom."""
        if self.forces is None:
            return float("inf")
        space = Space(self.molecules.mask(self.positions.dtype)[self.index])
        return mean_square_force(self.forces, space.degrees_of_freedom)

    def to(self, device: torch.device) -> "TrainingSet":
        """The same samples in the memory of `device`."""
        return TrainingSet(
            self.positions.to(device),
            None if self.forces is None else self.forces.to(device),
            MoleculeBatch(*(q.to(device) for q in self.molecules)),
            self.index.to(device),
            self.pair_statistics.to(device),
            self.flat.to(device),
        )

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Numbers of n random frames, (n,)."""
        return torch.randint(len(self.positions), (n,), generator=generator, device=self.positions.device)

    def draw_flat(self, n: int, generator: torch.Generator) -> Tensor:
        """As `draw`, but rare regions of the torsions come as often as frequent ones."""
        i = torch.searchsorted(self.flat, torch.rand(n, generator=generator, dtype=torch.float64, device=self.flat.device))
        return i.clamp(max=len(self.positions) - 1)

    def molecules_of(self, i: Tensor) -> MoleculeBatch:
        """Molecules of frames by their numbers (n,): n rows, or one if there is only one molecule."""
        return self.molecules if len(self.molecules.bead) == 1 else MoleculeBatch(*(q[self.index[i]] for q in self.molecules))

    def beside(self, i: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Frames of the molecule of frames `i`, theirs among them: all, or if those are more than n, others at random that make them n.

        Returns
        -------
        positions, (frame, slot, 3)
        """
        molecule = self.index[i[0]]
        low, high = (int(torch.searchsorted(self.index, molecule, right=right)) for right in (False, True))
        if high - low <= n:
            return self.positions[low:high]
        others = torch.randint(low, high, (max(0, n - len(i)),), generator=generator, device=i.device)
        return self.positions[torch.cat([i, others])]


def flattened(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight of each frame with which all occupied cells of the torsions are drawn alike.

    Consistency must hold wherever the molecule goes, and errors of a basin's weight show in rare basins: drawn as in equilibrium, two
    percent of the samples would be all that speaks for them.

    Parameters
    ----------
    angles : (frame, 1 or 2) radians
    """
    cells = np.floor((angles + np.pi) / (2 * np.pi) * _CELLS).astype(int) % _CELLS
    cell = np.ravel_multi_index(tuple(cells.T), (_CELLS,) * cells.shape[1])
    return 1 / np.maximum(np.bincount(cell)[cell], _SPARSE)


def ensemble_files(folder: Path) -> list[Path]:
    """The HDF5 files of a folder, in the order of their names."""
    return sorted(folder.glob("*.h5"))


def read_ensembles(system: System | Family, data: Path) -> Iterator[tuple[System, Ensemble]]:
    """Read what a model is to learn, one ensemble at a time.

    Parameters
    ----------
    system : one molecule, or a family
    data : file of the molecule's ensemble, or folder of the members' files, each named by its sequence

    Raises
    ------
    ScoreMDError
        If a file cannot be read, or the folder is missing, holds no ensemble, or one that is named by no member.
    """
    if isinstance(system, System):
        yield system, read_ensemble(data)
        return
    files = ensemble_files(data)
    if not files:
        raise ScoreMDError(f"{data}: must be a folder of ensembles of {system.name}, each a file named by its sequence, with ending .h5")
    for path in files:
        member = system.find(path.stem)
        if member is None:
            raise ScoreMDError(f"{path}: its name is not the sequence of any member of {system.name}")
        yield member, read_ensemble(path)


def training_set(pairs: Iterable[tuple[System, Ensemble]], description: ModelDescription, *, use_forces: bool) -> TrainingSet:
    """Put ensembles into a model's slots.

    Parameters
    ----------
    pairs : systems with an ensemble of each, asked for one by one; of all heavy atoms or of any choice that holds the beads
    use_forces : whether forces are wanted; ensembles without them are then an error

    Raises
    ------
    ScoreMDError
        If an ensemble is of another molecule or temperature, or has no forces where they are wanted.
    """
    scale, n_slots = description.length_scale, len(description.slots)
    positions, forces, rows, index, statistics, weights = [], [], [], [], [], []
    for k, (system, ensemble) in enumerate(pairs):
        beads = system.beads_of(ensemble if use_forces else replace(ensemble, forces=None))
        if use_forces and beads.forces is None:
            raise ScoreMDError(f"{ensemble.name} has no forces; set use_forces: false to train on positions alone")
        slots = description.slots_of(system)
        x = np.zeros((beads.n_frames, n_slots, 3), np.float32)
        x[:, slots] = scale * (beads.positions - beads.positions.mean(1, keepdims=True))
        positions.append(x)
        if use_forces and beads.forces is not None:
            f = np.zeros_like(x)
            f[:, slots] = beads.forces / (scale * thermal_energy(description.temperature))
            forces.append(f)
        rows.append(description.molecule(system))
        index += [k] * beads.n_frames
        statistics.append((x[:, slots], slots))
        quadruples = list(system.collective_variables.values())[:2]
        trajectory = beads.to_mdtraj(system.bonds)
        weights.append(flattened(dihedrals(trajectory, quadruples)) if quadruples else np.ones(beads.n_frames))
    return TrainingSet(
        torch.from_numpy(np.concatenate(positions)),
        torch.from_numpy(np.concatenate(forces)) if forces else None,
        MoleculeBatch(*(torch.cat(q) for q in zip(*rows, strict=True))),
        torch.tensor(index),
        pair_statistics(statistics, n_slots),
        torch.from_numpy(np.cumsum(np.concatenate([w / w.sum() for w in weights])) / len(weights)),
    )
