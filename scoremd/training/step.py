"""One training step: loss and its gradient with respect to the parameters, as a pure function of tensors."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from scoremd.diffusion.fokker_planck import rate, residual, stencil
from scoremd.diffusion.losses import (
    add_noise,
    draw_levels,
    dual_score_matching_loss,
    level_target,
    mixed_target,
    score_matching_loss,
    stratified,
)
from scoremd.diffusion.posterior import noised_density
from scoremd.diffusion.quadratic_form import half_square_error
from scoremd.diffusion.schedule import Schedule
from scoremd.diffusion.space import Space
from scoremd.nn.molecule import MoleculeBatch
from scoremd.nn.noise_level import signal_and_noise
from scoremd.parts import concurrently
from scoremd.training.config import FokkerPlanckConfig
from scoremd.training.dataset import TrainingSet
from scoremd.training.evaluation import Evaluation, Term, Weights

#: Batches of fewer samples are not halved: what a step costs whatever its size would be paid twice.
SMALLEST_HALVED = 256
#: Half log signal-to-noise ratio below which the target may be the score of the whole ensemble: where there is less noise, a noised sample
#: tells which frame it was.
POSTERIOR_BELOW = 2.0
#: Frames that stand for the ensemble, those of the batch among them: the target's mean is the same for any number, its variance less.
POSTERIOR_FRAMES = 1600


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
    target : what their scores are to be, (n, slot, 3)
    variance : bound on its variance in each dimension, (n,), by which its error is divided
    rate, rate_variance : the same of the derivative of ln p by the noise level, both (n,)
    molecule : of those samples
    consistency : of the Fokker–Planck term, None without it
    """

    denoising: Noised
    target: Tensor
    variance: Tensor
    rate: Tensor
    rate_variance: Tensor
    molecule: MoleculeBatch
    consistency: Consistency | None


class StepResult(NamedTuple):
    """Gradients by parameter, and mean losses.

    Attributes
    ----------
    gradients : by parameter
    uniform, logarithmic : score matching at the uniform (or normal) and the log-uniform half of the noise levels
    dual : matching of the derivative by the noise level
    fokker_planck : of that term
    """

    gradients: list[Tensor]
    uniform: Tensor
    logarithmic: Tensor
    dual: Tensor
    fokker_planck: Tensor


class BatchSource:
    """Draws the batches of a run.

    Parameters
    ----------
    data : samples
    schedule, time_range, focus : which noise levels, see `draw_levels`
    batch : number of denoising samples
    posterior_weight : factor of the loss where the target is the score of the molecule's whole ensemble; 0 turns that off
    fokker_planck : configuration of that term, None without it
    generator : of all randomness
    """

    def __init__(
        self,
        data: TrainingSet,
        schedule: Schedule,
        time_range: tuple[float, float],
        focus: tuple[float, float] | None,
        batch: int,
        posterior_weight: float,
        fokker_planck: FokkerPlanckConfig | None,
        generator: torch.Generator,
    ) -> None:
        self.data, self.schedule, self.time_range, self.focus = data, schedule, time_range, focus
        self.batch, self.posterior_weight, self.fokker_planck, self.generator = batch, posterior_weight, fokker_planck, generator
        self.force_square = data.force_square

    def draw(self) -> Batch:
        """The next batch."""
        g, data = self.generator, self.data
        i = data.draw(self.batch, g)
        clean, molecule = data.positions[i], data.molecules_of(i)
        space = Space(molecule.mask(clean.dtype))
        log_snr = draw_levels(self.batch, self.schedule, self.time_range, self.focus, g)
        denoising = Noised(clean, space.noise(self.batch, g), log_snr)
        target, variance = mixed_target(denoising.noise, None if data.forces is None else data.forces[i], self.force_square, log_snr)
        freedom = space.degrees_of_freedom.expand(self.batch)
        rate, rate_variance = level_target(clean, denoising.noise, log_snr, freedom)
        if self.posterior_weight > 0:
            alpha, _ = signal_and_noise(log_snr)
            for rows, (_, score, change) in self._ensemble_densities(i, denoising):
                target[rows], rate[rows] = score, change + (freedom * alpha**2)[rows]
                variance[rows] /= self.posterior_weight
                rate_variance[rows] /= self.posterior_weight
        consistency = None if self.fokker_planck is None else self._consistency(self.fokker_planck)
        return Batch(denoising, target, variance, rate, rate_variance, molecule, consistency)

    def _ensemble_densities(self, i: Tensor, denoising: Noised) -> list[tuple[Tensor, tuple[Tensor, Tensor, Tensor]]]:
        """Rows of a batch of frames `i`, and `noised_density` of their ensembles, where noise is large enough, molecule by molecule."""
        x, noisy = add_noise(*denoising), torch.nonzero(denoising.log_snr < POSTERIOR_BELOW)[:, 0]
        molecule = self.data.index[i[noisy]]
        groups = [noisy[molecule == k] for k in molecule.unique().tolist()]
        frames = [self.data.beside(i[rows], POSTERIOR_FRAMES, self.generator) for rows in groups]

        def density(group: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            rows, ensemble = group
            return noised_density(x[rows], denoising.log_snr[rows], ensemble)

        return list(zip(groups, concurrently(density, zip(groups, frames, strict=True)), strict=True))

    def _consistency(self, term: FokkerPlanckConfig) -> Consistency:
        g, n = self.generator, max(1, round(term.fraction * self.batch))
        low, high = term.log_snr
        i = self.data.draw_flat(n, g)
        x, molecule = self.data.positions[i], self.data.molecules_of(i)
        space = Space(molecule.mask(x.dtype))
        level = low + (high - low) * stratified(n, g)
        return Consistency(Noised(x, space.noise(n, g), level), space.directions(n, g), molecule)


def make_step(
    evaluation: Evaluation, *, dual_weight: float = 0.0, consistency_weight: float = 0.0
) -> Callable[[Weights, Batch], StepResult]:
    """The step as a function of weights and batch.

    Parameters
    ----------
    evaluation : of the network
    dual_weight : factor of the loss of the derivative by the noise level
    consistency_weight : alpha, the factor of the Fokker–Planck loss
    """

    def step(weights: Weights, batch: Batch) -> StepResult:
        weights = {name: p.detach().requires_grad_() for name, p in weights.items()}
        clean, eps, log_snr = batch.denoising
        n, x = len(clean), add_noise(clean, eps, log_snr)
        target, variance = batch.target, batch.variance
        freedom = Space(batch.molecule.mask(x.dtype)).degrees_of_freedom
        error = half_square_error(target, 2 / (n * freedom * variance))
        terms = [Term(x[None], log_snr, batch.molecule, (1,), error)]
        if batch.consistency is not None:
            terms.append(_consistency_term(batch.consistency))
        ((loss,), (scores,)), *others = evaluation.forms(weights, terms)
        losses = score_matching_loss(scores, target, variance, freedom)
        dual = consistency = losses.new_zeros(())
        if dual_weight > 0:
            dual = _dual_loss(evaluation, weights, batch, x, freedom)
            loss = loss + dual_weight * dual
        if batch.consistency is not None:
            (left, _), space = others[0], Space(batch.consistency.molecule.mask(x.dtype))
            consistency = (left**2 / space.degrees_of_freedom).mean()
            loss = loss + consistency_weight * consistency
        gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
        k = n // 2
        return StepResult([g.detach() for g in gradients], losses[:k].mean(), losses[k:].mean(), dual.detach(), consistency.detach())

    return step


def in_halves(step: Callable[[Weights, Batch], StepResult]) -> Callable[[Weights, Batch], StepResult]:
    """The step as the mean of two that two threads take at the same time, if the batch is large and can be halved."""

    def together(weights: Weights, batch: Batch) -> StepResult:
        if len(batch.denoising.positions) < SMALLEST_HALVED or not can_be_shared(batch, 2):
            return step(weights, batch)
        first, second = concurrently(lambda k: step(weights, share_of(batch, k, 2)), range(2))
        gradients = [0.5 * (a + b) for a, b in zip(first.gradients, second.gradients, strict=True)]
        return StepResult(gradients, *(0.5 * (a + b) for a, b in zip(first[1:], second[1:], strict=True)))

    return together


def can_be_shared(batch: Batch, n: int) -> bool:
    """Whether a batch has n shares of one size, with as many of each half of the times."""
    consistent = 0 if batch.consistency is None else len(batch.consistency.samples.positions)
    return len(batch.denoising.positions) // 2 % n == consistent % n == 0


def share_of(batch: Batch, k: int, n: int) -> Batch:
    """Samples k, k + n, ...: of both halves of the times alike."""

    def part(q: Tensor) -> Tensor:
        return q[k::n] if len(q) > 1 else q  # one row of types stands for all

    def of(noised: Noised) -> Noised:
        return Noised(*map(part, noised))

    consistency = batch.consistency
    if consistency is not None:
        samples, directions, molecule = consistency
        consistency = Consistency(of(samples), directions[:, k::n], MoleculeBatch(*map(part, molecule)))
    target, variance, rates, rate_variance = map(part, (batch.target, batch.variance, batch.rate, batch.rate_variance))
    molecule = MoleculeBatch(*map(part, batch.molecule))
    return Batch(of(batch.denoising), target, variance, rates, rate_variance, molecule, consistency)


def _dual_loss(evaluation: Evaluation, weights: Weights, batch: Batch, x: Tensor, freedom: Tensor) -> Tensor:
    """Mean loss of d ln p / d lambda at the noised samples x."""
    change = rate(lambda a, b: evaluation.energy(weights, a, b, _copies(batch.molecule, 2)), x, batch.denoising.log_snr)
    return dual_score_matching_loss(change, batch.rate, batch.rate_variance, freedom).mean()


def _consistency_term(batch: Consistency) -> Term:
    """The Fokker–Planck residual of each sample."""
    samples, directions, molecule = batch
    x, log_snr = add_noise(*samples), samples.log_snr
    freedom = Space(molecule.mask(x.dtype)).degrees_of_freedom
    points, levels, copies = stencil(x, log_snr, directions)
    return Term(points, levels, _copies(molecule, 3), copies, residual(x, log_snr, directions, freedom))


def _copies(molecule: MoleculeBatch, n: int) -> MoleculeBatch:
    return molecule if len(molecule.bead) == 1 else MoleculeBatch(*(torch.cat([q] * n) for q in molecule))
