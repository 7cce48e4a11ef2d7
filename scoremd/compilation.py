"""Functions of tensors, such as training steps of toys, traced through their gradients and compiled for one set of shapes, ahead of time.

`torch.compile` does not differentiate twice; tracing the whole function, gradients included, gives one flat graph that it can compile. It
is compiled to a library without Python inside (AOTInductor): for molecules of a few beads Python costs more than arithmetic. Without a
C++ compiler or Python's headers, and where compilation fails, everything runs as it is written, after a line of notice.
"""

import functools
import logging
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import sympy
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from scoremd.capture import captured
from scoremd.compiler import find_compiler, kept

_log = logging.getLogger("scoremd")


@functools.cache
def _headers_available() -> bool:
    if Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return True
    _log.warning("no Python headers found (often a package python3-dev): training without compilation, several times slower")
    return False


def compile_for(function: Callable[..., Any], *example: Any, threads: int = 1) -> Callable[..., Any]:
    """Compile `function` for the shapes of `example`, or load what was compiled before.

    Parameters
    ----------
    function : of tensors and containers of them, free of data-dependent control flow; may take gradients inside; what it returns is
        detached
    example : arguments of the shapes, types and device of all later calls
    threads : of each call

    Returns
    -------
    a function of the same arguments, which raises a ValueError if their shapes or types are others; `function` itself where it cannot be
    compiled. On a CUDA device the kernels of `function` are recorded as they are, and what it returns is overwritten by its next call.
    """
    if any(q.is_cuda for q in tree_leaves(example) if isinstance(q, Tensor)):
        # compiling first takes minutes, as long as a run there may take
        return captured(function, *example)
    if find_compiler() is None or not _headers_available():
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
    package = kept(".pt2", _content(graph, inputs, threads), functools.partial(_compile, graph, inputs, threads))
    if package is None:
        return function
    compiled = torch._inductor.aoti_load_package(str(package))  # noqa: SLF001

    def call(*arguments: Any) -> Any:
        given = [q for q in tree_leaves(arguments) if isinstance(q, Tensor)]
        with torch.no_grad():
            results = compiled(*(_laid_out(q, like) for q, like in zip(given, inputs, strict=True)))
        return tree_unflatten(results, returned[0])

    return call


def _laid_out(q: Tensor, like: Tensor) -> Tensor:
    """`q` with the strides of `like`, as a library, which checks nothing, expects it."""
    if q.shape != like.shape or q.dtype != like.dtype:
        raise ValueError(f"compiled for {tuple(like.shape)} of {like.dtype}, not for {tuple(q.shape)} of {q.dtype}")
    return q if q.stride() == like.stride() else torch.empty_like(like).copy_(q)


def _compile(graph: torch.fx.GraphModule, inputs: tuple[Tensor, ...], threads: int, path: Path) -> None:
    # Inductor simplifies indices with sympy to find strides, which took half the time; expanding them is enough for that
    expanding = mock.patch.object(sympy, "simplify", sympy.expand)
    configured = torch._inductor.config.patch({"cpp.threads": threads})  # noqa: SLF001
    with torch.no_grad(), expanding, configured, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about itself
        torch._inductor.aoti_compile_and_package(torch.export.export(graph, inputs), package_path=str(path))  # noqa: SLF001


def _content(graph: torch.fx.GraphModule, inputs: tuple[Tensor, ...], threads: int) -> Iterator[str | bytes]:
    """What identifies a library: operations, constants, shapes, threads and version of torch."""
    yield graph.code
    for name, constant in [*graph.named_buffers(), *((f"input {k}", q) for k, q in enumerate(inputs))]:
        yield f"{name} {tuple(constant.shape)} {constant.stride()} {constant.dtype} {constant.device}"
        if not name.startswith("input"):
            yield constant.detach().cpu().contiguous().numpy().tobytes()
    yield repr([torch.__version__, threads])
