import random
from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm import app, unit

from scoremd import reference
from scoremd.data import read_ensemble
from scoremd.errors import ScoreMDError
from scoremd.peptide_builder import build_peptide
from scoremd.reference import Mixing, ReferenceSettings, read_structure, run_reference, solvated
from scoremd.systems import load_system
from scoremd.units import thermal_energy

SHORT = ReferenceSettings(300.0, ns=2e-4, replicas=3, exchange_ps=0.02, seed=3)
ALDP = build_peptide(["ACE", "ALA", "NME"])


def energy_and_forces(system, positions):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def test_fast_obc2_is_that_of_the_force_field():
    topology, positions, system = solvated(*build_peptide(["LYS", "SER"]), "obc2")
    slow = app.ForceField("amber14-all.xml", "implicit/obc2.xml").createSystem(topology, nonbondedMethod=app.NoCutoff)
    fast, custom = energy_and_forces(system, positions), energy_and_forces(slow, positions)
    assert fast[0] == pytest.approx(custom[0], abs=0.01)
    np.testing.assert_allclose(fast[1], custom[1], atol=0.05 + 1e-4 * np.abs(custom[1]).max())
    assert not any(isinstance(force, openmm.CustomGBForce) for force in system.getForces())
    assert system.getNumConstraints() == 0


def test_the_ensemble_has_what_a_model_is_trained_on(tmp_path):
    ensemble, mixing = run_reference("ALDP", ALDP, tmp_path / "ALDP.h5", SHORT)
    assert ensemble.n_frames == 9  # ten, without the first tenth
    assert mixing.states.shape == (10, 3)
    assert (np.sort(mixing.states, axis=1) == [0, 1, 2]).all()
    np.testing.assert_array_equal(ensemble.walker, mixing.states.argmin(1)[1:])
    read = read_ensemble(tmp_path / "ALDP.h5")
    assert load_system("ALDP").beads_of(replace(read, forces=None)).positions.shape == (9, 5, 3)
    with pytest.raises(ScoreMDError, match="forces of 9 frames are too few to gather those of 17 atoms onto beads: 114 are needed"):
        load_system("ALDP").beads_of(read)
    assert not (tmp_path / "ALDP.h5.part").exists()
    _, _, system = solvated(*ALDP, "obc2")
    for k in (0, 8):
        energy, forces = energy_and_forces(system, ensemble.positions[k].astype(float))
        assert ensemble.potential_energy[k] == pytest.approx(energy, abs=0.05)
        np.testing.assert_allclose(ensemble.forces[k], forces, atol=2e-3 * np.abs(forces).max())


def test_frames_are_of_the_replica_at_the_lowest_temperature():
    topology, positions, system = solvated(*ALDP, "obc2")
    replicas = reference._Replicas(topology, system, replace(SHORT, exchange_ps=0.1))
    replicas.start(positions)
    lowest = []
    for _ in range(12):
        frame = replicas.advance()[: 3 * topology.getNumAtoms()].reshape(-1, 3)
        lowest.append(replicas.states[-1].index(0))
        own = replicas.sampler.replicaConformation[lowest[-1]].getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        np.testing.assert_allclose(frame, own, atol=1e-6)
    assert len(set(lowest)) > 1


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    whole, _ = run_reference("ALDP", ALDP, tmp_path / "whole.h5", SHORT)
    advance = reference._Replicas.advance
    random.seed(7)
    expected = random.random()

    def dying(self):
        if self.done == 4:
            raise KeyboardInterrupt
        return advance(self)

    random.seed(7)
    with monkeypatch.context() as patch:
        patch.setattr(reference._Replicas, "advance", dying)
        with pytest.raises(KeyboardInterrupt):
            run_reference("ALDP", ALDP, tmp_path / "parts.h5", SHORT)
    assert random.random() == expected  # the run left the numbers of the process alone
    assert not (tmp_path / "parts.h5").exists()
    with pytest.raises(ScoreMDError, match="is of an interrupted run with other settings"):
        run_reference("ALDP", ALDP, tmp_path / "parts.h5", replace(SHORT, seed=4))
    parts, _ = run_reference("ALDP", ALDP, tmp_path / "parts.h5", SHORT)
    np.testing.assert_array_equal(whole.positions, parts.positions)
    np.testing.assert_array_equal(whole.forces, parts.forces)
    np.testing.assert_array_equal(whole.walker, parts.walker)


def test_an_interrupted_run_may_be_ended_earlier(tmp_path, monkeypatch):
    advance = reference._Replicas.advance

    def dying(self):
        if self.done == 6:
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(reference._Replicas, "advance", dying)
    with pytest.raises(KeyboardInterrupt):
        run_reference("ALDP", ALDP, tmp_path / "x.h5", SHORT)
    ensemble, mixing = run_reference("ALDP", ALDP, tmp_path / "x.h5", replace(SHORT, ns=6e-5))
    assert len(mixing.states) == 6
    assert ensemble.n_frames == 6


def test_seeds(tmp_path):
    one, two, other = (
        run_reference("ALDP", ALDP, tmp_path / f"{k}.h5", replace(SHORT, seed=seed))[0].positions for k, seed in enumerate((0, 0, 1))
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.slow
def test_energies_at_two_temperatures_are_boltzmann_distributed(tmp_path):
    """The ratio of the densities of the energy at two temperatures is exp of minus its difference in 1 / kT, up to a constant."""
    ensembles = [
        run_reference("ALDP", ALDP, tmp_path / f"{t}.h5", ReferenceSettings(t, ns=0.5, replicas=4, exchange_ps=0.25, hottest=500.0))[0]
        for t in (300.0, 330.0)
    ]
    low, high = (e.potential_energy.astype(float) for e in ensembles)
    edges = np.quantile(np.concatenate([low, high]), np.linspace(0.1, 0.9, 9))
    counts = np.stack([np.histogram(q, edges)[0] for q in (low, high)])
    centres = (edges[1:] + edges[:-1]) / 2
    slope = np.polyfit(centres, np.log(counts[0] / counts[1]), 1, w=1 / np.sqrt((1 / counts).sum(0)))[0]
    expected = 1 / thermal_energy(330.0) - 1 / thermal_energy(300.0)
    assert slope == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("seed", [0, 1])
def test_blow_ups_end_with_one_line(tmp_path, seed):
    with pytest.raises(ScoreMDError, match="the simulation blew up"):
        run_reference("ALDP", ALDP, tmp_path / "x.h5", replace(SHORT, ns=0.02, exchange_ps=0.1, time_step_fs=10.0, seed=seed))
    assert not (tmp_path / "x.h5").exists()


def test_atoms_in_one_place_are_refused(tmp_path):
    topology, positions = ALDP
    with pytest.raises(ScoreMDError, match=r"cannot describe the structure|blew up"):
        run_reference("x", (topology, [openmm.Vec3(0, 0, 0)] * len(positions) * unit.nanometer), tmp_path / "x.h5", SHORT)


def test_mixing_counts_trips_there_and_back():
    states = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1], [2, 0, 1], [1, 2, 0], [0, 2, 1]])
    mixing = Mixing(states)
    # the first went 0 - 2 - 0; the second 0 - 2; the third 2 - 0
    assert mixing.round_trips == 1
    assert mixing.acceptance == pytest.approx(9 / 15)


def test_structures_and_what_is_refused(tmp_path):
    topology, positions = build_peptide(["ALA", "GLY"])
    with (tmp_path / "ag.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, positions, file)
    ensemble, _ = run_reference("AG", read_structure(tmp_path / "ag.pdb"), tmp_path / "AG.h5", SHORT)
    assert {a.residue_name for a in ensemble.atoms} == {"ALA", "GLY"}
    (tmp_path / "text.pdb").write_text("hello")
    with pytest.raises(ScoreMDError, match=r"text.pdb: cannot be read as a PDB file|cannot describe"):
        run_reference("x", read_structure(tmp_path / "text.pdb"), tmp_path / "x.h5", SHORT)
    strange = app.Topology()
    residue = strange.addResidue("XYZ", strange.addChain())
    strange.addAtom("Q", app.element.carbon, residue)
    with pytest.raises(ScoreMDError, match="Amber ff14SB cannot describe the structure"):
        run_reference("x", (strange, [openmm.Vec3(0, 0, 0)] * unit.nanometer), tmp_path / "x.h5", SHORT)
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"temperature": 700.0}, "must be positive and below the hottest, 600 K, not 700 K"),
        ({"replicas": 1}, "2 to 1000 replicas"),
        ({"ns": -1.0}, "ns must be positive"),
        ({"ns": 1e-5}, "ns must be at least twice the time between exchanges"),
        ({"exchange_ps": 0.001}, "exchange_ps must be at least a time step"),
        ({"solvent": "water"}, "the solvent must be obc2 or gbn2, not water"),
        ({"platform": "Abacus"}, "OpenMM has no platform Abacus here, only Reference"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, changes, match):
    with pytest.raises(ScoreMDError, match=match):
        run_reference("ALDP", ALDP, tmp_path / "x.h5", replace(SHORT, **changes))
    assert list(tmp_path.iterdir()) == []
