import importlib.util
import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from scoremd.nn import energy, radius_graph
from scoremd.nn.energy import NetworkConfig
from scoremd.nn.molecule import MoleculeBatch
from scoremd.nn.pairs import NearPairs
from scoremd.nn.score import energy_and_score
from scoremd.statistics import pair_types
from tests.models import molecule, random_network

LEVELS = (-4.0, 0.0, 2.5, 6.0)
ROTATION = torch.tensor(Rotation.from_euler("xyz", [0.3, 1.1, -2.0]).as_matrix())


def distinct(n):
    return molecule(list(range(1, n + 1)), pair_types(n))


def coordinates(n, batch=7, seed=1):
    return torch.randn(batch, n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def levels(value, batch=7):
    return torch.full((batch,), value, dtype=torch.float64)


@pytest.mark.parametrize("n", [5, 6, 9])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sizes", [{"layers": 1}, {"layers": 2}, {"layers": 3}, {"encoder_width": 8}])
def test_rotation_and_translation_change_nothing(n, level, sizes):
    network, x, lam = random_network(n, **sizes), coordinates(n), levels(level)
    moved = x @ ROTATION.T + torch.tensor([1.0, -2.0, 3.0])
    e, s = energy_and_score(lambda a, b: network(a, b, distinct(n)), x, lam)
    e2, s2 = energy_and_score(lambda a, b: network(a, b, distinct(n)), moved, lam)
    torch.testing.assert_close(e2, e, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(s2, s @ ROTATION.T, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(s.sum(1), torch.zeros_like(s[:, 0]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("torsions", [True, False])
def test_mirror_images_of_achiral_systems_have_the_same_energy(torsions):
    network = random_network(6, achiral=True, torsions=torsions)
    x = coordinates(6)
    mirrored = x * torch.tensor([-1.0, 1.0, 1.0])
    e, e2 = (network(q, levels(2.0), distinct(6)) for q in (x, mirrored))
    torch.testing.assert_close(e2, e, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("torsions", [True, False])
def test_mirror_images_of_chiral_systems_differ(torsions):
    network = random_network(6, torsions=torsions)
    x = coordinates(6)
    mirrored = x * torch.tensor([-1.0, 1.0, 1.0])
    e, e2 = (network(q, levels(2.0), distinct(6)) for q in (x, mirrored))
    assert (e - e2).abs().min() > 1e-9
    # mirroring and turning is mirroring in another plane: the difference is of chirality, not of orientation
    torch.testing.assert_close(network(-x, levels(2.0), distinct(6)), e2, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("encoder_width", [0, 8])
@pytest.mark.parametrize("n", [5, 6])
def test_permutation_of_like_beads_changes_nothing(n, encoder_width):
    network, x = random_network(n, torsions=False, encoder_width=encoder_width), coordinates(n)
    bead = [1, 1, 2, 2, 2, 1][:n]
    # pair types by the types of both ends
    kinds = torch.tensor(bead)
    partner = (torch.arange(n) + torch.arange(1, n // 2 + 1)[:, None]) % n
    like = molecule(bead, kinds.expand_as(partner) + kinds[partner])
    order = [1, 0, 3, 4, 2, 5][:n]
    if n == 6:
        order = [5, 0, 3, 4, 2, 1]
    e, s = energy_and_score(lambda a, b: network(a, b, like), x, levels(1.0))
    e2, s2 = energy_and_score(lambda a, b: network(a, b, like), x[:, order], levels(1.0))
    torch.testing.assert_close(e2, e, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(s2, s[:, order], rtol=1e-9, atol=1e-9)
    unlike = network(x[:, [2, 1, 0, *range(3, n)]], levels(1.0), like)
    assert (unlike - e).abs().min() > 1e-9


@pytest.mark.parametrize("level", LEVELS)
def test_score_is_minus_the_finite_difference_of_the_energy(level):
    network, x, lam = random_network(5), coordinates(5, batch=1), levels(level, 1)
    _, s = energy_and_score(lambda a, b: network(a, b, distinct(5)), x, lam)
    h = 1e-6
    for bead in range(5):
        for axis in range(3):
            step = torch.zeros_like(x)
            step[0, bead, axis] = h
            slope = (network(x + step, lam, distinct(5)) - network(x - step, lam, distinct(5))).detach() / (2 * h)
            assert float(-slope) == pytest.approx(float(s[0, bead, axis]), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("missing", [2, 4])
def test_where_padding_is_changes_nothing(missing):
    network, x = random_network(6, torsions=False), coordinates(6)
    bead = [k + 1 for k in range(6)]
    bead[missing] = 0
    partner = (torch.arange(6) + torch.arange(1, 4)[:, None]) % 6
    there = (torch.tensor(bead) > 0).long()
    padded = molecule(bead, pair_types(6) * there * there[partner], [int(q) for q in there])
    e, s = energy_and_score(lambda a, b: network(a, b, padded), x, levels(1.0))
    other = x.clone()
    other[:, missing] = 100 * torch.randn_like(x[:, missing])
    e2, s2 = energy_and_score(lambda a, b: network(a, b, padded), other, levels(1.0))
    torch.testing.assert_close(e2, e, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(s2, s, rtol=1e-12, atol=1e-12)
    assert (s[:, missing] == 0).all()


def test_more_slots_than_beads_change_nothing():
    wide, narrow = random_network(6, torsions=False), random_network(5, torsions=False)
    weights = {k: v for k, v in wide.state_dict().items() if k not in ("pair_statistics", "bead.weight", "radial.pair.weight")}
    weights |= {
        "pair_statistics": wide.pair_statistics[:11],
        "bead.weight": wide.bead.weight[:6],
        "radial.pair.weight": wide.radial.pair.weight[:11],
    }
    narrow.load_state_dict(weights)
    x = coordinates(5)
    there = torch.tensor([1, 1, 1, 1, 1, 0])
    partner = (torch.arange(6) + torch.arange(1, 4)[:, None]) % 6
    padded = molecule([1, 2, 3, 4, 5, 0], pair_types(6) * there * there[partner], [1, 1, 1, 1, 1, 0])
    e = narrow(x, levels(1.0), distinct(5))
    torch.testing.assert_close(wide(torch.cat([x, x[:, :1]], 1), levels(1.0), padded), e, rtol=1e-10, atol=1e-10)


def test_one_row_of_types_stands_for_the_whole_batch():
    network, x = random_network(5), coordinates(5)
    rows = MoleculeBatch(*(q.expand(7, *q.shape[1:]) for q in distinct(5)))
    torch.testing.assert_close(network(x, levels(1.0), rows), network(x, levels(1.0)[:1], distinct(5)))


@pytest.mark.parametrize("achiral", [False, True])
def test_the_limit_of_pure_noise_is_the_standard_normal_for_any_weights(achiral):
    network, x = random_network(5, achiral=achiral), coordinates(5)
    x = x - x.mean(1, keepdim=True)
    departures = []
    for level in (-20.0, -5.02, -4.02):
        energy, score = energy_and_score(lambda a, b: network(a, b, distinct(5)), x, levels(level))
        torch.testing.assert_close(energy, 0.5 * (x**2).sum((1, 2)), rtol=0, atol=200 * math.exp(2 * level) + 1e-12)
        departures.append(float((score + x).abs().max()))
    assert departures[0] < 1e-12
    # in proportion to the share of signal, as the true density's
    assert departures[2] / departures[1] == pytest.approx(math.exp(2), rel=0.1)


def test_below_the_frozen_noise_only_the_prior_and_standardised_distances_see_the_time():
    frozen, seeing = random_network(5, torsions=False), random_network(5, torsions=False, frozen_above=None)
    statistics = torch.ones_like(frozen.pair_statistics)
    statistics[:, 2] = 0  # no springs, and distances so broad that their standardisation does not change
    x = coordinates(5)
    for network, same in ((frozen, True), (seeing, False)):
        network.pair_statistics = statistics * torch.tensor([1.0, 50.0, 0.0], dtype=torch.float64)
        for p in network.normaliser.parameters():
            p.data.zero_()
        difference = network(x, levels(5.0), distinct(5)) - network(x, levels(7.0), distinct(5))
        assert (float(difference.abs().max()) < 2e-3) == same


@pytest.fixture(params=["plain", "torch_cluster"])
def neighbours(request, monkeypatch):
    """Each of the two ways to find neighbours."""
    if request.param == "plain":
        monkeypatch.setattr(radius_graph.importlib.util, "find_spec", lambda _: None)
    elif importlib.util.find_spec("torch_cluster") is None:
        pytest.skip("torch_cluster is not installed (pip install --no-build-isolation torch_cluster)")


def with_padding(n):
    """The last bead of the model is missing."""
    mol = distinct(n)
    present = torch.tensor([1] * (n - 1) + [0])
    partner = (torch.arange(n) + torch.arange(1, n // 2 + 1)[:, None]) % n
    return mol._replace(bead=mol.bead * present, residue=mol.residue * present, pair=mol.pair * present * present[partner])


@pytest.mark.parametrize("kind", [distinct, with_padding])
@pytest.mark.parametrize(("n", "sizes"), [(7, {}), (8, {}), (8, {"layers": 3, "encoder_width": 8}), (8, {"achiral": True})])
@pytest.mark.usefixtures("neighbours")
def test_near_pairs_alone_give_what_all_pairs_give(n, sizes, kind):
    """The energy, its gradient, and the gradients of both that training takes."""
    network, x = random_network(n, cutoff=1.8, **sizes), coordinates(n) * (kind(n).bead[0] > 0)[:, None]
    mixed = torch.linspace(-2, 4, len(x), dtype=torch.float64)
    found = []
    assert not network.near_only
    for near_only in (False, True):
        network.near_only = near_only
        e, s = energy_and_score(lambda a, b: network(a, b, kind(n)), x.clone(), mixed, create_graph=True)
        weights = [p for name, p in network.named_parameters() if "normaliser" not in name]
        gradient = torch.autograd.grad((s**2).sum() + e.sum(), weights, allow_unused=True)
        found.append([e, s, *(g for g in gradient if g is not None)])
    assert len(found[0]) == len(found[1]) > 10
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(a.abs().max()))
    counts = NearPairs.of(x, 1.8).first
    assert 0 < len(counts) < 0.8 * len(x) * (n // 2) * n


def test_near_pairs_are_for_many_beads_with_a_cutoff(monkeypatch):
    monkeypatch.setattr(energy, "ALL_PAIRS", 6)
    assert [random_network(n, cutoff=cutoff).near_only for n, cutoff in ((6, 1.0), (7, 1.0), (7, None))] == [False, True, False]


def test_beyond_the_cutoff_there_are_no_messages():
    """A bead that leaves the cutoff leaves smoothly, and then only the parts without messages know where it is."""
    network = random_network(6, cutoff=1.0, torsions=False)
    spread = torch.arange(6, dtype=torch.float64)[None, :, None] * torch.tensor([1.5, 0, 0], dtype=torch.float64)
    lam = levels(1.0, batch=1)
    share = torch.sigmoid(2 * lam)

    def network_part(x):
        """Without prior and normaliser: what a network whose messages have no weight would differ by."""
        context = network.context(lam, distinct(6))
        silent = context._replace(present=torch.zeros_like(context.present))
        return (network.evaluate(x, context) - network.evaluate(x, silent)) / share

    torch.testing.assert_close(network_part(spread), torch.zeros(1, dtype=torch.float64), rtol=0, atol=1e-8)
    assert network_part(0.5 * spread).abs() > 1e-4
    distances = torch.linspace(0.99, 1.01, 201, dtype=torch.float64)
    weight = network._fading(torch.ones(1, dtype=torch.float64), distances)
    assert weight[0] > 1e-7
    assert weight[100:].max() < 1e-8
    assert weight.diff(n=3).abs().max() < 1e-6


def test_descriptions_from_before_there_was_a_cutoff_are_what_they_were():
    assert "cutoff" not in NetworkConfig().model_dump(mode="json")
    assert NetworkConfig(cutoff=2.5).model_dump(mode="json")["cutoff"] == 2.5
