import mdtraj
import numpy as np
import pytest

from scoremd import bound_model
from scoremd.emulation import emulate, equilibrated
from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField
from scoremd.simulation.engine import SimulationSettings
from scoremd.systems import load_system
from tests.models import alanine_dipeptide

SYSTEM = load_system("ALDP")


def numbered(n):
    """Frames that say which they are by the first coordinate."""
    xyz = np.zeros((n, 5, 3), np.float32)
    xyz[:, 0, 0] = np.arange(n)
    return mdtraj.Trajectory(xyz, SYSTEM.topology())


def test_the_same_stretch_of_time_is_dropped_from_every_replica():
    replicas = np.repeat([0, 1, 2], [30, 8, 2])  # 1 and 2 were lost
    kept, groups = equilibrated(numbered(40), replicas)
    assert kept.xyz[:, 0, 0].tolist() == [*range(3, 30), *range(33, 38)]
    assert groups.tolist() == [0] * 27 + [1] * 5


def test_a_single_trajectory_loses_its_first_tenth():
    kept, groups = equilibrated(numbered(40), None)
    assert kept.xyz[0, 0, 0] == 4
    assert groups is None


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


def test_the_report_says_that_forces_are_calibrated(tmp_path, monkeypatch):
    monkeypatch.setattr(bound_model, "SAMPLING_CALLS", 3)
    monkeypatch.setattr(bound_model, "SAMPLING_BATCH", 16)
    force_field = alanine_dipeptide()
    changed = force_field.description.model_copy(update={"trained": {"calibrated": {"samples": 77}}})
    settings = SimulationSettings(4e-5, 16, time_step_fs=0.2, frame_interval_ps=0.002)
    for name, model in (("plain", force_field), ("calibrated", ForceField(changed, force_field.experts))):
        emulate(model, SYSTEM, tmp_path / name, samples=60, settings=settings, command="test")
        said = "calibrated by 77 samples" in (tmp_path / name / "report.html").read_text()
        assert said == (name == "calibrated")


def test_a_native_structure_without_contacts_is_refused_before_anything_is_drawn(tmp_path):
    model = alanine_dipeptide()
    system = model.find("ALDP").model_copy(update={"native": tuple((0.5 * k, 0.0, 0.0) for k in range(5))})
    with pytest.raises(ScoreMDError, match="the native structure of alanine-dipeptide has no contacts"):
        emulate(model, system, tmp_path / "out", samples=20, settings=SimulationSettings(0.001, 2), command="test")
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
