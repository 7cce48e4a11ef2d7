"""A trained network bound to one molecule: energies, scores and forces of batches of it."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from scoremd.description import ModelDescription
from scoremd.diffusion.likelihood import flow_samples, log_likelihood
from scoremd.diffusion.samplers import ScoreFunction, second_order_sde
from scoremd.diffusion.space import Space
from scoremd.diffusion.time_mixture import TimeMixture
from scoremd.lanes.program import BoundProgram, Program, compile_program
from scoremd.nn.energy import MoleculeEnergy
from scoremd.nn.molecule import MoleculeBatch
from scoremd.nn.score import ForceFunction, SingleForceFunction, energy_and_score
from scoremd.parts import concurrently, part_size
from scoremd.systems import System
from scoremd.units import thermal_energy

#: Samples that are drawn together.
SAMPLING_BATCH = 256
#: Calls of the network that a sample costs.
SAMPLING_CALLS = 100
#: Intervals of the flow whose likelihood is known, each four calls of the network at D + 1 points; `benchmarks/likelihood.py` measures what
#: that costs in accuracy.
FLOW_INTERVALS = 24
#: Molecules of a flow that are computed together: each is D + 1 points.
_FLOW_PART = 8


@functools.lru_cache(maxsize=4)
def program_of(structure: str) -> Program | None:
    """`energy_and_score` of all networks and molecules of a model, and all noise levels, which it takes as shared arguments.

    Parameters
    ----------
    structure : the model's description as JSON: to trace a network takes seconds, too long to do it for each molecule
    """
    description = ModelDescription.model_validate_json(structure)
    network, slots = description.make_network(), len(description.slots)
    network.near_only = False  # lanes do the same thing at the same time: each has all pairs
    names, rows = list(network.state_dict()), len(MoleculeBatch._fields)

    def function(log_snr: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        molecule, weights = MoleculeBatch(*given[:rows]), dict(zip(names, given[rows:-1], strict=True))
        return energy_and_score(lambda a, b: functional_call(network, weights, (a, b, molecule)), given[-1], log_snr)

    beads = torch.ones(1, slots, dtype=torch.long)
    molecule = MoleculeBatch(beads, beads.clone(), torch.ones(1, slots // 2, slots, dtype=torch.long))
    example = torch.randn(1, slots, 3, generator=torch.Generator().manual_seed(0))
    return compile_program(function, [torch.ones(1), *molecule, *network.state_dict().values()], [example])


class BoundModel:
    """The networks of a model, least noisy first, and the molecule that they are asked about.

    Parameters
    ----------
    description : of the model
    experts : networks, frozen
    system : the molecule
    """

    def __init__(self, description: ModelDescription, experts: Sequence[MoleculeEnergy], system: System) -> None:
        self.description, self.experts, self.system = description, experts, system
        self.schedule = description.make_schedule()
        self.molecule = description.molecule(system)
        self._structure = description.model_dump_json(exclude={"trained"})
        self.slots = description.slots_of(system)
        self._slots_full = self.slots == list(range(len(description.slots)))
        self.space = Space(self.molecule.mask(torch.float32))
        self._at_noise: dict[tuple[int, float], Callable[[Tensor], tuple[Tensor, ...]]] = {}

    @property
    def compiled(self) -> bool:
        """Whether `at_noise` gives compiled functions."""
        return program_of(self._structure) is not None

    def energy_and_score(self, x: Tensor, log_snr: Tensor, expert: int = 0) -> tuple[Tensor, Tensor]:
        """Energy (batch,) in kT and score of scaled coordinates (batch, slot, 3) at `log_snr` (1,), as written (not compiled)."""
        return energy_and_score(lambda a, b: self.experts[expert](a, b, self.molecule), x, log_snr)

    def at_noise(self, log_snr: Tensor, expert: int = 0) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """`energy_and_score` at one noise level, (1,), as a function of coordinates alone: compiled, where that is possible."""
        program = program_of(self._structure)
        if program is None:
            return lambda x: self.energy_and_score(x, log_snr, expert)
        key = expert, float(log_snr)
        if key not in self._at_noise:
            self._at_noise[key] = program.bind(log_snr, *self.molecule, *self.experts[expert].state_dict().values())
        return self._at_noise[key]

    def score_function(self) -> ScoreFunction:
        """The score at one noise level, from the expert of that level."""
        program_of(self._structure)  # made before threads ask for it
        ends = [high for _, high in self.description.time_ranges[:-1]]
        borders = self.schedule.log_snr(torch.tensor(ends[::-1], dtype=torch.float64)).tolist()

        def expert(k: int) -> ScoreFunction:
            return lambda x, log_snr: self.at_noise(log_snr, k)(x)[1]

        return TimeMixture([expert(k) for k in reversed(range(len(self.experts)))], borders)

    def forces(self) -> ForceFunction:
        """Energy in kJ/mol and forces in kJ/mol/nm of positions (batch, bead, 3) in nm, at t close to zero."""
        function, scale, kt = self.at_noise(self.level_of_forces), self._scale, thermal_energy(self.description.temperature)

        def force(positions: Tensor) -> tuple[Tensor, Tensor]:
            energy, score = function(self.to_slots(positions) * scale)
            return energy * kt, self.to_beads(score) * (scale * kt)

        return force

    def force_of_one(self) -> SingleForceFunction:
        """`forces` of one conformation (bead, 3), as arrays, for one thread, with as little Python as can be, for microseconds count."""
        function, scale, kt = self.at_noise(self.level_of_forces), self._scale, thermal_energy(self.description.temperature)
        if not isinstance(function, BoundProgram):
            forces = self.forces()

            def as_written(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float32]]:
                energy, force = forces(torch.from_numpy(_at_origin(positions).astype(np.float32))[None])
                return float(energy), force[0].numpy()

            return as_written
        x = torch.zeros(1, len(self.description.slots), 3)
        results, compute = function.in_place(x)
        given, energy, score = x[0].numpy(), results[0].numpy(), results[1][0].numpy()
        beads = slice(None) if self._slots_full else self.slots

        def compiled(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float32]]:
            given[beads] = _at_origin(positions) * scale
            compute()
            return float(energy[0]) * kt, score[beads] * np.float32(scale * kt)

        return compiled

    def to_slots(self, positions: Tensor) -> Tensor:
        """(batch, bead, 3) -> (batch, slot, 3), zero in empty slots."""
        if self._slots_full:
            return positions
        x = positions.new_zeros(len(positions), len(self.description.slots), 3)
        x[:, self.slots] = positions
        return x

    def to_beads(self, x: Tensor) -> Tensor:
        """(batch, slot, 3) -> (batch, bead, 3)."""
        return x if self._slots_full else x[:, self.slots]

    def sample(self, batch: int, seeds: Iterator[int]) -> Tensor:
        """`batch` independent samples in nm, (batch, bead, 3), with `SAMPLING_CALLS` calls of the network.

        Each part of `scoremd.parts.part_size` samples takes a seed, of which 32 bits count.
        """
        times = self.schedule.steps(SAMPLING_CALLS - 1, self.description.sampling_time)
        grid = self.schedule.log_snr(times).float()
        size = part_size(batch)
        score = self.score_function()

        def part(seed: int) -> Tensor:
            return second_order_sde(score, self.space, size, grid, torch.Generator().manual_seed(seed))

        parts = concurrently(part, itertools.islice(seeds, math.ceil(batch / size)))
        return self.to_beads(torch.cat(parts)[:batch]) / self.description.length_scale

    def flow(self, batch: int, seeds: Iterator[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Samples of the probability flow at the time of the forces, with their likelihood.

        Parameters
        ----------
        batch : number of samples
        seeds : one for each part of `_FLOW_PART` samples, of which 32 bits count

        Returns
        -------
        positions (batch, bead, 3) in nm; ln of their density under the flow in nm^-D, D = 3 (beads - 1), the centre being fixed; and their
        energy, with which the forces are consistent, in kT
        """
        grid = self._flow_grid()
        score, energy = self.score_function(), self.at_noise(grid[-1:])

        def part(seed: int) -> tuple[Tensor, Tensor, Tensor]:
            x, log_p = flow_samples(score, self.space, _FLOW_PART, grid, torch.Generator().manual_seed(seed))
            return x, log_p, energy(x)[0]

        parts = concurrently(part, itertools.islice(seeds, math.ceil(batch / _FLOW_PART)))
        x, log_p, e = (torch.cat(q)[:batch] for q in zip(*parts, strict=True))
        return self.to_beads(x) / self._scale, log_p + self._log_volume, e

    def log_likelihood(self, positions: Tensor, seeds: Iterator[int]) -> tuple[Tensor, Tensor]:
        """Likelihood and energy, as of `flow`, of positions (batch, bead, 3) in nm: ln of the density (batch,), and kT (batch,)."""
        grid = self._flow_grid()
        score, energy = self.score_function(), self.at_noise(grid[-1:])
        x = self.scaled(positions)

        def part(given: tuple[Tensor, int]) -> tuple[Tensor, Tensor]:
            here, generator = given[0], torch.Generator().manual_seed(given[1])
            return log_likelihood(score, self.space, here, grid.flip(0), generator), energy(here)[0]

        parts = concurrently(part, zip(x.split(_FLOW_PART), seeds, strict=False))
        log_p, e = (torch.cat(q) for q in zip(*parts, strict=True))
        return log_p + self._log_volume, e

    def scaled(self, positions: Tensor) -> Tensor:
        """Positions (batch, bead, 3) in nm as the networks see them at the time of the forces: (batch, slot, 3), centred."""
        return self.space.project(self.to_slots(positions) * self._scale)

    def _flow_grid(self) -> Tensor:
        """Rising noise levels from the normal end to that of the forces."""
        return self.schedule.log_snr(self.schedule.steps(FLOW_INTERVALS, self.description.simulation_time)).float()

    @property
    def level_of_forces(self) -> Tensor:
        """The noise level, (1,), at which the first network gives the forces."""
        return self.schedule.log_snr(torch.tensor([self.description.simulation_time], dtype=torch.float64)).float()

    @property
    def _scale(self) -> float:
        """Scaled coordinates at the time of the forces in one nm."""
        d = self.description
        return d.length_scale / float(self.schedule.norm(torch.tensor(d.simulation_time, dtype=torch.float64)))

    @property
    def _log_volume(self) -> float:
        """ln of what a density in nm^-D is of that in scaled coordinates."""
        return float(self.space.degrees_of_freedom) * math.log(self._scale)


def _at_origin(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same conformation where single precision has all of its digits: the energy does not depend on where it is."""
    near: NDArray[np.float64] = positions - positions[0]
    return near
