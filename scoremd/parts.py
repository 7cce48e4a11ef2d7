"""Batches computed in parts, on several threads.

The parts depend on the batch alone, not on the number of threads, so that neither do results. They are of one size, for which one function
is compiled, and small: what a core works on stays in its cache, and a few hundred molecules keep a few cores busy. Threads should have
milliseconds to work on their own: to wake one can take as long as a force call.
"""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

#: Molecules that are computed together, at most.
LARGEST_PART = 64

T = TypeVar("T")
R = TypeVar("R")


def part_size(batch: int) -> int:
    """Molecules in each part of a batch."""
    return math.ceil(batch / math.ceil(batch / LARGEST_PART))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "scoremd", initializer=torch.set_num_threads, initargs=(1,))


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads


@contextlib.contextmanager
def _single_threaded() -> Iterator[int]:
    """Keep torch from using more threads inside of operations, which are too small for that; gives the number that it may use."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def concurrently(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` of each item, on as many threads as torch has."""
    with _single_threaded() as threads:
        return list(map(function, items) if threads == 1 else _pool(threads).map(function, items))


def in_parts(function: Callable[..., tuple[Tensor, ...]], *arguments: Tensor) -> tuple[Tensor, ...]:
    """What `function` gives for a batch: its arguments and results are tensors (batch, ...), and it is called with parts of `part_size`."""
    batch = len(arguments[0])
    size = part_size(batch)
    # all parts are of one size: the last one begins earlier, and gives some results again
    starts = [min(start, batch - size) for start in range(0, batch, size)]
    done = concurrently(lambda start: function(*(q[start : start + size] for q in arguments)), starts)
    new = batch - size * (len(starts) - 1)
    return tuple(torch.cat([*q[:-1], q[-1][-new:]]) for q in zip(*done, strict=True))
