"""Several workers give what one process gives, whatever happens to them."""

import csv
import os
import signal
import threading
import time

import pytest
from typer.testing import CliRunner

from scoremd.cli import app
from scoremd.cluster import Workers, connected, each
from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField
from scoremd.simulation.engine import SimulationSettings
from scoremd.survey import survey
from scoremd.systems import load_system
from tests.models import alanine_dipeptide

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
        (["--dask", "tcp://127.0.0.1:1"], "there is no dask scheduler at tcp://127.0.0.1:1"),
        (["--dask", "nonsense:"], "there is no dask scheduler at nonsense:"),
        (["--dask", "tcp://127.0.0.1:1", "--workers", "2"], "give --workers or --dask, not both"),
    ],
)
def test_schedulers_that_are_not_there(tmp_path, monkeypatch, arguments, words):
    monkeypatch.setattr("scoremd.cluster._TIMEOUT", 1)
    result = CliRunner().invoke(app, ["emulate", "KS", "-o", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_the_command_takes_workers(tmp_path):
    short = ["-n", "16", "--ns", "4e-5", "--replicas", "16", "--time-step", "0.5", "--every", "0.005", "--threads", "1"]
    result = CliRunner().invoke(app, ["emulate", "ALDP", *short, "--workers", "1", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "summary.csv").open() as file:
        assert [row["system"] for row in csv.DictReader(file)] == ["alanine-dipeptide"]
