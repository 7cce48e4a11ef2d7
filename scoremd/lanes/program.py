"""Compiling programs, keeping them, and calling them."""

import ctypes
import functools
import subprocess
import tempfile
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
#: Not -O3, which takes longer to compile programs that are slower.
_FLAGS = ["-O2", "-march=native", "-funroll-loops", "-ftree-slp-vectorize", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]


class Program:
    """A function of one molecule, compiled for batches; made by `compile_program`."""

    def __init__(self, graph: Graph, library: Path, shapes: Sequence[torch.Size]) -> None:
        self._graph, self._library, self._shapes = graph, ctypes.CDLL(str(library)), list(shapes)

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
            self._library.run(sources, ctypes.c_long(n), pointers, places)
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
    source = files("scoremd.lanes").joinpath("kernels.hpp").read_text(encoding="utf-8") + generate(graph)
    library = kept(".so", [source, *_FLAGS], functools.partial(_compile, source))
    return None if library is None else Program(graph, library, [x.shape[1:] for x in inputs])


def _compile(source: str, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program.cpp"
        file.write_text(source, encoding="utf-8")
        command = [str(find_compiler()), *_FLAGS, "-shared", "-fPIC", "-o", str(path), str(file)]
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  what we wrote, by torch's compiler
