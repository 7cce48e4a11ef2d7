"""Energies and scores that losses can be differentiated through, by torch as written or by compiled programs in lanes.

A loss is a function of energies and scores. With dL = sum g dE + sum u . ds its gradient is that of sum g E + u . s with g and u held
fixed. For score matching, half of w |s - y|^2, u is w (s - y), so its gradient is that of w |s|^2 / 2 - (w y) . s: of the same form but for
the first term. One program, of coordinates, contexts, w, u and g, serves all losses: it gives the gradient with respect to weights and
contexts. From there on, contexts being functions of noise levels and molecules alone, torch goes on as usual.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from scoremd.lanes.program import LANES, Program, compile_program
from scoremd.nn.energy import MoleculeEnergy
from scoremd.nn.molecule import MoleculeBatch
from scoremd.nn.score import energy_and_score
from scoremd.parts import LARGEST_PART, concurrently

#: Tensors by their names in the network.
Weights = Mapping[str, Tensor]


class Evaluation(Protocol):
    """What losses need at scaled coordinates x (batch, bead, 3) and noise levels (batch,), to be differentiated once in the weights."""

    def energy(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> Tensor:
        """Energy (batch,) in kT."""

    def energy_and_score(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> tuple[Tensor, Tensor]:
        """Energy (batch,) in kT and score (batch, bead, 3)."""

    def match(
        self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch, target: Tensor, importance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores, not to be differentiated, and half of the sum of importance (batch,) times their squared distance from `target`."""


class AsWritten:
    """By torch's operations."""

    def __init__(self, network: MoleculeEnergy) -> None:
        self.network = network

    def energy(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> Tensor:
        """See `Evaluation`."""
        return functional_call(self.network, dict(weights), (x, log_snr, molecule))

    def energy_and_score(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> tuple[Tensor, Tensor]:
        """See `Evaluation`."""
        return energy_and_score(lambda a, b: self.energy(weights, a, b, molecule), x, log_snr, create_graph=True)

    def match(
        self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch, target: Tensor, importance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Evaluation`."""
        _, score = self.energy_and_score(weights, x, log_snr, molecule)
        return score.detach(), _half_error(score, target, importance)


def _half_error(score: Tensor, target: Tensor, importance: Tensor) -> Tensor:
    return 0.5 * (importance * ((score - target) ** 2).sum((1, 2))).sum()


class _Method(nn.Module):
    """A method of a network as a module, for `functional_call`."""

    def __init__(self, network: MoleculeEnergy, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, *arguments: Any) -> Any:
        return getattr(self.network, self.name)(*arguments)

    def call(self, weights: Weights, *arguments: Any) -> Any:
        """The method with other weights."""
        return functional_call(self, {f"network.{name}": q for name, q in weights.items()}, arguments)


class InLanes:
    """By programs compiled for the network, a molecule in each lane; on as many threads as torch has.

    Parameters
    ----------
    network : its structure counts, not its weights
    molecule : any, as an example

    Raises
    ------
    CannotCompileError
        If there is no compiler, or it fails.
    """

    def __init__(self, network: MoleculeEnergy, molecule: MoleculeBatch) -> None:
        self._context, self._energy = _Method(network, "context"), _Method(network, "energy")
        weights = {name: q.detach().requires_grad_() for name, q in network.named_parameters()}
        self._level = torch.ones(1)
        one = MoleculeBatch(*(q[:1] for q in molecule))
        context, self._structure = tree_flatten(self._context.call(weights, self._level, one))
        #: which of a context's tensors depend on weights
        self.trained = [k for k, q in enumerate(context) if q.requires_grad]
        x = torch.randn(1, network.n_beads, 3, generator=torch.Generator().manual_seed(0))
        self._example = [x, *(q.detach() for q in context)]
        #: names of the weights that the energy depends on not by way of contexts
        self.used = list(weights)
        e, s = self._values(*weights.values(), *self._example, create_graph=True)
        reached = torch.autograd.grad(e.sum() + s.sum(), list(weights.values()), allow_unused=True)
        self.used = [name for name, q in zip(weights, reached, strict=True) if q is not None]
        self._shared = [weights[name].detach() for name in self.used]
        seeds = [torch.ones(1), torch.ones_like(x), torch.ones(1)]
        self.gradients = _compiled(self._gradients, self._shared, [*seeds, *self._example], len(self.used))

    @functools.cached_property
    def values(self) -> Program:
        """Coordinates, contexts -> energies, scores."""
        return _compiled(self._values, self._shared, self._example, 0)

    def _values(self, *given: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        known = dict(zip(self.used, given, strict=False))
        x, *rest = given[len(self.used) :]
        context = tree_unflatten(rest, self._structure)
        return energy_and_score(lambda a, _: self._energy.call(known, a, context), x, self._level, create_graph=create_graph)

    def _gradients(self, *given: Tensor) -> list[Tensor]:
        """Weights, w, u, g, coordinates, contexts -> scores, gradients by context, gradients by weight."""
        known = [q.detach().requires_grad_() for q in given[: len(self.used)]]
        w, u, g, x, *rest = given[len(self.used) :]
        rest = [q.detach().requires_grad_(k in self.trained) for k, q in enumerate(rest)]
        e, s = self._values(*known, x, *rest, create_graph=True)
        with torch.enable_grad():
            loss = (g * e + 0.5 * w * (s * s).sum((1, 2)) + (u * s).sum((1, 2))).sum()
        return [s.detach(), *torch.autograd.grad(loss, [*(rest[k] for k in self.trained), *known])]

    def _arguments(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> list[Tensor]:
        """Coordinates, contexts, weights."""
        context = tree_leaves(self._context.call(weights, log_snr, molecule))
        return [x, *(q.expand(len(x), *q.shape[1:]) for q in context), *(weights[name] for name in self.used)]

    def energy(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> Tensor:
        """See `Evaluation`."""
        return self.energy_and_score(weights, x, log_snr, molecule)[0]

    def energy_and_score(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> tuple[Tensor, Tensor]:
        """See `Evaluation`."""
        return _EnergyAndScore.apply(self, *self._arguments(weights, x, log_snr, molecule))

    def match(
        self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch, target: Tensor, importance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Evaluation`."""
        return _Match.apply(self, target, importance, *self._arguments(weights, x, log_snr, molecule))

    def gradients_of(self, w: Tensor, u: Tensor, g: Tensor, arguments: Sequence[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
        """Scores, and the gradient by each of `arguments`, of w |s|^2 / 2 + u . s + g E."""
        own = len(self._example)
        function, totals = self.gradients.bind(*arguments[own:]), len(self.used)
        missing = -len(w) % LANES
        seeds = [torch.cat([q, q.new_zeros(missing, *q.shape[1:])]) for q in (w, u, g)]
        score, *found = _in_parts(function, [*seeds, *arguments[:own]], totals=totals)
        k = len(self.trained)
        of_context = dict(zip(self.trained, found[:k], strict=True))
        return score, [None, *(of_context.get(j) for j in range(own - 1)), *found[k:]]

    def values_of(self, arguments: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Energies and scores."""
        own = len(self._example)
        energy, score = _in_parts(self.values.bind(*arguments[own:]), arguments[:own])
        return energy, score


class _EnergyAndScore(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, programs: InLanes, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        ctx.programs = programs
        ctx.save_for_backward(*arguments)
        return programs.values_of(arguments)

    @staticmethod
    def backward(ctx: Any, g: Tensor, u: Tensor) -> tuple[Tensor | None, ...]:
        _, found = ctx.programs.gradients_of(torch.zeros_like(g), u, g, ctx.saved_tensors)
        return None, *found


class _Match(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, programs: InLanes, target: Tensor, importance: Tensor, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        u = -importance[:, None, None] * target
        score, ctx.found = programs.gradients_of(importance, u, torch.zeros_like(importance), arguments)
        ctx.mark_non_differentiable(score)
        return score, _half_error(score, target, importance)

    @staticmethod
    def backward(ctx: Any, _: Tensor, factor: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *(None if q is None else factor * q for q in ctx.found)


def _in_parts(function: Callable[..., tuple[Tensor, ...]], arguments: Sequence[Tensor], totals: int = 0) -> list[Tensor]:
    """As `scoremd.parts.in_parts`, in parts that fill all lanes, the last `totals` results added up.

    The last molecule fills the lanes that the batch leaves empty; arguments that are longer by as many say what they get there.
    """
    n, full = len(arguments[-1]), LANES * math.ceil(len(arguments[-1]) / LANES)
    filled = [q if len(q) == full else torch.cat([q, q[-1:].expand(full - n, *q.shape[1:])]) for q in arguments]
    parts = zip(*(q.split(LARGEST_PART) for q in filled), strict=True)
    done = list(zip(*concurrently(lambda part: function(*part), parts), strict=True))
    k = len(done) - totals
    return [torch.cat(q)[:n] for q in done[:k]] + [torch.stack(q).sum(0) for q in done[k:]]


class CannotCompileError(Exception):
    """There is no compiler, or it fails; the reason was logged."""


def _compiled(function: Callable[..., Sequence[Tensor]], shared: Sequence[Tensor], inputs: Sequence[Tensor], totals: int) -> Program:
    program = compile_program(function, shared, inputs, totals)
    if program is None:
        raise CannotCompileError
    return program
