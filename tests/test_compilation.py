import sysconfig
from functools import partial
from typing import NamedTuple

import pytest
import torch

from scoremd import compilation


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

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", refuse)
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
def test_missing_headers_are_said_once(monkeypatch, caplog):
    compilation._headers_available.cache_clear()
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": "/nowhere"})
    for _ in range(2):
        assert compilation.compile_for(cubes, {"x": torch.ones(4)}, None) is cubes
    assert ["no Python headers" in r.message for r in caplog.records if r.name == "scoremd"] == [True]
    compilation._headers_available.cache_clear()
