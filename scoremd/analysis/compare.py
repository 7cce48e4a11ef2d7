"""Do samples, simulation and reference agree? `compare` measures, `Comparison` holds the answer.

Always three columns: samples against reference, simulation against reference, samples against simulation. Without a
reference only the third can be filled, and its floor is between halves of the simulation.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mdtraj
import numpy as np

from scoremd.analysis.intervals import Estimate, difference
from scoremd.analysis.metrics import Divergence, compare_js, compare_pmf
from scoremd.analysis.observed import Observed, observe
from scoremd.analysis.plane import Plane, plane_of
from scoremd.analysis.structure import BondDifference, Limits, compare_bond, largest_difference, mean_difference
from scoremd.analysis.table import COLUMNS, Row, ensemble_rows, pair_rows
from scoremd.analysis.verdict import headline
from scoremd.errors import ScoreMDError
from scoremd.files import write_text
from scoremd.molecules import require_molecule

if TYPE_CHECKING:
    from scoremd.data import Ensemble
    from scoremd.systems import System

#: Consecutive blocks that stand for trajectories where the simulation's are not named.
TIME_BLOCKS = 20


@dataclass(frozen=True)
class Pair:
    """One column: how two ensembles differ.

    Attributes
    ----------
    title
        Such as ``samples vs reference``.
    js
        Jensen-Shannon divergence of the collective variables, nats.
    pmf
        Error of the free energy, (kT)**2.
    basins
        Difference of each population, first less second.
    bonds
        Difference of each bonded distance.
    contacts
        (pair,) difference of the fraction of frames in contact, first less second.
    rmsd
        Difference of the deviation from the native structure; None if the system has none.
    """

    title: str
    js: Divergence
    pmf: Divergence
    basins: dict[str, Estimate]
    bonds: tuple[BondDifference, ...]
    contacts: np.ndarray
    rmsd: BondDifference | None


@dataclass(frozen=True, repr=False)
class Comparison:
    """Samples, simulation and reference, measured against each other.

    Attributes
    ----------
    title
        Of the system.
    temperature
        Kelvin.
    plane
        The collective variables.
    contact_pairs
        Pairs of beads that `contacts` are of.
    ensembles
        What is there of ``reference``, ``samples``, ``simulation``.
    pairs
        The columns that can be filled, by their title.
    agreement
        Excess of the divergence up to which each column is called agreement, nats, by its title.
    lost_replicas
        Replicas of the simulation that blew up; only their frames from before can be in it.
    time_blocks
        Which of ``reference`` and ``simulation`` have intervals from consecutive blocks, their trajectories not having been named.
    seed
        Of the random subsamples.
    remark
        What is to be known of how the ensembles came about to understand the rest; empty if nothing is.
    """

    title: str
    temperature: float
    plane: Plane
    contact_pairs: list[tuple[int, int]]
    ensembles: dict[str, Observed]
    pairs: dict[str, Pair]
    agreement: dict[str, float]
    lost_replicas: int | None
    time_blocks: frozenset[str]
    seed: int
    remark: str = ""

    def __repr__(self) -> str:
        return f"<Comparison of {self.title}: {headline(self)}>"

    def rows(self) -> list[Row]:
        """The table of the three columns as text: (metric with its unit, then a cell for each of `COLUMNS`)."""
        return pair_rows(self)

    def ensemble_rows(self) -> list[Row]:
        """The table of what each ensemble shows alone, as text: (quantity, reference, samples, simulation)."""
        return ensemble_rows(self)

    def to_dict(self) -> dict[str, Any]:
        """All numbers, without the frames: nested dictionaries that JSON can hold."""
        return {
            "system": self.title,
            "temperature_K": self.temperature,
            "variables": list(self.plane.symbols),
            "seed": self.seed,
            "remark": self.remark,
            "lost_replicas": self.lost_replicas,
            "intervals": {
                name: "time blocks" if name in self.time_blocks else "trajectories"
                for name in ("reference", "simulation")
                if name in self.ensembles
            },
            "ensembles": {
                name: {
                    "frames": seen.n_frames,
                    "trajectories": seen.n_groups,
                    "populations": {basin: asdict(value) for basin, value in seen.basins.items()},
                    "broken_bonds": asdict(seen.broken),
                    "clashes": asdict(seen.clashing),
                    **({} if seen.mean_rmsd is None else {"native_rmsd_nm": asdict(seen.mean_rmsd)}),
                    "mirror_images": None if seen.mirrored is None else asdict(seen.mirrored),
                }
                for name, seen in self.ensembles.items()
            },
            "comparisons": {
                title: {
                    "agreement_nats": self.agreement[title],
                    "js_nats": asdict(pair.js),
                    "pmf_kT2": asdict(pair.pmf),
                    "population_differences": {basin: asdict(value) for basin, value in pair.basins.items()},
                    "bonds_pm": [asdict(bond) for bond in pair.bonds],
                    **({} if pair.rmsd is None else {"native_rmsd_pm": asdict(pair.rmsd)}),
                    "contacts": {
                        "mean_difference": mean_difference(pair.contacts),
                        "largest_difference": largest_difference(pair.contacts),
                    },
                }
                for title, pair in self.pairs.items()
            },
        }

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` as JSON; the file appears whole or not at all."""
        return write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def compare(
    samples: mdtraj.Trajectory | None,
    simulation: mdtraj.Trajectory | None,
    system: System,
    *,
    simulation_groups: np.ndarray | None = None,
    reference: Ensemble | None = None,
    lost_replicas: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare independent samples, a simulation and a reference ensemble of one molecule.

    Parameters
    ----------
    samples
        Independent samples of the system's beads, or None.
    simulation
        Frames of all replicas, those of lost ones from before they were, equilibration dropped; or None.
    system
        The molecule.
    simulation_groups
        (frame,) replica of each frame of the simulation, the unit of its intervals. None: a single trajectory, cut into
        `TIME_BLOCKS` consecutive blocks; too narrow if it is slower than such a block.
    reference
        Ensemble of the same beads, or None.
    lost_replicas
        Number of replicas that blew up: reported. None: unknown.
    seed
        Of the random subsamples.

    Returns
    -------
    Comparison
        The measurements.

    Raises
    ------
    ScoreMDError
        If fewer than two ensembles are given, one is of another molecule, has fewer than two frames or coordinates that
        are not finite, or the number of lost replicas is negative.

    Examples
    --------
    >>> comparison = compare(samples, traj, system, simulation_groups=replica, reference=system.reference_ensemble())
    >>> comparison.pairs["samples vs simulation"].js.excess
    """
    if lost_replicas is not None and lost_replicas < 0:
        raise ScoreMDError(f"the number of lost replicas cannot be {lost_replicas}; it is zero or more")
    given = {
        "reference": None if reference is None else reference.to_mdtraj(system.bonds),
        "samples": samples,
        "simulation": simulation,
    }
    trajectories = {name: traj for name, traj in given.items() if traj is not None}
    if len(trajectories) < 2:
        raise ScoreMDError("nothing to compare: at least two of samples, simulation and reference are needed")
    for name, traj in trajectories.items():
        require_molecule(traj, system.topology(), name)
    named = {"reference": reference.walker if reference else None, "simulation": simulation_groups}
    unnamed = frozenset(name for name in named if name in trajectories and named[name] is None)
    blocks = {name: np.arange(n) * TIME_BLOCKS // n for name in unnamed for n in [trajectories[name].n_frames]}
    groups = {"samples": None} | named | blocks
    # Without a reference the two ensembles together say what is normal.
    normal = trajectories["reference"] if reference is not None else mdtraj.join(list(trajectories.values()))
    limits = Limits.of(normal, system.bonds)
    plane = plane_of(system, trajectories, groups)
    ensembles = {
        name: observe(traj, system, groups=groups[name], limits=limits, plane=plane, name=name) for name, traj in trajectories.items()
    }
    atoms = list(system.topology().atoms)
    twice = len(set(system.residues)) < len(system.residues)
    residues = [f"{atom.residue.name}{atom.residue.resSeq if twice else ''}" for atom in atoms]
    names = ["–".join(f"{residues[k]} {atoms[k].name}" for k in bond) for bond in system.bonds]
    pairs = {
        title: _pair(title, ensembles[first], ensembles[second], ensembles.get("reference"), names, seed)
        for first, second, title in COLUMNS
        if first in ensembles and second in ensembles
    }
    return Comparison(
        title=system.title,
        temperature=system.temperature,
        plane=plane,
        contact_pairs=limits.pairs,
        ensembles=ensembles,
        pairs=pairs,
        agreement={
            "samples vs reference": system.agreement.samples,
            "simulation vs reference": system.agreement.simulation,
            "samples vs simulation": system.agreement.between,
        },
        lost_replicas=lost_replicas,
        time_blocks=unnamed,
        seed=seed,
    )


def _pair(title: str, a: Observed, b: Observed, reference: Observed | None, names: list[str], seed: int) -> Pair:
    """One column; the floor is the reference's, or b's own where b is the reference or there is none."""
    floor = None if reference is None or reference is b else reference
    counted = None if floor is None else floor.counted

    def length(name: str, of: Callable[[Observed], np.ndarray]) -> BondDifference:
        known = None if floor is None else of(floor)
        return compare_bond(name, of(a), of(b), groups_a=a.groups, groups_b=b.groups, reference=known, seed=seed)

    return Pair(
        title=title,
        js=compare_js(a.counted, b.counted, reference=counted, seed=seed),
        pmf=compare_pmf(a.counted, b.counted, reference=counted, seed=seed),
        basins={basin: difference(a.basins[basin], b.basins[basin]) for basin in a.basins},
        bonds=tuple(length(name, lambda seen, k=k: seen.lengths[:, k]) for k, name in enumerate(names)),  # type: ignore[misc]
        contacts=a.contacts - b.contacts,
        rmsd=None if a.rmsd is None else length("RMSD from the native structure", lambda seen: np.asarray(seen.rmsd)),
    )
