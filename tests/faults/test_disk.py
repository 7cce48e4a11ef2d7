"""Full disks, folders that are read only, two processes on one output, damaged states, networks that are not finite."""

import contextlib
import json
import os
import shutil
import signal
import subprocess

import h5py
import numpy as np
import pytest
import torch

from scoremd import bound_model, emulation, frame_store, reference, refinement
from scoremd.analysis import report
from scoremd.data import read_ensemble, write_ensemble
from scoremd.errors import ScoreMDError
from scoremd.files import replacing
from scoremd.force_field import ForceField
from scoremd.simulation import engine
from scoremd.systems import load_system
from scoremd.training import trainer
from tests.commands import refused, run
from tests.models import SMALL, alanine_dipeptide

pytestmark = pytest.mark.usefixtures("short", "small_steps")

SIMULATION = ("--ns", 4e-5, "--replicas", 16, "--time-step", 0.5, "--every", 0.005)
REFINEMENT = ("--samples", 16, "--ps", 0.08, "--replicas", 2)


@pytest.fixture
def model(tmp_path):
    alanine_dipeptide().save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here ({mounted.stderr.decode().strip()})")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fill(disk, free):
    """Fill a disk up to some bytes."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))
    os.truncate(disk / "filler", (disk / "filler").stat().st_size - free)


def commands(folder, model, data):
    """One of each kind that writes, into a folder."""
    settings = {"name": "test", "title": "Test", "system": "ALDP", "data": str(data / "ALDP-small.h5"), "output": str(folder / "run")}
    settings |= {"network": SMALL, "steps": 4, "batch": 16, "checkpoint_every": 2}
    (model.parent / "train.yaml").write_text(json.dumps(settings))
    ensemble = read_ensemble(data / "ALDP-small.h5")
    write_ensemble(model.parent / "few.h5", ensemble.select(np.arange(20)))
    load_system("ALDP").beads_of(ensemble).to_mdtraj().save_hdf5(str(model.parent / "samples.h5"))
    drawn = ("--model", model, "--threads", 1)  # threads would not outlive a fork
    simulated = (*SIMULATION, *drawn)
    return {
        **{f"sample {end}": ("sample", "ALDP", "-n", 40, *drawn, "-o", folder / f"a.{end}") for end in ("h5", "xtc", "dcd", "pdb")},
        "reweight": ("reweight", "ALDP", "-n", 40, *drawn, "-o", folder / "w.h5"),
        "compare": ("compare", "ALDP", "--samples", model.parent / "samples.h5", "-o", folder / "d"),
        "simulate h5": ("simulate", "ALDP", *simulated, "-o", folder / "b.h5"),
        "simulate pdb": ("simulate", "ALDP", *simulated, "-o", folder / "b.pdb"),
        "emulate": ("emulate", "ALDP", "-n", 60, *simulated, "-o", folder / "c"),
        "train": ("train", model.parent / "train.yaml"),
        "refine": ("refine", *drawn[1:], "--data", model.parent / "few.h5", *REFINEMENT, "-o", folder / "m"),
        "calibrate": ("calibrate", "ALDP", "--samples", 8, "--replicas", 2, "--ps", 0.02, *drawn, "-o", folder / "k"),
        "reference": ("reference", "ALDP", "--ns", 4e-5, "--every", 0.01, "--replicas", 2, "-o", folder / "r.h5"),
        "init": ("init", data / "ALDP-small.h5", "--temperature", 300, "--select", "name C CA N", "-o", folder / "i.yaml"),
    }


COMMANDS = (
    *(f"sample {end}" for end in ("h5", "xtc", "dcd", "pdb")),
    "simulate h5",
    "simulate pdb",
    "emulate",
    "train",
    "init",
    "reweight",
    "compare",
    "refine",
    "calibrate",
)


@pytest.mark.parametrize("free", [0, 4096, 12288])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_told_in_one_line_and_leaves_what_was_there(disk, model, data, command, free):
    arguments = commands(disk, model, data)[command]
    output = next((a for a in arguments if getattr(a, "suffix", "") and a.parent == disk), disk / "none")
    if command != "init":  # which refuses a file that is there
        output.write_text("old")
    before = contents(disk)
    fill(disk, free)
    result = run(*arguments)
    if result.exit_code == 0:
        assert free > 0  # that was enough
        return
    refused(result, "No space left on device")
    assert all(contents(disk).get(name) == q for name, q in before.items())
    assert not [p for p in disk.rglob("*") if p.name.startswith(".")]
    (disk / "filler").unlink()
    assert run(*arguments).exit_code == 0  # goes on with what there is


@pytest.mark.parametrize("command", [*COMMANDS, "reference"])
def test_a_disk_that_is_read_only_is_told_in_one_line(disk, model, data, command):
    (disk / "mine").write_text("mine")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    refused(run(*commands(disk, model, data)[command]), str(disk))
    assert contents(disk) == {"mine": b"mine"}


def in_another_process(*arguments):
    """Exit code and stderr of a command that runs in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        with os.fdopen(write, "w") as pipe:
            result = run(*arguments)
            json.dump([result.exit_code, result.stderr], pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        found = json.load(pipe)
    os.waitpid(child, 0)
    return found


@pytest.mark.parametrize(
    ("command", "owner", "name"),
    [
        ("simulate h5", engine.Replicas, "advance"),
        ("emulate", engine.Replicas, "advance"),
        ("emulate", emulation, "compare_trajectories"),
        ("train", trainer.Expert, "advance"),
        ("sample h5", ForceField, "sample"),
        ("sample pdb", ForceField, "sample"),
        ("reweight", ForceField, "weighted_samples"),
        ("compare", report, "write_report"),
        ("refine", ForceField, "simulate"),
        ("refine", refinement, "refine_network"),
        ("calibrate", ForceField, "simulate"),
        ("reference", reference._Replicas, "advance"),
    ],
)
def test_of_two_processes_with_one_output_the_second_is_refused(tmp_path, model, data, monkeypatch, command, owner, name):
    (tmp_path / "alone").mkdir()
    (tmp_path / "both").mkdir()
    assert run(*commands(tmp_path / "alone", model, data)[command]).exit_code == 0
    arguments, function, seen = commands(tmp_path / "both", model, data)[command], getattr(owner, name), []

    def disturbed(*given, **named):
        if len(seen) < 3:
            seen.append(in_another_process(*arguments))
        return function(*given, **named)

    monkeypatch.setattr(owner, name, disturbed)
    assert run(*arguments).exit_code == 0
    assert seen
    for code, error in seen:
        assert code == 2
        assert error.startswith("scoremd: ")
        assert error.endswith("another process is writing there; wait for it or choose another output\n")
        assert error.count("\n") == 1
    alone, both = contents(tmp_path / "alone"), contents(tmp_path / "both")
    assert alone.keys() == both.keys()
    dated = (".h5", ".html")
    assert all(alone[path] == both[path] for path in alone if not path.endswith(dated))
    for path in (path for path in alone if path.endswith(".h5")):
        with h5py.File(tmp_path / "alone" / path) as a, h5py.File(tmp_path / "both" / path) as b:
            assert all((a[key][()] == b[key][()]).all() for key in a)


def interrupted(tmp_path, model, monkeypatch, frames=1):
    """Arguments of a simulation that died after some frames."""
    advance, arguments = engine.Replicas.advance, ("simulate", "ALDP", *SIMULATION, "--model", model, "-o", tmp_path / "b.h5")

    def dying(self, steps):
        if self.frames == frames:
            raise KeyboardInterrupt
        return advance(self, steps)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Replicas, "advance", dying)
        assert run(*arguments).exit_code != 0
    return arguments


@pytest.mark.compiled  # as the next, for their samples cost many calls
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_of_a_truncated_state_of_a_simulation_the_one_before_is_used(tmp_path, model, monkeypatch, caplog, share):
    (tmp_path / "whole").mkdir()
    monkeypatch.setattr(bound_model, "SAMPLING_CALLS", 100)  # after fewer no replica outlives its first frame
    arguments = interrupted(tmp_path, model, monkeypatch, frames=3)
    state = tmp_path / "b.h5.part" / "state.safetensors"
    os.truncate(state, int(share * state.stat().st_size))
    assert run(*arguments).exit_code == 0
    (said,) = (record.message for record in caplog.records if "is damaged" in record.message)
    assert said.endswith("going on from the state before it")
    assert run(*arguments[:-1], tmp_path / "whole" / "b.h5").exit_code == 0
    with h5py.File(tmp_path / "b.h5") as a, h5py.File(tmp_path / "whole" / "b.h5") as b:
        assert a.keys() == b.keys()
        assert all((a[key][()] == b[key][()]).all() for key in a)


@pytest.mark.compiled
def test_truncated_states_of_a_simulation_are_told_and_left_as_they_are(tmp_path, model, monkeypatch):
    monkeypatch.setattr(bound_model, "SAMPLING_CALLS", 100)
    arguments = interrupted(tmp_path, model, monkeypatch, frames=2)
    states = sorted((tmp_path / "b.h5.part").glob("state.safetensors*"))
    assert len(states) == 2
    for size in (0, 7, 100, states[0].stat().st_size - 1):
        for state in states:
            with state.open("r+b") as file:
                file.truncate(size)
        before = contents(tmp_path)
        refused(run(*arguments), "b.h5.part/state.safetensors: is damaged", "to start again")
        assert contents(tmp_path) == before
    shutil.rmtree(tmp_path / "b.h5.part")
    assert run(*arguments).exit_code == 0


def test_a_run_that_is_killed_while_it_removes_its_frames_starts_again(tmp_path, model, monkeypatch):
    def half(folder, **_):
        (folder / "frames").unlink()
        raise KeyboardInterrupt

    arguments = ("simulate", "ALDP", *SIMULATION, "--model", model, "-o", tmp_path / "b.pdb")
    with monkeypatch.context() as patch:
        patch.setattr(frame_store.shutil, "rmtree", half)
        assert run(*arguments).exit_code != 0
    whole = (tmp_path / "b.pdb").read_bytes()
    assert run(*arguments).exit_code == 0
    assert (tmp_path / "b.pdb").read_bytes() == whole
    assert not (tmp_path / "b.pdb.part").exists()


def test_an_emulation_that_is_killed_before_it_removes_its_frames_removes_them_later(tmp_path, model, data, monkeypatch):
    def die(_):
        raise KeyboardInterrupt

    arguments = commands(tmp_path, model, data)["emulate"]
    with monkeypatch.context() as patch:
        patch.setattr(frame_store.FrameStore, "remove", die)
        assert run(*arguments).exit_code != 0
    assert (tmp_path / "c" / "simulation.h5.part").exists()
    assert run(*arguments).exit_code == 0
    assert not (tmp_path / "c" / "simulation.h5.part").exists()


def test_what_killed_processes_left_is_removed_and_what_living_ones_write_is_not(tmp_path):
    def abandoned(path):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            with replacing(path) as temporary:
                temporary.write_text("half")
                os.write(write, temporary.name.encode())
                os.kill(os.getpid(), 9)
        os.waitpid(child, 0)
        os.close(write)
        with os.fdopen(read) as pipe:
            return pipe.read()

    left, other = (abandoned(tmp_path / name) for name in ("a.txt", "a-b.txt"))
    with replacing(tmp_path / "a.txt") as first, replacing(tmp_path / "a.txt") as second:
        first.write_text("first")
        second.write_text("second")
        assert {p.name for p in tmp_path.iterdir()} == {first.name, second.name, other}
        assert left not in (first.name, second.name)
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", other}
    assert (tmp_path / "a.txt").read_text() == "first"


def test_weights_that_are_not_finite_are_refused_by_every_command(tmp_path, model, data):
    spoiled = alanine_dipeptide()
    next(iter(spoiled.experts[0].parameters())).data[0] = float("nan")
    spoiled.save(model)
    before = contents(tmp_path)
    (tmp_path / "out").mkdir()
    for name in ("sample h5", "simulate h5", "emulate", "reweight"):
        refused(run(*commands(tmp_path / "out", model, data)[name]), "model.safetensors: holds weights that are not finite")
    refused(run("refine", model, "--data", data / "ALDP-small.h5", "-o", tmp_path / "out" / "d"), "not finite")
    made = {name: (tmp_path / name).read_bytes() for name in ("train.yaml", "samples.h5", "few.h5")}  # by `commands`
    assert contents(tmp_path) == before | made


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_network_that_gives_what_is_not_finite_leaves_no_file(tmp_path, value):
    spoiled, whole = alanine_dipeptide(), alanine_dipeptide()
    with torch.no_grad():
        spoiled.experts[0].read_out[0].weight.fill_(value)
    with pytest.raises(ScoreMDError, match="samples are not finite: model test is damaged"):
        spoiled.sample("ALDP", 20)
    start = whole.sample("ALDP", 4)
    with pytest.raises(ScoreMDError, match="all replicas were lost before the first frame"):
        spoiled.simulate("ALDP", ns=1e-5, replicas=4, frame_interval_ps=0.01, start=start, output=tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())
