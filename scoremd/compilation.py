"""Fast path: functions of tensors traced through their gradients and compiled for one set of shapes.

`torch.compile` does not differentiate twice; tracing the whole function, gradients included, gives one flat graph that it can compile.
Compiled kernels are cached on disk by torch (TORCHINDUCTOR_CACHE_DIR). Without a C++ compiler or Python's headers everything runs as it is
written.
"""

import functools
import logging
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

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


def compile_for(function: Callable[..., Any], *example: Any) -> Callable[..., Any]:
    """Compile `function` for the shapes of `example`.

    Parameters
    ----------
    function : of tensors and tuples of tensors, free of data-dependent control flow; may take gradients inside; what it returns is detached
    example : arguments of the shapes, types and device of all later calls

    Returns
    -------
    a function of the same arguments; `function` itself where there is no compiler
    """
    if not compiler_available():
        return function
    graph = make_fx(function, tracing_mode="real")(*example)
    with torch.no_grad():
        compiled = torch._inductor.compile(graph, list(torch.utils._pytree.arg_tree_leaves(*example)))  # noqa: SLF001

    def call(*arguments: Any) -> Any:
        with torch.no_grad():
            return compiled(*torch.utils._pytree.arg_tree_leaves(*arguments))  # noqa: SLF001

    return call
