import json
from functools import partial
from html import escape

import h5py
import pytest

from scoremd import bound_model, calibration, emulation
from scoremd.calibration import CalibrationSettings, calibrate
from scoremd.emulation import emulate
from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField
from scoremd.simulation.engine import SimulationSettings
from scoremd.systems import load_system
from tests.models import alanine_dipeptide

SYSTEM = load_system("ALDP")


def test_every_setting_reaches_the_simulation(tmp_path, monkeypatch):
    monkeypatch.setattr(bound_model, "SAMPLING_CALLS", 3)
    monkeypatch.setattr(bound_model, "SAMPLING_BATCH", 16)
    asked = {}

    class StoppedError(Exception):
        pass

    def stop(_self, _system, **given):
        asked.update(given)
        raise StoppedError

    monkeypatch.setattr(ForceField, "simulate", stop)
    settings = SimulationSettings(0.001, 4, 5, time_step_fs=1.5, friction=7.0, frame_interval_ps=0.3)
    with pytest.raises(StoppedError):
        emulate(alanine_dipeptide(), SYSTEM, tmp_path / "out", samples=16, settings=settings, command="test")
    for name, value in vars(settings).items():
        assert asked[name] == value


SHORT = SimulationSettings(4e-5, 16, 3, time_step_fs=0.2, frame_interval_ps=0.002)


@pytest.fixture
def few(monkeypatch):
    """Settings of calibrations that cost little."""
    cheap = partial(CalibrationSettings, replicas=4, ps=0.02)
    monkeypatch.setattr(emulation, "CalibrationSettings", cheap)
    return cheap(60, seed=SHORT.seed)


@pytest.mark.usefixtures("short", "small_steps")
def test_calibrated_forces_simulate_if_asked_for(few, tmp_path):
    force_field, system = alanine_dipeptide(), SYSTEM
    emulate(force_field, system, tmp_path / "a", samples=60, settings=SHORT, command="test", calibrated=True)
    forces = calibrate(force_field, system, few)  # by samples that are drawn again
    assert ForceField.load(tmp_path / "a" / "forces").hash == forces.hash
    assert forces.hash in h5py.File(tmp_path / "a" / "simulation.h5").attrs["forcefield"]
    assert force_field.hash in h5py.File(tmp_path / "a" / "samples.h5").attrs["forcefield"]
    report, numbers = ((tmp_path / "a" / name).read_text() for name in ("report.html", "comparison.json"))
    remark = json.loads(numbers)["remark"]
    assert "calibrated by 60 samples: where simulation and samples agree, that is no evidence" in remark
    assert escape(remark) in report
    population = forces.description.trained["calibrated"]["populations"]["phi > 0"]
    assert f"phi > 0 {population['forces']:.3f} ({population['samples']:.3f})" in remark

    # a model that was calibrated before says so without being asked to
    emulate(forces, system, tmp_path / "c", samples=60, settings=SHORT, command="test")
    assert json.loads((tmp_path / "c" / "comparison.json").read_text())["remark"] == remark

    emulate(force_field, system, tmp_path / "b", samples=60, settings=SHORT, command="test")
    assert not (tmp_path / "b" / "forces").exists()
    assert force_field.hash in h5py.File(tmp_path / "b" / "simulation.h5").attrs["forcefield"]
    assert "calibrated" not in (tmp_path / "b" / "report.html").read_text()
    assert json.loads((tmp_path / "b" / "comparison.json").read_text())["remark"] == ""
    with pytest.raises(ScoreMDError, match="other settings"):
        emulate(force_field, system, tmp_path / "b", samples=60, settings=SHORT, command="test", calibrated=True)


@pytest.mark.usefixtures("short", "small_steps", "few")
def test_a_calibration_that_was_finished_is_kept(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    arguments = {"samples": 60, "settings": SHORT, "command": "test", "calibrated": True}
    with monkeypatch.context() as patch:
        patch.setattr(emulation, "_simulation", stop)
        with pytest.raises(KeyboardInterrupt):
            emulate(alanine_dipeptide(), SYSTEM, tmp_path / "out", **arguments)
    monkeypatch.setattr(calibration, "_calibrated", stop)
    emulate(alanine_dipeptide(), SYSTEM, tmp_path / "out", **arguments)
    assert (tmp_path / "out" / "report.html").exists()


def test_a_native_structure_without_contacts_is_refused_before_anything_is_drawn(tmp_path):
    model = alanine_dipeptide()
    system = model.find("ALDP").model_copy(update={"native": tuple((0.5 * k, 0.0, 0.0) for k in range(5))})
    with pytest.raises(ScoreMDError, match="the native structure of alanine-dipeptide has no contacts"):
        emulate(model, system, tmp_path / "out", samples=20, settings=SimulationSettings(0.001, 2), command="test")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_calibrated_is_refused_before_anything_is_drawn(tmp_path):
    model = alanine_dipeptide()
    blind = model.description.model_copy(update={"torsions": (((0, 1, 2, 4),),)})
    arguments = {"samples": 60, "settings": SHORT, "command": "test", "calibrated": True}
    with pytest.raises(ScoreMDError, match="test cannot be calibrated for alanine-dipeptide: its local term sees no phi and psi"):
        emulate(ForceField(blind, [blind.make_network()]), SYSTEM, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_compared_is_refused_before_anything_is_drawn(tmp_path):
    settings = SimulationSettings(0.001, 4, 5)
    for changes, message in (
        ({"collective_variables": {}, "reference": None}, r"has no phi and psi: .* more than 10 frames .*\(simulation 1\)"),
        ({"reference": "none.h5"}, "no such file"),
    ):
        with pytest.raises(ScoreMDError, match=message):
            emulate(alanine_dipeptide(), SYSTEM.model_copy(update=changes), tmp_path / "out", samples=16, settings=settings, command="test")
    assert not list((tmp_path / "out").glob("*.h5"))
