from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from scoremd.bound_model import program_of
from scoremd.force_field import ForceField
from scoremd.lanes import program
from scoremd.lanes.program import compile_program
from tests.models import alanine_dipeptide

pytestmark = pytest.mark.compiled


def everything(w, b, x):
    """Every kind of operation, and gradients."""
    x = x.requires_grad_()
    y = torch.cat([x[:, 1:], x[:, :1]], 1)
    z = torch.addmm(b, (x * y).sum(2), w) + torch.linalg.cross(x, y, dim=2).mean((1, 2), keepdim=True)[:, 0]
    u = torch.nn.functional.silu(z) - z.tanh() + torch.sigmoid(z) / (1 + z**2)
    scale = torch.rsqrt(1 + (y**4).sum((1, 2)))[:, None, None]
    rows = (x @ w[:3, :2]).detach().index_select(1, torch.tensor([3, 0, 2])) * scale
    energy = u.sum(1) + torch.exp(-rows.flatten(1)).sum(1) + torch.sqrt(1 + x[:, 0, 0] ** 2)
    return energy, torch.autograd.grad(energy.sum(), x)[0], rows


@pytest.fixture(scope="module")
def shared():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 7, generator=generator), torch.randn(7, generator=generator)


@pytest.fixture
def bound(shared):
    return compile_program(everything, shared, [torch.randn(1, 4, 3)]).bind(*shared)


@pytest.mark.parametrize("molecules", [1, 7, 8, 9, 33])
def test_results_are_those_as_written(bound, shared, molecules):
    x = torch.randn(molecules, 4, 3)
    for a, b in zip(bound(x), everything(*(q.double() for q in shared), x.double()), strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=1e-5)


def of_weights(w, b, x, factor):
    """Gradients by weights, of a function with a gradient in it."""
    w, b, x = (q.detach().requires_grad_() for q in (w, b, x))
    y = torch.nn.functional.silu(torch.nn.functional.linear(x, w[:, :-1], b)) @ w[:, 1:]
    energy = y.tanh().sum((1, 2)) + (w[0] ** 2).sum() * 0
    (score,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
    loss = factor * (energy + (score**2).sum((1, 2)))
    return [energy.detach(), *torch.autograd.grad(loss.sum(), [w, b])]


@pytest.mark.parametrize(("rows", "width", "inner"), [(1, 9, 4), (1, 37, 11), (3, 12, 4), (5, 7, 4)])
@pytest.mark.parametrize("molecules", [16, 48])
def test_totals_are_sums_over_molecules(rows, width, inner, molecules):
    torch.manual_seed(molecules + rows)
    w, b = torch.randn(width, inner + 1), torch.randn(width)
    x, factor = torch.randn(molecules, rows, inner), torch.randn(molecules)
    bound = compile_program(of_weights, [w, b], [x[:1], factor[:1]], totals=2).bind(w, b)
    expected = of_weights(*(q.double() for q in (w, b, x, factor)))
    for a, c in zip(bound(x, factor), expected, strict=True):
        torch.testing.assert_close(a, c.float(), rtol=1e-4, atol=1e-5 * float(c.detach().abs().max()))  # sums of terms that cancel
    with pytest.raises(ValueError, match="compiled for"):
        bound(x, factor[:5])


def test_molecules_know_nothing_of_each_other(bound):
    x = torch.randn(20, 4, 3)
    whole = bound(x)
    assert all(torch.equal(a[5:19], b) for a, b in zip(whole, bound(x[5:19]), strict=True))
    for a, b in zip(whole, bound(x[3:4]), strict=True):  # by the program for few, which rounds otherwise
        torch.testing.assert_close(a[3:4], b, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a[:1], b) for a, b in zip(bound(x[3:5]), bound(x[3:4]), strict=True))
    x[7] = torch.nan
    assert all(torch.isfinite(q).all((*range(1, q.dim()),)).tolist() == [k != 7 for k in range(20)] for q in (bound(x)[1], bound(x)[2]))


def test_shared_arguments_can_be_others(shared):
    made = compile_program(everything, shared, [torch.randn(1, 4, 3)])
    others, x = [2 * q for q in shared], torch.randn(3, 4, 3)
    first = made.bind(*shared)
    torch.testing.assert_close(made.bind(*others)(x)[0], everything(*others, x)[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first(x)[0], everything(*shared, x)[0], rtol=1e-5, atol=1e-5)


def test_threads_have_memory_of_their_own(bound):
    x = torch.randn(64, 50, 4, 3)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(bound, x))
    assert all(torch.equal(a, b) for q, r in zip(together, map(bound, x), strict=True) for a, b in zip(q, r, strict=True))


@pytest.mark.parametrize("molecules", [1, 9])
def test_results_in_place_are_those_of_calls(bound, molecules):
    x = torch.empty(molecules, 4, 3)
    results, compute = bound.in_place(x)
    for seed in range(2):
        torch.manual_seed(seed)
        x.normal_()
        compute()
        for a, b in zip(results, bound(x), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("wrong", [torch.ones(2, 4, 2), torch.ones(2, 4, 3).double()])
def test_coordinates_of_another_shape_or_type_are_refused(bound, wrong):
    with pytest.raises(ValueError, match="compiled for"):
        bound(wrong)


@pytest.mark.parametrize("shape", [(20_001, 1), (1, 20_001)], ids=["many molecules", "one molecule"])
def test_functions_are_as_exact_as_single_precision(shape):
    x = torch.linspace(-86, 86, 20_001).reshape(shape)
    exponential, sigmoid, tanh, root = compile_program(lambda x: [x.exp(), x.sigmoid(), x.tanh(), (x * x).sqrt()], [], [x[:1]]).bind()(x)
    np.testing.assert_allclose(exponential, np.exp(x.double()), rtol=3e-7)
    np.testing.assert_allclose(sigmoid, torch.sigmoid(x.double()), rtol=4e-7)
    np.testing.assert_allclose(tanh, np.tanh(x.double()), atol=3e-7)
    np.testing.assert_allclose(root, x.abs(), rtol=2e-7)


@pytest.mark.parametrize("copies", [1, 5])
def test_functions_of_large_numbers_are_their_limits(copies):
    huge = torch.tensor([[-1e4], [1e4], [float("nan")]]).repeat(copies, 1)
    far = compile_program(lambda x: [x.sigmoid(), x.tanh()], [], [huge[:1]]).bind()(huge)
    torch.testing.assert_close(far[0][:2, 0], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(far[1][:2, 0], torch.tensor([-1.0, 1.0]))
    assert all(torch.isnan(q[2]) for q in far)


@pytest.mark.usefixtures("short")
def test_what_cannot_be_compiled_runs_as_written(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(program, "find_compiler", lambda: "false")
    assert compile_program(lambda x: [2 * x], [], [torch.ones(1, 3)]) is None
    assert ["compilation failed" in r.message for r in caplog.records if r.name == "scoremd"] == [True]
    model = alanine_dipeptide()
    assert model.sample("ALDP", 2).n_frames == 2


@pytest.mark.parametrize("ranges", [((0.0, 1.0),), ((0.0, 0.1), (0.1, 1.0))])
def test_energies_and_scores_of_a_model_equal_those_as_written(ranges):
    model = alanine_dipeptide(time_ranges=ranges).bind("ALDP")
    for expert in range(len(ranges)):
        for level in (-4.0, 1.3, 6.9):
            x, lam = torch.randn(13, 5, 3), torch.tensor([level])
            for a, b in zip(model.at_noise(lam, expert)(x), model.energy_and_score(x, lam, expert), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_all_molecules_of_a_model_share_a_program():
    force_field, before = ForceField.load("dipeptides"), program_of.cache_info().misses
    for name in ("KS", "GG"):
        model, lam = force_field.bind(name), torch.tensor([1.0])
        x = model.space.noise(5, torch.Generator().manual_seed(0))
        for a, b in zip(model.at_noise(lam)(x), model.energy_and_score(x, lam), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert program_of.cache_info().misses <= before + 1


@pytest.mark.parametrize("name", ["alanine-dipeptide", "dipeptides"])
def test_few_molecules_have_the_energies_and_scores_of_many(name):
    force_field = ForceField.load(name)
    model = force_field.bind("KS" if name == "dipeptides" else "ALDP")
    function = model.at_noise(torch.tensor([3.0]))
    positions = torch.from_numpy(model.system.reference_ensemble().positions[:4])
    x = model.space.project(model.to_slots(positions) * force_field.description.length_scale)
    many = function(x)
    for k in range(4):
        for a, b in zip(many, function(x[k : k + 1]), strict=True):
            torch.testing.assert_close(a[k : k + 1], b, rtol=1e-5, atol=1e-5 * float(a.abs().max()))
