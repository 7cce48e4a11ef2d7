"""The systems that are shipped, and every way in which a user's can be wrong."""

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from scoremd import resources
from scoremd.data import read_ensemble, write_ensemble
from scoremd.errors import ScoreMDError
from scoremd.peptide_builder import AMINO_ACIDS
from scoremd.systems import System, ToySystem, list_systems, load_system, load_toy, read_system

DATA = Path(__file__).parent / "data"
PACKAGED = resources.packaged("systems")


@pytest.fixture(autouse=True)
def no_path(monkeypatch):
    monkeypatch.delenv(resources.PATH_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def alanine():
    return load_system("alanine-dipeptide")


@pytest.fixture(scope="module")
def reference(alanine):
    return alanine.reference_ensemble()


@pytest.fixture
def edited(tmp_path):
    """A function that writes an edited copy of a shipped system and gives its path."""

    def edit(original="alanine-dipeptide", /, **changes):
        content = yaml.safe_load((PACKAGED / f"{original}.yaml").read_text(encoding="utf-8"))
        content.update(changes)
        path = tmp_path / f"{original}.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value != "delete"}))
        return path

    return edit


def torsions(ensemble, system):
    quadruples = [system.collective_variables[name] for name in ("phi", "psi")]
    return mdtraj.compute_dihedrals(ensemble.to_mdtraj(system.bonds), quadruples, periodic=False)


def test_shipped_systems_are_all_valid():
    systems = {system.name: type(system) for system in list_systems()}
    assert list(systems) == sorted(path.stem for path in PACKAGED.glob("*.yaml"))
    assert systems["alanine-dipeptide"] is System
    assert systems["double-well"] is systems["two-gaussians"] is systems["mueller-brown"] is ToySystem


@pytest.mark.parametrize("name", ["alanine-dipeptide", "ALDP", "aldp", "Alanine-Dipeptide", "alanine_dipeptide"])
def test_found_by_any_name_in_any_case(name):
    assert load_system(name).name == "alanine-dipeptide"


def test_alanine_dipeptide(alanine):
    assert alanine.temperature == 300.0
    assert [(b.name, b.residue) for b in alanine.beads] == [("C", 0), ("N", 1), ("CA", 1), ("C", 1), ("N", 2)]
    assert alanine.torsions == ((0, 1, 2, 3), (1, 2, 3, 4))
    assert not alanine.achiral
    np.testing.assert_array_equal(alanine.masses, [12.011, 14.007, 12.011, 12.011, 14.007])
    topology = alanine.topology()
    assert [(a.index, b.index) for a, b in topology.bonds] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [str(a) for a in topology.atoms] == ["ACE1-C", "ALA2-N", "ALA2-CA", "ALA2-C", "NME3-N"]


def test_bead_indices_in_all_heavy_atoms(alanine):
    ensemble = read_ensemble(DATA / "ALDP-small.h5")
    assert alanine.bead_indices(ensemble) == [1, 3, 4, 5, 8]
    # φ and ψ of the beads are those that mdtraj finds in the molecule by itself.
    whole = ensemble.to_mdtraj()
    expected = np.hstack([mdtraj.compute_phi(whole, periodic=False)[1], mdtraj.compute_psi(whole, periodic=False)[1]])
    beads = ensemble.beads(alanine.bead_indices(ensemble))
    np.testing.assert_allclose(torsions(beads, alanine), expected, atol=1e-5)


def test_another_molecule(alanine):
    for name in ("KS", "KG"):
        ensemble = read_ensemble(DATA / f"{name}-small.h5")
        with pytest.raises(ScoreMDError, match=rf"{name} is not alanine-dipeptide: .*C of residue 1 \(ACE\) is missing"):
            alanine.bead_indices(ensemble)


def test_missing_atom(alanine):
    ensemble = read_ensemble(DATA / "ALDP-small.h5")
    without = ensemble.beads([0, 1, 2, 3, 5, 6, 7, 8, 9])
    with pytest.raises(ScoreMDError, match=r"bead CA of residue 2 \(ALA\) is missing"):
        alanine.bead_indices(without)


def test_longer_molecule_with_all_the_beads(alanine):
    ensemble = read_ensemble(DATA / "ALDP-small.h5")
    atoms = (*ensemble.atoms[:9], replace(ensemble.atoms[9], residue_name="ALA", residue_index=3))
    with pytest.raises(ScoreMDError, match="residues are ACE-ALA-NME-ALA"):
        alanine.bead_indices(replace(ensemble, atoms=atoms))


def test_shipped_reference(alanine, reference):
    assert reference.n_frames == 120_000
    assert reference.atoms == alanine.atoms
    assert reference.temperature == 300.0
    assert sorted(set(reference.walker.tolist())) == list(range(16))
    assert (PACKAGED / "alanine-dipeptide.h5").stat().st_size <= 2_000_000
    phi = torsions(reference, alanine)[:, 0]
    # As in the source, which says 0.0190 and 0.0176 for the two halves of its time.
    assert (phi[:60_000] > 0).mean() == pytest.approx(0.0190, abs=5e-5)
    assert (phi[60_000:] > 0).mean() == pytest.approx(0.0176, abs=5e-5)


def test_shipped_reference_has_the_internal_coordinates_of_its_source(alanine, reference):
    """The small test ensemble is every 61st frame of the source, in its own orientation."""
    source = read_ensemble(DATA / "ALDP-small.h5")
    source = source.beads(alanine.bead_indices(source))
    shipped = reference.select(slice(None, None, 61))
    np.testing.assert_array_equal(shipped.walker, source.walker)
    difference = torsions(shipped, alanine).astype(float) - torsions(source, alanine)
    difference = np.angle(np.exp(1j * difference))
    # Positions are rounded to 1e-4 nm in both, with a lever arm of 0.13 nm.
    assert np.sqrt((difference**2).mean()) < 4e-4
    assert np.abs(difference).max() < 2e-3
    first, second = np.triu_indices(5, 1)
    one, other = (np.linalg.norm(e.positions[:, first].astype(float) - e.positions[:, second], axis=-1) for e in (shipped, source))
    assert np.abs(one - other).max() < 2e-4


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_reference", PACKAGED / "build_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_standard_orientation(builder):
    positions = np.random.default_rng(0).normal(size=(50, 5, 3))
    turned = builder.standard_orientation(positions, origin=2, axis=1, plane=3)
    assert np.abs(turned[:, 2]).max() < 1e-12
    assert np.abs(turned[:, 1, 1:]).max() < 1e-12
    assert np.abs(turned[:, 3, 2]).max() < 1e-12
    assert (turned[:, 1, 0] > 0).all()
    assert (turned[:, 3, 1] > 0).all()
    # A proper rotation: superposition, which cannot mirror, brings every frame back.
    for before, after in zip(positions, turned, strict=True):
        left = Rotation.align_vectors(before - before.mean(0), after - after.mean(0))[1]
        assert left < 1e-6


def test_reference_is_what_its_script_builds(builder, tmp_path, alanine):
    builder.build("ALDP", str(DATA / "ALDP-small.h5"), str(tmp_path / "out.h5"))
    built = read_ensemble(tmp_path / "out.h5")
    shipped = alanine.reference_ensemble().select(slice(None, None, 61))
    np.testing.assert_array_equal(built.positions, shipped.positions)
    np.testing.assert_array_equal(built.walker, shipped.walker)
    assert built.forces is None
    assert built.potential_energy is None


def test_system_without_reference(edited):
    assert read_system(edited(reference=None)).reference_ensemble() is None


def test_reference_of_another_molecule(edited, tmp_path):
    system = read_system(edited(reference="other.h5"))
    write_ensemble(tmp_path / "other.h5", replace(read_ensemble(DATA / "ALDP-small.h5"), temperature=310.0))
    with pytest.raises(ScoreMDError, match=r"310\.0 K, but alanine-dipeptide is at 300\.0 K"):
        system.reference_ensemble()
    shutil.copyfile(DATA / "KS-small.h5", tmp_path / "other.h5")
    with pytest.raises(ScoreMDError, match="KS is not alanine-dipeptide"):
        system.reference_ensemble()


def test_reference_that_is_missing(edited, tmp_path):
    with pytest.raises(ScoreMDError, match="no such file"):
        read_system(edited(reference="none.h5")).reference_ensemble()


def test_toys():
    wells = load_toy("Double-Well")
    assert isinstance(wells, ToySystem)
    assert (wells.potential, wells.dimension, wells.parameters) == ("double-well", 1, {"barrier": 4.0})
    mixture = load_toy("two-gaussians")
    assert mixture.parameters == {"weights": (0.2, 0.8), "means": ((-5.0, -5.0), (5.0, 5.0)), "variance": 1.0}
    brown = load_toy("müller-brown")
    assert (brown.thermal_energy, brown.mass, brown.friction, brown.time_step) == (23.0, 0.5, 1.0, 5e-3)


def test_mueller_brown_is_the_standard_potential():
    """The three minima and their energies as published, to the digits given."""
    p = {key: np.array(value) for key, value in load_toy("mueller-brown").parameters.items()}
    for x, y, energy in [(-0.558, 1.442, -146.700), (0.623, 0.028, -108.167), (-0.050, 0.467, -80.768)]:
        dx, dy = x - p["x0"], y - p["y0"]
        assert np.sum(p["A"] * np.exp(p["a"] * dx**2 + p["b"] * dx * dy + p["c"] * dy**2)) == pytest.approx(energy, abs=5e-3)


def test_kinds_are_not_confused():
    with pytest.raises(ScoreMDError, match="double-well is a toy potential"):
        load_system("double-well")
    with pytest.raises(ScoreMDError, match="alanine-dipeptide is a molecule"):
        load_toy("ALDP")


def test_unknown_system():
    known = ", ".join(system.name for system in list_systems())
    with pytest.raises(ScoreMDError, match=f"no system 'zzz'; known are {known}"):
        load_system("zzz")
    with pytest.raises(ScoreMDError, match=r"did you mean alanine-dipeptide\?"):
        load_system("alanine-dipeptid")


def test_user_folder_comes_first(edited, monkeypatch, tmp_path):
    path = edited(temperature=310.0)
    assert load_system("aldp").temperature == 300.0
    assert load_system("aldp", [path.parent]).temperature == 310.0
    assert [s.name for s in list_systems([path.parent])] == [s.name for s in list_systems()]
    (tmp_path / "systems").mkdir()
    path.rename(tmp_path / "systems" / path.name)
    monkeypatch.setenv(resources.PATH_VARIABLE, str(tmp_path))
    assert load_system("ALDP").temperature == 310.0


def test_user_alias_comes_first_but_not_before_a_name(edited):
    folder = edited(name="zz-mine", aliases=["ALDP", "double-well"]).parent
    assert load_system("aldp", folder).name == "zz-mine"
    assert load_toy("double-well", folder).name == "double-well"


def refused(path):
    """What the error says after the path that it must begin with, in one line."""
    with pytest.raises(ScoreMDError) as caught:
        read_system(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temprature": 300}, "temprature: Extra inputs"),
        ({"temperature": "delete"}, "temperature: Field required"),
        ({"temperature": "warm"}, "temperature: Input should be a valid number"),
        ({"temperature": -1}, "temperature: Input should be greater than 0"),
        ({"temperature": float("inf")}, "temperature: Input should be a finite number"),
        ({"kind": "polymer"}, "'molecule', 'toy', 'family'"),
        ({"kind": "delete"}, "kind"),
        ({"name": "a/b"}, "name: "),
        ({"reference": "../secret.h5"}, "reference: "),
        ({"beads": [{"name": "C", "residue": 0}, {"name": "N", "residue": 3}]}, "bead N is in residue 3"),
        ({"beads": [{"name": "C", "residue": 0}] * 5}, "C of residue 1 (ACE) is given twice"),
        ({"beads": [{"name": "C", "residue": 0}, {"name": "Xe", "residue": 1}]}, "beads.1.name: "),
        ({"bonds": [[0, 5]]}, "[0, 5] must be different bead indices from 0 to 4"),
        ({"bonds": [[0, 0]]}, "[0, 0] must be different bead indices"),
        ({"bonds": [[0, 1, 2]]}, "bonds.0"),
        ({"torsions": [[0, 1, 2, 7]]}, "[0, 1, 2, 7] must be"),
        ({"collective_variables": {"phi": [0, 1, 2, -1]}}, "collective_variables.phi.3"),
    ],
)
def test_bad_molecule(edited, changes, message):
    assert message in refused(edited(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": {"height": 4.0}}, "double-well needs the parameters barrier and no others"),
        ({"parameters": {"barrier": "high"}}, "parameters.barrier"),
        ({"potential": "triple-well"}, "potential: Input should be"),
        ({"dimension": 0}, "dimension: "),
        ({"mass": 0}, "mass: "),
    ],
)
def test_bad_toy(edited, changes, message):
    assert message in refused(edited("double-well", **changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: [unclosed\nkind: toy\n", "not valid YAML"),
        ("a: b: c\n", "not valid YAML"),
        ("kind: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("\tkind: toy\n", "not valid YAML"),
        ("", "Input should be"),
        ("just a sentence\n", "Input should be"),
    ],
)
def test_malformed_yaml(tmp_path, content, message):
    (tmp_path / "bad.yaml").write_text(content)
    assert message in refused(tmp_path / "bad.yaml")
    with pytest.raises(ScoreMDError, match=r"bad\.yaml: "):
        load_system("ALDP", tmp_path)


def test_yaml_that_is_not_text(tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00\x89HDF")
    assert "not a text file" in refused(tmp_path / "bad.yaml")


def test_yaml_that_is_a_folder_or_missing(tmp_path):
    assert "Is a directory" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("CLN025", "YYDPETGTWY"),
        ("2jof", "DAYAQWLADGGPSSGRPPPS"),
        ("1FME", "EQYTAKYKGRTFRNEKELRDFIEKFKGR"),
        ("2F4K", "LSDEDFKAVFGMTRSAFANLPLWXQQHLXKEKGLF"),  # X is norleucine
        ("NuG2", "DTYKLVIVLNGTTFTYTTEAVDAATAEKVFKQYANDAGVDGEWTYDAATKTFTVTE"),
    ],
)
def test_proteins_are_chains_of_c_alphas(name, sequence):
    protein, length = load_system(name), len(sequence)
    codes = {residue: letter for letter, residue in AMINO_ACIDS.items()} | {"NLE": "X"}
    assert "".join(codes[residue] for residue in protein.residues) == sequence
    assert len(protein.beads) == length
    assert protein.bonds == tuple((k, k + 1) for k in range(length - 1))
    assert protein.torsions == tuple((k, k + 1, k + 2, k + 3) for k in range(length - 3))
    assert {bead.name for bead in protein.beads} == {"CA"}
    assert protein.reference_ensemble() is None
