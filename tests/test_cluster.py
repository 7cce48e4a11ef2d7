"""Several workers give what one process gives, whatever happens to them."""

import os
import signal
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from scoremd import bound_model, emulation
from scoremd.cli import app
from scoremd.cluster import Workers, connected, each
from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField
from scoremd.simulation.engine import SimulationSettings, run_replicas
from scoremd.survey import _row, survey
from scoremd.systems import load_system
from scoremd.trajectory_files import read_trajectory
from tests.models import alanine_dipeptide
from tests.test_survey import write_c_alpha_model

ARGUMENTS = {"samples": 16, "settings": SimulationSettings(4e-5, 16, 0, 0.5, frame_interval_ps=0.005), "command": "test"}


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    """Workers are processes of their own, which know nothing of what tests replace; but of this."""
    monkeypatch.setenv("CXX", "/nonexistent")


def test_two_workers_give_the_same_table_and_files(tmp_path):
    shipped, names = ForceField.load("alanine-dipeptide"), ("first", "second")
    model = ForceField(shipped.description.model_copy(update={"systems": names}), shipped.experts)
    jobs = [(model, load_system("ALDP").model_copy(update={"name": name, "reference": None})) for name in names]
    one = survey(jobs, tmp_path / "one", **ARGUMENTS)
    two = survey(jobs, tmp_path / "two", **ARGUMENTS, workers=Workers(processes=2))
    assert one == two
    assert [row["system"] for row in two] == list(names)
    for name in ("summary.csv", *(f"{name}/comparison.json" for name in names)):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_replicas_divided_among_workers_are_those_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(bound_model, "SAMPLING_CALLS", 3)
    monkeypatch.setattr(emulation, "write_report", lambda *_: None)
    model, system = alanine_dipeptide(), load_system("ALDP")
    arguments = ARGUMENTS | {"samples": 150, "settings": SimulationSettings(2e-5, 150, 0, 0.5, frame_interval_ps=0.005)}
    emulation.emulate(model, system, tmp_path / "one", **arguments)
    emulation.emulate(model, system, tmp_path / "two", **arguments, workers=Workers(processes=2))
    one, two = (read_trajectory(tmp_path / name / "simulation.h5", system.topology()) for name in ("one", "two"))
    for a, b in ((one.trajectory.xyz, two.trajectory.xyz), (one.trajectory.time, two.trajectory.time), (one.replica, two.replica)):
        assert np.array_equal(a, b)
    assert one.lost == two.lost
    assert len({h5py.File(tmp_path / name / "simulation.h5").attrs["title"] for name in ("one", "two")}) == 1
    assert (tmp_path / "one" / "comparison.json").read_bytes() == (tmp_path / "two" / "comparison.json").read_bytes()
    assert {p.name for p in (tmp_path / "one").iterdir()} == {p.name for p in (tmp_path / "two").iterdir()}


def test_blocks_of_replicas_that_are_there_are_not_simulated_again(tmp_path, monkeypatch):
    """As after a kill of everything: the rest is done, and lost replicas are counted, those of a block of which none is left among them."""
    monkeypatch.setattr(bound_model, "SAMPLING_CALLS", 3)
    model, system = alanine_dipeptide(), load_system("ALDP")
    settings = SimulationSettings(2e-5, 150, 0, 0.5, frame_interval_ps=0.005)
    start, done = load_system("ALDP").reference_ensemble().to_mdtraj(system.bonds)[::800], []
    start.xyz[100:] *= 5
    run_replicas(model.bind(system), settings, tmp_path / "whole.h5", start.xyz, model.hash)
    monkeypatch.setattr(emulation, "each", lambda _, block, jobs: (done.append(block(*job)) for job in jobs))
    monkeypatch.setattr(emulation, "run_replicas", lambda *a: done.append(a[-1].start) or run_replicas(*a))
    first = tmp_path / "blocks" / "50"
    first.mkdir(parents=True)
    run_replicas(model.bind(system), settings, first / "simulation.h5", start.xyz, model.hash, slice(50, 100))
    emulation._simulate_in_blocks(model, system, tmp_path / "a.h5", start, settings, Workers(), tmp_path / "blocks")
    assert [q for q in done if q != {}] == [0, 100]
    whole, divided = (read_trajectory(tmp_path / name, system.topology()) for name in ("whole.h5", "a.h5"))
    assert np.array_equal(whole.trajectory.xyz, divided.trajectory.xyz)
    assert np.array_equal(whole.replica, divided.replica)
    assert 50 <= whole.lost == divided.lost
    assert whole.replica.max() < 100


def telling_row(force_field, system, own, **arguments):
    """As `survey`'s own, but says which process it is in, and hurries."""
    hurry()
    (own.parent / f"{system.name}.pid").write_text(str(os.getpid()))
    return _row(force_field, system, own, **arguments)


def hurry():
    """Draw few samples in few steps, and leave the pictures out."""
    bound_model.SAMPLING_CALLS, bound_model.SAMPLING_BATCH = 20, 16
    emulation.write_report = lambda path, *_: path.write_text("")


@pytest.fixture
def hurried(monkeypatch):
    """What `hurry` changes in this process is changed back."""
    for module, name in ((bound_model, "SAMPLING_CALLS"), (bound_model, "SAMPLING_BATCH"), (emulation, "write_report")):
        monkeypatch.setattr(module, name, getattr(module, name))


def stamps(paths):
    return {path: path.stat().st_mtime_ns for path in paths}


@pytest.mark.slow
def test_an_emulation_whose_worker_is_killed_gives_the_same_table_and_repeats_nothing(tmp_path, monkeypatch, hurried):
    model, names = alanine_dipeptide(), ("first", "second", "third")
    model.description = model.description.model_copy(update={"systems": names})
    jobs = [(model, load_system("ALDP").model_copy(update={"name": name, "reference": None})) for name in names]
    one, two, finished, killed = tmp_path / "one", tmp_path / "two", {}, []

    def kill():
        """After the third's samples are written: it was begun when another was finished."""
        samples = two / "third" / "samples.h5"
        while not samples.exists():
            time.sleep(0.01)
        killed.append(int((two / "third.pid").read_text()))
        os.kill(killed[0], signal.SIGKILL)
        for folder in (report.parent for report in two.glob("*/report.html")):
            finished[folder.name] = stamps(folder.iterdir())
        finished["samples"] = stamps([samples])

    monkeypatch.setattr("scoremd.survey._row", telling_row)
    expected = survey(jobs, one, **ARGUMENTS)
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    assert survey(jobs, two, **ARGUMENTS, workers=Workers(processes=2)) == expected
    assert not thread.is_alive()
    assert "third" not in finished
    assert len(finished) > 1
    for before in finished.values():
        assert stamps(before) == before
    assert int((two / "third.pid").read_text()) != killed[0]
    for name in ("summary.csv", *(f"{name}/comparison.json" for name in names)):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def start_elsewhere(folder):
    hurry()
    os.chdir(folder)


def test_workers_that_were_started_in_another_folder_find_the_files_of_ones_own_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_c_alpha_model(Path("force_fields/mine"))
    (tmp_path / "elsewhere").mkdir()
    short = {"samples": 16, "settings": SimulationSettings(1e-5, 4, 0, 0.5, frame_interval_ps=0.001), "command": "test"}
    with connected(Workers(processes=1)) as client:
        client.run(start_elsewhere, tmp_path / "elsewhere")
        monkeypatch.setenv("SCOREMD_PATH", ".")
        for out, model in (("by path", "./force_fields/mine"), ("by name", "mine")):
            force_field = ForceField.load(model)
            survey([(force_field, force_field.find("chain"))], Path(out), **short, workers=Workers(client.scheduler.address))
            assert (tmp_path / out / "chain" / "report.html").exists()


def test_a_model_loaded_by_a_relative_path_finds_its_systems_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_c_alpha_model(Path("mine"))
    model = ForceField.load("mine")
    monkeypatch.chdir("/")
    assert model.find("chain").reference_ensemble().n_frames == 600


def slow(force_field, molecule, folder):
    """Leave a mark, then take a while the first time."""
    folder.mkdir(exist_ok=True)
    first = not (folder / "mark").exists()
    (folder / "mark").write_text(str(os.getpid()))
    if first and molecule == "b":
        time.sleep(60)
    return {"molecule": molecule, "hash": force_field.hash, "pid": os.getpid()}


def test_the_work_of_a_killed_worker_is_done_by_another(tmp_path):
    model, killed = alanine_dipeptide(), []

    def kill():
        mark = tmp_path / "b" / "mark"
        while not mark.exists() or not mark.read_text():
            time.sleep(0.05)
        killed.append(int(mark.read_text()))
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    found = dict(each(Workers(processes=2), slow, [(model, name, tmp_path / name) for name in "abc"]))
    thread.join()
    assert [found[k]["molecule"] for k in range(3)] == ["a", "b", "c"]
    assert {one["hash"] for one in found.values()} == {model.hash}
    assert found[1]["pid"] != killed[0]


def test_the_only_worker_may_be_killed(tmp_path):
    (found,) = each(Workers(processes=1), die_once, [(alanine_dipeptide(), "a", tmp_path / "a")])
    assert found[1]["molecule"] == "a"


def die_once(_force_field, molecule, folder):
    if not folder.exists():
        folder.mkdir()
        os._exit(1)
    return {"molecule": molecule}


def die(_force_field, _molecule, _folder):
    os._exit(1)


@pytest.mark.slow
def test_what_kills_every_worker_is_given_up(tmp_path):
    with pytest.raises(ScoreMDError, match="a: its workers were killed again and again"):
        list(each(Workers(processes=1), die, [(alanine_dipeptide(), "a", tmp_path / "a")]))
    assert not list(tmp_path.glob(".models*"))


def refuse(_force_field, _molecule, folder):
    raise ScoreMDError(f"{folder.name} cannot be done")


def test_what_a_worker_refuses_is_said_as_it_is(tmp_path):
    with pytest.raises(ScoreMDError, match=r"^x cannot be done$"):
        list(each(Workers(), refuse, [(alanine_dipeptide(), "x", tmp_path / "x")]))


def test_a_scheduler_that_runs_is_used(tmp_path):
    with connected(Workers(processes=1)) as client:
        address = client.scheduler.address
        found = list(each(Workers(address=address), slow, [(alanine_dipeptide(), "a", tmp_path / "a")]))
    assert found[0][1]["molecule"] == "a"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dask", "tcp://127.0.0.1:1"], "there is no dask scheduler at 'tcp://127.0.0.1:1'"),
        (["--dask", "nonsense:"], "there is no dask scheduler at 'nonsense:'"),
        (["--dask", ""], "there is no dask scheduler at ''"),  # of a variable that is not set
        (["--dask", "tcp://127.0.0.1:1", "--workers", "2"], "give --workers or --dask, not both"),
    ],
)
def test_schedulers_that_are_not_there(tmp_path, monkeypatch, arguments, words):
    monkeypatch.setattr("scoremd.cluster._TIMEOUT", 1)
    too_few = ["-n", "1"]  # refused in other words where no scheduler is asked for
    result = CliRunner().invoke(app, ["emulate", "KS", *too_few, "-o", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_the_command_takes_workers(tmp_path):
    short = ["-n", "16", "--ns", "4e-5", "--replicas", "16", "--time-step", "0.5", "--every", "0.005", "--threads", "1"]
    result = CliRunner().invoke(app, ["emulate", "ALDP", *short, "--workers", "1", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "report.html").exists()
