import h5py
import numpy as np
import pytest
import torch

from scoremd.errors import ScoreMDError
from scoremd.simulation import engine
from scoremd.simulation.langevin import thermal_velocities
from scoremd.trajectory_files import read_trajectory
from tests.models import alanine_dipeptide

FEMTOSECONDS = 1.0
SETTINGS = {"ns": 40e-6, "replicas": 4, "time_step_fs": FEMTOSECONDS, "frame_interval_ps": 0.005, "seed": 3}


@pytest.fixture(scope="module")
def model():
    return alanine_dipeptide()


@pytest.fixture(scope="module")
def start(model):
    return model.bind("ALDP").system.reference_ensemble().to_mdtraj()[::30000]


def interrupt_before_the_end(model, start, output, monkeypatch):
    """Run all frames, but stop before the trajectory is written."""
    with monkeypatch.context() as patch:
        patch.setattr(engine.FrameStore, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            model.simulate("ALDP", **SETTINGS, start=start, output=output)


def test_killed_run_resumes_bit_for_bit(model, start, tmp_path, monkeypatch):
    whole = model.simulate("ALDP", **SETTINGS, start=start, output=tmp_path / "whole.h5")
    advance = engine.Replicas.advance

    def dying(self, steps):
        if self.frames == 3:
            raise KeyboardInterrupt
        return advance(self, steps)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Replicas, "advance", dying)
        with pytest.raises(KeyboardInterrupt):
            model.simulate("ALDP", **SETTINGS, start=start, output=tmp_path / "killed.h5")
    assert not (tmp_path / "killed.h5").exists()
    # a frame that was written after the last state is cut off
    with (tmp_path / "killed.h5.part" / "frames").open("ab") as file:
        file.write(b"torn")
    resumed = model.simulate("ALDP", **SETTINGS, start=start, output=tmp_path / "killed.h5")
    assert np.array_equal(whole.trajectory.xyz, resumed.trajectory.xyz)
    assert not (tmp_path / "killed.h5.part").exists()


def test_interrupted_run_with_other_settings_is_refused(model, start, tmp_path, monkeypatch):
    interrupt_before_the_end(model, start, tmp_path / "a.h5", monkeypatch)
    with pytest.raises(ScoreMDError, match="other settings"):
        model.simulate("ALDP", **(SETTINGS | {"seed": 4}), start=start, output=tmp_path / "a.h5")


@pytest.mark.parametrize("name", ["run.h5", "run.xtc", "run.dcd", "run.pdb"])
def test_formats_are_read_back_with_their_replicas(model, start, tmp_path, name):
    run = model.simulate("ALDP", **SETTINGS, start=start, output=tmp_path / name)
    assert run.trajectory.n_frames == 4 * 8
    again, replica, lost = read_trajectory(tmp_path / name, start.topology)
    assert lost == (0 if name.endswith("h5") else None)
    assert np.allclose(again.xyz, run.trajectory.xyz, atol=2e-3)
    if name in ("run.h5", "run.xtc"):
        assert np.array_equal(replica, np.repeat(np.arange(4), 8))
        assert np.allclose(again.time[:8], 0.005 * np.arange(1, 9), atol=1e-6)


def test_a_replica_that_blows_up_is_stopped_saved_and_counted(model, start, tmp_path, monkeypatch):
    bound = model.bind("ALDP")
    forces = bound.forces

    def torn():
        force = forces()

        def pulled(x):
            e, f = force(x)
            f = f.clone()
            if pulled.calls > 12:
                f[2, 0] += 1e6
            if pulled.calls > 22:
                f[1] = float("nan")
            pulled.calls += 1
            return e, f

        pulled.calls = 0
        return pulled

    monkeypatch.setattr(bound, "forces", torn)
    run = model.simulate("ALDP", **SETTINGS, start=start, output=tmp_path / "a.h5")
    assert run.lost == (1, 2)
    assert np.bincount(run.replica, minlength=4).tolist() == [8, 4, 2, 8]
    assert np.isfinite(run.trajectory.xyz).all()
    assert read_trajectory(tmp_path / "a.h5", start.topology)[1].tolist() == run.replica.tolist()


def test_a_replica_that_stays_hot_is_lost_though_its_bonds_hold(model, start, monkeypatch):
    temperature = torch.tensor([1.0, 3.0, 1.4, 1.0])

    def at_rest(state, noise, force, parameters):
        return state._replace(velocities=thermal_velocities(parameters, noise) * temperature.sqrt()[:, None, None])

    monkeypatch.setattr(engine, "middle_step", at_rest)
    run = model.simulate("ALDP", **SETTINGS, friction=1000.0, start=start)
    assert run.lost == (1,)
    assert 0 < (run.replica == 1).sum() < 8


def test_same_seed_same_run_and_other_seed_another(model, start):
    runs = [model.simulate("ALDP", **(SETTINGS | {"seed": s}), start=start).trajectory.xyz for s in (3, 3, 4)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2], atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ns": -1.0},
        {"replicas": 0},
        {"time_step_fs": float("nan")},
        {"friction": 0.0},
        {"replicas": 5},
        {"ns": 1e-7},
        {"frame_interval_ps": 1e308},
    ],
)
def test_senseless_settings_are_refused(model, start, tmp_path, wrong):
    with pytest.raises(ScoreMDError):
        model.simulate("ALDP", **(SETTINGS | wrong), start=start, output=tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


def test_lengths_are_whole_intervals_and_said_as_they_are():
    settings = engine.SimulationSettings(ns=0.00263, replicas=1, time_step_fs=2.0, frame_interval_ps=1.0)
    settings.check()
    assert settings.frames == 3
    assert settings.simulated_ns == pytest.approx(0.003)


def test_engine_forces_are_minus_the_gradient_of_its_energy(model, start):
    force = model.bind("ALDP").forces()
    x = torch.from_numpy(start.xyz.copy())
    _, f = force(x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    h = 2e-4
    slope = (force(x + h * direction)[0] - force(x - h * direction)[0]) / (2 * h)
    torch.testing.assert_close(slope, -(f * direction).sum((1, 2)), rtol=2e-2, atol=2.0)


def test_resuming_with_another_start_or_with_lost_frames_is_refused(model, start, tmp_path, monkeypatch):
    interrupt_before_the_end(model, start, tmp_path / "a.h5", monkeypatch)
    with pytest.raises(ScoreMDError, match="other settings"):
        model.simulate("ALDP", **SETTINGS, start=start[::-1], output=tmp_path / "a.h5")
    frames = tmp_path / "a.h5.part" / "frames"
    frames.write_bytes(frames.read_bytes()[:-100])
    with pytest.raises(ScoreMDError, match="fewer frames"):
        model.simulate("ALDP", **SETTINGS, start=start, output=tmp_path / "a.h5")


def test_a_run_ends_when_all_replicas_are_lost(model, start, tmp_path, monkeypatch):
    bound, calls = model.bind("ALDP"), []
    forces = bound.forces

    def torn():
        force = forces()

        def pulled(x):
            calls.append(len(x))
            energy, f = force(x)
            return energy, f if len(calls) < 20 else float("nan") * f

        return pulled

    monkeypatch.setattr(bound, "forces", torn)
    run = model.simulate("ALDP", **SETTINGS, start=start, output=tmp_path / "a.h5")
    assert run.lost == (0, 1, 2, 3)
    assert 0 < len(run.replica) < 16
    assert len(calls) < 30
    assert read_trajectory(tmp_path / "a.h5", start.topology).lost == 4
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["replica"].attrs["frames_each"] == 8  # as many as were asked for
