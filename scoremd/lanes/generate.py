"""From operations on numbered elements to a C++ program.

Operations that are read once are put into the expression of their reader. All others write to slots of one array, which are given to
others after their last reader. Where the slots that a loop reads are an affine function of its variables they are written as such; of
variables on which they depend in another way they are looked up in a table.
"""

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from scoremd.lanes.trace import Elements, Graph, Input, Map, Numbers, Operation, Product, Shared, Total


@dataclass(frozen=True)
class _Step:
    """A loop nest: an operation with those that were put into its expression; @0@, @1@ stand for the operands."""

    operation: Operation
    expression: str
    operands: list[Elements | Shared]


@dataclass(frozen=True)
class _Place:
    """Where the entries of an iteration are: at `first` + strides . i, `first` being looked up in `table` at steps . i if there is one.

    An axis has either a stride or a step.
    """

    name: str
    first: int
    strides: list[int]
    table: Numbers | None
    steps: list[int]


def generate(graph: Graph, *, single: bool = False) -> str:
    """The source of a program; `kernels.hpp`, or `single.hpp` for one molecule at a time, and `functions.hpp` go before it.

    It defines `run(x, molecules, shared, y)`: pointers to the inputs (molecule, ...), to the results of the prelude, and to where each
    output (molecule, ...) is to be written; then to totals, to which it adds.
    """
    return _Generator(graph, single=single).source()


class _Generator:
    def __init__(self, graph: Graph, *, single: bool) -> None:
        self.graph, self.single = graph, single
        operations = graph.operations
        #: number of the operation that makes each element
        self.maker = np.repeat(np.arange(len(operations)), [q.size for q in operations])
        self.slots = np.full(len(self.maker), -1)
        self.tables: list[str] = []
        self.memory = _Memory()
        self.fused = self._fused()

    def source(self) -> str:
        steps = [self._step(k) for k in range(len(self.graph.operations)) if k not in self.fused]
        outputs = [q.flatten().numpy() for q in self.graph.outputs]
        readers: dict[int, int] = {}
        for number, step in enumerate(steps):
            for operand in step.operands:
                if isinstance(operand, Elements):
                    readers |= dict.fromkeys(np.unique(self.maker[operand.numbers]).tolist(), number)
        readers |= {k: len(steps) for numbers in outputs for k in np.unique(self.maker[numbers]).tolist()}
        last = defaultdict(list)
        for k, number in readers.items():
            last[number].append(k)
        lines = []
        for number, step in enumerate(steps):
            q = step.operation
            if q.size:
                self.slots[q.first : q.first + q.size] = np.arange(q.size) + self.memory.take(q.size)
            lines.append(self._statement(step))
            for k in last[number]:
                done = self.graph.operations[k]
                self.memory.give_back(int(self.slots[done.first]), done.size)
        for k, numbers in enumerate(outputs):
            copy = f"y[{k}][(g + l) * {len(numbers)} + e] = at(A[{self._table(self.slots[numbers])}[e]], l);"
            lines.append(f"for (int e = 0; e < {len(numbers)}; e++) for (int l = 0; l < L && g + l < molecules; l++) {copy}")
        shared = {k for step in steps for k in self._shared(step)}
        head = 'extern "C" void run(const float* const* x, long molecules, const float* const* shared, float* const* y) {'
        pointers = [f"const float* __restrict U{k} = shared[{k}];" for k in sorted(shared)]
        loop = "for (long g = 0; g < molecules; g += L) {"
        return "\n".join([*self.tables, head, f"static thread_local v A[{self.memory.size}];", *pointers, loop, *lines, "}", "}", ""])

    @staticmethod
    def _shared(step: _Step) -> list[int]:
        found = [q.result for q in step.operands if isinstance(q, Shared)]
        if isinstance(step.operation, Product):
            found += [step.operation.matrix] + ([] if step.operation.bias is None else [step.operation.bias])
        return found

    def _fused(self) -> set[int]:
        """Operations whose elements are read once each, by one other that has a place for an expression."""
        operations = self.graph.operations
        reads = np.zeros(len(self.maker), np.int64)
        readers: dict[int, set[int]] = defaultdict(set)
        operand_of: dict[int, list[Elements]] = defaultdict(list)
        for k, q in enumerate(operations):
            for operand in q.operands:
                if isinstance(operand, Elements):
                    np.add.at(reads, operand.numbers, 1)
                    for made_by in np.unique(self.maker[operand.numbers]).tolist():
                        readers[made_by].add(k)
                        operand_of[made_by].append(operand)
        for output in self.graph.outputs:
            reads[output.flatten().numpy()] += 2  # outputs are written from slots
        fused = set()
        for k, q in enumerate(operations):
            if not isinstance(q, Map) or q.summed or len(readers[k]) != 1 or len(operand_of[k]) != 1:
                continue
            whole = (self.maker[operand_of[k][0].numbers] == k).all()
            if whole and reads[q.first : q.first + q.size].max() == 1 and isinstance(operations[min(readers[k])], Map):
                fused.add(k)
        return fused

    def _step(self, k: int) -> _Step:
        q = self.graph.operations[k]
        operands: list[Elements | Shared] = []
        if not isinstance(q, Map):
            return _Step(q, "", [p for p in q.operands if not isinstance(p, float)])
        expression = self._expression(q, np.arange(q.size * math.prod(q.summed)), operands)
        return _Step(q, expression, operands)

    def _expression(self, q: Map, entries: Numbers, operands: list[Elements | Shared]) -> str:
        """The expression of some entries of an operation; what it reads from slots and shared results is appended to `operands`."""
        parts = []
        for operand in q.operands:
            if isinstance(operand, float):
                parts.append(f"{operand!r}f")
                continue
            if isinstance(operand, Elements):
                numbers = operand.numbers[entries]
                made_by = int(self.maker[numbers[0]])
                if made_by in self.fused:
                    inner = self.graph.operations[made_by]
                    assert isinstance(inner, Map)  # only those are fused
                    parts.append(self._expression(inner, numbers - inner.first, operands))
                    continue
                operands.append(Elements(numbers))
            else:
                operands.append(Shared(operand.result, operand.positions[entries]))
            parts.append(f"@{len(operands) - 1}@")
        return f"({q.expression.format(*parts)})"

    def _table(self, numbers: Numbers) -> str:
        kind = "uint16_t" if numbers.max() < 2**16 else "uint32_t"
        self.tables.append(f"static const {kind} T{len(self.tables)}[] = {{{','.join(map(str, numbers))}}};")
        return f"T{len(self.tables) - 1}"

    def _statement(self, step: _Step) -> str:
        q = step.operation
        if isinstance(q, Input):
            copy = f"at(A[{self.slots[q.first]} + e], l) = x[{q.argument}][(g + l < molecules ? g + l : g) * {q.size} + e];"
            return f"for (int e = 0; e < {q.size}; e++) for (int l = 0; l < L; l++) {copy}"
        if isinstance(q, Product):
            return self._product(q, step.operands[0])
        if isinstance(q, Total):
            return self._total(q, step.operands)
        assert isinstance(q, Map)  # the last kind
        return self._loops(q, step)

    def _product(self, q: Product, left: Elements | Shared) -> str:
        rows, columns = q.shape
        lines, (a,) = self._matrices([(left, (rows, q.inner))])
        bias = "nullptr" if q.bias is None else f"U{q.bias}"
        matrix = f"U{q.matrix} + {q.offset}, {columns}, {q.inner}, {bias}"
        return "\n".join([*lines, f"product({a[0]}, {rows}, {a[1]}, {a[2]}, {matrix}, A + {self.slots[q.first]});"])

    def _matrices(self, operands: list[tuple[Elements | Shared, tuple[int, int]]]) -> tuple[list[str], list[tuple[str, int, int]]]:
        """Where matrices in lanes are, and their strides; and the statements that gather those whose entries are scattered."""
        lines: list[str] = []
        found: list[tuple[str, int, int]] = []
        temporaries: list[tuple[int, int]] = []
        for operand, (rows, columns) in operands:
            assert isinstance(operand, Elements)  # as `trace` makes it
            slots = self.slots[operand.numbers]
            place = _affine(slots, (rows, columns))
            if place is None:
                temporary = self.memory.take(rows * columns)
                temporaries.append((temporary, rows * columns))
                lines.append(f"for (int e = 0; e < {rows * columns}; e++) A[{temporary} + e] = A[{self._table(slots)}[e]];")
                place = temporary, [columns, 1]
            first, (row, column) = place
            found.append((f"A + {first}", row, column))
        for first, size in temporaries:
            self.memory.give_back(first, size)
        return lines, found

    def _total(self, q: Total, operands: list[Elements | Shared]) -> str:
        where = f"y[{len(self.graph.outputs) + q.total}]"
        if not q.inner:
            (operand,) = operands
            assert isinstance(operand, Elements)  # as `trace` makes it
            tables = self._table(q.positions), self._table(self.slots[operand.numbers])
            return f"for (int e = 0; e < {len(q.positions)}; e++) {where}[{tables[0]}[e]] += sum(A[{tables[1]}[e]]);"
        rows, columns = q.shape
        place = _affine(q.positions, (rows, columns))
        if place is None:
            raise NotImplementedError("no translation of products that are scattered over a total")
        lines, (a, b) = self._matrices([(operands[0], (rows, q.inner)), (operands[1], (q.inner, columns))])
        left, right = f"{a[0]}, {rows}, {a[1]}, {a[2]}", f"{b[0]}, {columns}, {b[1]}, {b[2]}"
        return "\n".join([*lines, f"accumulate({left}, {right}, {q.inner}, {where} + {place[0]}, {place[1][0]}, {place[1][1]});"])

    def _loops(self, q: Map, step: _Step) -> str:
        shape = q.shape + q.summed
        made = self.slots[q.first : q.first + q.size].repeat(math.prod(q.summed))
        read = [("A", self.slots[p.numbers]) if isinstance(p, Elements) else (f"U{p.result}", p.positions) for p in step.operands]
        places = [_place(name, numbers, shape) for name, numbers in (*read, ("A", made))]
        moves = [w for p in places for w in (p.strides, p.steps)]
        outer = _merged(q.shape, [w[: len(q.shape)] for w in moves])
        loops = outer + _merged(q.summed, [w[len(q.shape) :] for w in moves])

        def at(k: int) -> str:
            strides, steps = ([f"{w} * i{d}" for d, (_, along) in enumerate(loops) if (w := along[which])] for which in (2 * k, 2 * k + 1))
            table = places[k].table
            first = str(places[k].first) if table is None else f"{self._table(table)}[{' + '.join(steps)}]"
            return f"{places[k].name}[{' + '.join([first, *strides])}]"

        expression, result = step.expression, at(len(read))
        for k in range(len(read)):
            expression = expression.replace(f"@{k}@", at(k))
        heads = [f"for (int i{d} = 0; i{d} < {size}; i{d}++) " for d, (size, _) in enumerate(loops)]
        around, inside = "".join(heads[: len(outer)]), "".join(heads[len(outer) :])
        if not q.summed:
            in_lanes = any(isinstance(p, Elements) for p in step.operands)
            return f"{around}{result} = {'' if in_lanes else 'v{} + '}{expression};"
        if self.single and outer:
            # neighbours of the last axis side by side in vectors
            last, size, sums = heads[len(outer) - 1], outer[-1][0], f"s[i{len(outer) - 1}]"
            before = "".join(heads[: len(outer) - 1])
            return f"{before}{{ v s[{size}] = {{}}; {inside}{last}{sums} += {expression}; {last}{result} = {sums}; }}"
        return f"{around}{{ v s{{}}; {inside}s += {expression}; {result} = s; }}"


def _place(name: str, numbers: Numbers, shape: tuple[int, ...]) -> _Place:
    """Where `numbers` of an array of this shape are; an axis has a stride if the number rises by it everywhere."""
    q = numbers.reshape(shape)
    rises = [np.diff(q, axis=d) for d in range(q.ndim)]
    regular = [not w.size or bool((w == w.flat[0]).all()) for w in rises]
    strides = [int(w.flat[0]) if w.size and r else 0 for w, r in zip(rises, regular, strict=True)]
    if all(regular):
        return _Place(name, int(q.flat[0]), strides, None, [0] * q.ndim)
    table = q[tuple(slice(None) if not r else slice(1) for r in regular)]
    steps = [0 if r else math.prod(table.shape[d + 1 :]) for d, r in enumerate(regular)]
    return _Place(name, 0, strides, table.ravel(), steps)


def _affine(numbers: Numbers, shape: tuple[int, ...]) -> tuple[int, list[int]] | None:
    """First number, and strides along `shape`, if the numbers are an affine function of the position."""
    place = _place("", numbers, shape)
    return (place.first, place.strides) if place.table is None else None


def _merged(shape: tuple[int, ...], moves: list[list[int]]) -> list[tuple[int, list[int]]]:
    """Loops (size, what each operand moves by) over `shape`: axes of one entry left out, neighbours that are one axis for all merged."""
    loops: list[tuple[int, list[int]]] = []
    for d, n in enumerate(shape):
        if n == 1:
            continue
        here = [w[d] for w in moves]
        if loops and all(a == n * b for a, b in zip(loops[-1][1], here, strict=True)):
            loops[-1] = (n * loops[-1][0], here)
        else:
            loops.append((n, here))
    return loops


class _Memory:
    """Which slots are in use: the smallest gap that is large enough is taken first."""

    def __init__(self) -> None:
        self.size = 0
        self.gaps: list[tuple[int, int]] = []  # (first, size), rising, apart

    def take(self, size: int) -> int:
        fitting = [gap for gap in self.gaps if gap[1] >= size]
        if fitting:
            first, available = gap = min(fitting, key=lambda q: q[1])
            self.gaps.remove(gap)
            if available > size:
                self._insert((first + size, available - size))
            return first
        first = self.gaps.pop()[0] if self.gaps and sum(self.gaps[-1]) == self.size else self.size
        self.size = first + size
        return first

    def give_back(self, first: int, size: int) -> None:
        self._insert((first, size))

    def _insert(self, gap: tuple[int, int]) -> None:
        merged: list[tuple[int, int]] = []
        for first, size in sorted([*self.gaps, gap]):
            if merged and sum(merged[-1]) == first:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((first, size))
        self.gaps = merged
