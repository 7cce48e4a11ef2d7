"""One training step: loss and its gradient with respect to the parameters, as a pure function of tensors that can be compiled."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from scoremd.diffusion.fokker_planck import basis_points, residual
from scoremd.diffusion.losses import add_noise, draw_times, mixed_target, score_matching_loss, stratified
from scoremd.diffusion.schedule import Schedule
from scoremd.diffusion.space import Space
from scoremd.nn.energy import MoleculeEnergy
from scoremd.nn.molecule import MoleculeBatch
from scoremd.nn.score import energy_and_score
from scoremd.training.config import FokkerPlanckConfig
from scoremd.training.dataset import TrainingSet


class Noised(NamedTuple):
    """Samples with the noise that is to be added: (n, slot, 3), (n, slot, 3), (n,)."""

    positions: Tensor
    noise: Tensor
    log_snr: Tensor


class Consistency(NamedTuple):
    """Samples for the Fokker–Planck term, directions (K, n, slot, 3) for its divergence, and the samples' molecules."""

    samples: Noised
    directions: Tensor
    molecule: MoleculeBatch


class Batch(NamedTuple):
    """All random numbers of a step.

    Attributes
    ----------
    denoising : samples for score matching
    forces : of those samples, scaled, or None
    molecule : of those samples
    consistency : of the Fokker–Planck term, None without it
    """

    denoising: Noised
    forces: Tensor | None
    molecule: MoleculeBatch
    consistency: Consistency | None


class StepResult(NamedTuple):
    """Gradients by parameter, mean loss of the uniform and log-uniform half of the times, Fokker–Planck loss."""

    gradients: list[Tensor]
    uniform: Tensor
    logarithmic: Tensor
    fokker_planck: Tensor


class BatchSource:
    """Draws the batches of a run.

    Parameters
    ----------
    data : samples
    schedule, time_range : which noise levels
    batch : number of denoising samples
    fokker_planck : configuration of that term, None without it
    generator : of all randomness
    """

    def __init__(
        self,
        data: TrainingSet,
        schedule: Schedule,
        time_range: tuple[float, float],
        batch: int,
        fokker_planck: FokkerPlanckConfig | None,
        generator: torch.Generator,
    ) -> None:
        self.data, self.schedule, self.time_range = data, schedule, time_range
        self.batch, self.fokker_planck, self.generator = batch, fokker_planck, generator

    def draw(self) -> Batch:
        """The next batch."""
        g = self.generator
        x, forces, molecule = self.data.draw(self.batch, g)
        space = Space(molecule.mask(x.dtype))
        log_snr = self.schedule.log_snr(draw_times(self.batch, self.time_range, g).double()).float()
        denoising = Noised(x, space.noise(self.batch, g), log_snr)
        consistency = None if self.fokker_planck is None else self._consistency(self.fokker_planck)
        return Batch(denoising, forces, molecule, consistency)

    def _consistency(self, term: FokkerPlanckConfig) -> Consistency:
        g, n = self.generator, max(1, round(term.fraction * self.batch))
        low, high = term.log_snr
        x, _, molecule = self.data.draw_flat(n, g)
        space = Space(molecule.mask(x.dtype))
        level = low + (high - low) * stratified(n, g)
        return Consistency(Noised(x, space.noise(n, g), level), space.directions(n, g), molecule)


def _join(a: MoleculeBatch, b: MoleculeBatch, copies: int) -> MoleculeBatch:
    if len(a.bead) == 1:
        return a
    return MoleculeBatch(*(torch.cat([p, q.repeat(copies, *[1] * (q.dim() - 1))]) for p, q in zip(a, b, strict=True)))


def make_step(network: MoleculeEnergy, force_square: float, consistency_weight: float) -> Callable[[list[Tensor], Batch], StepResult]:
    """The step as a function of parameters (in the order of `network.parameters()`) and batch.

    Parameters
    ----------
    network : gives the structure; its own parameters are not used
    force_square : mean square of the scaled force for each degree of freedom
    consistency_weight : alpha, the factor of the Fokker–Planck loss
    """
    names = [name for name, _ in network.named_parameters()]

    def step(parameters: list[Tensor], batch: Batch) -> StepResult:
        leaves = [p.detach().requires_grad_() for p in parameters]
        values = dict(zip(names, leaves, strict=True))

        def bind(molecule: MoleculeBatch) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda x, log_snr: functional_call(network, values, (x, log_snr, molecule))

        clean, eps, log_snr = batch.denoising
        n, molecule = len(clean), batch.molecule
        x, levels = add_noise(clean, eps, log_snr), log_snr
        if batch.consistency is not None:
            samples, directions, other = batch.consistency
            here, level = add_noise(*samples), samples.log_snr
            x = torch.cat([x, basis_points(here, level, directions)])
            copies = 1 + len(directions)
            levels = torch.cat([levels, level.repeat(copies)])
            molecule = _join(molecule, other, copies)
        _, scores = energy_and_score(bind(molecule), x, levels, create_graph=True)
        target, variance = mixed_target(eps, batch.forces, force_square, log_snr)
        freedom = Space(batch.molecule.mask(x.dtype)).degrees_of_freedom
        losses = score_matching_loss(scores[:n], target, variance, freedom)
        loss, consistency = losses.mean(), losses.new_zeros(())
        if batch.consistency is not None:
            freedom = Space(other.mask(x.dtype)).degrees_of_freedom
            left = residual(bind(_join(other, other, 1)), scores[n:], here, level, directions, freedom)
            consistency = (left**2 / freedom).mean()
            loss = loss + consistency_weight * consistency
        gradients = [g.detach() for g in torch.autograd.grad(loss, leaves, materialize_grads=True)]
        k = n // 2
        return StepResult(gradients, losses[:k].mean().detach(), losses[k:].mean().detach(), consistency.detach())

    return step
