"""Energies and scores that losses can be differentiated through, by torch as written or by compiled programs in lanes.

A loss is a function of energies and scores. With dL = sum g dE + u . ds its gradient is that of sum g E + u . s with g and u held
fixed. For score matching, half of w |s - y|^2, u is w (s - y), so its gradient is that of w |s|^2 / 2 - (w y) . s: of the same form but
for the first term. One program, of coordinates, their context, w, u and g, serves all losses: it gives the gradient with respect to
weights and to the context. From there on torch goes on as usual: copies of a sample share what does not depend on coordinates.
"""

import copy
import functools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map_only

from scoremd.lanes.program import LANES, Program, compile_program
from scoremd.nn.energy import Context, MoleculeEnergy
from scoremd.nn.molecule import MoleculeBatch
from scoremd.nn.score import energy_and_score
from scoremd.parts import LARGEST_PART, concurrently, single_threaded

#: Tensors by their names in the network.
Weights = Mapping[str, Tensor]


class Evaluation(Protocol):
    """What losses need at scaled coordinates x (batch, bead, 3) and noise levels (batch,), to be differentiated once in the weights.

    Where the batch is copies of a part, one after the other, noise levels and molecules are those of the part.
    """

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


class _Method:
    """A method of a network as a function of weights; several threads may call it at the same time."""

    def __init__(self, network: MoleculeEnergy, name: str) -> None:
        self._network, self._name = network, name
        self._local = threading.local()

    def __call__(self, weights: Weights, *arguments: Any) -> Any:
        """The method with other weights."""
        # `functional_call` puts the weights into the module meanwhile: each thread needs one of its own
        if not hasattr(self._local, "module"):
            self._local.module = _Forward(copy.deepcopy(self._network), self._name)
        return functional_call(self._local.module, {f"network.{name}": q for name, q in weights.items()}, arguments)


class _Forward(nn.Module):
    """A method of a network as `forward`."""

    def __init__(self, network: MoleculeEnergy, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, *arguments: Any) -> Any:
        return getattr(self.network, self.name)(*arguments)


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
        network = copy.deepcopy(network)
        network.near_only = False  # lanes do the same thing at the same time: each has all pairs
        self._context, self._evaluate = _Method(network, "context"), _Method(network, "evaluate")
        weights = {name: q.detach().requires_grad_() for name, q in network.named_parameters()}
        self._level = torch.ones(1)
        one = MoleculeBatch(*(q[:1] for q in molecule))
        self._pattern: Context = self._context(weights, self._level, one)
        context = _tensors(self._pattern)
        #: which of the context's tensors depend on weights
        self.trained = [k for k, q in enumerate(context) if q.requires_grad]
        x = torch.randn(1, network.n_beads, 3, generator=torch.Generator().manual_seed(0))
        self._example = [x, *(q.detach() for q in context)]
        #: names of the weights that the energy depends on not by way of the context
        self.used = list(weights)
        e, s = self._values(*weights.values(), *self._example, create_graph=True)
        reached = torch.autograd.grad(e.sum() + s.sum(), list(weights.values()), allow_unused=True)
        self.used = [name for name, q in zip(weights, reached, strict=True) if q is not None]
        self._shared = [weights[name].detach() for name in self.used]
        seeds = [torch.ones(1), torch.ones_like(x), torch.ones(1)]
        self.gradients = _compiled(self._gradients, self._shared, [*seeds, *self._example], len(self.used))

    @functools.cached_property
    def values(self) -> Program:
        """Coordinates, context -> energies, scores."""
        return _compiled(self._values, self._shared, self._example, 0)

    @functools.cached_property
    def energies(self) -> Program:
        """Coordinates, context -> energies."""
        return _compiled(lambda *q: [self._energies(*q).detach()], self._shared, self._example, 0)

    @functools.cached_property
    def energy_gradients(self) -> Program:
        """g, coordinates, context -> gradients of g E by context, by weight."""
        return _compiled(self._energy_gradients, self._shared, [torch.ones(1), *self._example], len(self.used))

    def _energies(self, *given: Tensor) -> Tensor:
        known = dict(zip(self.used, given, strict=False))
        x, *rest = given[len(self.used) :]
        tensors = iter(rest)
        return self._evaluate(known, x, tree_map_only(Tensor, lambda _: next(tensors), self._pattern))

    def _values(self, *given: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        k = len(self.used)
        return energy_and_score(
            lambda a, _: self._energies(*given[:k], a, *given[k + 1 :]), given[k], self._level, create_graph=create_graph
        )

    def _leaves(self, given: Sequence[Tensor], seeds: int) -> tuple[list[Tensor], list[Tensor], Sequence[Tensor]]:
        """Arguments of `_values`, those that gradients are taken by, and seeds, of weights, seeds, coordinates and context."""
        k = len(self.used)
        known = [q.detach().requires_grad_() for q in given[:k]]
        x, *rest = given[k + seeds :]
        rest = [q.detach().requires_grad_(j in self.trained) for j, q in enumerate(rest)]
        return [*known, x, *rest], [*(rest[j] for j in self.trained), *known], given[k : k + seeds]

    def _energy_gradients(self, *given: Tensor) -> list[Tensor]:
        arguments, leaves, (g,) = self._leaves(given, 1)
        with torch.enable_grad():
            loss = (g * self._energies(*arguments)).sum()
        return list(torch.autograd.grad(loss, leaves, materialize_grads=True))

    def _gradients(self, *given: Tensor) -> list[Tensor]:
        """Weights, w, u, g, coordinates, context -> scores, gradients by context, gradients by weight."""
        arguments, leaves, (w, u, g) = self._leaves(given, 3)
        e, s = self._values(*arguments, create_graph=True)
        with torch.enable_grad():
            loss = (g * e + 0.5 * w * (s * s).sum((1, 2)) + (u * s).sum((1, 2))).sum()
        return [s.detach(), *torch.autograd.grad(loss, leaves)]

    def _arguments(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> list[Tensor]:
        """Coordinates, context, weights."""

        def context(*tensors: Tensor) -> list[Tensor]:
            return _tensors(self._context(dict(zip(weights, tensors, strict=True)), log_snr, molecule).repeated(len(x)))

        made = _OnOneThread.apply(context, *weights.values())
        return [x, *(q.expand(len(x), *q.shape[1:]) for q in made), *(weights[name] for name in self.used)]

    def energy(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> Tensor:
        """See `Evaluation`."""
        return _Energy.apply(self, *self._arguments(weights, x, log_snr, molecule))

    def energy_and_score(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> tuple[Tensor, Tensor]:
        """See `Evaluation`."""
        return _EnergyAndScore.apply(self, *self._arguments(weights, x, log_snr, molecule))

    def match(
        self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch, target: Tensor, importance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Evaluation`."""
        return _Match.apply(self, target, importance, *self._arguments(weights, x, log_snr, molecule))

    def run(self, program: Program, seeds: Sequence[Tensor], arguments: Sequence[Tensor], totals: int = 0) -> list[Tensor]:
        """A program's results; `seeds` are arguments that go before the coordinates, and are zero where lanes are empty."""
        missing, own = -len(arguments[0]) % LANES, len(self._example)
        seeds = [torch.cat([q, q.new_zeros(missing, *q.shape[1:])]) for q in seeds]
        return _in_parts(program.bind(*arguments[own:]), [*seeds, *arguments[:own]], totals)

    def by_argument(self, found: Sequence[Tensor]) -> list[Tensor | None]:
        """Gradients by `trained` tensors of the context and by `used` weights, for each argument."""
        k = len(self.trained)
        of_context = dict(zip(self.trained, found[:k], strict=True))
        return [None, *(of_context.get(j) for j in range(len(self._example) - 1)), *found[k:]]


def _tensors(context: Context) -> list[Tensor]:
    return [q for q in tree_leaves(context) if q is not None]


class _OnOneThread(torch.autograd.Function):
    """A function that is computed and differentiated on one thread: on several, matrix products round in other ways."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Sequence[Tensor]], *arguments: Tensor) -> tuple[Tensor, ...]:
        with single_threaded(), torch.enable_grad():
            ctx.arguments = [q.detach().requires_grad_() for q in arguments]
            ctx.results = function(*ctx.arguments)
        return tuple(q.detach() for q in ctx.results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        known = [(q, g) for q, g in zip(ctx.results, gradients, strict=True) if q.requires_grad]
        results, given = zip(*known, strict=True)
        with single_threaded():
            return None, *torch.autograd.grad(results, ctx.arguments, given, allow_unused=True)


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, programs: InLanes, *arguments: Tensor) -> Tensor:
        ctx.programs = programs
        ctx.save_for_backward(*arguments)
        return programs.run(programs.energies, [], arguments)[0]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        programs = ctx.programs
        return None, *programs.by_argument(programs.run(programs.energy_gradients, [g], ctx.saved_tensors, len(programs.used)))


class _EnergyAndScore(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, programs: InLanes, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        ctx.programs = programs
        ctx.save_for_backward(*arguments)
        energy, score = programs.run(programs.values, [], arguments)
        return energy, score

    @staticmethod
    def backward(ctx: Any, g: Tensor, u: Tensor) -> tuple[Tensor | None, ...]:
        programs = ctx.programs
        _, *found = programs.run(programs.gradients, [torch.zeros_like(g), u, g], ctx.saved_tensors, len(programs.used))
        return None, *programs.by_argument(found)


class _Match(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, programs: InLanes, target: Tensor, importance: Tensor, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        u = -importance[:, None, None] * target
        seeds = [importance, u, torch.zeros_like(importance)]
        score, *found = programs.run(programs.gradients, seeds, arguments, len(programs.used))
        ctx.found = programs.by_argument(found)
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
