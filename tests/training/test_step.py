"""The step of a batch of different molecules: each counts as if it were alone."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from scoremd.diffusion.losses import add_noise
from scoremd.diffusion.posterior import noised_density
from scoremd.diffusion.schedule import SCHEDULES
from scoremd.systems import find_system
from scoremd.training import step as step_module
from scoremd.training.config import FokkerPlanckConfig
from scoremd.training.dataset import read_ensembles, training_set
from scoremd.training.evaluation import AsWritten
from scoremd.training.step import POSTERIOR_BELOW, Batch, BatchSource, Consistency, in_halves, make_step
from tests.models import dipeptide_folder
from tests.training.test_dataset import CB, description


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return description()


@pytest.fixture
def samples(data, tmp_path, model):
    return training_set(read_ensembles(find_system("dipeptides"), dipeptide_folder(data, tmp_path / "p")), model, use_forces=True)


def source(samples, seed, batch=8, fraction=0.5):
    term = FokkerPlanckConfig(weight=1.0, fraction=fraction)
    return BatchSource(samples, SCHEDULES["vp"](), (0.0, 1.0), None, batch, 0.0, term, torch.Generator().manual_seed(seed))


def double(q):
    if isinstance(q, torch.Tensor):
        return q.double() if q.is_floating_point() else q
    return type(q)(*map(double, q))


def moved(q, device):
    return q.to(device) if isinstance(q, torch.Tensor) else type(q)(*(moved(part, device) for part in q))


def alone(batch, k):
    """The batch with nothing but sample k of the denoising term and sample -1 - k of the consistency term, each twice."""
    first, second = [k, k], [-1 - k, -1 - k]

    def only(rows, which):
        return type(rows)(*(q[which] for q in rows))

    return Batch(
        only(batch.denoising, first),
        batch.target[first],
        batch.variance[first],
        batch.rate[first],
        batch.rate_variance[first],
        only(batch.molecule, first),
        Consistency(
            only(batch.consistency.samples, second), batch.consistency.directions[:, second], only(batch.consistency.molecule, second)
        ),
    )


def test_a_mixed_batch_is_the_mean_of_its_molecules(samples, model):
    network = model.make_network(samples.pair_statistics).double()
    step = make_step(AsWritten(network), dual_weight=0.5, consistency_weight=0.3)
    parameters = dict(network.named_parameters())
    batch = double(source(samples, 1, fraction=1.0).draw())
    # both molecules are in both terms, in different orders
    first, second = ([bool(b) for b in m.bead[:, CB] == 0] for m in (batch.molecule, batch.consistency.molecule))
    assert all(0 < sum(q) < 8 for q in (first, second))
    assert len({tuple(q) for q in (first, first[::-1], second)}) == 3
    together = step(parameters, batch)
    parts = [step(parameters, alone(batch, k)) for k in range(8)]
    torch.testing.assert_close(together.fokker_planck, torch.stack([p.fokker_planck for p in parts]).mean(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(together.dual, torch.stack([p.dual for p in parts]).mean(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(together.uniform, torch.stack([p.logarithmic for p in parts[:4]]).mean(), rtol=1e-8, atol=1e-8)
    for k, gradient in enumerate(together.gradients):
        expected = torch.stack([p.gradients[k] for p in parts]).mean(0)
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("size", "fraction", "calls"), [(8, 0.5, 2), (8, 0.125, 1), (6, 0.5, 1), (4, 0.5, 1)])
def test_halves_of_a_batch_are_as_good_as_the_whole(samples, model, monkeypatch, size, fraction, calls):
    monkeypatch.setattr(step_module, "SMALLEST_HALVED", 6)
    network = model.make_network(samples.pair_statistics).double()
    step, seen = make_step(AsWritten(network), dual_weight=0.5, consistency_weight=0.3), []

    def watched(weights, part):
        seen.append(len(part.denoising.positions))
        return step(weights, part)

    batch = double(source(samples, 2, batch=size, fraction=fraction).draw())
    weights = dict(network.named_parameters())
    for a, b in zip(in_halves(watched)(weights, batch), step(weights, batch), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert seen == [size // calls] * calls


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_gradients_of_the_cpu(samples, model):
    gradients = []
    batch = source(samples, 1).draw()
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        network = model.make_network(samples.pair_statistics).to(device)
        step = make_step(AsWritten(network), dual_weight=0.5, consistency_weight=0.3)
        gradients.append([g.cpu() for g in step(dict(network.named_parameters()), moved(batch, device)).gradients])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_drawn_on_the_device_of_the_samples(samples):
    on_gpu = samples.to(torch.device("cuda"))
    term = FokkerPlanckConfig(weight=1.0, fraction=0.5)
    batch = BatchSource(on_gpu, SCHEDULES["vp"](), (0.0, 1.0), None, 8, 0.0, term, torch.Generator("cuda").manual_seed(1)).draw()
    assert all(q.is_cuda for q in tree_leaves(batch))


def test_where_missing_beads_are_changes_nothing(samples, model):
    network = model.make_network(samples.pair_statistics).double()
    step = make_step(AsWritten(network), dual_weight=0.5, consistency_weight=0.3)
    parameters = dict(network.named_parameters())
    batch = double(source(samples, 1, fraction=1.0).draw())

    def shifted(noised, molecule):
        missing = (molecule.bead == 0)[..., None]
        assert missing.any()
        return noised._replace(positions=torch.where(missing, 7.0, noised.positions))

    consistency = batch.consistency._replace(samples=shifted(batch.consistency.samples, batch.consistency.molecule))
    moved = batch._replace(denoising=shifted(batch.denoising, batch.molecule), consistency=consistency)
    before, after = step(parameters, batch), step(parameters, moved)
    torch.testing.assert_close(after.fokker_planck, before.fokker_planck)
    torch.testing.assert_close(after.gradients, before.gradients, rtol=1e-6, atol=1e-8)


def test_displaced_copies_of_a_sample_are_encoded_once(samples, model):
    model = model.model_copy(update={"network": model.network.model_copy(update={"encoder_width": 8})})
    network, rows = model.make_network(samples.pair_statistics), []
    network.encoder.register_forward_pre_hook(lambda _, arguments: rows.append(len(arguments[0])))
    make_step(AsWritten(network), consistency_weight=0.3)(dict(network.named_parameters()), source(samples, 1).draw())
    # 8 samples for score matching, 4 for the consistency term, each at its own level and, for the derivative by it, at two others
    assert rows == [8, 12]


def test_a_step_copies_nothing_to_the_device(samples, model):
    """A constant made of Python's numbers would be a copy from the host, which cannot be recorded on a GPU."""
    network = model.make_network(samples.pair_statistics)
    step = make_step(AsWritten(network), dual_weight=0.5, consistency_weight=0.3)
    graph = make_fx(step)(dict(network.named_parameters()), source(samples, 1).draw()).graph
    names = {str(node.target) for node in graph.nodes}
    assert "aten.mm.default" in names
    assert not [name for name in names if "lift" in name]


def test_all_batches_have_one_shape(samples):
    """Whichever molecules the few samples of the consistency term are: compiled steps take one shape only."""
    small = source(samples, 0, fraction=0.125)
    shapes = {tuple(q.shape for q in torch.utils._pytree.tree_leaves(small.draw())) for _ in range(20)}
    assert len(shapes) == 1


@pytest.mark.parametrize("most", [1600, 12])
def test_where_noise_is_large_the_target_may_be_the_score_of_the_molecule_s_ensemble(samples, monkeypatch, most):
    monkeypatch.setattr(step_module, "POSTERIOR_FRAMES", most)

    def drawn(weight, batch=64):
        generator = torch.Generator().manual_seed(3)
        return BatchSource(samples, SCHEDULES["vp"](), (0.0, 1.0), None, batch, weight, None, generator).draw()

    plain, exact = drawn(0.0), drawn(5.0)
    x, level = add_noise(*exact.denoising), exact.denoising.log_snr
    assert torch.equal(x, add_noise(*plain.denoising))
    noisy = level < POSTERIOR_BELOW
    assert 16 < int(noisy.sum()) < 60
    assert torch.equal(exact.target[~noisy], plain.target[~noisy])
    torch.testing.assert_close(exact.variance, torch.where(noisy, plain.variance / 5, plain.variance))
    assert torch.equal(exact.rate[~noisy], plain.rate[~noisy])
    torch.testing.assert_close(exact.rate_variance, torch.where(noisy, plain.rate_variance / 5, plain.rate_variance))
    bead = exact.molecule.bead
    for k in torch.nonzero(noisy)[:, 0].tolist():
        own = (samples.molecules.bead == bead[k]).all(1) & (samples.molecules.residue == exact.molecule.residue[k]).all(1)
        frames = samples.positions[samples.index == int(torch.nonzero(own)[0])]
        _, score, change = noised_density(x[k : k + 1], level[k : k + 1], frames)
        if len(frames) <= most:
            torch.testing.assert_close(exact.target[k], score[0], rtol=1e-3, atol=1e-3)
            freedom = 3 * (float((bead[k] > 0).sum()) - 1)
            torch.testing.assert_close(exact.rate[k], change[0] + freedom * torch.sigmoid(2 * level[k]), rtol=1e-3, atol=1e-3)
        else:
            assert not torch.equal(exact.target[k], score[0])
