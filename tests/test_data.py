"""The ensemble file: round trips, and every way in which a file can be wrong."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import mdtraj
import numpy as np
import pytest

from scoremd.data import Bead, Ensemble, from_mdtraj, read_ensemble, topology_of, write_ensemble
from scoremd.errors import ScoreMDError

DATA = Path(__file__).parent / "data"
BACKBONE = [1, 3, 4, 5, 8]


@pytest.fixture(scope="module")
def aldp():
    return read_ensemble(DATA / "ALDP-small.h5")


@pytest.fixture
def copy(tmp_path):
    """A copy of a good file, to be damaged."""
    path = tmp_path / "copy.h5"
    shutil.copyfile(DATA / "KS-small.h5", path)
    path.chmod(0o644)
    return path


def small(**changes):
    atoms = (Bead("N", "N", "ALA", 0), Bead("CA", "C", "ALA", 0))
    given = {"name": "two", "temperature": 300.0, "atoms": atoms, "positions": np.arange(12.0).reshape(2, 2, 3) / 7}
    return Ensemble(**{**given, **changes})


def assert_same(first, second, *, positions=1e-7):
    assert (first.name, first.temperature, first.atoms) == (second.name, second.temperature, second.atoms)
    np.testing.assert_allclose(first.positions, second.positions, atol=positions)
    for key in ("forces", "walker", "potential_energy"):
        one, other = getattr(first, key), getattr(second, key)
        assert (one is None) == (other is None), key
        if one is not None:
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


def test_reads_what_the_file_says(aldp):
    assert aldp.name == "ALDP"
    assert aldp.temperature == 300.0
    assert aldp.n_frames == 1968
    assert aldp.positions.shape == aldp.forces.shape == (1968, 10, 3)
    assert [a.name for a in aldp.atoms] == ["CH3", "C", "O", "N", "CA", "C", "O", "CB", "N", "C"]
    assert aldp.atoms[7] == Bead("CB", "C", "ALA", 1)
    assert sorted(set(aldp.walker.tolist())) == list(range(16))
    # Peptide bond and Cα-Cβ bond of ff14SB, nm: the unit of the positions is right.
    lengths = np.linalg.norm(aldp.positions[:, [1, 4]] - aldp.positions[:, [3, 7]], axis=-1)
    np.testing.assert_allclose(lengths.mean(axis=0), [0.1335, 0.1533], atol=5e-4)


def test_without_forces():
    assert read_ensemble(DATA / "KG-small.h5").forces is None


@pytest.mark.parametrize("name", ["ALDP", "KS", "KG"])
def test_round_trip(tmp_path, name):
    ensemble = read_ensemble(DATA / f"{name}-small.h5")
    write_ensemble(tmp_path / "out.h5", ensemble)
    assert_same(read_ensemble(tmp_path / "out.h5"), ensemble)
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_positions_beyond_sixteen_bits(tmp_path):
    ensemble = small(positions=np.array([[[0, 0, 0], [-3.9, 40.0, 5.0]]]))
    write_ensemble(tmp_path / "out.h5", ensemble)
    assert_same(read_ensemble(tmp_path / "out.h5"), ensemble, positions=5.1e-5)


def test_forces_beyond_half_precision(tmp_path):
    ensemble = small(forces=np.full((2, 2, 3), 1e5, np.float32))
    write_ensemble(tmp_path / "out.h5", ensemble)
    assert_same(read_ensemble(tmp_path / "out.h5"), ensemble, positions=5.1e-5)


@pytest.mark.parametrize("walker", [[0, 0], [-300, 127], [128, 70000]])
def test_any_walker_number(tmp_path, walker):
    write_ensemble(tmp_path / "out.h5", small(walker=walker))
    assert read_ensemble(tmp_path / "out.h5").walker.tolist() == walker


def test_reads_positions_in_nanometres(copy):
    expected = read_ensemble(copy)
    with h5py.File(copy, "r+") as file:
        del file["positions"]
        file["positions"] = expected.positions
        file["positions"].attrs["unit"] = "nm"
    assert_same(read_ensemble(copy), expected)


def test_beads_of_the_backbone(aldp):
    beads = aldp.beads(BACKBONE)
    assert [str(a) for a in beads.atoms] == [
        "C of residue 1 (ACE)",
        "N of residue 2 (ALA)",
        "CA of residue 2 (ALA)",
        "C of residue 2 (ALA)",
        "N of residue 3 (NME)",
    ]
    np.testing.assert_array_equal(beads.positions, aldp.positions[:, BACKBONE])
    # DESIGN's range for the backbone, kJ/mol/nm.
    rms = np.sqrt((beads.forces**2).mean(axis=(0, 2)))
    assert ((rms > 650) & (rms < 950)).all()
    with pytest.raises(ScoreMDError, match="from 0 to 9"):
        aldp.beads([0, 10])


@pytest.mark.parametrize("frames", [[3, 1], slice(0, 4, 2), np.arange(1968) % 7 == 3])
def test_select(aldp, frames):
    chosen = aldp.select(frames)
    for key in ("positions", "forces", "walker", "potential_energy"):
        np.testing.assert_array_equal(getattr(chosen, key), getattr(aldp, key)[frames])


def test_select_no_frames(aldp):
    with pytest.raises(ScoreMDError, match="no frames"):
        aldp.select(slice(0, 0))


def test_topology_has_the_bonds_of_the_molecule(aldp):
    bonds = {tuple(sorted((b[0].index, b[1].index))) for b in aldp.topology().bonds}
    assert bonds == {(0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (4, 7), (5, 6), (5, 8), (8, 9)}
    # Every one of them is as long as a bond: the table and the positions agree.
    pairs = np.array(sorted(bonds))
    lengths = np.linalg.norm(aldp.positions[:, pairs[:, 0]] - aldp.positions[:, pairs[:, 1]], axis=-1)
    assert lengths.min() > 0.10
    assert lengths.max() < 0.18


def test_topology_of_given_bonds(aldp):
    beads = aldp.beads(BACKBONE)
    trajectory = beads.to_mdtraj([(0, 1), (1, 2)])
    assert [(a.index, b.index) for a, b in trajectory.topology.bonds] == [(0, 1), (1, 2)]
    assert [r.name for r in trajectory.topology.residues] == ["ACE", "ALA", "NME"]
    assert [r.n_atoms for r in trajectory.topology.residues] == [1, 3, 1]
    assert [a.element.symbol for a in trajectory.topology.atoms] == ["C", "N", "C", "C", "N"]
    np.testing.assert_array_equal(trajectory.xyz, beads.positions)
    for bond in [(0, 5), (-1, 2), (3, 3)]:
        with pytest.raises(ScoreMDError, match=re.escape(f"the bond {bond} must join")):
            beads.topology([bond])


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        ([Bead("N", "N", "ALA", 1), Bead("C", "C", "ACE", 0)], "order of their residues"),
        ([Bead("N", "N", "ALA", 0), Bead("N", "N", "ALA", 0)], "N of residue 1 .* twice"),
        ([Bead("N", "Qq", "ALA", 0)], "'Qq'.*not a chemical element"),
    ],
)
def test_topology_refuses(atoms, message):
    with pytest.raises(ScoreMDError, match=message):
        topology_of(atoms)


def test_mdtraj_there_and_back(tmp_path, aldp):
    trajectory = aldp.to_mdtraj()
    trajectory.save(str(tmp_path / "frames.dcd"))
    trajectory[0].save(str(tmp_path / "first.pdb"))
    loaded = mdtraj.load(str(tmp_path / "frames.dcd"), top=str(tmp_path / "first.pdb"))
    back = from_mdtraj(loaded, "ALDP", 300, aldp.forces, aldp.walker)
    centred = aldp.positions - aldp.positions.mean(axis=1, keepdims=True)
    expected = replace(aldp, positions=centred, potential_energy=None)
    assert_same(back, expected, positions=1e-6)


def test_mdtraj_molecule_broken_by_the_box(aldp):
    whole = aldp.select(slice(0, 50)).to_mdtraj()
    broken = mdtraj.Trajectory(
        np.mod(whole.xyz, 1.5),
        whole.topology,
        unitcell_lengths=np.full((50, 3), 1.5),
        unitcell_angles=np.full((50, 3), 90.0),
    )
    expected = whole.xyz - whole.xyz.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(from_mdtraj(broken, "ALDP", 300).positions, expected, atol=1e-5)
    broken.topology._bonds.clear()
    with pytest.raises(ScoreMDError, match="needs bonds"):
        from_mdtraj(broken, "ALDP", 300)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forces": np.zeros((2, 3, 3))}, r"forces has shape \(2, 3, 3\); \(2, 2, 3\)"),
        ({"walker": [0]}, r"walker has shape \(1,\)"),
        ({"potential_energy": [0.0, np.inf]}, "potential_energy .* not finite.* frame 1"),
        ({"forces": np.full((2, 2, 3), np.nan)}, "forces .* not finite.* frame 0"),
        ({"positions": np.zeros((2, 3, 3))}, r"positions have shape \(2, 3, 3\)"),
        ({"positions": np.zeros((0, 2, 3))}, "no frames"),
        ({"temperature": -3.0}, "positive number of kelvin"),
        ({"temperature": float("nan")}, "positive number of kelvin"),
    ],
)
def test_ensemble_refuses(changes, message):
    with pytest.raises(ScoreMDError, match=message):
        small(**changes)


def test_nan_positions_are_refused_before_writing():
    positions = np.zeros((3, 2, 3))
    positions[2, 1, 0] = np.nan
    with pytest.raises(ScoreMDError, match=r"positions .* not finite.* frame 2"):
        small(positions=positions)


def refused(path):
    """What the error says after the path that it must begin with, in one line."""
    with pytest.raises(ScoreMDError) as caught:
        read_ensemble(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_missing_file(tmp_path):
    assert "no such file" in refused(tmp_path / "nothing.h5")


def test_folder(tmp_path):
    assert "a folder" in refused(tmp_path)


def test_empty_file(tmp_path):
    (tmp_path / "empty.h5").touch()
    assert "not an intact HDF5 file" in refused(tmp_path / "empty.h5")


def test_text_file(tmp_path):
    (tmp_path / "text.h5").write_text("ATOM      1  N   ALA A   1\n" * 100)
    assert "not an intact HDF5 file" in refused(tmp_path / "text.h5")


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.9, 0.999])
def test_truncated_file(copy, fraction):
    os.truncate(copy, int(copy.stat().st_size * fraction))
    assert "not an intact HDF5 file" in refused(copy)


def test_damaged_chunk(copy):
    with h5py.File(copy) as file:
        chunk = file["positions"].id.get_chunk_info(0)
    content = bytearray(copy.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    copy.write_bytes(content)
    assert "not an intact HDF5 file" in refused(copy)


@pytest.mark.parametrize("key", ["positions", "atom_names", "elements", "residue_names", "residue_index"])
def test_missing_dataset(copy, key):
    with h5py.File(copy, "r+") as file:
        del file[key]
    assert f"lacks {key}" in refused(copy)


@pytest.mark.parametrize("key", ["name", "temperature_K"])
def test_missing_attribute(copy, key):
    with h5py.File(copy, "r+") as file:
        del file.attrs[key]
    assert f"lacks {key}" in refused(copy)


def test_hdf5_of_another_format(tmp_path):
    with h5py.File(tmp_path / "trajectory.h5", "w") as file:
        file["coordinates"] = np.zeros((5, 16, 3))
    assert "lacks positions, atom_names" in refused(tmp_path / "trajectory.h5")


def rewrite(path, key, values, unit=None):
    with h5py.File(path, "r+") as file:
        if key in file:
            del file[key]
        file[key] = values
        if unit is not None:
            file[key].attrs["unit"] = unit


def test_file_with_nan(copy):
    positions = read_ensemble(copy).positions.copy()
    positions[17, 3, 1] = np.nan
    rewrite(copy, "positions", positions, "nm")
    assert "not finite (NaN or infinite), first in frame 17" in refused(copy)


def test_file_without_frames(copy):
    rewrite(copy, "positions", np.zeros((0, 16, 3), np.int16), "1e-4 nm")
    assert "no frames" in refused(copy)


@pytest.mark.parametrize("unit", ["angstrom", None])
def test_file_of_another_unit(copy, unit):
    rewrite(copy, "positions", np.zeros((200, 16, 3)), unit)
    assert "positions have the unit" in refused(copy)


@pytest.mark.parametrize("shape", [(200, 15, 3), (199, 16, 3), (200, 16), (200, 3, 16)])
def test_file_with_forces_of_another_shape(copy, shape):
    rewrite(copy, "forces", np.zeros(shape, np.float16))
    assert "forces has shape" in refused(copy)


def test_file_with_positions_of_another_shape(copy):
    rewrite(copy, "positions", np.zeros((200, 15, 3), np.int16), "1e-4 nm")
    assert "positions have shape" in refused(copy)


def test_file_with_uneven_atom_columns(copy):
    rewrite(copy, "elements", np.array([b"C"] * 15))
    assert "one entry per atom" in refused(copy)


@pytest.mark.parametrize("key", ["positions", "forces", "residue_index"])
def test_file_with_text_for_numbers(copy, key):
    rewrite(copy, key, np.array([b"a"] * 16), "1e-4 nm")
    assert f"{key} must hold numbers" in refused(copy)


def test_file_with_numbers_for_text(copy):
    rewrite(copy, "atom_names", np.zeros((2, 2)))
    assert "one entry per atom" in refused(copy)


@pytest.mark.parametrize("temperature", ["warm", [300.0, 310.0]])
def test_file_with_a_temperature_that_is_none(copy, temperature):
    with h5py.File(copy, "r+") as file:
        file.attrs["temperature_K"] = temperature
    assert "temperature_K must be a number" in refused(copy)


def test_text_of_fixed_length(copy):
    expected = read_ensemble(copy)
    with h5py.File(copy, "r+") as file:
        file.attrs["name"] = np.bytes_("KS")
        file["positions"].attrs["unit"] = np.bytes_("1e-4 nm")
    assert_same(read_ensemble(copy), expected)


def test_write_to_a_folder(tmp_path):
    with pytest.raises(ScoreMDError, match="a folder"):
        write_ensemble(tmp_path, small())


def test_write_into_a_missing_folder(tmp_path):
    with pytest.raises(ScoreMDError, match="there is no folder"):
        write_ensemble(tmp_path / "none" / "out.h5", small())


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.h5"
    write_ensemble(path, small())
    before = path.read_bytes()

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", full_disk)
    with pytest.raises(ScoreMDError, match="No space left on device"):
        write_ensemble(path, small(name="other"))
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_residue_index_as_a_column_is_read(data_copy):
    path = data_copy / "KS-small.h5"
    expected = read_ensemble(path).atoms
    with h5py.File(path, "r+") as file:
        column = file["residue_index"][()][:, None]
        del file["residue_index"]
        file["residue_index"] = column
    assert read_ensemble(path).atoms == expected


@pytest.mark.parametrize("key", ["positions", "walker", "residue_index"])
def test_datasets_without_content(copy, key):
    rewrite(copy, key, h5py.Empty("f4"), "nm")
    refused(copy)


@pytest.mark.parametrize("key", ["walker", "residue_index"])
def test_numbers_of_walkers_and_residues_are_integers(copy, key):
    ensemble = read_ensemble(copy)
    values = {"walker": ensemble.walker, "residue_index": np.array([atom.residue_index for atom in ensemble.atoms])}[key]
    rewrite(copy, key, values + 0.5)
    assert f"{key} must hold integers, not float64" in refused(copy)
