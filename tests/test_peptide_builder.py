import mdtraj
import numpy as np
import pytest
from openmm import unit

from scoremd.analysis.structure import mirror_images
from scoremd.errors import ScoreMDError
from scoremd.peptide_builder import AMINO_ACIDS, build_peptide, residues_of
from scoremd.systems import load_system
from tests.peptides import needs_builder


def test_sequences_by_letters_and_by_names():
    assert residues_of("agw") == ["ALA", "GLY", "TRP"]
    assert residues_of("Ace-Ala-Nme") == ["ACE", "ALA", "NME"]
    assert residues_of("LYS-SER") == ["LYS", "SER"]


@pytest.mark.parametrize("sequence", ["AXA", "ACE-NME", "ALA-ACE-ALA", "NME-ALA", "", "ALA-DAL"])
def test_what_is_no_sequence(sequence):
    with pytest.raises(ScoreMDError, match="must be of L-amino acids by letters"):
        residues_of(sequence)


def built(residues):
    topology, positions = build_peptide(residues)
    return mdtraj.Trajectory(np.array(positions.value_in_unit(unit.nanometer))[None], mdtraj.Topology.from_openmm(topology))


@needs_builder
def test_all_amino_acids_are_extended_chains_of_the_right_hand():
    peptide = built(list(AMINO_ACIDS.values()))
    assert [r.name for r in peptide.topology.residues] == list(AMINO_ACIDS.values())
    assert not mirror_images(peptide).any()
    np.testing.assert_allclose(np.abs(np.degrees(mdtraj.compute_omega(peptide)[1])), 180, atol=5)
    phi = np.degrees(mdtraj.compute_phi(peptide)[1][0])
    expected = [-70 if name == "PRO" else -120 for name in list(AMINO_ACIDS.values())[1:]]
    np.testing.assert_allclose(phi, expected, atol=1)
    assert peptide.topology.select("name OXT").size == 1


@needs_builder
def test_caps_continue_the_chain():
    peptide = built(["ACE", "ALA", "NME"])
    names = [(a.residue.name, a.name) for a in peptide.topology.atoms]
    assert names[:3] == [("ACE", "CH3"), ("ACE", "C"), ("ACE", "O")]
    assert names[-2:] == [("NME", "N"), ("NME", "C")]
    assert len(names) == 10
    length = np.linalg.norm(peptide.xyz[0, 1] - peptide.xyz[0, 3])
    assert 0.13 < length < 0.14


@needs_builder
def test_other_residues_are_not_taken_for_alanine():
    with pytest.raises(ScoreMDError, match="residue NLE is none of the twenty amino acids and no cap"):
        build_peptide(load_system("villin").residues)


def test_without_peptide_builder_a_structure_is_asked_for(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PeptideBuilder", None)
    with pytest.raises(ScoreMDError, match="pip install PeptideBuilder, or give a structure"):
        build_peptide(["ALA"])
