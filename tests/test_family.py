"""The 400 dipeptides, by every name and in every wrong way, and the files of families."""

import mdtraj
import numpy as np
import pytest
import yaml

from scoremd import resources
from scoremd.data import Bead, Ensemble, read_ensemble
from scoremd.errors import ScoreMDError
from scoremd.family import Family
from scoremd.systems import find_system, list_systems, load_system, load_toy, read_system

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
TEST = ["AC", "AP", "AT", "ET", "HP", "HT", "IM", "KG", "KQ", "KS", "LW", "NF", "NY", "RL", "RV", "TD"]
BACKBONE = ["N", "CA", "CB", "C", "O"]


@pytest.fixture(scope="module")
def family():
    return find_system("dipeptides")


@pytest.mark.parametrize("name", ["KS", "ks", "kS", "LYS-SER", "Lys-Ser", "LYSSER", "lysser"])
def test_found_by_any_name_in_any_case(name):
    system = load_system(name)
    assert (system.name, system.residues, system.family) == ("KS", ("LYS", "SER"), "dipeptides")


@pytest.mark.parametrize(("name", "sequence"), [("HIE-GLY", "HG"), ("hidcyx", "HC"), ("HSD-HSE", "HH"), ("CYS-HIS", "CH")])
def test_names_of_force_fields_are_understood(name, sequence):
    assert load_system(name).name == sequence


def test_all_400(family):
    systems = [family.find(a + b) for a in LETTERS for b in LETTERS]
    assert len({system.name for system in systems}) == len({system.residues for system in systems}) == 400
    codes = mdtraj.core.residue_names._AMINO_ACID_CODES
    for system in systems:
        assert "".join(codes[name] for name in system.residues) == system.name
        assert system.temperature == 310.0
        assert (system.reference is None) == (system.name not in TEST)
        assert len(system.beads) == 10 - system.name.count("G")
        assert len(system.bonds) == len(system.beads) - 1
        assert set(system.collective_variables) == {"phi", "psi"}


def test_every_sequence_is_found_also_where_another_system_has_a_similar_name():
    assert [load_system(a + b).name for a in "AGP" for b in LETTERS] == [a + b for a in "AGP" for b in LETTERS]


def test_references_are_of_their_members():
    ensemble = load_system("gly-lys").reference_ensemble()
    assert ensemble is None
    system = load_system("KG")
    ensemble = system.reference_ensemble()
    assert (ensemble.name, ensemble.n_frames, ensemble.atoms) == ("KG", 16_000, system.atoms)
    assert len(set(ensemble.walker)) == 16


def test_a_dipeptide_with_all_beads():
    system = load_system("KS")
    assert [(b.name, b.residue) for b in system.beads] == [(name, r) for r in (0, 1) for name in BACKBONE]
    np.testing.assert_array_equal(system.masses[:5], [14.007, 12.011, 12.011, 12.011, 15.999])
    names = [f"{b.name}{b.residue + 1}" for b in system.beads]
    assert [names[k] for k in system.collective_variables["phi"]] == ["C1", "N2", "CA2", "C2"]
    assert [names[k] for k in system.collective_variables["psi"]] == ["N1", "CA1", "C1", "N2"]
    bonds = {"-".join(names[k] for k in bond) for bond in system.bonds}
    assert bonds == {"N1-CA1", "CA1-CB1", "CA1-C1", "C1-O1", "C1-N2", "N2-CA2", "CA2-CB2", "CA2-C2", "C2-O2"}


def test_beads_of_glycine_are_renumbered():
    whole, system = load_system("KS"), load_system("KG")
    names, shorter = ([f"{b.name}{b.residue + 1}" for b in s.beads] for s in (whole, system))
    assert shorter == [name for name in names if name != "CB2"]
    for kind in ("bonds", "torsions"):
        before, after = ([tuple(q[k] for k in g) for g in getattr(s, kind)] for s, q in ((whole, names), (system, shorter)))
        assert after == [group for group in before if "CB2" not in group]
    assert [shorter[k] for k in system.collective_variables["phi"]] == ["C1", "N2", "CA2", "C2"]


@pytest.mark.parametrize("name", ["KS", "KG"])
def test_beads_are_found_in_ensembles_of_all_heavy_atoms(data, name):
    ensemble, system = read_ensemble(data / f"{name}-small.h5"), load_system(name)
    beads = ensemble.beads(system.bead_indices(ensemble))
    assert beads.atoms == system.atoms
    # φ and ψ of the beads are those that mdtraj finds in the molecule by itself
    whole, variables = ensemble.to_mdtraj(), system.collective_variables
    expected = np.hstack([mdtraj.compute_phi(whole, periodic=False)[1], mdtraj.compute_psi(whole, periodic=False)[1]])
    found = mdtraj.compute_dihedrals(beads.to_mdtraj(system.bonds), [variables["phi"], variables["psi"]], periodic=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    lengths = mdtraj.compute_distances(beads.to_mdtraj(), np.array(system.bonds), periodic=False)
    assert 0.11 < lengths.min() < lengths.max() < 0.17


def test_the_last_torsions_tell_handedness(data):
    ensemble, system = read_ensemble(data / "KS-small.h5"), load_system("KS")
    beads = ensemble.beads(system.bead_indices(ensemble))
    angles = mdtraj.compute_dihedrals(beads.to_mdtraj(), system.torsions[4:], periodic=False)
    assert (np.abs(angles - np.radians(-122)) < 0.5).all()


def test_ensembles_with_a_force_field_s_names_fit():
    system = load_system("HC")
    atoms = tuple(Bead(b.name, b.element, {"HIS": "HIE", "CYS": "CYX"}[b.residue_name], b.residue_index) for b in system.atoms)
    ensemble = Ensemble("HC", 310.0, atoms, np.zeros((1, 10, 3)))
    assert system.bead_indices(ensemble) == list(range(10))
    with pytest.raises(ScoreMDError, match="HC is not HK: its residues are HIE-CYX, where HIS-LYS is needed"):
        load_system("HK").bead_indices(ensemble)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("KB", "B is none of its residues"),
        ("ZZ", "Z is none of its residues"),
        ("K1", "1 is none of its residues"),
        ("LYS-XYZ", "XYZ is none of its residues"),
        ("DAL-SER", "DAL is none of its residues"),
        ("D-ALA", "D is none of its residues"),
        ("D-Ala-Ser", "its length is 3"),
        ("KSA", "its length is 3"),
        ("k", "its length is 1"),
        ("LYS", "its length is 1"),
        ("lysserala", "its length is 3"),
        ("", "its length is 0"),
    ],
)
def test_what_is_no_dipeptide_is_refused(name, reason):
    with pytest.raises(ScoreMDError) as caught:
        load_system(name)
    allowed = f"name 2 L-amino acids by letters of {LETTERS} (AR) or by their names (ALA-ARG)"
    assert str(caught.value) == f"{name!r} is no member of dipeptides: {reason}; {allowed}"


def test_names_that_are_no_sequence_are_unknown_systems():
    for name in ("ubiquitin", "LYS_SER", "K-S", "XYZ-XYZ"):
        with pytest.raises(ScoreMDError, match=rf"no system '{name}'; known are alanine-dipeptide, bba, chignolin, dipeptides,"):
            load_system(name)
    with pytest.raises(ScoreMDError, match=r"did you mean alanine-dipeptide\?"):
        load_system("ALD")


def test_listed_once():
    assert [system.name for system in list_systems() if isinstance(system, Family)] == ["dipeptides"]
    with pytest.raises(ScoreMDError, match="dipeptides is a family of molecules, where a molecule is needed"):
        load_system("dipeptides")
    with pytest.raises(ScoreMDError, match="KS is a molecule, where a toy potential is needed"):
        load_toy("KS")


@pytest.fixture
def edited(tmp_path):
    """A function that writes an edited copy of the family and gives its path."""

    def edit(**changes):
        content = yaml.safe_load((resources.packaged("systems") / "dipeptides.yaml").read_text(encoding="utf-8"))
        path = tmp_path / "dipeptides.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return path

    return edit


def test_user_system_comes_before_a_member(edited):
    mine = edited(kind="molecule", name="KS", residues=["LYS", "SER"], temperature=300.0)
    content = yaml.safe_load(mine.read_text())
    mine.write_text(yaml.safe_dump({key: value for key, value in content.items() if key not in ("lacking", "references")}))
    assert load_system("ks", mine.parent).temperature == 300.0
    assert load_system("ks").temperature == 310.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residues": {}}, "residues: "),
        ({"residues": {"AL": "ALA"}}, "residues must be given by capital letters, not 'AL'"),
        ({"residues": {"a": "ALA"}}, "residues must be given by capital letters, not 'a'"),
        ({"lacking": {"DAL": ["CB"]}}, "lacking names DAL, which is none of the residues"),
        ({"bonds": [[0, 10]]}, "[0, 10] must be different bead indices from 0 to 9"),
        ({"beads": [{"name": "CA", "residue": 0}] * 10}, "CA of residue 1 (ALA) is given twice"),
        ({"colour": "red"}, "colour: Extra inputs"),
    ],
)
def test_wrong_files_are_refused(edited, changes, message):
    path = edited(**changes)
    with pytest.raises(ScoreMDError) as caught:
        read_system(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
