"""Energies and scores that losses can be differentiated through, by torch as written or by compiled programs in lanes.

Losses are functions of quadratic forms of energies and scores (`scoremd.diffusion.quadratic_form`): that of score matching is one, and
each point's Fokker-Planck residual is one. The gradient of a form does not depend on its value, so one program, of coordinates, their
context and the form's coefficients, serves all: in one go it gives energies, scores, and the form's gradient with respect to weights and to
the context. From there on torch goes on as usual: points at one level share what does not depend on coordinates.
"""

import copy
import functools
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map_only

from scoremd.diffusion.quadratic_form import QuadraticForm
from scoremd.lanes.program import LANES, Program, compile_program
from scoremd.nn.energy import Context, MoleculeEnergy
from scoremd.nn.molecule import MoleculeBatch
from scoremd.nn.score import energy_and_score
from scoremd.parts import LARGEST_PART, concurrently, single_threaded

#: Tensors by their names in the network.
Weights = Mapping[str, Tensor]


class Term(NamedTuple):
    """A quadratic form and the points that it is of.

    Attributes
    ----------
    x : (group, point, bead, 3) scaled coordinates
    log_snr, molecule : noise levels, and a molecule for each, or one for all
    copies : how points share levels, see `scoremd.nn.energy.Context.repeated`
    form : its coefficients
    """

    x: Tensor
    log_snr: Tensor
    molecule: MoleculeBatch
    copies: tuple[int, ...]
    form: QuadraticForm


class Evaluation(Protocol):
    """What losses need at scaled coordinates and noise levels, to be differentiated once in the weights."""

    def energy(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> Tensor:
        """Energy (batch,) in kT of x (batch, bead, 3) at levels (batch,)."""

    def forms(self, weights: Weights, terms: Sequence[Term]) -> list[tuple[Tensor, Tensor]]:
        """Values (group,) of each form, and the scores, which are not to be differentiated."""


class AsWritten:
    """By torch's operations."""

    def __init__(self, network: MoleculeEnergy) -> None:
        self.network = network

    def energy(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> Tensor:
        """See `Evaluation`."""
        return functional_call(self.network, dict(weights), (x, log_snr, molecule))

    def forms(self, weights: Weights, terms: Sequence[Term]) -> list[tuple[Tensor, Tensor]]:
        """See `Evaluation`."""
        return [self._form(weights, term) for term in terms]

    def _form(self, weights: Weights, term: Term) -> tuple[Tensor, Tensor]:
        def energy(x: Tensor, log_snr: Tensor) -> Tensor:
            found: Tensor = functional_call(self.network, dict(weights), (x, log_snr, term.molecule, term.copies))
            return found

        found = energy_and_score(energy, term.x.flatten(0, 1), term.log_snr, create_graph=True)
        e, s = (q.unflatten(0, term.x.shape[:2]) for q in found)
        return term.form(e, s), s.detach()


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
        e, s = self._values(*weights.values(), *self._example)
        reached = torch.autograd.grad(e.sum() + s.sum(), list(weights.values()), allow_unused=True)
        self.used = [name for name, q in zip(weights, reached, strict=True) if q is not None]
        self._shared = [weights[name].detach() for name in self.used]
        seeds = [torch.ones(1), torch.ones_like(x), torch.ones(1)]
        self.gradients = _compiled(self._gradients, self._shared, [*seeds, *self._example], len(self.used))

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

    def _values(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        k = len(self.used)
        return energy_and_score(lambda a, _: self._energies(*given[:k], a, *given[k + 1 :]), given[k], self._level, create_graph=True)

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
        """Weights, g, u, w, coordinates, context -> energies, scores, gradients by context, gradients by weight."""
        arguments, leaves, (g, u, w) = self._leaves(given, 3)
        e, s = self._values(*arguments)
        with torch.enable_grad():
            loss = (g * e + 0.5 * w * (s * s).sum((1, 2)) + (u * s).sum((1, 2))).sum()
        return [e.detach(), s.detach(), *torch.autograd.grad(loss, leaves)]

    def energy(self, weights: Weights, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> Tensor:
        """See `Evaluation`."""

        def context(*tensors: Tensor) -> list[Tensor]:
            return _tensors(self._context(dict(zip(weights, tensors, strict=True)), log_snr, molecule))

        return _Energy.apply(self, *self._arguments(weights, x, _OnOneThread.apply(context, *weights.values())))

    def forms(self, weights: Weights, terms: Sequence[Term]) -> list[tuple[Tensor, Tensor]]:
        """See `Evaluation`."""

        def contexts(*tensors: Tensor) -> list[Tensor]:
            of_all = self._context(dict(zip(weights, tensors, strict=True)), torch.cat([t.log_snr for t in terms]), _molecules(terms))
            ends = list(itertools.accumulate((len(t.log_snr) for t in terms), initial=0))
            each = [of_all.rows(*ends[k : k + 2]).repeated(term.copies) for k, term in enumerate(terms)]
            return [q for context in each for q in _tensors(context)]

        # one call for all terms: for a few levels it takes as long as for a hundred
        made = _OnOneThread.apply(contexts, *weights.values())
        n, results = len(self._example) - 1, []
        for k, term in enumerate(terms):
            arguments = self._arguments(weights, term.x.flatten(0, 1), made[k * n : (k + 1) * n])
            results.append(_Form.apply(self, term.form, *arguments))
        return results

    def _arguments(self, weights: Weights, x: Tensor, context: Sequence[Tensor]) -> list[Tensor]:
        """Coordinates, context, weights."""
        return [x, *(q.expand(len(x), *q.shape[1:]) for q in context), *(weights[name] for name in self.used)]

    def run(self, program: Program, seeds: Sequence[Tensor], arguments: Sequence[Tensor], totals: int = 0, groups: int = 1) -> list[Tensor]:
        """A program's results of molecules in groups of one size; the last `totals` results are added up in each group, (group, ...).

        `seeds` are arguments that go before the coordinates, and are zero where lanes are empty.
        """
        own, n = len(self._example), len(arguments[0])
        bound, size = program.bind(*arguments[own:]), n // groups

        def computed(part: slice) -> tuple[Tensor, ...]:
            missing = -(part.stop - part.start) % LANES
            zeros = [_longer(q[part], q.new_zeros(missing, *q.shape[1:])) for q in seeds]
            copies = [_longer(q[part], q[part][-1:].expand(missing, *q.shape[1:])) for q in arguments[:own]]
            return bound(*zeros, *copies)

        parts = [slice(k, min(k + LARGEST_PART, g + size)) for g in range(0, n, size) for k in range(g, g + size, LARGEST_PART)]
        results = list(zip(*concurrently(computed, parts), strict=True))
        k = len(results) - totals
        rows = [torch.cat([q[: p.stop - p.start] for q, p in zip(found, parts, strict=True)]) for found in results[:k]]
        return rows + [torch.stack(found).unflatten(0, (groups, -1)).sum(1) for found in results[k:]]

    def by_argument(self, found: Sequence[Tensor]) -> list[Tensor | None]:
        """Gradients by `trained` tensors of the context and by `used` weights, for each argument."""
        k = len(self.trained)
        of_context = dict(zip(self.trained, found[:k], strict=True))
        return [None, *(of_context.get(j) for j in range(len(self._example) - 1)), *found[k:]]


def _longer(q: Tensor, by: Tensor) -> Tensor:
    return torch.cat([q, by]) if len(by) else q


def _molecules(terms: Sequence[Term]) -> MoleculeBatch:
    """Of each level of all terms; one row if that is the molecule of all."""
    first, *others = (t.molecule for t in terms)
    if all(len(a) == 1 and torch.equal(a, b) for m in (first, *others) for a, b in zip(m, first, strict=True)):
        return first
    rows = [[q.expand(len(t.log_snr), *q.shape[1:]) for q in t.molecule] for t in terms]
    return MoleculeBatch(*map(torch.cat, zip(*rows, strict=True)))


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
        found = programs.run(programs.energy_gradients, [g], ctx.saved_tensors, len(programs.used))
        k = len(programs.trained)
        return None, *programs.by_argument([*found[:k], *(q[0] for q in found[k:])])


class _Form(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, programs: InLanes, form: QuadraticForm, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        shape, seeds = form.energy.shape, [q.flatten(0, 1) for q in form[1:]]
        e, s, *ctx.found = programs.run(programs.gradients, seeds, arguments, len(programs.used), len(form.constant))
        ctx.programs, ctx.points = programs, shape[1]
        scores = s.unflatten(0, shape)
        ctx.mark_non_differentiable(scores)
        return form(e.unflatten(0, shape), scores), scores

    @staticmethod
    def backward(ctx: Any, factor: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        k, of_points = len(ctx.programs.trained), factor.repeat_interleave(ctx.points)
        by_context = [q * of_points.view(-1, *[1] * (q.dim() - 1)) for q in ctx.found[:k]]
        return None, None, *ctx.programs.by_argument([*by_context, *(torch.tensordot(factor, q, 1) for q in ctx.found[k:])])


class CannotCompileError(Exception):
    """There is no compiler, or it fails; the reason was logged."""


def _compiled(function: Callable[..., Sequence[Tensor]], shared: Sequence[Tensor], inputs: Sequence[Tensor], totals: int) -> Program:
    program = compile_program(function, shared, inputs, totals)
    if program is None:
        raise CannotCompileError
    return program
