"""A trained network bound to one molecule: energies, scores and forces of batches of it."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call

from scoremd.compilation import compile_for, compiler_available
from scoremd.description import ModelDescription
from scoremd.diffusion.samplers import ScoreFunction, second_order_sde
from scoremd.diffusion.space import Space
from scoremd.diffusion.time_mixture import TimeMixture
from scoremd.nn.energy import MoleculeEnergy
from scoremd.nn.score import ForceFunction, energy_and_score
from scoremd.parts import concurrently, part_size
from scoremd.systems import System
from scoremd.units import thermal_energy

#: Samples that are drawn together.
SAMPLING_BATCH = 256
#: Calls of the network that a sample costs.
SAMPLING_CALLS = 100
_ALIGNMENT = 16  # floats of a cache line


def _padded(q: Tensor) -> int:
    return -(-q.numel() // _ALIGNMENT) * _ALIGNMENT


def _joined(weights: dict[str, Tensor]) -> Tensor:
    """All weights in one row, each from the beginning of a cache line."""
    return torch.cat([torch.nn.functional.pad(q.detach().flatten(), (0, _padded(q) - q.numel())) for q in weights.values()])


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
        self.slots = description.slots_of(system)
        self.space = Space(self.molecule.mask(torch.float32))
        self._weights = [_joined(expert.state_dict()) for expert in self.experts]
        self._compiled: dict[int, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {}

    def energy_and_score(self, x: Tensor, log_snr: Tensor, expert: int = 0) -> tuple[Tensor, Tensor]:
        """Energy (batch,) in kT and score of scaled coordinates (batch, slot, 3) at `log_snr` (1,), as written (not compiled)."""
        return energy_and_score(lambda a, b: self.experts[expert](a, b, self.molecule), x, log_snr)

    def compiled(self, batch: int, expert: int = 0) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """`energy_and_score` compiled for one size of the batch; compiled once for all experts, which differ by their weights only."""
        if not compiler_available():
            # threads may call this at the same time, and `functional_call` changes the network meanwhile
            return partial(self.energy_and_score, expert=expert)
        if batch not in self._compiled:
            example = torch.randn(batch, len(self.description.slots), 3), torch.ones(1)
            self._compiled[batch] = compile_for(self._with_weights, self._weights[0], *example, concurrent=torch.get_num_threads())
        return partial(self._compiled[batch], self._weights[expert])

    def _with_weights(self, weights: Tensor, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """`energy_and_score` with the weights of any expert, in one tensor: a compiled function with few arguments is called faster."""
        network = self.experts[0]
        state = network.state_dict()
        rows = weights.split([_padded(q) for q in state.values()])
        values = {name: row[: q.numel()].view(q.shape) for (name, q), row in zip(state.items(), rows, strict=True)}
        return energy_and_score(lambda a, b: functional_call(network, values, (a, b, self.molecule)), x, log_snr)

    def score_function(self, batch: int) -> ScoreFunction:
        """The score at one noise level, from the expert of that level."""
        ends = [high for _, high in self.description.time_ranges[:-1]]
        borders = self.schedule.log_snr(torch.tensor(ends[::-1], dtype=torch.float64)).tolist()

        def expert(k: int) -> ScoreFunction:
            function = self.compiled(batch, k)
            return lambda x, log_snr: function(x, log_snr)[1]

        return TimeMixture([expert(k) for k in reversed(range(len(self.experts)))], borders)

    def forces(self, batch: int) -> ForceFunction:
        """Energy in kJ/mol and forces in kJ/mol/nm of positions (batch, bead, 3) in nm, at t close to zero."""
        d = self.description
        t = torch.tensor([d.simulation_time], dtype=torch.float64)
        log_snr, scale = self.schedule.log_snr(t).float(), d.length_scale / float(self.schedule.norm(t))
        kt = thermal_energy(d.temperature)
        function = self.compiled(batch)

        def force(positions: Tensor) -> tuple[Tensor, Tensor]:
            energy, score = function(self.to_slots(positions) * scale, log_snr)
            return energy * kt, score[:, self.slots] * (scale * kt)

        return force

    def to_slots(self, positions: Tensor) -> Tensor:
        """(batch, bead, 3) -> (batch, slot, 3), zero in empty slots."""
        if self.slots == list(range(len(self.description.slots))):
            return positions
        x = positions.new_zeros(len(positions), len(self.description.slots), 3)
        x[:, self.slots] = positions
        return x

    def sample(self, batch: int, generator: torch.Generator) -> Tensor:
        """`batch` independent samples in nm, (batch, bead, 3), with `SAMPLING_CALLS` calls of the network."""
        times = self.schedule.steps(SAMPLING_CALLS - 1, self.description.sampling_time)
        grid = self.schedule.log_snr(times).float()
        size = part_size(batch)
        score = self.score_function(size)
        seeds = torch.randint(2**62, (math.ceil(batch / size),), generator=generator).tolist()

        def part(seed: int) -> Tensor:
            return second_order_sde(score, self.space, size, grid, torch.Generator().manual_seed(seed))

        return torch.cat(concurrently(part, seeds))[:batch, self.slots] / self.description.length_scale
