"""A trained network bound to one molecule: energies, scores and forces of batches of it."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call

from scoremd.compilation import compile_for
from scoremd.description import ModelDescription
from scoremd.diffusion.samplers import ScoreFunction, second_order_sde
from scoremd.diffusion.space import Space
from scoremd.diffusion.time_mixture import TimeMixture
from scoremd.nn.energy import MoleculeEnergy
from scoremd.nn.score import ForceFunction, energy_and_score
from scoremd.systems import System
from scoremd.units import thermal_energy

Weights = dict[str, Tensor]
#: Samples that are drawn together; one compiled function serves all of them.
SAMPLING_BATCH = 256
#: Calls of the network that a sample costs.
SAMPLING_CALLS = 100


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
        self._compiled: dict[int, Callable[[Weights, Tensor, Tensor], tuple[Tensor, Tensor]]] = {}

    def energy_and_score(self, x: Tensor, log_snr: Tensor, expert: int = 0) -> tuple[Tensor, Tensor]:
        """Energy (batch,) in kT and score of scaled coordinates (batch, slot, 3) at `log_snr` (1,), as written (not compiled)."""
        return energy_and_score(lambda a, b: self.experts[expert](a, b, self.molecule), x, log_snr)

    def compiled(self, batch: int, expert: int = 0) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """`energy_and_score` compiled for one size of the batch; compiled once for all experts, which differ by their weights only."""
        weights = [expert.state_dict() for expert in self.experts]
        if batch not in self._compiled:

            def function(values: Weights, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
                return energy_and_score(lambda a, b: functional_call(self.experts[0], values, (a, b, self.molecule)), x, log_snr)

            example = torch.randn(batch, len(self.description.slots), 3), torch.ones(1)
            self._compiled[batch] = compile_for(function, weights[0], *example)
        return partial(self._compiled[batch], weights[expert])

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
        x = second_order_sde(self.score_function(batch), self.space, batch, grid, generator)
        return x[:, self.slots] / self.description.length_scale
