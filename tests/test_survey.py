"""Many molecules in one command: a folder each, one table."""

import csv
import json

import mdtraj
import pytest
from typer.testing import CliRunner

from scoremd import bound_model, survey
from scoremd.cli import app
from scoremd.force_field import ForceField
from scoremd.simulation.engine import SimulationSettings
from scoremd.survey import covered_systems
from scoremd.systems import load_system

SHORT = ["-n", 20, "--ns", 4e-5, "--replicas", 16, "--time-step", 0.5, "--every", 0.005]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(bound_model, "SAMPLING_CALLS", 20)  # fewer give molecules too torn to be simulated
    monkeypatch.setattr(bound_model, "SAMPLING_BATCH", 16)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(result, words):
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_each_molecule_has_its_folder_and_a_row_of_its_own_numbers(tmp_path):
    result = run("emulate", "KS", "lys-gly", "GK", *SHORT, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "summary.csv").open() as file:
        rows = {row["system"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["KS", "KG", "GK"]
    for name, row in rows.items():
        content = json.loads((tmp_path / "out" / name / "comparison.json").read_text())
        assert (tmp_path / "out" / name / "report.html").exists()
        between = content["comparisons"]["samples vs simulation"]["js_nats"]["excess"]
        assert float(row["samples vs simulation"]) == between
        assert float(row["phi > 0, simulation"]) == content["ensembles"]["simulation"]["populations"]["phi > 0"]["value"]
        # GK is no test peptide: it has no reference
        assert (row["samples vs reference"] == "") == (name == "GK")


def test_what_was_finished_is_not_done_again(tmp_path, monkeypatch):
    emulate, done = survey.emulate, []

    def dying(force_field, system, *arguments, **settings):
        if system.name == "KG":
            raise KeyboardInterrupt
        done.append(system.name)
        return emulate(force_field, system, *arguments, **settings)

    jobs = [(ForceField.load("dipeptides"), load_system(name)) for name in ("KS", "KG")]
    settings = SimulationSettings(4e-5, 16, 0, 0.5, frame_interval_ps=0.005)
    arguments = {"samples": 20, "settings": settings, "command": "test"}
    with monkeypatch.context() as patch:
        patch.setattr(survey, "emulate", dying)
        with pytest.raises(KeyboardInterrupt):
            survey.survey(jobs, tmp_path / "out", **arguments)
    report = tmp_path / "out" / "KS" / "report.html"
    stamp = report.stat().st_mtime_ns
    rows = survey.survey(jobs, tmp_path / "out", **arguments)
    assert [row["system"] for row in rows] == ["KS", "KG"]
    assert (done, report.stat().st_mtime_ns) == (["KS"], stamp)


def test_all_are_those_that_the_model_covers():
    systems = covered_systems(ForceField.load("dipeptides"))
    assert len({system.name for system in systems}) == 400
    assert [system.name for system in covered_systems(ForceField.load("alanine-dipeptide"))] == ["alanine-dipeptide"]


def test_all_with_a_limit(tmp_path):
    result = run("emulate", "--all", "--limit", 2, *SHORT, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["AA", "AR"]


def test_several_systems_sample_and_simulate_into_a_folder(tmp_path):
    assert run("sample", "KS", "KG", "-n", 5, "--backbone", "-o", tmp_path / "out").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["KG.h5", "KS.h5"]
    assert mdtraj.load(str(tmp_path / "out" / "KS.h5")).n_atoms == 15
    simulated = run("simulate", "KS", "KG", *SHORT[2:], "-o", tmp_path / "runs")
    assert simulated.exit_code == 0, simulated.output
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["KG.h5", "KS.h5"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["emulate"], "name systems or give --all\n"),
        (["emulate", "KS", "--all"], "name systems or give --all, not both"),
        (["emulate", "KS", "--limit", 3], "--limit is for --all"),
        (["emulate", "KS", "ks", *SHORT], "KS is asked for twice"),
        (["emulate", "KS", "KB"], "'KB' is no member of dipeptides: B is none of its residues"),
        (["sample", "KS", "LYSSER"], "KS is asked for twice"),
        (["sample", "KS", "KSK"], "its length is 3"),
        (["simulate", "KS", "DAL-SER"], "DAL is none of its residues"),
    ],
)
def test_senseless_lists_are_refused(tmp_path, arguments, words):
    refused(run(*arguments, "-o", tmp_path / "out"), words)
    assert not list((tmp_path / "out").glob("*"))
