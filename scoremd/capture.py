"""CUDA graphs: the kernels that a function launches, recorded once and replayed without the function, Python or launch delays."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves

_WARM_UP = 3


def captured(function: Callable[..., Any], *example: Any) -> Callable[..., Any]:
    """Record `function` for the shapes of `example`.

    Parameters
    ----------
    function : of tensors and containers of them on a CUDA device, which never waits for the device
    example : arguments of the shapes and types of all later calls

    Returns
    -------
    a function of the same arguments; what it returns is overwritten by its next call
    """
    inputs = [q.detach().clone() if isinstance(q, Tensor) else q for q in tree_leaves(example)]
    static = tree_flatten(example)[1].unflatten(inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):  # libraries set themselves up in first calls
            function(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(*static)
    tensors = [q for q in inputs if isinstance(q, Tensor)]

    def call(*arguments: Any) -> Any:
        for own, given in zip(tensors, (q for q in tree_leaves(arguments) if isinstance(q, Tensor)), strict=True):
            if own.shape != given.shape or own.dtype != given.dtype:
                raise ValueError(f"recorded for {tuple(own.shape)} of {own.dtype}, not for {tuple(given.shape)} of {given.dtype}")
        torch._foreach_copy_(tensors, [q for q in tree_leaves(arguments) if isinstance(q, Tensor)])
        graph.replay()
        return result

    call.function = function  # type: ignore[attr-defined]  # the graph reads what the function holds, by address
    return call
