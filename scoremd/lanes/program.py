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

#: Not -O3, which takes longer to compile programs that are slower.
_FLAGS = ["-O2", "-march=native", "-funroll-loops", "-ftree-slp-vectorize", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]


class Program:
    """A function of one molecule, compiled for batches; made by `compile_program`."""

    def __init__(self, graph: Graph, library: Path, shape: torch.Size) -> None:
        self._graph, self._library, self._shape = graph, ctypes.CDLL(str(library)), shape

    def bind(self, *shared: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """The function of coordinates alone, which several threads may call at the same time, without Python's lock.

        It raises a ValueError for coordinates of another shape or type.
        """
        with torch.no_grad():
            results = [q.detach().float().contiguous() for q in self._graph.prelude(*shared)]
        shapes = [q.shape for q in self._graph.outputs]
        pointers = (ctypes.c_void_p * len(results))(*(q.data_ptr() for q in results))

        def call(x: Tensor) -> tuple[Tensor, ...]:
            if x.shape[1:] != self._shape or x.dtype != torch.float32:
                raise ValueError(f"compiled for (molecules, {tuple(self._shape)}) of float32, not for {tuple(x.shape)} of {x.dtype}")
            x = x.contiguous()
            outputs = tuple(x.new_empty(len(x), *shape) for shape in shapes)
            places = (ctypes.c_void_p * len(outputs))(*(q.data_ptr() for q in outputs))
            self._library.run(ctypes.c_void_p(x.data_ptr()), ctypes.c_long(len(x)), pointers, places)
            return outputs

        call.shared = results  # type: ignore[attr-defined]  # kept as long as the pointers to them
        return call


def compile_program(function: Callable[..., Sequence[Tensor]], shared: Sequence[Tensor], x: Tensor) -> Program | None:
    """Compile a function of one molecule, or load what was compiled before; None where there is no compiler, or it fails.

    Parameters
    ----------
    function : of the shared arguments and coordinates (molecule, ...); gives tensors (molecule, ...) of float32. It may take gradients
        inside, and has to treat the molecules alike and apart.
    shared : arguments that all molecules share, as examples of shapes
    x : coordinates of one molecule, (1, ...), as an example of shapes

    Raises
    ------
    NotImplementedError
        If the function does to the coordinates what has no translation.
    """
    if find_compiler() is None:
        return None
    graph = trace(function, shared, x)
    source = files("scoremd.lanes").joinpath("kernels.hpp").read_text(encoding="utf-8") + generate(graph)
    library = kept(".so", [source, *_FLAGS], functools.partial(_compile, source))
    return None if library is None else Program(graph, library, x.shape[1:])


def _compile(source: str, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program.cpp"
        file.write_text(source, encoding="utf-8")
        command = [str(find_compiler()), *_FLAGS, "-shared", "-fPIC", "-o", str(path), str(file)]
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  what we wrote, by torch's compiler
