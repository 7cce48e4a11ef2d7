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

#: A multiple of the number of molecules that are computed at the same time.
LANES = 16
#: Up to so many molecules are faster one by one.
FEW = 3
#: Not -O3, which takes longer to compile programs that are not faster.
_FLAGS = ["-O2", "-march=native", "-funroll-loops", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast"]
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

    def bind(self, *shared: Tensor) -> Callable[..., tuple[Tensor, ...]]:
        """The function of what each molecule has of its own, which several threads may call at the same time, without Python's lock.

        It raises a ValueError for arguments of another shape or type.
        """
        with torch.no_grad():
            results = [q.detach().float().contiguous() for q in self._graph.prelude(*shared)]
        shapes, totals = [q.shape for q in self._graph.outputs], self._graph.totals
        pointers = (ctypes.c_void_p * len(results))(*(q.data_ptr() for q in results))

        def call(*given: Tensor) -> tuple[Tensor, ...]:
            n = len(given[0])
            wanted = [(n, *shape) for shape in self._shapes]
            if [q.shape for q in given] != wanted or any(q.dtype != torch.float32 for q in given):
                found = ", ".join(f"{tuple(q.shape)} of {q.dtype}" for q in given)
                raise ValueError(f"compiled for {', '.join(map(str, wanted))} of torch.float32, not for {found}")
            inputs = [q.contiguous() for q in given]
            outputs = [given[0].new_empty(n, *shape) for shape in shapes] + [given[0].new_zeros(shape) for shape in totals]
            sources, places = ((ctypes.c_void_p * len(q))(*(p.data_ptr() for p in q)) for q in (inputs, outputs))
            self._library_for(n).run(sources, ctypes.c_long(n), pointers, places)
            return tuple(outputs)

        call.shared = results  # type: ignore[attr-defined]  # kept as long as the pointers to them
        return call


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
