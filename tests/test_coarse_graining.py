import mdtraj
import numpy as np
import pytest

from scoremd.coarse_graining import bonds_between, molecule_of, select_beads, torsions_of
from scoremd.errors import ScoreMDError
from tests import peptides


def test_beads_of_a_chain_are_joined_over_what_is_left_out():
    whole = peptides.topology()
    system = molecule_of("ala5", whole, select_beads(whole, "name CA"), 300.0)
    assert [bead.name for bead in system.beads] == ["CA"] * 5
    assert system.bonds == ((0, 1), (1, 2), (2, 3), (3, 4))
    assert system.torsions == ((0, 1, 2, 3), (1, 2, 3, 4))
    assert system.collective_variables == {}
    np.testing.assert_allclose(system.masses, 12.011)


def test_backbones_have_phi_and_psi_of_the_middle():
    whole = peptides.topology(3)
    system = molecule_of("ala3", whole, select_beads(whole, "name N CA C"), 300.0)
    assert system.bonds == tuple((k, k + 1) for k in range(8))
    assert system.collective_variables == {"phi": (2, 3, 4, 5), "psi": (3, 4, 5, 6)}


def test_branches_have_one_torsion_for_each_bond_in_the_middle():
    # a chain 0-1-2-3 with 4 beside 1 and 5 beside 2, and an end 6
    assert torsions_of(7, [(0, 1), (1, 2), (1, 4), (2, 3), (2, 5), (3, 6)]) == [(0, 1, 2, 3), (1, 2, 3, 6)]
    assert torsions_of(3, [(0, 1), (1, 2)]) == []
    assert torsions_of(3, [(0, 1), (1, 2), (0, 2)]) == []  # in a ring of three both neighbours are one


def test_elements_and_masses():
    found = peptides.small("LIG", (("CL1", "Cl"), ("P", "P"), ("H", "H")), ((0, 1), (1, 2)))
    system = molecule_of("ligand", found, [0, 1, 2], 300.0)
    np.testing.assert_allclose(system.masses, [35.453, 30.974, 1.008], atol=1e-2)
    assert [atom.element.symbol for atom in system.topology().atoms] == ["Cl", "P", "H"]
    np.testing.assert_allclose(molecule_of("ligand", found, [0, 1, 2], 300.0, [1.0, 2.0, 3.0]).masses, [1, 2, 3])
    with pytest.raises(ScoreMDError, match="bead_masses must be one for each of 3 beads, not 2"):
        molecule_of("ligand", found, [0, 1, 2], 300.0, [1.0, 2.0])


def test_chains_without_bonds_are_joined_in_order_if_nothing_else_is_known():
    only = peptides.topology(4).subset(range(2, 40, 10))
    assert only.n_bonds == 0
    assert bonds_between(only, range(4)) == [(0, 1), (1, 2), (2, 3)]
    # with its other atoms there, a topology without bonds gets the standard ones
    assert bonds_between(peptides.topology(2, bonds=False), [0, 2, 8]) == [(0, 1), (1, 2)]


def test_refusals():
    whole = peptides.topology()
    with pytest.raises(ScoreMDError, match=r"'name ca' chooses 0 of 50 atoms; two are needed \(their names: C CA CB"):
        select_beads(whole, "name ca")
    with pytest.raises(ScoreMDError, match="'name =' is not a selection of mdtraj's language"):
        select_beads(whole, "name =")
    with pytest.raises(ScoreMDError, match="the 2 beads do not hang together by bonds"):
        molecule_of("gap", whole, [2, 8 + 30], 300.0)
    virtual = mdtraj.Topology()
    residue = virtual.add_residue("X", virtual.add_chain())
    for name in "AB":
        virtual.add_atom(name, None, residue)
    with pytest.raises(ScoreMDError, match=r"atom X\d-A of the topology has no element"):
        molecule_of("x", virtual, [0, 1], 300.0)
    with pytest.raises(ScoreMDError, match="cannot be the name of a molecule"):
        molecule_of("not a name", whole, [0, 2], 300.0)
