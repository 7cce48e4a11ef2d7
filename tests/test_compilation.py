import logging
import sysconfig
from functools import partial
from typing import NamedTuple

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


class Result(NamedTuple):
    gradient: torch.Tensor
    others: list


def cubes(arguments, nothing, factor=1.0):
    y = arguments["x"].detach().requires_grad_()
    (gradient,) = torch.autograd.grad((factor * y**3).sum(), y)
    return Result(gradient, [2 * y, nothing])


@pytest.mark.compiled
def test_gradients_and_containers_come_back_as_written(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled = compilation.compile_for(cubes, {"x": torch.ones(4)}, None)
    x = torch.randn(4)
    result = compiled({"x": x}, None)
    assert isinstance(result, Result)
    torch.testing.assert_close(result.gradient, 3 * x**2)
    torch.testing.assert_close(result.others[0], 2 * x)
    assert result.others[1] is None
    assert not result.gradient.requires_grad


@pytest.mark.compiled
def test_only_what_was_compiled_before_is_taken_from_the_cache(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x, y = {"x": torch.ones(4)}, torch.arange(4.0)
    compilation.compile_for(cubes, x, None)

    def refuse(*_, **__):
        raise RuntimeError("compiled again")

    monkeypatch.setattr(torch._inductor, "aot_compile", refuse)
    torch.testing.assert_close(compilation.compile_for(cubes, x, None)({"x": y}, None).gradient, 3 * y**2)
    for other in ({"x": torch.ones(5)}, {"x": torch.ones(4).double()}):
        assert compilation.compile_for(cubes, other, None) is cubes
    for constant in (2.0, torch.arange(4.0)):
        function = partial(cubes, factor=constant)
        assert compilation.compile_for(function, x, None) is function
    assert [r.message.count("compiled again") for r in caplog.records if r.name == "scoremd"] == [1] * 4


@pytest.mark.compiled
def test_arguments_of_other_shapes_and_types_are_refused_and_other_strides_are_not(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def function(x):
        return 2 * x[0]

    compiled = compilation.compile_for(function, torch.ones(3, 3))
    x = torch.randn(3, 3)
    torch.testing.assert_close(compiled(x.T), 2 * x[:, 0])
    for wrong in (torch.ones(3, 4), torch.ones(3, 3).double()):
        with pytest.raises(ValueError, match="compiled for"):
            compiled(wrong)
    with pytest.raises(ValueError, match="shorter"):
        compiled(x, x)


@pytest.mark.compiled
def test_a_place_that_cannot_be_written_to_is_done_without(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compiled = compilation.compile_for(cubes, {"x": torch.ones(4)}, None)
    assert compiled is not cubes
    torch.testing.assert_close(compiled({"x": torch.arange(4.0)}, None).gradient, 3 * torch.arange(4.0) ** 2)
    assert ["not kept" in r.message for r in caplog.records if r.name == "scoremd"] == [True]


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
