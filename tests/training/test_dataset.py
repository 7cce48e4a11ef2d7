"""Ensembles of a family in the slots of one model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scoremd.data import read_ensemble, write_ensemble
from scoremd.diffusion.space import Space
from scoremd.errors import ScoreMDError
from scoremd.systems import find_system, load_system
from scoremd.training.config import TrainingConfig
from scoremd.training.dataset import read_ensembles, training_set
from scoremd.training.trainer import describe
from scoremd.units import thermal_energy
from tests.models import SMALL, dipeptide_folder

FAMILY = find_system("dipeptides")
#: Slot of CB of the second residue, which KG lacks.
CB = 7


def description():
    config = TrainingConfig(name="t", title="t", system="dipeptides", data=Path(), output=Path(), steps=1, network=SMALL)
    return describe(config, FAMILY)


@pytest.fixture
def folder(data, tmp_path):
    return dipeptide_folder(data, tmp_path / "peptides")


@pytest.fixture
def samples(folder):
    return training_set(read_ensembles(FAMILY, folder), description(), use_forces=True)


def test_the_model_of_a_family_has_all_beads_residues_and_torsions():
    d = description()
    assert d.systems == ("dipeptides",)
    assert d.slots == FAMILY.beads
    assert sorted(d.residue_names) == sorted(FAMILY.residues.values())
    assert d.torsions == (FAMILY.torsions,)
    assert d.temperature == 310.0
    whole, glycine = (d.molecule(load_system(name)) for name in ("KS", "KG"))
    assert whole.bead.tolist() == [list(range(1, 11))]
    assert glycine.bead.tolist() == [[0 if k == CB else k + 1 for k in range(10)]]
    known = [0, *(d.residue_names.index(name) + 1 for name in ("LYS", "SER", "GLY"))]
    assert whole.residue.tolist() == [[known[1]] * 5 + [known[2]] * 5]
    assert glycine.residue.tolist() == [[known[1]] * 5 + [known[3] if k != CB else 0 for k in range(5, 10)]]
    differ = whole.pair != glycine.pair
    assert int(differ.sum()) == 10  # CB with nine others, one of them twice
    assert (glycine.pair[differ] == 0).all()


def test_a_folder_is_read_in_the_order_of_its_names(folder):
    assert [(system.name, ensemble.name, ensemble.n_frames) for system, ensemble in read_ensembles(FAMILY, folder)] == [
        ("KG", "KG", 40),
        ("KS", "KS", 80),
    ]
    ((system, ensemble),) = read_ensembles(load_system("KS"), folder / "KS.h5")
    assert (system.name, ensemble.n_frames) == ("KS", 80)


def test_every_frame_is_in_the_slots_of_its_molecule(samples, folder):
    assert samples.index.tolist() == [0] * 40 + [1] * 80
    assert samples.positions.dtype == samples.forces.dtype == torch.float32
    assert samples.positions.shape == samples.forces.shape == (120, 10, 3)
    for q in (samples.positions, samples.forces):
        assert (q[:40, CB] == 0).all()
        assert (q[40:] != 0).all()
        torch.testing.assert_close(q.sum(1), torch.zeros(120, 3), rtol=0, atol=1e-3)
    ensemble, system = read_ensemble(folder / "KG.h5"), load_system("KG")
    beads = ensemble.beads(system.bead_indices(ensemble))
    slots = [k for k in range(10) if k != CB]
    expected = 6 * (beads.positions - beads.positions.mean(1, keepdims=True))
    np.testing.assert_allclose(samples.positions[:40, slots], expected, atol=1e-6)
    np.testing.assert_allclose(samples.forces[:40, slots], beads.forces / (6 * thermal_energy(310.0)), rtol=1e-5)


def test_the_mean_square_force_counts_each_molecule_s_own_degrees_of_freedom(samples):
    freedom = np.where(samples.index == 0, 24, 27)
    assert samples.force_square == pytest.approx(np.mean((samples.forces.numpy() ** 2).sum((1, 2)) / freedom), rel=1e-5)


@pytest.mark.parametrize("kind", ["draw", "draw_flat"])
def test_frames_are_drawn_with_their_molecules(samples, kind):
    i = getattr(samples, kind)(4000, torch.Generator().manual_seed(0))
    x, forces, molecule = samples.positions[i], samples.forces[i], samples.molecules_of(i)
    assert molecule.bead.shape == (4000, 10)
    assert torch.equal(molecule.mask(x.dtype), (x != 0).any(-1).float())
    assert torch.equal(molecule.mask(x.dtype), (forces != 0).any(-1).float())
    torch.testing.assert_close(Space(molecule.mask(x.dtype)).project(x), x)
    glycine = float((molecule.bead[:, CB] == 0).float().mean())
    # all frames alike, or all molecules alike
    assert glycine == pytest.approx({"draw": 1 / 3, "draw_flat": 1 / 2}[kind], abs=0.03)


@pytest.mark.parametrize("molecule", [0, 1])
def test_frames_beside_others_are_of_their_molecule_and_hold_them(samples, molecule):
    own = torch.nonzero(samples.index == molecule)[:, 0]
    frames = samples.positions[own]
    everything = samples.beside(own[[3, 5]], 1000, torch.Generator())
    assert torch.equal(everything, frames)
    few = samples.beside(own[[3, 5]], 9, torch.Generator().manual_seed(0))
    assert len(few) == 9
    assert torch.equal(few[:2], frames[[3, 5]])
    assert all((frames == frame).all((1, 2)).any() for frame in few)
    assert len(samples.beside(own[:12], 9, torch.Generator().manual_seed(0))) == 12


def test_forces_are_asked_for(data, folder):
    write_ensemble(folder / "KG.h5", read_ensemble(data / "KG-small.h5"))
    with pytest.raises(ScoreMDError, match="KG has no forces"):
        training_set(read_ensembles(FAMILY, folder), description(), use_forces=True)
    assert training_set(read_ensembles(FAMILY, folder), description(), use_forces=False).forces is None


def refused(folder, message):
    with pytest.raises(ScoreMDError, match=message) as caught:
        training_set(read_ensembles(FAMILY, folder), description(), use_forces=False)
    assert "\n" not in str(caught.value)


def test_what_is_no_folder_of_ensembles_is_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "none", folder / "KS.h5"):
        refused(path, f"{path}: must be a folder of ensembles of dipeptides, each a file named by its sequence")
    with pytest.raises(ScoreMDError, match="a folder, where an HDF5 file is needed"):
        list(read_ensembles(load_system("KS"), folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AG", "KS is not AG: its residues are LYS-SER, where ALA-GLY is needed"),
        ("notes", r"notes\.h5: its name is not the sequence of any member of dipeptides"),
        ("KB", "'KB' is no member of dipeptides: B is none of its residues"),
    ],
)
def test_files_of_other_molecules_are_refused(folder, name, message):
    (folder / "KS.h5").rename(folder / f"{name}.h5")
    refused(folder, message)


def test_a_file_of_another_temperature_is_refused(folder):
    write_ensemble(folder / "KS.h5", replace(read_ensemble(folder / "KS.h5"), temperature=300.0))
    refused(folder, r"at 300\.0 K, but KS is at 310\.0 K")
