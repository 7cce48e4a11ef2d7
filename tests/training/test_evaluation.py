"""Compiled or as written: the same energies, scores and gradients."""

import copy
import math

import pytest
import torch

from scoremd.diffusion.fokker_planck import residual, stencil
from scoremd.diffusion.losses import mixed_target
from scoremd.diffusion.quadratic_form import QuadraticForm, half_square_error
from scoremd.diffusion.space import Space
from scoremd.force_field import ForceField
from scoremd.nn import energy as energy_module
from scoremd.nn.encoder import MoleculeEncoder
from scoremd.nn.molecule import MoleculeBatch
from scoremd.systems import find_system
from scoremd.training import evaluation
from scoremd.training import step as step_module
from scoremd.training.evaluation import AsWritten, CannotCompileError, InLanes, Term
from scoremd.training.step import Batch, Noised, in_halves, make_step
from tests.models import alanine_dipeptide
from tests.training.test_dataset import description


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = description()
    # so wide that several threads would share its matrix products
    model = model.model_copy(update={"network": model.network.model_copy(update={"encoder_width": 64})})
    network = model.make_network(torch.tensor([1.0, 0.1, 1.0]) * torch.ones(46, 3))
    for p in network.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return network


def batch(n):
    """Molecules with and without all beads, in turn."""
    family, model = find_system("dipeptides"), description()
    rows = [model.molecule(family.find(name)) for name in ("AG", "KS", "GG")]
    molecule = MoleculeBatch(*(torch.cat([q[k % 3] for k in range(n)]) for q in zip(*rows, strict=True)))
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, 10, 3, generator=generator) * molecule.mask(torch.float32)[..., None]
    return x, torch.linspace(-2, 4, n), molecule, generator


@pytest.fixture(scope="module")
def compiled(network):
    return InLanes(network, batch(1)[2])


def gradients_of(loss, weights):
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values()), materialize_grads=True), strict=True))


def random_form(groups, points, generator):
    def numbers(*shape):
        return torch.randn(*shape, generator=generator)

    return QuadraticForm(numbers(groups), numbers(groups, points), numbers(groups, points, 10, 3), numbers(groups, points))


@pytest.mark.compiled
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("groups", "points"), [(1, 1), (1, 16), (3, 7), (1, 150), (2, 75)])
def test_compiled_gradients_are_those_as_written(network, compiled, groups, points, threads):
    torch.set_num_threads(threads)
    x, levels, molecule, generator = batch(groups * points)
    form, found = random_form(groups, points, generator), []
    for way, kind in ((AsWritten(copy.deepcopy(network).double()), torch.float64), (compiled, torch.float32)):
        weights = {name: p.detach().to(kind).requires_grad_() for name, p in network.named_parameters()}
        grouped = x.unflatten(0, (groups, points)).to(kind)
        coefficients = QuadraticForm(*(q.to(kind) for q in form))
        ((values, scores),) = way.forms(weights, [Term(grouped, levels.to(kind), molecule, (1,), coefficients)])
        assert not scores.requires_grad
        energy = way.energy(weights, x.to(kind), levels.to(kind), molecule)
        loss = (values**2).sum() / 100 + (energy**2).sum()
        found.append((energy, values, scores, gradients_of(loss, weights)))
    scale = max(float(q.abs().max()) for q in found[0][-1].values())
    for exact, single in zip(found[0][:3], found[1][:3], strict=True):
        torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-4 * float(exact.detach().abs().max()))
    for name, exact in found[0][-1].items():
        single = found[1][-1][name].double()
        torch.testing.assert_close(single, exact, rtol=1e-3, atol=1e-5 * scale, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.compiled
def test_compiled_residuals_are_those_as_written(network, compiled):
    """The Fokker-Planck form has large coefficients of both signs, and its gradient small ones beside them."""
    x, _, molecule, generator = batch(6)
    levels, space = torch.linspace(-1, 3, 6), Space(molecule.mask(torch.float32))
    directions, found = space.directions(6, generator), []
    for way, kind in ((AsWritten(copy.deepcopy(network).double()), torch.float64), (compiled, torch.float32)):
        weights = {name: p.detach().to(kind).requires_grad_() for name, p in network.named_parameters()}
        own = x.to(kind), levels.to(kind), directions.to(kind)
        points, at, copies = stencil(*own)
        form = residual(*own, space.degrees_of_freedom.to(kind))
        thrice = MoleculeBatch(*(torch.cat([q, q, q]) for q in molecule))
        ((left, _),) = way.forms(weights, [Term(points, at, thrice, copies, form)])
        found.append((left, gradients_of((left**2).mean(), weights)))
    torch.testing.assert_close(found[1][0].double(), found[0][0], rtol=1e-3, atol=1e-2)
    scale = max(float(q.abs().max()) for q in found[0][-1].values())
    for name, exact in found[0][-1].items():
        single = found[1][-1][name].double()
        torch.testing.assert_close(single, exact, rtol=1e-2, atol=1e-3 * scale, msg=lambda m, name=name: f"{name}: {m}")


@pytest.fixture
def encoded(monkeypatch):
    """How many rows each call of the encoder got."""
    rows, forward = [], MoleculeEncoder.forward

    def watched(self, kind, mask, time, table):
        rows.append(max(len(kind), len(time)))
        return forward(self, kind, mask, time, table)

    monkeypatch.setattr(MoleculeEncoder, "forward", watched)
    return rows


@pytest.mark.compiled
@pytest.mark.parametrize(("levels", "molecules"), [(6, 6), (6, 1), (1, 1)])
def test_points_at_one_level_share_what_does_not_depend_on_coordinates(network, compiled, encoded, levels, molecules):
    """Two groups of five points: four at the first level of their group, one at the second, none at the third."""
    (x, *_, generator), (level, molecule), copies = batch(10), (batch(levels)[1], batch(molecules)[2]), (4, 1, 0)
    rows = torch.tensor([0, 0, 0, 0, 2, 1, 1, 1, 1, 3])
    own = level[rows * (levels > 1)], MoleculeBatch(*(q[rows * (molecules > 1)] for q in molecule))
    form, found = random_form(2, 5, generator), []
    for way, shared in ((AsWritten(network), False), (AsWritten(network), True), (compiled, True)):
        weights = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
        where = (level, molecule, copies) if shared else (*own, (1,))
        ((values, scores),) = way.forms(weights, [Term(x.unflatten(0, (2, 5)), *where, form)])
        found.append((values, scores, *gradients_of(values.square().sum(), weights).values()))
    assert encoded == [10, levels, levels]
    for expected, *others in zip(*found, strict=True):
        for q in others:
            torch.testing.assert_close(q, expected, rtol=1e-3, atol=1e-4 * max(1.0, float(expected.detach().abs().max())))


@pytest.mark.compiled
@pytest.mark.parametrize("kinds", [("several", "several"), ("one", "one"), ("one", "another"), ("one", "several")])
def test_terms_share_one_call_of_the_encoder(network, compiled, encoded, kinds):
    """Whatever their molecules are: one for all levels of a term, or one for each."""
    x, level, several, generator = batch(13)
    molecules = {"several": several} | {name: MoleculeBatch(*(q[k : k + 1] for q in several)) for k, name in enumerate(("one", "another"))}
    first = Term(x[None, :7], level[:7], molecules[kinds[0]], (1,), random_form(1, 7, generator))
    first = first._replace(molecule=MoleculeBatch(*(q[:7] for q in first.molecule)))
    second = Term(x[7:].unflatten(0, (2, 3)), level[7:11], molecules[kinds[1]], (2, 1), random_form(2, 3, generator))
    second = second._replace(molecule=MoleculeBatch(*(q[-4:] for q in second.molecule)))
    found = []
    for way in (AsWritten(network), compiled):
        weights = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
        (a, _), (b, _) = way.forms(weights, [first, second])
        found.append((a, b, *gradients_of(a.sum() ** 2 + (b**2).sum(), weights).values()))
    assert encoded == [7, 4, 11]
    for expected, single in zip(*found, strict=True):
        torch.testing.assert_close(single, expected, rtol=1e-3, atol=1e-4 * max(1.0, float(expected.detach().abs().max())))


@pytest.mark.compiled
def test_gradients_do_not_depend_on_threads(network, compiled):
    x, levels, molecule, generator = batch(200)
    form, found = random_form(4, 50, generator), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        weights = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
        ((values, _),) = compiled.forms(weights, [Term(x.unflatten(0, (4, 50)), levels, molecule, (1,), form)])
        found.append(gradients_of(values.square().sum(), weights))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.compiled
def test_halves_of_a_batch_do_not_disturb_each_other(network, compiled, monkeypatch):
    """Threads that put weights into one module would get each other's."""
    monkeypatch.setattr(step_module, "SMALLEST_HALVED", 2)
    x, levels, molecule, generator = batch(32)
    eps = torch.randn(32, 10, 3, generator=generator)
    whole = Batch(Noised(x, eps, levels), *mixed_target(eps, None, math.inf, levels), levels, levels, molecule, None)
    step = make_step(compiled)
    weights = dict(network.named_parameters())
    expected = step(weights, whole)
    torch.set_num_threads(2)
    for _ in range(20):
        for a, b in zip(in_halves(step)(weights, whole), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_without_a_compiler_it_says_so(network, monkeypatch):
    monkeypatch.setattr(evaluation, "compile_program", lambda *_: None)
    with pytest.raises(CannotCompileError):
        InLanes(network, batch(1)[2])


@pytest.mark.compiled
def test_what_computes_near_pairs_alone_is_compiled_with_all_pairs(monkeypatch):
    """Pairs that depend on the coordinates cannot be traced; forces and training are nevertheless compiled, and give the same."""
    monkeypatch.setattr(energy_module, "ALL_PAIRS", 4)
    whole = alanine_dipeptide()
    model = whole.description.model_copy(update={"network": whole.description.network.model_copy(update={"cutoff": 1.5})})
    network = model.make_network(whole.experts[0].pair_statistics)
    assert network.near_only
    bound = ForceField(model, [network]).bind("ALDP")
    assert bound.compiled
    x, level = torch.randn(20, 5, 3, generator=torch.Generator().manual_seed(0)), torch.ones(1)
    for a, b in zip(bound.at_noise(level)(x), bound.energy_and_score(x, level), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    found = []
    for way in (AsWritten(network), InLanes(network, bound.molecule)):
        weights = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
        form = half_square_error(torch.zeros_like(x), torch.ones(20))
        (((error,), score),) = way.forms(weights, [Term(x[None], level, bound.molecule, (1,), form)])
        found.append([score, error, *gradients_of(error, weights).values()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(found[0][1].detach()))
