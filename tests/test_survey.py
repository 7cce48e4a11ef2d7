"""Many molecules in one command: a folder each, one table."""

import csv
import json

import mdtraj
import pytest
import torch

from scoremd import bound_model, emulation, survey
from scoremd.analysis.observed import FOLDED_STATE
from scoremd.data import Ensemble
from scoremd.description import ModelDescription
from scoremd.force_field import ForceField
from scoremd.nn.energy import NetworkConfig
from scoremd.simulation.engine import SimulationSettings
from scoremd.statistics import pair_statistics
from scoremd.survey import covered_systems
from scoremd.systems import load_system
from scoremd.trajectory_source import write_own_system
from tests.commands import refused, run
from tests.models import SMALL, alanine_dipeptide
from tests.training.test_chain import chain, frames

SHORT_RUN = ["--ns", 4e-5, "--replicas", 16, "--time-step", 0.5, "--every", 0.005]
SHORT = ["-n", 20, *SHORT_RUN]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(bound_model, "SAMPLING_CALLS", 20)  # fewer give molecules too torn to be simulated
    monkeypatch.setattr(bound_model, "SAMPLING_BATCH", 16)


@pytest.fixture
def plain(monkeypatch):
    """Reports, which take the most time, are not looked at."""
    monkeypatch.setattr(emulation, "write_report", lambda path, *_: path.write_text(""))


@pytest.mark.compiled
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


def write_c_alpha_model(folder):
    """An untrained model of a chain of C-alpha beads, with a native structure and a reference, and of the same one without, "unfolded"."""
    without, positions, scale = chain(), frames(600), 3.0
    with_native = without.model_copy(update={"native": tuple(map(tuple, frames(1, folded=1.0, noise=0.0)[0].tolist()))})
    unfolded = without.model_copy(update={"name": "unfolded"})
    for system in (with_native, unfolded):
        write_own_system(folder / "systems", system, Ensemble(system.name, 300.0, system.atoms, positions))
    torch.manual_seed(0)
    description = ModelDescription(
        name="test",
        title="test",
        systems=("chain", "unfolded"),
        temperature=300.0,
        length_scale=scale,
        slots=without.beads,
        residue_names=("ALA",),
        torsions=(without.torsions,),
        network=NetworkConfig(**SMALL),
    )
    statistics = pair_statistics([(scale * positions, list(range(len(without.beads))))], len(without.beads))
    ForceField(description, [description.make_network(statistics)]).save(folder)
    return folder


@pytest.mark.usefixtures("plain")
def test_molecules_show_what_they_have_in_columns_that_all_share(tmp_path, monkeypatch):
    model = ForceField.load(write_c_alpha_model(tmp_path / "model"))
    jobs = [(alanine_dipeptide(), load_system("ALDP")), *((model, model.find(name)) for name in ("chain", "unfolded"))]
    settings = SimulationSettings(1.5e-5, 4, 0, 0.5, frame_interval_ps=0.001)
    survey.survey(jobs, tmp_path / "out", samples=20, settings=settings, command="test")
    with (tmp_path / "out" / "summary.csv").open() as file:
        rows = {row["system"]: row for row in csv.DictReader(file)}
    seen = {name: json.loads((tmp_path / "out" / name / "comparison.json").read_text())["ensembles"] for name in rows}
    for name in ("reference", "samples", "simulation"):
        right = seen["alanine-dipeptide"][name]["populations"]["phi > 0"]["value"]
        folded, rmsd = seen["chain"][name]["populations"][FOLDED_STATE]["value"], seen["chain"][name]["native_rmsd_nm"]["value"]
        expected = {"alanine-dipeptide": (right, None, None), "chain": (None, folded, rmsd), "unfolded": (None, None, None)}
        for system, numbers in expected.items():
            cells = [rows[system][f"{title}, {name}"] for title in ("phi > 0", "folded", "native RMSD in nm")]
            assert cells == ["" if number is None else str(number) for number in numbers]
    assert 0.5 < float(rows["chain"]["folded, reference"]) < 0.7

    monkeypatch.setenv("COLUMNS", "200")
    short = ["-n", 20, "--ns", 1.5e-5, "--replicas", 4, "--time-step", 0.5, "--every", 0.001]
    result = run("emulate", "chain", "unfolded", "--model", tmp_path / "model", *short, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "native RMSD" in result.output
    assert f"{float(rows['chain']['folded, reference']):.4f}" in result.output
    assert "phi > 0" not in result.output  # a column that all would leave empty


@pytest.mark.usefixtures("plain")
@pytest.mark.compiled
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


@pytest.mark.usefixtures("plain")
def test_forces_are_calibrated_if_asked_for(tmp_path, monkeypatch):
    asked = []

    def calibrate(force_field, system, *_):
        asked.append(system.name)
        return force_field

    monkeypatch.setattr(emulation, "calibrate", calibrate)
    monkeypatch.setattr(emulation, "require_calibratable", lambda *_: None)
    write_c_alpha_model(tmp_path / "model")
    for k, names in enumerate((["chain"], ["chain", "unfolded"])):
        for flag in ([], ["--calibrated"]):
            short = ["-n", 20, "--ns", 1.5e-5, "--replicas", 4, "--time-step", 0.5, "--every", 0.001, *flag]
            result = run("emulate", *names, "--model", tmp_path / "model", *short, "-o", tmp_path / f"out{k}{len(flag)}")
            assert result.exit_code == 0, result.output
    assert asked == ["chain", "chain", "unfolded"]


@pytest.mark.usefixtures("plain")
@pytest.mark.compiled
def test_all_with_a_limit(tmp_path):
    result = run("emulate", "--all", "--limit", 2, *SHORT, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["AA", "AR"]


@pytest.mark.compiled
def test_several_systems_sample_and_simulate_into_a_folder(tmp_path):
    assert run("sample", "KS", "KG", "-n", 5, "--backbone", "-o", tmp_path / "out").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["KG.h5", "KS.h5"]
    assert mdtraj.load(str(tmp_path / "out" / "KS.h5")).n_atoms == 15
    simulated = run("simulate", "KS", "KG", *SHORT_RUN, "-o", tmp_path / "runs")
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
