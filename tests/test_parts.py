import os
import signal
import threading

import numpy as np
import pytest
import torch

from scoremd import parts
from tests.models import alanine_dipeptide


@pytest.mark.parametrize(("batch", "size"), [(1, 1), (64, 64), (65, 33), (100, 50), (256, 64), (1000, 63)])
def test_parts_are_even_and_no_larger_than_allowed(batch, size):
    assert parts.part_size(batch) == size


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 64, 65, 100, 131, 1000])
def test_parts_are_put_together_in_order(batch, threads):
    torch.set_num_threads(threads)
    x, y, sizes = torch.randn(batch, 2), torch.randn(batch), set()

    def function(part, other):
        sizes.add(len(part))
        return part[:, 0] + other, 2 * part

    first, second = parts.in_parts(function, x, y)
    assert torch.equal(first, x[:, 0] + y)
    assert torch.equal(second, 2 * x)
    assert max(sizes) == parts.part_size(batch)
    assert torch.get_num_threads() == threads


def test_items_are_worked_on_at_the_same_time_by_single_threads():
    torch.set_num_threads(2)
    barrier = threading.Barrier(2, timeout=10)

    def function(item):
        barrier.wait()
        return item, torch.get_num_threads()

    assert parts.concurrently(function, [1, 2]) == [(1, 1), (2, 1)]


def test_a_forked_process_has_threads_of_its_own():
    def both_at_work():
        barrier = threading.Barrier(2, timeout=10)
        return sorted(parts.concurrently(lambda _: barrier.wait(), [1, 2])) == [0, 1]

    torch.set_num_threads(2)
    assert both_at_work()
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends a deadlock
        os._exit(0 if both_at_work() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_an_error_in_a_thread_comes_out():
    torch.set_num_threads(2)

    def function(item):
        raise ValueError("one of the items")

    with pytest.raises(ValueError, match="one of the items"):
        parts.concurrently(function, [1, 2])
    assert torch.get_num_threads() == 2


def test_results_do_not_depend_on_the_number_of_threads(tmp_path):
    model = alanine_dipeptide()
    drawn, frames = [], []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        drawn.append(model.sample("ALDP", 130))
        run = model.simulate("ALDP", ns=0.0002, replicas=130, frame_interval_ps=0.1, start=drawn[0], output=tmp_path / f"{threads}.h5")
        frames.append(run.trajectory.xyz)
    assert np.array_equal(drawn[0].xyz, drawn[1].xyz)
    assert np.array_equal(*frames)
