"""From a function of one molecule to operations on numbered elements.

Every number that depends on the coordinates is an element. An operation makes new elements from others; what only moves numbers (views,
gathers, concatenations) makes none: it is done here, on the arrays of element numbers. What does not depend on the coordinates goes to a
prelude that torch runs once.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch._functorch.compile_utils import fx_graph_cse
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
    """The coordinates."""


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


@dataclass(frozen=True)
class Graph:
    """A traced function.

    Attributes
    ----------
    operations : in the order in which they can be done; the first is the input
    outputs : element numbers of each result, without the axis of molecules
    prelude : of the shared arguments; gives what operands and products name
    """

    operations: list[Operation]
    outputs: list[Tensor]
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
#: Tensors like another in shape only -> their value, None where it is the last argument.
_FILLED = {
    aten.full_like.default: None,
    aten.new_full.default: None,
    aten.ones_like.default: 1.0,
    aten.zeros_like.default: 0.0,
    aten.new_zeros.default: 0.0,
    aten.new_ones.default: 1.0,
}


def trace(function: Callable[..., Sequence[Tensor]], shared: Sequence[Tensor], x: Tensor) -> Graph:
    """Trace `function(*shared, x)`.

    Parameters
    ----------
    function : may take gradients inside, must treat the molecules along the first axis of `x` and of its results alike and apart
    shared : arguments that all molecules share
    x : coordinates of one molecule, (1, ...)

    Raises
    ------
    NotImplementedError
        If the function does to the coordinates what has no translation here.
    """
    module = make_fx(lambda *a: tuple(function(*a)), decomposition_table=dict(core_aten_decompositions()), tracing_mode="real")(*shared, x)
    module = fx.GraphModule(module, fx_graph_cse(module.graph))
    for node in list(module.graph.nodes):
        if node.target in _FILLED:
            value = node.args[-1] if _FILLED[node.target] is None else _FILLED[node.target]
            with module.graph.inserting_before(node):
                filled = module.graph.call_function(aten.full.default, (list(_shape(node)), value), {"dtype": node.meta["val"].dtype})
            filled.meta = node.meta
            node.replace_all_uses_with(filled)
    module.graph.eliminate_dead_code()
    return _Tracer(module).run()


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


class _Tracer:
    """Walks over the nodes of a graph; the last placeholder is the coordinates."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.operations: list[Operation] = []
        self.elements = 0
        self.values: dict[fx.Node, Any] = {}  # node in lanes -> element numbers, or a tuple of such
        self.shared: dict[fx.Node, int] = {}  # node of the prelude -> number of the result
        self.constants: dict[fx.Node, Tensor] = {}  # what depends on no argument: the indices of gathers are of that kind

    def run(self) -> Graph:
        nodes = list(self.module.graph.nodes)
        coordinates = [n for n in nodes if n.op == "placeholder"][-1]
        for node in nodes:
            if node is coordinates:
                self.values[node] = self._make(Input(_shape(node), []))
            elif node.op == "get_attr":
                self.constants[node] = getattr(self.module, node.target)
            elif node.op == "output":
                outputs = [self._in_lanes(n)[0] for n in node.args[0]]
            elif node.op == "call_function" and any(n in self.values for n in node.all_input_nodes):
                self.values[node] = self._call(node)
            elif node.op == "call_function" and all(n in self.constants for n in node.all_input_nodes):
                arguments = fx.node.map_arg((node.args, dict(node.kwargs)), lambda n: self.constants[n])
                self.constants[node] = node.target(*arguments[0], **arguments[1])
        return Graph(self.operations, outputs, self._prelude(nodes, coordinates))

    def _prelude(self, nodes: list[fx.Node], coordinates: fx.Node) -> fx.GraphModule:
        graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
        for node in nodes:
            if node is not coordinates and node.op != "output" and node not in self.values:
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
