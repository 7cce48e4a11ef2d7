import numpy as np
import pytest
import torch

from scoremd.description import ModelDescription
from scoremd.errors import ScoreMDError
from scoremd.nn.pairs import pair_table
from scoremd.statistics import pair_statistics, pair_types
from scoremd.systems import BeadSite, load_system
from tests.models import alanine_dipeptide


@pytest.mark.parametrize("n", [4, 5, 10])
def test_pair_types_are_one_to_one_with_unordered_pairs(n):
    types, partner = pair_types(n), pair_table(n).partner.view(-1, n)
    seen = {}
    for k in range(n // 2):
        for i in range(n):
            seen.setdefault(int(types[k, i]), set()).add(frozenset((i, int(partner[k, i]))))
    assert sorted(seen) == list(range(1, 1 + n * (n - 1) // 2))
    assert all(len(pairs) == 1 for pairs in seen.values())


def test_statistics_of_known_distances():
    rng = np.random.default_rng(0)
    x = np.zeros((20000, 3, 3), np.float32)
    x[:, 1, 0] = 1 + 0.01 * rng.standard_normal(20000)
    x[:, 2, 0] = 3 + 0.1 * rng.standard_normal(20000)  # little of its length, but more than the noise that it has to be stiff in
    table = pair_statistics([(x, [0, 1, 3])], 4)  # slot 2 is empty
    types = pair_types(4)
    partner = pair_table(4).partner.view(-1, 4)

    def row(a, b):
        for k in range(2):
            for i in range(4):
                if {i, int(partner[k, i])} == {a, b}:
                    return table[types[k, i]].tolist()
        raise KeyError

    assert row(0, 1) == pytest.approx([1, 0.01, 1], rel=0.03)
    assert row(0, 3) == pytest.approx([3, 0.1, 0], rel=0.03)
    assert row(0, 2) == [1, 1, 0]


def test_statistics_are_pooled_over_molecules_whatever_their_number_of_frames():
    """Two molecules whose distances are 1 and 2: mean 1.5, and the spread between them counts; a pair that one of them lacks is the
    other's.
    """
    rng = np.random.default_rng(0)
    ensembles = []
    for n, length, slots in ((300, 1.0, [0, 1, 2]), (3000, 2.0, [0, 2])):
        x = np.zeros((n, len(slots), 3), np.float32)
        x[:, -1, 0] = length + 0.01 * rng.standard_normal(n)
        x[:, 1:-1, 1] = 0.7
        ensembles.append((x, slots))
    table = pair_statistics(ensembles, 3)
    type_of = {(0, 1): 1, (0, 2): 2, (1, 2): 3}
    assert table[0].tolist() == [1, 1, 0]
    assert table[type_of[0, 2]].tolist() == pytest.approx([1.5, 0.5, 0], rel=0.01)
    assert table[type_of[0, 1], :2].tolist() == pytest.approx([0.7, 0], abs=1e-5)
    assert float(table[type_of[1, 2], 0]) == pytest.approx(np.hypot(1, 0.7), rel=0.01)


def test_molecule_of_a_system_with_a_missing_bead_is_padded():
    model = alanine_dipeptide()
    system = load_system("ALDP")
    shorter = system.model_copy(update={"beads": system.beads[:4], "residues": system.residues[:2]})
    molecule = model.description.molecule(shorter)
    assert molecule.bead.tolist() == [[1, 2, 3, 4, 0]]
    partner = pair_table(5).partner.view(-1, 5)
    empty = (torch.arange(5).expand_as(partner) == 4) | (partner == 4)
    assert torch.equal(molecule.pair[0] == 0, empty)


def test_systems_that_the_model_does_not_know_are_refused():
    model, system = alanine_dipeptide(), load_system("ALDP")
    with pytest.raises(ScoreMDError, match="no bead CB"):
        model.description.molecule(system.model_copy(update={"beads": (*system.beads[:3], BeadSite(name="CB", residue=1))}))
    with pytest.raises(ScoreMDError, match="residue GLY"):
        model.description.molecule(system.model_copy(update={"residues": ("ACE", "GLY", "NME")}))


def test_models_cover_systems_by_name_or_by_family():
    description = alanine_dipeptide().description
    one, family = description, description.model_copy(update={"systems": ("dipeptides",)})
    assert [one.covers(load_system(name)) for name in ("ALDP", "KS")] == [True, False]
    assert [family.covers(load_system(name)) for name in ("ALDP", "KS", "GG")] == [False, True, True]


def test_a_system_without_torsions_has_a_network_without_local_term():
    description = alanine_dipeptide().description.model_copy(update={"torsions": ()})
    assert description.make_network().torsion is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"torsions": [[[0, 1, 2, 3]], [[0, 1, 2, 3], [1, 2, 3, 4]]]}, "groups of torsions must have the same number"),
        ({"torsions": [[]]}, "at least one"),
        ({"slots": []}, "at least 2"),
        ({"temperature": float("inf")}, "finite number"),
        ({"length_scale": float("inf")}, "finite number"),
    ],
)
def test_senseless_descriptions_are_refused(changes, message):
    content = alanine_dipeptide().description.model_dump(mode="json") | changes
    with pytest.raises(ValueError, match=message):
        ModelDescription.model_validate(content)
