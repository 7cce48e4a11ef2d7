"""Train perceptrons on toy particles: denoising score matching, with or without the Fokker–Planck term, compiled.

One step is one function of tensors (parameters in, losses and gradients out), so that it is traced through its own gradients and
compiled once for each architecture, and used for all seeds.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scoremd.compilation import compile_for
from scoremd.diffusion.fokker_planck import displaced_points, fokker_planck_loss, residual_estimates
from scoremd.diffusion.losses import add_noise, draw_times, mixed_target, score_matching_loss, stratified
from scoremd.diffusion.schedule import VariancePreserving
from scoremd.diffusion.space import Space
from scoremd.nn.perceptron import PerceptronEnergy, PerceptronScore
from scoremd.nn.score import energy_and_score

SCHEDULE = VariancePreserving()
Network = PerceptronEnergy | PerceptronScore
_compiled: dict[tuple, Callable[..., Any]] = {}


class Recipe(NamedTuple):
    """What one network is trained with.

    Attributes
    ----------
    steps, batch, learning_rate : Adam, one cycle, gradient norms clipped at 5; weights averaged with 0.999
    times : range of t
    alpha : weight of the Fokker–Planck term, 0 for none
    points : noised samples that the term is taken on, in each step
    """

    steps: int
    batch: int
    learning_rate: float
    times: tuple[float, float]
    alpha: float
    points: int


def log_snr(t: float) -> float:
    """Noise level at time t."""
    return float(SCHEDULE.log_snr(torch.tensor(t, dtype=torch.float64)))


def particle_space(dimension: int) -> Space:
    """The space of a toy particle."""
    return Space(torch.ones(1, 1), dimension, centred=False)


def bind(network: Network, parameters: tuple[Tensor, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    """The network as a function of x and log_snr with other parameters."""
    named = dict(zip((name for name, _ in network.named_parameters()), parameters, strict=True))
    return lambda x, lam: torch.func.functional_call(network, named, (x, lam))


def compiled(kind: str, network: nn.Module, function: Callable[..., Any], *example: Any) -> Callable[..., Any]:
    """`function` compiled for the shapes of `example`, from the store if networks of this architecture had it before."""
    shapes = tuple(tuple(x.shape) for x in torch.utils._pytree.tree_leaves(example))  # noqa: SLF001
    key = (kind, type(network), shapes)
    if key not in _compiled:
        _compiled[key] = compile_for(function, *example)
    return _compiled[key]


def _step(network: Network, recipe: Recipe, space: Space) -> Callable[..., Any]:
    """(parameters, x0, eps, lam[, points, their lam, probes]) -> denoising loss, Fokker–Planck loss, gradients."""

    def step(parameters: tuple[Tensor, ...], x0: Tensor, eps: Tensor, lam: Tensor, *points: Tensor) -> Any:
        leaves = tuple(p.detach().requires_grad_() for p in parameters)
        function, x = bind(network, leaves), add_noise(x0, eps, lam)
        where = [x, displaced_points(*points)] if points else [x]
        levels = [lam, points[1].repeat(4)] if points else [lam]
        if isinstance(network, PerceptronEnergy):
            _, score = energy_and_score(function, torch.cat(where), torch.cat(levels), create_graph=True)
        else:
            score = function(x, lam)
        target, bound = mixed_target(eps, None, 0.0, lam)
        denoising = score_matching_loss(score[: len(x)], target, bound, space.degrees_of_freedom).mean()
        residual = torch.zeros_like(denoising)
        if points:
            estimates = residual_estimates(function, score[len(x) :], *points, space.degrees_of_freedom)
            residual = fokker_planck_loss(estimates, space.degrees_of_freedom)
        gradients = torch.autograd.grad(denoising + recipe.alpha * residual, leaves)
        return denoising.detach(), residual.detach(), *(g.detach() for g in gradients)

    return step


def _batches(data: Tensor, recipe: Recipe, space: Space, generator: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
    low, high = log_snr(recipe.times[1]), log_snr(recipe.times[0])

    def draw(n: int) -> tuple[Tensor, Tensor]:
        return data[torch.randint(len(data), (n,), generator=generator)], space.noise(n, generator)

    while True:
        lam = SCHEDULE.log_snr(draw_times(recipe.batch, recipe.times, generator).double()).float()
        batch = (*draw(recipe.batch), lam)
        if recipe.alpha:
            n = recipe.points
            where = low + (high - low) * stratified(n, generator)
            probes = torch.stack([space.probe(n, generator), space.probe(n, generator)])
            batch += (add_noise(*draw(n), where), where, probes)
        yield batch


def train(network: Network, data: Tensor, recipe: Recipe, seed: int) -> Network:
    """Train `network` in place on scaled samples (frame, 1, dimension) and return it."""
    space = particle_space(data.shape[-1])
    batches = _batches(data, recipe, space, torch.Generator().manual_seed(seed))
    parameters = tuple(p.detach().clone().requires_grad_() for p in network.parameters())
    average = [p.detach().clone() for p in parameters]
    optimiser = torch.optim.Adam(parameters, recipe.learning_rate, fused=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps, pct_start=0.05, final_div_factor=100)
    values = [p.detach() for p in parameters]
    step = compiled(f"step {recipe.alpha}", network, _step(network, recipe, space), tuple(values), *next(batches))
    for k in range(recipe.steps):
        _, _, *gradients = step(tuple(values), *next(batches))
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        cycle.step()
        torch._foreach_lerp_(average, values, 1 - min(0.999, (1 + k) / (10 + k)))
    with torch.no_grad():
        for p, q in zip(network.parameters(), average, strict=True):
            p.copy_(q)
    return network
