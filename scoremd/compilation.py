"""Fast path: functions of tensors traced through their gradients and compiled for one set of shapes, ahead of time.

`torch.compile` does not differentiate twice; tracing the whole function, gradients included, gives one flat graph that it can compile. It
is compiled to a library without Python inside (AOTInductor): for molecules of a few beads Python costs more than arithmetic. Libraries are
kept in `~/.cache/scoremd` (or XDG_CACHE_HOME) under a key of all that goes into them. Without a C++ compiler or Python's headers, and where
compilation fails, everything runs as it is written, after a line of notice.
"""

import functools
import hashlib
import logging
import os
import platform
import re
import shutil
import sysconfig
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import sympy
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from scoremd.compiled_library import CompiledLibrary
from scoremd.errors import ScoreMDError
from scoremd.files import make_folder, replacing

_log = logging.getLogger("scoremd")


@functools.cache
def compiler_available() -> bool:
    """Whether compiled kernels can be built; says so once if not."""
    if not _cpp_compiler_found():
        missing = "no C++ compiler found (g++, or CXX set to another)"
    elif not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        missing = "no Python headers found (often a package python3-dev)"
    else:
        return True
    _log.warning("%s: running without compilation, several times slower", missing)
    return False


def _cpp_compiler_found() -> bool:
    """Ask torch, which takes what CXX names, or g++."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


def compile_for(function: Callable[..., Any], *example: Any, threads: int = 1, concurrent: int = 1) -> Callable[..., Any]:
    """Compile `function` for the shapes of `example`, or load what was compiled before.

    Parameters
    ----------
    function : of tensors and containers of them, free of data-dependent control flow; may take gradients inside; what it returns is
        detached
    example : arguments of the shapes, types and device of all later calls
    threads : of each call
    concurrent : calls from several threads that run at the same time

    Returns
    -------
    a function of the same arguments, which raises a ValueError if their shapes or types are others; `function` itself where it cannot be
    compiled
    """
    if not compiler_available():
        return function
    leaves, structure = tree_flatten(example)
    tensors = [isinstance(leaf, Tensor) for leaf in leaves]
    returned: list[TreeSpec] = []

    def flat(*given: Tensor) -> list[Any]:
        rest = iter(given)
        results, spec = tree_flatten(
            function(*tree_unflatten([next(rest) if t else q for q, t in zip(leaves, tensors, strict=True)], structure))
        )
        returned[:] = [spec]
        return results

    inputs = tuple(leaf for leaf, tensor in zip(leaves, tensors, strict=True) if tensor)
    graph = make_fx(flat, tracing_mode="real")(*inputs)
    library = _library(graph, inputs, threads)
    if library is None:
        return function
    compiled = CompiledLibrary(library, concurrent)

    def call(*arguments: Any) -> Any:
        given = [q for q in tree_leaves(arguments) if isinstance(q, Tensor)]
        with torch.no_grad():
            results = compiled([_laid_out(q, like) for q, like in zip(given, inputs, strict=True)])
        return tree_unflatten(results, returned[0])

    return call


def _laid_out(q: Tensor, like: Tensor) -> Tensor:
    """`q` with the strides of `like`, as a library, which checks nothing, expects it."""
    if q.shape != like.shape or q.dtype != like.dtype:
        raise ValueError(f"compiled for {tuple(like.shape)} of {like.dtype}, not for {tuple(q.shape)} of {q.dtype}")
    return q if q.stride() == like.stride() else torch.empty_like(like).copy_(q)


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="scoremd-")


def _cache_folder() -> Path:
    """Where libraries are kept: for this process only if the place for them cannot be written to."""
    try:
        folder = make_folder(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "scoremd")
        if os.access(folder, os.W_OK):
            return folder
        reason = f"{folder}: cannot be written to"
    except ScoreMDError as error:
        reason = str(error)
    _log.warning("%s: what is compiled is not kept", reason)
    return Path(_temporary_folder().name)


def _library(graph: torch.fx.GraphModule, inputs: tuple[Tensor, ...], threads: int) -> Path | None:
    """The compiled library of a graph: from the cache, or made and put there; None if it cannot be made."""
    path = _cache_folder() / f"{_key(graph, inputs, threads)}.so"
    if not path.exists():
        # Inductor simplifies indices with sympy to find strides, which took half the time; expanding them is enough for that
        expanding = mock.patch.object(sympy, "simplify", sympy.expand)
        with torch.no_grad(), expanding, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch about itself
            try:
                module = torch.export.export(graph, inputs).module()
                made = torch._inductor.aot_compile(module, inputs, options={"cpp.threads": threads})  # noqa: SLF001
            except Exception as error:  # noqa: BLE001  torch and its compiler raise anything
                reason = str(error).strip().partition("\n")[0]
                _log.warning("compilation failed (%s): running without, several times slower", reason)
                return None
        with replacing(path) as temporary:
            shutil.copyfile(str(made), temporary)
    return path


def _key(graph: torch.fx.GraphModule, inputs: tuple[Tensor, ...], threads: int) -> str:
    """Identifies a library: operations, constants, shapes, threads, processor and version of torch."""
    content = hashlib.sha256(graph.code.encode())
    for name, constant in [*graph.named_buffers(), *((f"input {k}", q) for k, q in enumerate(inputs))]:
        content.update(f"{name} {tuple(constant.shape)} {constant.stride()} {constant.dtype} {constant.device}".encode())
        if not name.startswith("input"):
            content.update(constant.detach().cpu().contiguous().numpy().tobytes())
    processor = re.search(r"^(flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    surroundings = [torch.__version__, threads, platform.machine(), processor and processor[0]]
    content.update(repr(surroundings).encode())
    return content.hexdigest()[:32]
