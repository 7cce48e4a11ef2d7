"""Atoms that are added to the backbone: where they must be, and that other tools read the result."""

import mdtraj
import numpy as np
import openmm.app
import pytest

from scoremd.backbone import add_backbone
from scoremd.errors import ScoreMDError
from scoremd.systems import load_system


def frames(name, n=20):
    system = load_system(name)
    return mdtraj.Trajectory(system.reference_ensemble().positions[:n], system.topology())


def index(traj, residue, name):
    (found,) = (atom.index for atom in traj.topology.residue(residue).atoms if atom.name == name)
    return found


def angle(traj, *atoms):
    return np.rad2deg(mdtraj.compute_angles(traj, [[index(traj, *atom) for atom in atoms]]))[:, 0]


def torsion(traj, *atoms):
    return np.rad2deg(mdtraj.compute_dihedrals(traj, [[index(traj, *atom) for atom in atoms]]))[:, 0]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("KS", ["N", "CA", "CB", "C", "O", "H1", "H2", "H3"], ["N", "CA", "CB", "C", "O", "H", "OXT"]),
        ("KG", ["N", "CA", "CB", "C", "O", "H1", "H2", "H3"], ["N", "CA", "C", "O", "H", "OXT"]),
        ("AP", ["N", "CA", "CB", "C", "O", "H1", "H2", "H3"], ["N", "CA", "CB", "C", "O", "OXT"]),
    ],
)
def test_what_is_added_to_which_residue(name, first, second):
    traj = frames(name)
    whole = add_backbone(traj)
    assert [[atom.name for atom in residue.atoms] for residue in whole.topology.residues] == [first, second]
    kept = [index(whole, atom.residue.index, atom.name) for atom in traj.topology.atoms]
    np.testing.assert_array_equal(whole.xyz[:, kept], traj.xyz)
    assert whole.topology.n_bonds == whole.n_atoms - 1


def test_hydrogens_and_oxygens_are_where_they_belong():
    whole = add_backbone(frames("KS"))
    assert np.allclose(mdtraj.compute_distances(whole, [[index(whole, 1, "N"), index(whole, 1, "H")]]), 0.101, atol=1e-5)
    # both sides alike, in the plane of the peptide bond
    np.testing.assert_allclose(angle(whole, (0, "C"), (1, "N"), (1, "H")), angle(whole, (1, "CA"), (1, "N"), (1, "H")), atol=0.1)
    assert np.abs(torsion(whole, (0, "C"), (1, "CA"), (1, "N"), (1, "H"))).min() > 179
    np.testing.assert_allclose(angle(whole, (1, "CA"), (1, "C"), (1, "OXT")), angle(whole, (1, "O"), (1, "C"), (1, "OXT")), atol=0.1)
    for name, expected in (("H1", 60), ("H2", 180), ("H3", -60)):
        found = torsion(whole, (0, "C"), (0, "CA"), (0, "N"), (0, name))
        np.testing.assert_allclose((found - expected + 180) % 360 - 180, 0, atol=0.1)
        np.testing.assert_allclose(angle(whole, (0, "CA"), (0, "N"), (0, name)), 109.5, atol=0.1)


def test_an_oxygen_that_was_left_out_is_found_again():
    """The carbonyl of the first residue, rebuilt, against the all-atom reference's own."""
    traj = frames("KS", 500)
    without = traj.atom_slice([atom.index for atom in traj.topology.atoms if (atom.name, atom.residue.index) != ("O", 0)])
    rebuilt = add_backbone(without)
    distance = np.linalg.norm(rebuilt.xyz[:, index(rebuilt, 0, "O")] - traj.xyz[:, index(traj, 0, "O")], axis=-1)
    assert np.median(distance) < 0.012


def test_proline_in_front_has_two_hydrogens():
    traj = mdtraj.Trajectory(frames("KS").xyz, load_system("PA").topology())
    assert [atom.name for atom in add_backbone(traj).topology.residue(0).atoms][-2:] == ["H2", "H3"]


def test_other_tools_read_it(tmp_path):
    whole = add_backbone(frames("KS"))
    whole.save_pdb(str(tmp_path / "a.pdb"))
    topology = openmm.app.PDBFile(str(tmp_path / "a.pdb")).topology
    assert [residue.name for residue in topology.residues()] == ["LYS", "SER"]
    assert set(mdtraj.compute_dssp(mdtraj.load(str(tmp_path / "a.pdb"))).ravel()) <= {"C", "H", "E"}


def test_beads_without_a_backbone_are_refused():
    traj = frames("KS")
    with pytest.raises(ScoreMDError, match="no residue with N, CA and C"):
        add_backbone(traj.atom_slice(traj.topology.select("name CB")))
