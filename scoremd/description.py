"""What a trained model is, apart from its weights: everything that is needed to run it without its training data."""

from itertools import pairwise
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from scoremd.diffusion.schedule import SCHEDULES, SMALLEST_TIME, Schedule
from scoremd.errors import ScoreMDError
from scoremd.nn.energy import MoleculeEnergy, NetworkConfig
from scoremd.nn.molecule import MoleculeBatch
from scoremd.statistics import pair_types
from scoremd.systems import BeadSite, System


def check_time_ranges(ranges: tuple[tuple[float, float], ...]) -> None:
    """Raise a ValueError unless the ranges rise, join, and cover [0, 1]."""
    ends = [t for pair in ranges for t in pair]
    joined = all(a[1] == b[0] for a, b in pairwise(ranges))
    if not ranges or ends != sorted(ends) or not joined or ends[0] != 0 or ends[-1] != 1 or any(a == b for a, b in ranges):
        raise ValueError(f"time_ranges must rise from 0 to 1 without gaps, not {list(ranges)}")


class ModelDescription(BaseModel):
    """The content of a model's config.yaml.

    Attributes
    ----------
    name, title : of the model
    systems : names of the systems that it covers; that of a family stands for every member
    temperature : K
    length_scale : what positions in nm are multiplied by, 1/nm
    schedule : noise schedule, "vp" or "ve"
    slots : bead slots, (atom name, residue index); a molecule fills those that it has
    residue_names : the residue vocabulary
    torsions : (group, torsion, 4) slot indices of the local term
    network : sizes
    time_ranges : times (low, high) of each expert, the least noisy first; one range for a single network
    simulation_time : t at which forces are taken
    sampling_time : t at which the reverse process ends; samples lack the noise of that time, which narrows stiff bonds if it is not small
    trained : how: the command's configuration, frames, steps, versions
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str
    title: str
    systems: tuple[str, ...]
    temperature: float = Field(gt=0)
    length_scale: float = Field(gt=0)
    schedule: Literal["vp", "ve"] = "vp"
    slots: tuple[BeadSite, ...] = Field(min_length=2)
    residue_names: tuple[str, ...]
    torsions: tuple[tuple[tuple[int, int, int, int], ...], ...]
    network: NetworkConfig
    time_ranges: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    simulation_time: float = Field(SMALLEST_TIME, gt=0, le=1)
    sampling_time: float = Field(SMALLEST_TIME, gt=0, lt=1)
    trained: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for group in self.torsions:
            for torsion in group:
                if not all(0 <= k < len(self.slots) for k in torsion):
                    raise ValueError(f"torsion {list(torsion)} must hold slots from 0 to {len(self.slots) - 1}")
        if len({len(group) for group in self.torsions}) > 1 or () in self.torsions:
            raise ValueError("groups of torsions must have the same number of torsions, at least one")
        check_time_ranges(self.time_ranges)
        return self

    def make_schedule(self) -> Schedule:
        """The noise schedule."""
        return SCHEDULES[self.schedule]()

    def make_network(self, pair_statistics: Tensor | None = None) -> MoleculeEnergy:
        """A fresh network of this description; `pair_statistics` as in `scoremd.statistics`, in scaled units."""
        n = len(self.slots)
        if pair_statistics is None:
            pair_statistics = torch.ones(1 + n * (n - 1) // 2, 3)
        torsions = torch.tensor(self.torsions, dtype=torch.long) if self.torsions else torch.zeros(0, 0, 4, dtype=torch.long)
        return MoleculeEnergy(self.network, n, n + 1, len(self.residue_names) + 1, pair_statistics, torsions)

    def label(self, identity: str) -> str:
        """What files call the model; `identity` is its hash."""
        return f"{self.name}, model {identity}, {self.temperature:g} K"

    def covers(self, system: System) -> bool:
        """Whether the model is meant for a system."""
        return not {system.name, system.family}.isdisjoint(self.systems)

    def slots_of(self, system: System) -> list[int]:
        """Slot of each bead of a system.

        Raises
        ------
        ScoreMDError
            If the system has a bead or a residue that the model does not know.
        """
        slots = {(s.name, s.residue): k for k, s in enumerate(self.slots)}
        for bead in system.beads:
            if (bead.name, bead.residue) not in slots:
                raise ScoreMDError(f"model {self.name} has no bead {bead.name} of residue {bead.residue + 1} ({system.name} has one)")
        for name in system.residues:
            if name not in self.residue_names:
                raise ScoreMDError(f"model {self.name} does not know the residue {name} of {system.name}")
        return [slots[bead.name, bead.residue] for bead in system.beads]

    def molecule(self, system: System) -> MoleculeBatch:
        """The types of a system's beads in the model's slots, one row."""
        slots = self.slots_of(system)
        n = len(self.slots)
        bead, residue = torch.zeros(1, n, dtype=torch.long), torch.zeros(1, n, dtype=torch.long)
        for slot, site in zip(slots, system.beads, strict=True):
            bead[0, slot] = slot + 1
            residue[0, slot] = 1 + self.residue_names.index(system.residues[site.residue])
        present = (bead[0] > 0).long()
        types = pair_types(n)
        partner = (torch.arange(n) + torch.arange(1, n // 2 + 1)[:, None]) % n
        return MoleculeBatch(bead, residue, (types * present * present[partner])[None])
