import numpy as np
import pytest
import torch

from scoremd.lanes.generate import _affine, _Memory, _merged, _place, generate
from scoremd.lanes.trace import trace


def test_affine_numbers_are_recognised_and_others_are_not():
    grid = 7 + 10 * np.arange(3)[:, None] + 2 * np.arange(4)
    assert _affine(grid.ravel(), (3, 4)) == (7, [10, 2])
    assert _affine(grid.ravel(), (3, 1, 4)) == (7, [10, 0, 2])
    grid[2, 3] += 1
    assert _affine(grid.ravel(), (3, 4)) is None


def test_axes_on_which_numbers_do_not_rise_evenly_are_looked_up():
    numbers = np.array([5, 9, 2])[:, None] + 3 * np.arange(4)
    place = _place("A", numbers.ravel(), (3, 4))
    assert (place.first, place.strides, place.table.tolist(), place.steps) == (0, [0, 3], [5, 9, 2], [1, 0])
    both = np.array([[5, 9], [2, 7]])[:, None] + 3 * np.arange(4)[:, None]
    place = _place("A", both.ravel(), (2, 4, 2))
    assert (place.strides, place.table.tolist(), place.steps) == ([0, 3, 0], [5, 9, 2, 7], [2, 0, 1])


def test_axes_that_run_on_are_one_loop():
    assert _merged((3, 4), [[4, 1], [8, 2], [0, 0]]) == [(12, [1, 2, 0])]
    assert _merged((3, 4), [[4, 1], [1, 0]]) == [(3, [4, 1]), (4, [1, 0])]
    assert _merged((3, 1, 4), [[4, 0, 1], [0, 0, 1]]) == [(3, [4, 0]), (4, [1, 1])]


def test_slots_are_never_given_twice():
    memory, random, used = _Memory(), np.random.default_rng(0), {}
    for step in range(500):
        if used and random.random() < 0.5:
            first = list(used)[random.integers(len(used))]
            memory.give_back(first, used.pop(first))
            continue
        size = int(random.integers(1, 20))
        first = memory.take(size)
        assert first + size <= memory.size, step
        taken = [set(range(a, a + n)) for a, n in used.items()]
        assert all(t.isdisjoint(range(first, first + size)) for t in taken)
        used[first] = size
    for first, size in used.items():
        memory.give_back(first, size)
    assert memory.gaps == [(0, memory.size)]


@pytest.mark.parametrize(
    ("function", "loops"), [(lambda x: [(x + 1).exp().sum(1)], 1), (lambda x: [(x + 1).exp() * x.sum(1, keepdim=True)], 2)]
)
def test_what_is_read_once_is_put_into_its_reader(function, loops):
    source = generate(trace(function, [], [torch.ones(1, 5)]))
    assert sum("exponential" in line or "s +=" in line for line in source.splitlines()) == loops
