"""From a function of one molecule to operations on numbered elements.

Every number that depends on the coordinates is an element. An operation makes new elements from others; what only moves numbers (views,
gathers, concatenations) makes none: it is done here, on the arrays of element numbers. What does not depend on the coordinates goes to a
prelude that torch runs once.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch._functorch.compile_utils import fx_graph_cse
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Elements:
    """An operand in lanes: the element for each entry of the operation's iteration."""

    numbers: Numbers


@dataclass(frozen=True)
class Shared:
    """An operand that all molecules share: a result of the prelude, and the position in it for each entry of the iteration."""

    result: int
    positions: Numbers


Operand = Elements | Shared | float


@dataclass
class Operation:
    """Makes the elements from `first` on, as many as `shape` has entries; the operands run over `shape` and then over `summed`."""

    shape: tuple[int, ...]
    operands: list[Operand]
    first: int = 0

    @property
    def size(self) -> int:
        """Number of elements that it makes."""
        return math.prod(self.shape)


@dataclass
class Input(Operation):
    """An argument of which each molecule has its own."""

    argument: int = 0


@dataclass
class Map(Operation):
    """An expression of each entry, summed over the axes `summed`; {0}, {1} stand for the operands."""

    expression: str = "{0}"
    summed: tuple[int, ...] = ()


@dataclass
class Product(Operation):
    """(rows, inner) in lanes times the shared (inner, columns) that begins at `offset` of result `matrix`, plus the result `bias`."""

    inner: int = 0
    matrix: int = 0
    offset: int = 0
    bias: int | None = None


@dataclass
class Total(Operation):
    """Adds the operand of all molecules to a total; makes no elements.

    With a second operand, what is added is the matrix product (rows, inner) times (inner, columns) of the two.

    Attributes
    ----------
    total : number of the total
    positions : in it, one for each entry of the operand or of the product
    shape : of the operand or of the product
    inner : of the product, 0 without a second operand
    """

    total: int = 0
    positions: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    inner: int = 0

    @property
    def size(self) -> int:
        """It makes no elements."""
        return 0


@dataclass(frozen=True)
class Graph:
    """A traced function.

    Attributes
    ----------
    operations : in the order in which they can be done; the inputs come first
    outputs : element numbers of each result, without the axis of molecules
    totals : shapes of the results that are summed over the molecules
    prelude : of the shared arguments; gives what operands and products name
    """

    operations: list[Operation]
    outputs: list[Tensor]
    totals: list[tuple[int, ...]]
    prelude: fx.GraphModule


_SAME = {aten.clone.default, aten.detach.default, aten.alias.default, aten._to_copy.default}  # noqa: SLF001
_RESHAPED = {aten.view.default, aten._unsafe_view.default, aten.reshape.default}  # noqa: SLF001
_MOVED = {
    aten.permute.default, aten.transpose.int, aten.t.default, aten.expand.default, aten.slice.Tensor, aten.select.int,
    aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int,
    aten.index_select.default, aten.index.Tensor, aten.cat.default, aten.stack.default, aten.select_scatter.default,
    aten.slice_scatter.default, aten.where.self,
}  # fmt: skip
_EXPRESSIONS = {
    aten.neg.default: "-{0}",
    aten.exp.default: "exponential({0})",
    aten.sqrt.default: "root({0})",
    aten.rsqrt.default: "1.0f / root({0})",
    aten.reciprocal.default: "1.0f / {0}",
    aten.sigmoid.default: "sigmoid({0})",
    aten.tanh.default: "tangent({0})",
    aten.mul.Tensor: "{0} * {1}",
    aten.mul.Scalar: "{0} * {1}",
    aten.add.Tensor: "{0} + {1}",
    aten.add.Scalar: "{0} + {1}",
    aten.sub.Tensor: "{0} - {1}",
    aten.sub.Scalar: "{0} - {1}",
    aten.rsub.Scalar: "{1} - {0}",
    aten.div.Tensor: "{0} / {1}",
    aten.div.Scalar: "{0} / {1}",
}
_POWERS = {1: "{0}", 2: "square({0})", 3: "square({0}) * {0}", 4: "square(square({0}))", -1: "1.0f / {0}", 0.5: "root({0})"}
_IN_PLACE = {aten.sub_.Tensor: aten.sub.Tensor}
#: Tensors like another in shape only -> their value, None where it is the last argument.
_FILLED = {
    aten.full_like.default: None,
    aten.new_full.default: None,
    aten.ones_like.default: 1.0,
    aten.zeros_like.default: 0.0,
    aten.new_zeros.default: 0.0,
    aten.new_ones.default: 1.0,
}


def trace(function: Callable[..., Sequence[Tensor]], shared: Sequence[Tensor], inputs: Sequence[Tensor], totals: int = 0) -> Graph:
    """Trace `function(*shared, *inputs)`.

    Parameters
    ----------
    function : may take gradients inside, must treat the molecules along the first axis of inputs and results alike and apart
    shared : arguments that all molecules share
    inputs : arguments of one molecule, (1, ...)
    totals : how many of the results, the last ones, are without an axis of molecules: sums over all of them, as gradients with respect to
        shared arguments are

    Raises
    ------
    NotImplementedError
        If the function does to the inputs what has no translation here.
    """
    flat = make_fx(lambda *a: tuple(function(*a)), decomposition_table=dict(core_aten_decompositions()), tracing_mode="real")
    # every node notes its shape with the help of a mode, which would else be made anew for each
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        module = flat(*shared, *inputs)
    _simplify(module.graph)
    module = fx.GraphModule(module, fx_graph_cse(module.graph))
    return _Tracer(module, len(inputs), totals).run()


def _simplify(graph: fx.Graph) -> None:
    """Write tensors of one value as such, without others whose shape they take, operations in place as those that make new tensors, and
    leave out copies.
    """
    for node in list(graph.nodes):
        if node.target in _SAME:
            node.replace_all_uses_with(node.args[0])
            continue
        value = None
        if node.target in _FILLED:
            value = node.args[-1] if _FILLED[node.target] is None else _FILLED[node.target]
        elif node.target in (aten.copy_.default, aten.expand.default, *_RESHAPED):
            source = node.args[1] if node.target is aten.copy_.default else node.args[0]
            value = source.args[1] if source.target is aten.full.default else None
        if value is not None:
            with graph.inserting_before(node):
                filled = graph.call_function(aten.full.default, (list(_shape(node)), value), {"dtype": node.meta["val"].dtype})
            filled.meta = node.meta
            node.replace_all_uses_with(filled)
        elif node.target in _IN_PLACE:
            node.target = _IN_PLACE[node.target]
    for node in reversed(graph.nodes):
        if not node.users and node.op == "call_function":  # those that changed tensors in place, too
            graph.erase_node(node)


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _summands(node: fx.Node) -> list[tuple[fx.Node, Callable[[Tensor], Tensor]]] | None:
    """The nodes that a node is the sum of, each with what brings an array of the node's shape to theirs; None if it is not linear."""
    a: Any = node.args
    if node.target is aten.add.Tensor and all(isinstance(n, fx.Node) and _shape(n) == _shape(node) for n in a) and not node.kwargs:
        return [(n, lambda q: q) for n in a]
    if node.target in _SAME:
        return [(a[0], lambda q: q)]
    if node.target in _RESHAPED:
        return [(a[0], lambda q: q.reshape(_shape(a[0])))]
    if node.target is aten.permute.default:
        return [(a[0], lambda q: q.permute(np.argsort(a[1]).tolist()))]
    if node.target is aten.slice_scatter.default and a[0].target is aten.full.default and a[0].args[1] == 0:
        return [(a[1], lambda q: aten.slice.Tensor(q, *a[2:]))]
    return None


class _Tracer:
    """Walks over the nodes of a graph; the last placeholders are the inputs, the last results the totals."""

    def __init__(self, module: fx.GraphModule, inputs: int, totals: int) -> None:
        self.module = module
        self.nodes = list(module.graph.nodes)
        self.inputs = [n for n in self.nodes if n.op == "placeholder"][-inputs:]
        results = list(self.nodes[-1].args[0])
        self.results, self.totals = results[: len(results) - totals], results[len(results) - totals :]
        self.operations: list[Operation] = []
        self.elements = 0
        self.values: dict[fx.Node, Any] = {}  # node in lanes -> element numbers, or a tuple of such
        self.shared: dict[fx.Node, int] = {}  # node of the prelude -> number of the result
        self.constants: dict[fx.Node, Tensor] = {}  # what depends on no argument: the indices of gathers are of that kind
        #: nodes that totals are sums of: the totals that each is in, and where its entries are added
        self.parts: dict[fx.Node, list[tuple[int, Tensor]]] = {}
        self.passed: set[fx.Node] = set()  # nodes that are asked for in totals alone, and are in them by way of their parts

    def run(self) -> Graph:
        self._take_totals_apart()
        for node in self.nodes[:-1]:
            if node in self.inputs:
                self.values[node] = self._make(Input(_shape(node), [], argument=self.inputs.index(node)))
                if node in self.parts:
                    self._add_to_totals(node)
            elif node.op == "get_attr":
                self.constants[node] = getattr(self.module, node.target)
            elif node in self.passed:
                continue
            elif node in self.parts:
                self._add_to_totals(node)
            elif node.op == "call_function" and any(n in self.values for n in node.all_input_nodes):
                self.values[node] = self._call(node)
            elif node.op == "call_function" and all(n in self.constants for n in node.all_input_nodes):
                arguments = fx.node.map_arg((node.args, dict(node.kwargs)), lambda n: self.constants[n])
                self.constants[node] = node.target(*arguments[0], **arguments[1])
        outputs = [self._in_lanes(n)[0] for n in self.results]
        return Graph(self.operations, outputs, [_shape(n) for n in self.totals], self._prelude())

    def _take_totals_apart(self) -> None:
        """Go back from the totals, through what is linear, to the nodes that they are sums of."""
        for k, node in enumerate(self.totals):
            positions = torch.arange(math.prod(_shape(node))).reshape(_shape(node))
            self.parts.setdefault(node, []).append((k, positions))
        for node in reversed(self.nodes):
            alone = node not in self.results and all(n.op == "output" or n in self.passed for n in node.users)
            sources = _summands(node) if node in self.parts and alone else None
            if sources is not None:
                self.passed.add(node)
                for k, positions in self.parts.pop(node):
                    for source, back in sources:
                        self.parts.setdefault(source, []).append((k, back(positions)))

    def _add_to_totals(self, node: fx.Node) -> None:
        """Append what adds a node to totals."""
        if node.target is aten.full.default and node.args[1] == 0:
            return
        alone = node not in self.results and all(n.op == "output" or n in self.passed for n in node.users)
        if node.target is aten.mm.default and alone and all(n in self.values for n in node.args):
            a: Any = node.args
            left, right = self.values[a[0]], self.values[a[1]]
            operands, inner = [left, right], left.shape[1]
        elif node in self.inputs or any(n in self.values for n in node.all_input_nodes):
            if node not in self.inputs:
                self.values[node] = self._call(node)
            operands, inner = [self.values[node]], 0
        else:
            raise NotImplementedError(f"a total of what is the same for all molecules: {node.format_node()}")
        elements: list[Operand] = [Elements(q.flatten().numpy()) for q in operands]
        for k, positions in self.parts[node]:
            self.operations.append(
                Total(_shape(node), elements, self.elements, total=k, positions=positions.flatten().numpy(), inner=inner)
            )

    def _prelude(self) -> fx.GraphModule:
        graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
        for node in self.nodes[:-1]:
            if all(n in copies for n in node.all_input_nodes) and node not in self.values and node not in self.passed:
                copies[node] = graph.node_copy(node, lambda n: copies[n])
        graph.output([copies[node] for node in self.shared])
        graph.eliminate_dead_code()
        return fx.GraphModule(self.module, graph)

    def _make(self, operation: Operation) -> Tensor:
        """Append an operation; the numbers of its elements."""
        operation.first = self.elements
        self.elements += operation.size
        self.operations.append(operation)
        return torch.arange(operation.first, self.elements).reshape(operation.shape)

    def _result(self, node: fx.Node) -> int:
        return self.shared.setdefault(node, len(self.shared))

    def _operand(self, a: Any, shape: tuple[int, ...]) -> Operand:
        if not isinstance(a, fx.Node):
            return float(a)
        if a.target is aten.full.default:
            value: Any = a.args[1]
            return float(value)
        if a in self.values:
            return Elements(self.values[a].expand(shape).flatten().numpy())
        positions = torch.arange(math.prod(_shape(a))).reshape(_shape(a)).expand(shape)
        return Shared(self._result(a), positions.flatten().numpy())

    def _in_lanes(self, node: fx.Node) -> Tensor:
        """Element numbers of a node; what is shared is copied into lanes."""
        if node not in self.values:
            return self._make(Map(_shape(node), [self._operand(node, _shape(node))]))
        return self.values[node]

    def _moved(self, a: Any) -> Any:
        """Arguments of an operation that only moves numbers."""
        if isinstance(a, (list, tuple)):
            return [self._moved(b) for b in a]
        if not isinstance(a, fx.Node):
            return a
        constant = self.constants.get(a)
        return constant if constant is not None and not constant.is_floating_point() else self._in_lanes(a)

    def _call(self, node: fx.Node) -> Any:
        target: Any = node.target
        a: Any = node.args
        if target is operator.getitem:
            return self.values[a[0]][a[1]]
        if target in _SAME:
            return self.values[a[0]]
        if target in _RESHAPED:
            return self.values[a[0]].reshape(a[1])
        if target in _MOVED:
            return target(*self._moved(a), **node.kwargs)
        shape = _shape(node)
        if target is aten.mul.Tensor:
            for one, other in (a, a[::-1]):
                if isinstance(one, fx.Node) and one.target is aten.full.default and one.args[1] == 1 and _shape(other) == shape:
                    return self.values[other]
        if target in _EXPRESSIONS and node.kwargs.get("alpha", 1) == 1:
            return self._make(Map(shape, [self._operand(b, shape) for b in a], expression=_EXPRESSIONS[target]))
        if target is aten.pow.Tensor_Scalar and a[1] in _POWERS:
            return self._make(Map(shape, [self._operand(a[0], shape)], expression=_POWERS[a[1]]))
        if target in (aten.sum.dim_IntList, aten.mean.dim, aten.sum.default):
            return self._sum(self.values[a[0]], a[1] if len(a) > 1 else None, mean=target is aten.mean.dim).reshape(shape)
        if target in (aten.mm.default, aten.addmm.default, aten.bmm.default):
            bias, left, right = a if target is aten.addmm.default else (None, *a)
            if left in self.values and right not in self.values and bias not in self.values:
                if target is not aten.bmm.default:
                    return self._product(self.values[left], right, 0, bias)
                size = math.prod(_shape(right)[1:])
                return torch.stack([self._product(q, right, k * size, None) for k, q in enumerate(self.values[left])])
        raise NotImplementedError(f"no translation of {node.format_node()}")

    def _sum(self, numbers: Tensor, axes: Sequence[int] | None, *, mean: bool) -> Tensor:
        axes = [d % numbers.dim() for d in (axes or range(numbers.dim()))]
        kept = [d for d in range(numbers.dim()) if d not in axes]
        summed = tuple(numbers.shape[d] for d in axes)
        expression = f"{{0}} * {1 / math.prod(summed)!r}f" if mean else "{0}"
        operand = Elements(numbers.permute(kept + axes).flatten().numpy())
        return self._make(Map(tuple(numbers.shape[d] for d in kept), [operand], expression=expression, summed=summed))

    def _product(self, left: Tensor, right: fx.Node, offset: int, bias: fx.Node | None) -> Tensor:
        rows, inner = left.shape
        columns = _shape(right)[-1]
        if bias is not None and math.prod(_shape(bias)) != columns:
            raise NotImplementedError(f"no translation of a bias of shape {_shape(bias)}")
        numbers = None if bias is None else self._result(bias)
        operand = Elements(left.flatten().numpy())
        return self._make(Product((rows, columns), [operand], inner=inner, matrix=self._result(right), offset=offset, bias=numbers))
