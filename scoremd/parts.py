"""Batches computed in parts, on several threads.

The parts depend on the batch alone, not on the number of threads, so that neither do results. They are small, so that a few hundred
molecules keep a few cores busy. Threads should have milliseconds to work on their own: to wake one can take as long as a force call.
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
    """Molecules in each part of a batch but the last, which may have fewer."""
    return math.ceil(batch / math.ceil(batch / LARGEST_PART))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "scoremd", initializer=torch.set_num_threads, initargs=(1,))


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads


@contextlib.contextmanager
def single_threaded() -> Iterator[int]:
    """Keep torch from using more threads inside of operations, which are too small for that; gives the number that it may use."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def concurrently(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` of each item, on as many threads as torch has."""
    with single_threaded() as threads:
        return list(map(function, items) if threads == 1 else _pool(threads).map(function, items))


def in_parts(function: Callable[..., tuple[Tensor, ...]], *arguments: Tensor) -> tuple[Tensor, ...]:
    """What `function` gives for a batch: its arguments and results are tensors (batch, ...), and it is called with parts of them."""
    size = part_size(len(arguments[0]))
    done = concurrently(lambda part: function(*part), zip(*(q.split(size) for q in arguments), strict=True))
    return tuple(torch.cat(q) for q in zip(*done, strict=True))
