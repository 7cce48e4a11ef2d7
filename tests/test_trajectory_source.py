import h5py
import mdtraj
import numpy as np
import pytest

from scoremd import trajectory_source
from scoremd.data import from_mdtraj, read_ensemble, write_ensemble
from scoremd.errors import ScoreMDError
from scoremd.forces import aggregate_forces
from scoremd.systems import load_system
from scoremd.trajectory_source import TrajectorySource, own_molecule, read_source, write_own_system
from scoremd.units import thermal_energy
from tests import peptides

CA = np.arange(2, 50, 10)


@pytest.fixture(autouse=True)
def afresh(monkeypatch):
    """In parts of a few frames, nothing remembered from tests before, and forces may be made up."""
    read_source.cache_clear()
    monkeypatch.setattr(trajectory_source, "_VIRIAL", np.inf)
    monkeypatch.setattr(trajectory_source, "_PART", 7)


@pytest.fixture
def folder(tmp_path):
    """Of a PDB, and of one trajectory in several formats."""
    whole = peptides.trajectory()
    whole[0].save_pdb(str(tmp_path / "top.pdb"))
    for end in ("xtc", "dcd", "h5", "pdb"):
        whole.save(str(tmp_path / f"run.{end}"))
    return tmp_path


@pytest.fixture
def many(folder):
    """Frames enough to fit weights of forces to."""
    whole = peptides.trajectory(320)
    whole.save_dcd(str(folder / "many.dcd"))
    return whole


def source(folder, *names, **changes):
    names = names or ("run.dcd",)
    values = {"trajectories": [folder / name for name in names], "topology": folder / "top.pdb", "temperature": 300.0}
    return TrajectorySource.model_validate(values | changes)


def distances(x):
    return np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)


@pytest.mark.parametrize("name", ["run.xtc", "run.dcd", "run.h5", "run.pdb"])
def test_any_format_gives_the_beads_centred(folder, name):
    system, ensemble = read_source("ala5", source(folder, name))
    expected = peptides.trajectory().xyz[:, CA]
    assert ensemble.positions.shape == (30, 5, 3)
    np.testing.assert_allclose(distances(ensemble.positions), distances(expected), atol=2e-3)
    np.testing.assert_allclose(ensemble.positions.mean(1), 0, atol=1e-6)
    assert (system.name, system.temperature, ensemble.temperature) == ("ala5", 300.0, 300.0)
    assert ensemble.atoms == system.atoms


def test_topologies_in_hdf5_are_read_without_pytables(folder):
    found, wanted = trajectory_source.read_topology(folder / "run.h5"), peptides.topology()
    assert found == wanted
    assert {(a.index, b.index) for a, b in found.bonds} == {(a.index, b.index) for a, b in wanted.bonds}


def test_strides_and_several_files(folder):
    _, ensemble = read_source("ala5", source(folder, "run.dcd", "run.h5", stride=4))
    expected = distances(peptides.trajectory().xyz[::4, CA])
    np.testing.assert_allclose(distances(ensemble.positions), np.concatenate([expected, expected]), atol=1e-5)
    assert ensemble.walker.tolist() == [0] * 8 + [1] * 8


@pytest.mark.parametrize(("end", "unit", "factor"), [("npy", "kJ/mol/nm", 1.0), ("h5", "kcal/mol/angstrom", 41.84)])
def test_forces_of_all_atoms_are_gathered_as_those_of_an_ensemble(folder, many, end, unit, factor):
    forces = 100 * np.random.default_rng(1).standard_normal((320, 50, 3))
    if end == "npy":
        np.save(folder / "f.npy", forces)
    else:
        with h5py.File(folder / "f.h5", "w") as file:
            file["forces"] = forces
    _, ensemble = read_source("ala5", source(folder, "many.dcd", forces={"files": [folder / f"f.{end}"], "unit": unit}))
    expected = aggregate_forces(factor * forces, CA)
    np.testing.assert_allclose(ensemble.forces, expected, atol=1e-4 * np.abs(expected).max())


def test_forces_of_beads_are_taken_as_they_are(folder):
    forces = np.random.default_rng(1).standard_normal((30, 5, 3))
    np.save(folder / "f.npy", forces)
    _, ensemble = read_source("ala5", source(folder, forces={"files": [folder / "f.npy"], "unit": "kJ/mol/nm"}, stride=3))
    np.testing.assert_allclose(ensemble.forces, forces[::3], rtol=1e-6)


def test_forces_of_constraints_do_not_reach_the_beads(folder, many):
    whole = many
    # a rigid bond of CA to HA, along which the constraint's force, which the file lacks, would have acted
    apart = whole.xyz[:, CA + 1] - whole.xyz[:, CA]
    whole.xyz[:, CA + 1] = whole.xyz[:, CA] + 0.109 * apart / np.linalg.norm(apart, axis=-1, keepdims=True)
    whole.save_dcd(str(folder / "rigid.dcd"))
    rng = np.random.default_rng(2)
    smooth, pull = rng.standard_normal((320, 50, 3)), 1000 * rng.standard_normal((320, 5, 3))
    gathered = []
    for strength in (0, 1):
        forces = smooth.copy()
        forces[:, CA] += strength * pull
        forces[:, CA + 1] -= strength * pull
        np.save(folder / "f.npy", forces)
        read_source.cache_clear()
        _, ensemble = read_source("ala5", source(folder, "rigid.dcd", forces={"files": [folder / "f.npy"], "unit": "kJ/mol/nm"}))
        gathered.append(ensemble.forces)
    np.testing.assert_allclose(gathered[0], gathered[1], atol=1e-3)
    with pytest.raises(ScoreMDError, match="atoms 2 and 3 are beads that constraints join"):
        read_source("ala5", source(folder, "rigid.dcd", select="name CA HA", forces={"files": [folder / "f.npy"], "unit": "kJ/mol/nm"}))


def test_molecules_are_made_whole(folder):
    cut = peptides.trajectory(box=3.5)
    assert np.ptp(cut.xyz, axis=1).max() > 3  # some are cut
    cut.save_dcd(str(folder / "cut.dcd"))
    _, ensemble = read_source("ala5", source(folder, "cut.dcd"))
    np.testing.assert_allclose(distances(ensemble.positions), distances(peptides.trajectory().xyz[:, CA]), atol=1e-4)
    cut.unitcell_vectors = None
    cut.save_dcd(str(folder / "torn.dcd"))
    with pytest.raises(ScoreMDError, match=r"ala5: \d+ of 30 frames have broken bonds, first frame \d+, .* made whole first"):
        read_source("ala5", source(folder, "torn.dcd"))


def test_angstrom_is_seen(folder):
    large = peptides.trajectory()
    large.xyz *= 10
    large.save_dcd(str(folder / "large.dcd"))
    with pytest.raises(ScoreMDError, match=r"bonds are \d\.\d+ nm long by its coordinates, .* probably in ångström: divide them by 10"):
        read_source("ala5", source(folder, "large.dcd"))


def test_all_atoms_below_a_topology_of_c_alphas_are_seen(folder):
    whole = peptides.trajectory()
    backbone = whole.atom_slice(np.sort(np.concatenate([CA, whole.topology.select("name N or name C")]))[:12])
    backbone.save_dcd(str(folder / "all.dcd"))
    chain = mdtraj.Topology()
    one = chain.add_chain()
    for _ in range(12):
        chain.add_atom("CA", mdtraj.element.carbon, chain.add_residue("ALA", one))
    mdtraj.Trajectory(backbone.xyz[:1], chain).save_pdb(str(folder / "chain.pdb"))
    with pytest.raises(ScoreMDError, match=r"its C-alphas are 0.\d\d nm apart, where 0.38 nm are usual; is the topology theirs\?"):
        read_source("chain", source(folder, "all.dcd", topology=folder / "chain.pdb"))


def test_refusals(folder):
    def refused(match, *names, **changes):
        with pytest.raises(ScoreMDError, match=match):
            read_source("ala5", source(folder, *names, **changes))

    refused("missing.dcd: there is no such file", "missing.dcd")
    refused("nothing.pdb: there is no such file", topology=folder / "nothing.pdb")
    (folder / "text.pdb").write_text("hello")
    refused(r"text.pdb: (cannot be read as a topology|holds)|chooses 0 of 0", topology=folder / "text.pdb")
    (folder / "text.dcd").write_text("hello")
    refused("text.dcd: cannot be read as a trajectory of the topology", "text.dcd")
    peptides.trajectory(n=4).save_dcd(str(folder / "other.dcd"))
    refused("other.dcd: cannot be read as a trajectory of the topology", "run.dcd", "other.dcd")
    peptides.trajectory(n=4).save(str(folder / "other.h5"))
    refused(r"other.h5: .*coordinates have shape \(30, 40, 3\), where \(frame, 50, 3\) are", "other.h5")
    wrong = peptides.trajectory()
    wrong.xyz[3, 2, 1] = np.nan
    wrong.save_dcd(str(folder / "nan.dcd"))
    refused("nan.dcd: holds coordinates that are not finite", "nan.dcd")
    with h5py.File(folder / "empty.h5", "w") as file:
        file["coordinates"] = np.zeros((0, 50, 3), np.float32)
    refused("empty.h5: holds no frames", "empty.h5")
    for end in ("h5", "pdb"):
        mutant = peptides.trajectory()
        mutant.topology.residue(2).name = "GLY"
        mutant.save(str(folder / f"mutant.{end}"))
        refused(f"mutant.{end}: is of another molecule than the topology: it has CA of GLY, where CA of ALA is needed", f"mutant.{end}")
    (folder / "text.h5").write_text("hello")
    refused("text.h5: is no HDF5 file, or a damaged one", "text.h5")
    refused("missing.h5: there is no such file", "run.dcd", "missing.h5")
    refused("masses must be one for each of 5 beads, not 2", masses=[1.0, 2.0])


def test_refusals_of_forces(folder):
    def refused(match, array, **changes):
        np.save(folder / "f.npy", array)
        with pytest.raises(ScoreMDError, match=match):
            read_source("ala5", source(folder, forces={"files": [folder / "f.npy"], "unit": "kJ/mol/nm"}, **changes))

    refused("forces are of 7 atoms, where 50, of all, or 5, of the beads, are needed", np.zeros((30, 7, 3)))
    refused(r"f.npy: forces have shape \(30, 150\)", np.zeros((30, 150)))
    refused("f.npy: holds forces of 29 frames, its trajectory has 30", np.zeros((29, 5, 3)))
    refused("f.npy: holds forces that are not finite", np.full((30, 5, 3), np.inf))
    refused("there are 2 trajectories and 1 files of forces", np.zeros((30, 5, 3)), trajectories=[folder / "run.dcd", folder / "run.h5"])
    refused("f.npy: cannot be read as forces", np.array([{"a": 1}], dtype=object))
    refused("f.npy: its forces are no array of real numbers", np.full((30, 5, 3), "1.0"))
    refused("f.npy: its forces are no array of real numbers", np.full((30, 5, 3), 1j))
    with h5py.File(folder / "group.h5", "w") as file:
        file.create_group("forces")
    with pytest.raises(ScoreMDError, match=r"group.h5: its forces are no array of real numbers"):
        read_source("ala5", source(folder, forces={"files": [folder / "group.h5"], "unit": "kJ/mol/nm"}))
    with pytest.raises(ValueError, match="unit"):
        source(folder, forces={"files": ["f.npy"], "unit": "eV"})


def test_own_systems_are_found_with_their_reference(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(trajectory_source, "_REFERENCE", 20)
    system, ensemble = read_source("ala5", source(folder))
    write_own_system(tmp_path / "force_fields" / "mine" / "systems", system, ensemble)
    monkeypatch.setenv("SCOREMD_PATH", str(tmp_path))
    found = load_system("ALA5")
    assert found.model_dump() == system.model_copy(update={"reference": "ala5.h5"}).model_dump()
    reference = found.reference_ensemble()
    np.testing.assert_allclose(reference.positions, ensemble.positions[::2], atol=1e-4)
    assert read_ensemble(tmp_path / "force_fields/mine/systems/ala5.h5").forces is None


def test_rigid_bonds_between_beads_are_told_of(folder, many, caplog):
    read_source("ala5", source(folder, "many.dcd"))
    assert not caplog.records
    rigid = many[:60]
    first, second = rigid.xyz[:, CA[1]], rigid.xyz[:, CA[2]]
    rigid.xyz[:, CA[2]] = first + 0.38 * (second - first) / np.linalg.norm(second - first, axis=1, keepdims=True)
    rigid.save_dcd(str(folder / "rigid.dcd"))
    read_source.cache_clear()
    read_source("ala5", source(folder, "rigid.dcd"))
    (record,) = caplog.records
    said = "ala5: 1 of 4 bonds between beads are rigid, first that of CA of residue 2 (ALA) and CA of residue 3 (ALA): "
    assert record.getMessage().startswith(said)


def test_the_native_structure_is_of_the_beads_whatever_file_it_is_in(folder, tmp_path, monkeypatch):
    whole = peptides.trajectory()
    whole[3].save_pdb(str(folder / "native.pdb"))
    whole[3].atom_slice(CA).save_gro(str(folder / "native.gro"))
    for name in ("native.pdb", "native.gro"):
        read_source.cache_clear()
        system, ensemble = read_source("ala5", source(folder, native=folder / name))
        found = np.array(system.native)
        np.testing.assert_allclose(distances(found[None]), distances(whole.xyz[3:4, CA]), atol=2e-3)
        np.testing.assert_allclose(found.mean(0), 0, atol=2e-4)
    write_own_system(tmp_path / "force_fields" / "mine" / "systems", system, ensemble)
    monkeypatch.setenv("SCOREMD_PATH", str(tmp_path))
    assert load_system("ALA5").native == system.native
    with pytest.raises(ValueError, match="native must be one position for each of 5 beads, not 1"):
        type(system).model_validate(system.model_dump() | {"native": [[0, 0, 0]]})


def test_native_structures_of_others_are_refused(folder):
    def refused(match, file):
        with pytest.raises(ScoreMDError, match=match):
            read_source("ala5", source(folder, native=folder / file))

    refused("nothing.pdb: there is no such file", "nothing.pdb")
    other = peptides.trajectory(n=4)
    other[0].save_pdb(str(folder / "other.pdb"))
    refused("other.pdb: is no structure of ala5: 'name CA' chooses nothing of it, where CA of ALA is needed", "other.pdb")
    large = peptides.trajectory()[0]
    large.xyz = 10 * large.xyz
    large.save_pdb(str(folder / "large.pdb"))
    refused("large.pdb: bonds are .* probably in ångström", "large.pdb")


def test_ensembles_bring_atoms_walkers_and_forces(folder):
    whole, rng = peptides.trajectory(), np.random.default_rng(0)
    forces, walker = rng.standard_normal(whole.xyz.shape), np.arange(30) // 10
    longer = peptides.trajectory(320)
    write_ensemble(folder / "long.h5", from_mdtraj(longer, "ala5", 300.0, rng.standard_normal(longer.xyz.shape)))
    write_ensemble(folder / "ala5.h5", from_mdtraj(whole, "ala5", 300.0, forces, walker))
    path = folder / "ala5.h5"
    write_ensemble(folder / "again.h5", from_mdtraj(whole, "ala5", 300.0, forces, walker))
    given = source(folder, "ala5.h5", "run.dcd", "again.h5", topology=path, stride=2)
    system, ensemble = read_source("ala5", given)
    assert system.bonds == ((0, 1), (1, 2), (2, 3), (3, 4))
    once = np.repeat([0, 1, 2], 5)
    assert ensemble.walker.tolist() == [*once, *[3] * 15, *(once + 4)]
    np.testing.assert_allclose(distances(ensemble.positions[:15]), distances(whole.xyz[::2, CA]), atol=2e-4)
    path = folder / "long.h5"
    _, ensemble = read_source("ala5", source(folder, "long.h5", topology=path, forces={"files": [path], "unit": "kJ/mol/nm"}))
    np.testing.assert_allclose(ensemble.forces, aggregate_forces(read_ensemble(path).forces, CA), atol=1e-4)


def test_forces_of_solvent_are_left_alone(folder, many):
    """Beads get the forces that they get without the water, which moves in step with one of them."""
    water = peptides.small("HOH", (("O", "O"), ("H1", "H"), ("H2", "H")), ((0, 1), (0, 2)))
    wet = mdtraj.Trajectory(np.concatenate([many.xyz, many.xyz[:, :3] + 1], 1), many.topology.join(water))
    wet[0].save_pdb(str(folder / "wet.pdb"))
    wet.save_dcd(str(folder / "wet.dcd"))
    forces = np.random.default_rng(0).standard_normal((320, 53, 3))
    forces[:, 50] = forces[:, 2]
    np.save(folder / "wet.npy", forces)
    np.save(folder / "dry.npy", forces[:, :50])
    found = []
    for name, topology in (("wet", "wet.pdb"), ("dry", "top.pdb")):
        run = "wet.dcd" if name == "wet" else "many.dcd"
        given = {"files": [folder / f"{name}.npy"], "unit": "kJ/mol/nm"}
        found.append(read_source("ala5", source(folder, run, topology=folder / topology, forces=given))[1].forces)
    np.testing.assert_allclose(*found, atol=1e-5)


def test_forces_in_another_unit_or_of_other_frames_are_seen(folder, monkeypatch):
    """Of beads on springs, whose virial is exact: each coordinate of the centred chain has kT / 2 of energy."""
    monkeypatch.setattr(trajectory_source, "_VIRIAL", 0.5)
    kt, rng = thermal_energy(300.0), np.random.default_rng(0)
    spring, middle = 2e3, peptides.trajectory(1).xyz[0, CA]
    x = middle + np.sqrt(kt / spring) * rng.standard_normal((5000, 5, 3))
    run = mdtraj.Trajectory(x, peptides.topology().subset(CA))
    run.save_dcd(str(folder / "springs.dcd"))
    run[0].save_pdb(str(folder / "springs.pdb"))
    forces = -spring * (x - middle)

    def read(forces, unit="kJ/mol/nm"):
        np.save(folder / "f.npy", forces)
        read_source.cache_clear()
        given = {"files": [folder / "f.npy"], "unit": unit}
        return read_source("ca", source(folder, "springs.dcd", topology=folder / "springs.pdb", forces=given))

    read(forces)
    for wrong, unit in ((forces, "kcal/mol/angstrom"), (forces[::-1], "kJ/mol/nm"), (-forces, "kJ/mol/nm")):
        with pytest.raises(ScoreMDError, match=r"the mean of -F.x is -?\d+\.\d+ kT for each degree of freedom, where equilibrium has 1"):
            read(wrong, unit)


def test_ensembles_know_their_temperature(folder):
    write_ensemble(folder / "hot.h5", from_mdtraj(peptides.trajectory(), "hot", 350.0))
    with pytest.raises(ScoreMDError, match=r"hot.h5: is at 350 K, not at 300 K"):
        read_source("ala5", source(folder, "hot.h5", topology=folder / "hot.h5"))


def test_forces_of_few_frames_are_refused(folder):
    """Weights fitted to fewer numbers than there are of them would take the forces away."""
    np.save(folder / "f.npy", np.zeros((60, 50, 3)))
    peptides.trajectory(60).save_dcd(str(folder / "few.dcd"))
    given = {"files": [folder / "f.npy"], "unit": "kJ/mol/nm"}
    with pytest.raises(ScoreMDError, match="forces of 60 frames are too few to gather those of 45 atoms onto beads: 300 are needed"):
        read_source("ala5", source(folder, "few.dcd", forces=given))
    np.save(folder / "f.npy", np.zeros((30, 50, 3)))
    with pytest.raises(ScoreMDError, match="30 frames are too few to see which bonds are constrained: 50 are needed"):
        read_source("ala5", source(folder, forces=given))


def test_atoms_without_bonds_are_refused_where_forces_need_them(folder, many):
    bare = peptides.topology()
    bare._bonds = [bond for bond in bare.bonds if "HA" not in {bond[0].name, bond[1].name}]
    few = mdtraj.Trajectory(many.xyz, bare)
    few.save(str(folder / "bare.h5"))
    np.save(folder / "f.npy", np.zeros((320, 50, 3)))
    given = {"files": [folder / "f.npy"], "unit": "kJ/mol/nm"}
    with pytest.raises(ScoreMDError, match=r"bare.h5: atom ALA1-HA has no bond"):
        read_source("ala5", source(folder, "bare.h5", topology=folder / "bare.h5", forces=given))


def test_coordinates_too_coarse_to_show_constraints_are_refused_with_forces_of_all_atoms(folder, many):
    np.save(folder / "f.npy", np.zeros((320, 50, 3)))
    given = {"files": [folder / "f.npy"], "unit": "kJ/mol/nm"}
    for digits, coarse in ((2, True), (3, False)):
        read_source.cache_clear()
        mdtraj.Trajectory(many.xyz.round(digits), many.topology).save_dcd(str(folder / "rounded.dcd"))
        read_source("ala5", source(folder, "rounded.dcd"))
        if coarse:
            with pytest.raises(ScoreMDError, match=r"coordinates are rounded to 0.01 nm, too coarsely to see which bonds are constrained"):
                read_source("ala5", source(folder, "rounded.dcd", forces=given))
        else:
            read_source("ala5", source(folder, "rounded.dcd", forces=given))


def test_forces_of_rather_few_frames_are_told_of(folder, many, caplog):
    np.save(folder / "f.npy", np.random.default_rng(0).standard_normal((320, 50, 3)))
    read_source("ala5", source(folder, "many.dcd", forces={"files": [folder / "f.npy"], "unit": "kJ/mol/nm"}))
    assert "about 5 % of the forces themselves are fitted away; 1500 frames make it 1 %" in caplog.text


def chain_of(system, frames):
    """C-alphas that walk at random."""
    steps = np.random.default_rng(0).standard_normal((frames, len(system.beads), 3))
    steps *= 0.38 / np.linalg.norm(steps, axis=-1, keepdims=True)
    return mdtraj.Trajectory(steps.cumsum(1), system.topology())


def test_trajectories_of_the_beads_of_a_known_system_need_no_topology(tmp_path):
    known, files = load_system("villin"), []
    for k in range(2):
        files.append(tmp_path / f"2F4K-0-c-alpha-{k:03}.dcd")
        chain_of(known, 20).save_dcd(str(files[-1]))
    given = TrajectorySource.model_validate({"trajectories": files, "temperature": known.temperature})
    system, ensemble = own_molecule("villin", given)
    assert system == known
    assert ensemble.positions.shape == (40, 35, 3)
    assert list(np.unique(ensemble.walker)) == [0, 1]
    with pytest.raises(ScoreMDError, match="cannot be read as a trajectory of the topology"):
        own_molecule("chignolin", given)
    with pytest.raises(ScoreMDError, match="there is no system 'folder'"):
        own_molecule("folder", given)
    with pytest.raises(ScoreMDError, match="villin is a known system, and the trajectories are of another: at 300 K where it has at 360 K"):
        own_molecule("villin", given.model_copy(update={"temperature": 300.0}))
