import resource
import threading
import time

import pytest
import torch

from scoremd.compilation import compile_for
from scoremd.compiled_library import CompiledLibrary
from scoremd.errors import ScoreMDError


@pytest.fixture(scope="module")
def powers(tmp_path_factory):
    """The repeated product of a matrix, which takes its time, and nothing."""

    def function(a):
        b = a
        for _ in range(30):
            b = torch.tanh(b @ a)
        return b, None, a[0] + 1

    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        compile_for(function, torch.ones(400, 400))
    return function, next(folder.glob("scoremd/*.so"))


@pytest.mark.compiled
def test_it_gives_what_the_function_gives(powers):
    function, path = powers
    a = torch.randn(400, 400) / 20
    b, nothing, row = CompiledLibrary(path, 1)([a])
    assert nothing is None
    torch.testing.assert_close(b, function(a)[0])
    torch.testing.assert_close(row, a[0] + 1)


@pytest.mark.compiled
def test_other_threads_of_python_go_on_during_a_call(powers):
    library, a = CompiledLibrary(powers[1], 1), torch.randn(400, 400) / 20
    library([a])
    ticks, done = 0, threading.Event()

    def work():
        for _ in range(20):
            library([a])
        done.set()

    worker = threading.Thread(target=work)
    start = time.perf_counter()
    worker.start()
    while not done.is_set():
        ticks += 1
        time.sleep(0.0005)
    worker.join()
    # with the interpreter locked, one tick for each of the 20 calls
    assert ticks > 60, (ticks, time.perf_counter() - start)


@pytest.mark.compiled
def test_it_keeps_no_memory(powers):
    library, a = CompiledLibrary(powers[1], 1), torch.randn(400, 400) / 20

    def grown(calls):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(calls):
            library([a])
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    grown(10)
    # each call makes matrices of 0.6 MB
    assert grown(100) < 10


def test_a_file_that_is_no_library_is_refused(tmp_path):
    path = tmp_path / "damaged.so"
    path.write_text("nothing of that kind")
    with pytest.raises(ScoreMDError, match="is not a compiled function"):
        CompiledLibrary(path, 1)
