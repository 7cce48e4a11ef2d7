import numpy as np
import openmm
import pytest
import torch

from scoremd import calibration
from scoremd.analysis.basins import RAMACHANDRAN
from scoremd.calibration import CalibrationSettings, bias_between, calibrate
from scoremd.collective_variables import phi_psi
from scoremd.errors import ScoreMDError
from scoremd.flattening import bias, phi_psi_torsions, series_of_forces, simulate_flattened, simulation_settings, with_bias
from scoremd.force_field import ForceField
from scoremd.simulation import engine
from scoremd.systems import load_system
from scoremd.units import thermal_energy
from tests.models import alanine_dipeptide

FEW = CalibrationSettings(samples=8, replicas=2, ps=0.02)
ANGLES = torch.linspace(-torch.pi, torch.pi, 2001, dtype=torch.float64)[:-1]
SERIES = torch.stack([f(k * ANGLES) for k in (1, 2, 3) for f in (torch.cos, torch.sin)], 1)


def drawn(log_density, n, seed=0):
    """Series of n angles of this density on `ANGLES`."""
    chosen = np.random.default_rng(seed).choice(len(ANGLES), n, p=torch.softmax(log_density, 0).numpy())
    return SERIES[chosen]


def test_the_bias_between_two_densities_is_the_logarithm_of_their_ratio(monkeypatch):
    monkeypatch.setattr(calibration, "_BELIEF", 1e-6)
    of_forces = SERIES @ torch.tensor([0.9, -0.4, 0.5, 0.2, -0.3, 0.1], dtype=torch.float64)
    expected = torch.tensor([0.4, -0.3, 0.1, 0.2, -0.1, 0.05], dtype=torch.float64)
    # the simulation is spread evenly; its frames count by the density of the forces
    found = bias_between(drawn(of_forces - SERIES @ expected, 400_000), SERIES, of_forces)
    assert found == pytest.approx(expected, abs=0.02)


def test_what_agrees_stays_and_the_forces_are_believed_to_a_share(monkeypatch):
    even = torch.zeros(len(ANGLES), dtype=torch.float64)
    assert bias_between(SERIES, SERIES, even).abs().max() < 1e-6
    samples = drawn(SERIES[:, 0], 100_000)
    found, usual = {}, calibration._BELIEF
    for belief in (1e-6, usual, 10.0):
        monkeypatch.setattr(calibration, "_BELIEF", belief)
        found[belief] = float(bias_between(samples, SERIES, even)[0])
    # near c = 0 the cosine's variance is 1/2, so that c is its mean by 1/2 + r
    assert found[10.0] == pytest.approx(-float(samples[:, 0].mean()) / 10.5, rel=0.05)
    assert found[1e-6] == pytest.approx(-1, abs=0.02)
    assert -0.9 < found[usual] < -0.7


@pytest.fixture
def model():
    return alanine_dipeptide(time_ranges=((0.0, 0.006), (0.006, 1.0)))


@pytest.mark.usefixtures("short", "small_steps")
def test_forces_of_phi_and_psi_are_changed_and_nothing_else(model, tmp_path):
    system = load_system("ALDP")
    done = calibrate(model, system, FEW, tmp_path / "calibrated")
    assert done.description.systems == (system.name,)
    note = done.description.trained["calibrated"]
    assert note == {"molecule": system.name, "model": model.hash, **vars(FEW), "populations": note["populations"]}
    assert ForceField.load(tmp_path / "calibrated").hash == done.hash != model.hash
    coefficients = done.experts[0].torsion.bias
    of_torsion = coefficients[0].reshape(-1, 6).abs().amax(1)
    assert of_torsion.nonzero().flatten().tolist() == [k for _, k in phi_psi_torsions(model.description, system)]
    assert not done.experts[1].torsion.bias.any()
    for expert, old in zip(done.experts, model.experts, strict=True):
        assert all(torch.equal(expert.state_dict()[name], value) for name, value in old.state_dict().items())
    positions = torch.from_numpy(system.reference_ensemble().positions[:20])
    (energy, forces), (before, old_forces) = (f.bind(system).forces()(positions) for f in (done, model))
    added = bias(model, system, model.bind(system).scaled(positions), coefficients) * thermal_energy(300)
    assert (energy - before).numpy() == pytest.approx(added.numpy(), abs=1e-2)
    assert (forces - old_forces).abs().max() > 0.1
    drawn = done.sample(system, 4)
    assert np.isfinite(drawn.xyz).all()
    context = openmm.Context(
        done.create_openmm(system, temperature=300)[0], openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions[0].numpy().astype(float))
    in_openmm = context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(openmm.unit.kilojoules_per_mole)
    assert in_openmm == pytest.approx(float(energy[0]), abs=1e-2)


@pytest.mark.usefixtures("short", "small_steps")
def test_populations_before_are_noted(model):
    system, settings = load_system("ALDP"), CalibrationSettings(samples=200, replicas=60, ps=0.02)
    drawn = model.sample(system, settings.samples, settings.seed)
    noted = calibrate(model, system, settings, samples=drawn).description.trained["calibrated"]["populations"]
    run = simulate_flattened(model, system, drawn, simulation_settings(settings.replicas, settings.ps, settings.seed))
    weights = np.exp(run.log_weights.double().numpy())
    for name, inside in RAMACHANDRAN.items():
        assert noted[name]["samples"] == pytest.approx(inside(phi_psi(drawn, system)).mean(), abs=1e-6)
        share = np.average(inside(phi_psi(run.trajectory, system)), weights=weights)
        assert noted[name]["forces"] == pytest.approx(share, abs=1e-5)
    assert 0.05 < noted["phi > 0"]["forces"] < 0.95


@pytest.mark.usefixtures("short", "small_steps")
def test_the_same_settings_give_the_same_model_and_others_are_refused_in_its_folder(model, tmp_path):
    system, folder = load_system("ALDP"), tmp_path / "calibrated"
    first = calibrate(model, system, FEW, folder)
    assert calibrate(model, system, FEW, folder).hash == first.hash == calibrate(model, system, FEW).hash
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ScoreMDError, match="other settings"):
        calibrate(model, system, CalibrationSettings(8, 2, 0.02, seed=1), folder)
    with pytest.raises(ScoreMDError, match="test-alanine-dipeptide is calibrated already"):
        calibrate(first, system, FEW, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.usefixtures("small_steps")
def test_what_cannot_be_calibrated_is_refused_before_anything_is_made(model, tmp_path):
    system, folder = load_system("ALDP"), tmp_path / "calibrated"
    blind = model.description.model_copy(update={"torsions": (((0, 1, 2, 4),),)})
    unnamed = system.model_copy(update={"collective_variables": {}})
    for force_field, molecule, settings, message in (
        (ForceField(blind, [blind.make_network() for _ in range(2)]), system, FEW, "sees no phi and psi"),
        (model, unnamed, FEW, "sees no phi and psi"),
        (model, load_system("KS"), FEW, "does not cover KS"),
        (model, system, CalibrationSettings(8, 0, 0.02), "number of replicas"),
        (model, system, CalibrationSettings(8, 2, 0.0), "must be"),
        (model, system, CalibrationSettings(1, 2, 0.02), "number of samples must be from 2"),
        (model, system, CalibrationSettings(10**400, 2, 0.02), "number of samples must be from 2"),
    ):
        with pytest.raises(ScoreMDError, match=message):
            calibrate(force_field, molecule, settings, folder)
        assert not folder.exists()
    with pytest.raises(ScoreMDError, match="9 samples are given, not the 8 of the settings"):
        calibrate(model, system, FEW, folder, system.reference_ensemble().to_mdtraj(system.bonds)[:9])
    assert not folder.exists()


@pytest.mark.usefixtures("short", "small_steps")
def test_replicas_that_blow_up_are_counted(model, caplog, monkeypatch):
    monkeypatch.setattr(engine, "BOND_STRETCH", 1.4)
    calibrate(model, load_system("ALDP"), CalibrationSettings(samples=50, replicas=40, ps=0.02))
    assert "of 40 replicas blew up" in caplog.text


@pytest.mark.slow
@pytest.mark.compiled
def test_forces_with_a_wrong_weight_of_basins_are_mended(monkeypatch):
    monkeypatch.setattr(calibration, "_BELIEF", 1e-3)
    force_field, system = ForceField.load("alanine-dipeptide"), load_system("ALDP")
    psi = phi_psi_torsions(force_field.description, system)[-1]
    wrong = torch.zeros_like(series_of_forces(force_field, system, torch.zeros(1, 5, 3))[0][0])
    wrong[psi[0], 6 * psi[1]] = 1.0  # cos psi
    settings = CalibrationSettings(2048, 256)
    calibrated = calibrate(with_bias(force_field, wrong), system, settings).experts[0].torsion.bias
    right = calibrate(force_field, system, settings).experts[0].torsion.bias
    x = force_field.bind(system).scaled(torch.from_numpy(system.reference_ensemble().positions))
    # coefficients are ill determined where there are hardly any frames, their energy is not where there are
    left, before = (float(bias(force_field, system, x, c - right).std()) for c in (calibrated, wrong))
    assert left < 0.3 * before
