"""Compiling programs, keeping them, and calling them."""

import ctypes
import functools
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from scoremd.compiler import find_compiler, kept
from scoremd.lanes.generate import generate
from scoremd.lanes.trace import Graph, trace

#: Where tensors begin.
Pointers = ctypes.Array[ctypes.c_void_p]
#: A multiple of the number of molecules that are computed at the same time.
LANES = 16
#: Up to so many molecules are faster one by one.
FEW = 3
#: Not -O3, which takes longer to compile programs that are not faster.
_FLAGS = ["-O2", "-march=native", "-funroll-loops", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast"]
#: A function can be traced by one thread at a time.
_tracing = threading.Lock()
_LANES_FLAGS = [*_FLAGS, "-ftree-slp-vectorize"]
_SINGLE_FLAGS = [*_FLAGS, "-ftree-vectorize", "-fvect-cost-model=dynamic"]


class Program:
    """A function of one molecule, compiled for batches; made by `compile_program`."""

    def __init__(self, graph: Graph, library: ctypes.CDLL, shapes: Sequence[torch.Size]) -> None:
        self._graph, self._library, self._shapes = graph, library, list(shapes)
        self._lock = threading.Lock()

    def _library_for(self, molecules: int) -> ctypes.CDLL:
        """The library that is faster for so many; that for few is compiled when it is first asked for."""
        if molecules > FEW or self._graph.totals:
            return self._library
        with self._lock:  # threads may ask at the same time
            return self._single

    @functools.cached_property
    def _single(self) -> ctypes.CDLL:
        return _library("single.hpp", generate(self._graph, single=True), _SINGLE_FLAGS) or self._library

    def bind(self, *shared: Tensor) -> "BoundProgram":
        """The function of what each molecule has of its own."""
        with torch.no_grad():
            results = [q.detach().float().contiguous() for q in self._graph.prelude(*shared)]
        return BoundProgram(self, results)

    def empty_outputs(self, molecules: int) -> list[Tensor]:
        """Where a library is to put its results; totals are added to."""
        return [torch.empty(molecules, *q.shape) for q in self._graph.outputs] + [torch.zeros(shape) for shape in self._graph.totals]

    def check(self, given: Sequence[Tensor]) -> int:
        """The number of molecules that arguments are of; raises a ValueError if they have other shapes or types."""
        n = len(given[0])
        wanted = [(n, *shape) for shape in self._shapes]
        if [q.shape for q in given] != wanted or any(q.dtype != torch.float32 for q in given):
            found = ", ".join(f"{tuple(q.shape)} of {q.dtype}" for q in given)
            raise ValueError(f"compiled for {', '.join(map(str, wanted))} of torch.float32, not for {found}")
        return n

    def run(self, molecules: int, sources: Pointers, shared: Pointers, places: Pointers) -> None:
        """Compute, from the arguments at `sources`, what comes to lie at `places`."""
        self._library_for(molecules).run(sources, ctypes.c_long(molecules), shared, places)


class BoundProgram:
    """A program with what its molecules share, which several threads may call at the same time, without Python's lock.

    It raises a ValueError for arguments of another shape or type.
    """

    def __init__(self, program: Program, shared: list[Tensor]) -> None:
        self._program, self._shared, self._pointers = program, shared, _pointers(shared)

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Results, (molecule, ...) each, of arguments (molecule, ...), and totals."""
        n = self._program.check(given)
        inputs, outputs = [q.contiguous() for q in given], self._program.empty_outputs(n)
        self._program.run(n, _pointers(inputs), self._pointers, _pointers(outputs))
        return tuple(outputs)

    def in_place(self, *inputs: Tensor) -> tuple[list[Tensor], Callable[[], None]]:
        """Tensors for the results, totals apart, and what computes them from the numbers that the inputs then hold.

        For one molecule at a time, where what Python does for a call takes as long as half of the call. All of it is for one thread.

        Parameters
        ----------
        inputs : contiguous
        """
        if not all(q.is_contiguous() for q in inputs):
            raise ValueError("inputs that are computed from in place must be contiguous")
        n = self._program.check(inputs)
        outputs = self._program.empty_outputs(n)
        sources, places = _pointers(inputs), _pointers(outputs)

        def compute() -> None:
            self._program.run(n, sources, self._pointers, places)

        compute.tensors = inputs, outputs  # type: ignore[attr-defined]  # kept as long as the pointers to them
        return outputs, compute


def _pointers(tensors: Sequence[Tensor]) -> Pointers:
    return (ctypes.c_void_p * len(tensors))(*(q.data_ptr() for q in tensors))


def compile_program(
    function: Callable[..., Sequence[Tensor]], shared: Sequence[Tensor], inputs: Sequence[Tensor], totals: int = 0
) -> Program | None:
    """Compile a function of one molecule, or load what was compiled before; None where there is no compiler, or it fails.

    Parameters
    ----------
    function : of the shared arguments and those of which each molecule has its own (molecule, ...), coordinates among them; gives tensors
        (molecule, ...) of float32. It may take gradients inside, and has to treat the molecules alike and apart.
    shared : arguments that all molecules share, as examples of shapes
    inputs : the other arguments of one molecule, (1, ...), as examples of shapes
    totals : how many of the results, the last ones, are sums over all molecules instead. The lanes that a number of molecules leaves
        empty are filled with the last full group's first molecule, and are in the totals: give multiples of `LANES`

    Raises
    ------
    NotImplementedError
        If the function does to the inputs what has no translation.
    """
    if find_compiler() is None:
        return None
    with _tracing:
        graph = trace(function, shared, inputs, totals)
    library = _library("kernels.hpp", generate(graph), _LANES_FLAGS)
    return None if library is None else Program(graph, library, [x.shape[1:] for x in inputs])


def _library(header: str, program: str, flags: list[str]) -> ctypes.CDLL | None:
    headers = (files("scoremd.lanes").joinpath(name).read_text(encoding="utf-8") for name in (header, "functions.hpp"))
    source = "".join([*headers, program])
    path = kept(".so", [source, *flags], functools.partial(_compile, source, flags))
    return None if path is None else ctypes.CDLL(str(path))


def _compile(source: str, flags: list[str], path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program.cpp"
        file.write_text(source, encoding="utf-8")
        command = [str(find_compiler()), *flags, "-shared", "-fPIC", "-o", str(path), str(file)]
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  what we wrote, by torch's compiler
