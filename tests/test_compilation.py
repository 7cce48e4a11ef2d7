import logging
import sysconfig

import pytest
import torch
from torch._inductor import cpp_builder

from scoremd import compilation
from tests.models import alanine_dipeptide


@pytest.mark.compiled
@pytest.mark.slow
def test_compiled_energy_and_score_equal_those_as_written():
    bound = alanine_dipeptide(time_ranges=((0.0, 0.1), (0.1, 1.0))).bind("ALDP")
    x, lam = torch.randn(16, 5, 3), torch.tensor([1.3])
    for expert in (0, 1):
        for a, b in zip(bound.compiled(16, expert)(x, lam), bound.energy_and_score(x, lam, expert), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.compiled
def test_compiled_gradient_of_a_small_function():
    def function(x):
        y = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((y**3).sum(), y)
        return gradient

    x = torch.randn(4)
    torch.testing.assert_close(compilation.compile_for(function, x)(x), 3 * x**2)


@pytest.fixture
def fresh_check():
    compilation.compiler_available.cache_clear()
    yield
    compilation.compiler_available.cache_clear()
    cpp_builder.cpp_compiler_search.cache_clear()


@pytest.mark.compiled
@pytest.mark.usefixtures("fresh_check")
@pytest.mark.parametrize("message", ["no C++ compiler", "no Python headers"])
def test_what_compilation_lacks_is_said_once(monkeypatch, caplog, message):
    compiler = ("g++",)
    if message == "no Python headers":
        monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": "/nowhere"})
    else:
        compiler = ("no-such-compiler",)
        cpp_builder.cpp_compiler_search.cache_clear()

    def function(x):
        return x + 1

    with caplog.at_level(logging.WARNING), torch._inductor.config.patch({"cpp.cxx": compiler}):
        assert compilation.compile_for(function, torch.ones(1)) is function
        assert compilation.compile_for(function, torch.ones(1)) is function
    assert len([r for r in caplog.records if message in r.message]) == 1
