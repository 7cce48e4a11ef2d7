import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import h5py
import mdtraj
import numpy as np
import pytest
from mdtraj.formats import HDF5TrajectoryFile

from scoremd import bound_model
from scoremd.cli import main
from scoremd.data import read_ensemble, write_ensemble
from scoremd.force_field import ForceField
from scoremd.systems import load_system
from scoremd.training.config import read_config
from scoremd.trajectory_source import read_source
from tests.commands import refused, run
from tests.models import alanine_dipeptide, small_ensemble
from tests.peptides import needs_builder

pytestmark = pytest.mark.usefixtures("short")


@pytest.fixture
def model(tmp_path):
    alanine_dipeptide().save(tmp_path / "model")
    return str(tmp_path / "model")


def test_sample_writes_files_that_mdtraj_reads_by_itself(tmp_path, model):
    for name in ("a.h5", "a.pdb", "a.xtc"):
        assert run("sample", "ALDP", "-n", 20, "-o", tmp_path / name, "--model", model).exit_code == 0
    a, b = mdtraj.load(str(tmp_path / "a.h5")), mdtraj.load(str(tmp_path / "a.xtc"), top=str(tmp_path / "a.xtc.pdb"))
    assert mdtraj.load(str(tmp_path / "a.pdb")).n_frames == 20
    assert a.n_frames == 20
    assert [r.name for r in a.topology.residues] == ["ACE", "ALA", "NME"]
    np.testing.assert_allclose(a.xyz, b.xyz, atol=2e-3)


def test_emulate_makes_everything_and_goes_on_where_it_stopped(tmp_path, model):
    arguments = (
        "emulate",
        "ALDP",
        "-o",
        tmp_path / "out",
        "-n",
        60,
        "--ns",
        4e-5,
        "--replicas",
        16,
        "--time-step",
        0.5,
        "--every",
        0.005,
        "--model",
        model,
    )
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    out = tmp_path / "out"
    comparison = json.loads((out / "comparison.json").read_text())
    assert set(comparison["comparisons"]) == {"samples vs reference", "simulation vs reference", "samples vs simulation"}
    assert "<html" in (out / "report.html").read_text()
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("*.h5")}
    assert run(*arguments).exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in out.glob("*.h5")} == stamps
    refused(run(*arguments, "--seed", 1), "other settings")


def test_compare_reads_what_the_others_wrote(tmp_path, model, caplog):
    settings = ("--model", model, "-o")
    assert run("sample", "ALDP", "-n", 60, *settings, tmp_path / "a.h5").exit_code == 0
    result = run("simulate", "ALDP", "--ns", 4e-5, "--replicas", 16, "--time-step", 0.5, "--every", 0.005, *settings, tmp_path / "b.h5")
    assert result.exit_code == 0, result.output
    result = run("compare", "ALDP", "--samples", tmp_path / "a.h5", "--simulation", tmp_path / "b.h5", "-o", tmp_path / "c")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "c" / "report.html").exists()
    assert not caplog.text


def test_a_simulation_with_its_backbone_has_the_frames_and_replicas_of_one_without(tmp_path, model):
    settings = ("simulate", "ALDP", "--ns", 4e-5, "--replicas", 3, "--time-step", 0.5, "--every", 0.005, "--model", model, "-o")
    for name, more in (("a.h5", ()), ("b.h5", ("--backbone",)), ("c.pdb", ("--backbone",))):
        result = run(*settings, tmp_path / name, *more)
        assert result.exit_code == 0, result.output
    plain, full = (mdtraj.load(str(tmp_path / name)) for name in ("a.h5", "b.h5"))
    beads = [full.topology.select(f"name {a.name} and resid {a.residue.index}")[0] for a in plain.topology.atoms]
    assert full.n_atoms > plain.n_atoms
    np.testing.assert_allclose(full.xyz[:, beads], plain.xyz, atol=1e-6)
    np.testing.assert_allclose(full.time, plain.time)
    assert mdtraj.load(str(tmp_path / "c.pdb")).n_frames == plain.n_frames
    replicas = [h5py.File(tmp_path / name)["replica"] for name in ("a.h5", "b.h5")]
    assert np.array_equal(*(q[:] for q in replicas))
    assert dict(replicas[0].attrs) == dict(replicas[1].attrs)


def test_files_say_what_made_them(tmp_path, model, monkeypatch):
    monkeypatch.setattr(bound_model, "FLOW_INTERVALS", 2)
    steps = ("--ns", 4e-5, "--replicas", 16, "--time-step", 0.5, "--every", 0.005)
    flow, samples = "20 independent samples of the probability flow, seed 1", "20 independent samples of the reverse SDE, seed 1"
    dynamics = "Langevin dynamics: 16 replicas of 4e-05 ns at 0.5 fs, friction 1/ps, seed 1"
    for command, file, title in (
        (("sample", "ALDP", "-n", 20), "a.h5", samples),
        (("reweight", "ALDP", "-n", 20), "b.h5", flow),
        (("simulate", "ALDP", *steps), "c.h5", dynamics),
        (("simulate", "ALDP", *steps, "--backbone"), "d.h5", dynamics),
        (("emulate", "ALDP", "-n", 20, *steps), "e", None),
    ):
        result = run(*command, "--seed", 1, "--model", model, "-o", tmp_path / file)
        assert result.exit_code == 0, result.output
        for path, expected in [(file, title)] if title else [("e/samples.h5", samples), ("e/simulation.h5", dynamics)]:
            with HDF5TrajectoryFile(str(tmp_path / path)) as found:
                assert found.title == f"alanine-dipeptide, {expected}"
                assert found.forcefield == f"test, model {ForceField.load(model).hash}, 300 K"
                assert found.application == f"ScoreMD {version('scoremd')}"


def test_an_interruption_is_told(tmp_path, model, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ForceField, "sample", interrupted)
    result = run("sample", "ALDP", "-n", 2, "--model", model, "-o", tmp_path / "a.h5")
    assert (result.exit_code, result.stderr) == (130, "scoremd: interrupted; the same command goes on from what is saved\n")


def test_where_the_topology_is_is_told(tmp_path, model):
    for name, beside in (("a.xtc", True), ("a.h5", False), ("a.pdb", False)):
        said = run("sample", "ALDP", "-n", 2, "--model", model, "-o", tmp_path / name).stdout
        assert ("(topology: " in said) is beside
    assert (tmp_path / "a.xtc.pdb").exists()


def test_list_and_version():
    listed = run("list").output
    assert "alanine-dipeptide" in listed
    assert listed.count("All 400") == 1  # one line for all of the family
    assert "8 to 10" in listed
    assert run("--version").output.startswith("scoremd 0.")


def test_list_shows_what_models_reach(tmp_path, monkeypatch, model):
    monkeypatch.setenv("COLUMNS", "200")
    folder = Path(shutil.copytree(model, tmp_path / "force_fields" / "mine"))
    monkeypatch.setenv("SCOREMD_PATH", str(tmp_path))

    def row():
        return next(line for line in run("list").output.splitlines() if "mine" in line)

    assert "not measured" in row()
    assert " 300 " in row()
    figures = {"model": ForceField.load(folder).hash, "measured": "on a whim", "samples": 0.01, "simulation": 0.02, "between": 0.03}
    (folder / "figures.json").write_text(json.dumps(figures))
    assert all(shown in row() for shown in ("+0.0100", "+0.0200", "+0.0300", "on a whim"))
    (folder / "figures.json").write_text(json.dumps(figures | {"model": "another"}))
    assert "not measured since it was changed" in row()
    assert "0.0100" not in row()
    (folder / "figures.json").write_text("{")
    assert "cannot be read" in row()


def test_unknown_system(tmp_path):
    refused(run("sample", "ALDQ", "-o", tmp_path / "a.h5"), "ALDQ", "known are")


def test_negative_n(tmp_path, model):
    refused(run("sample", "ALDP", "-n", -5, "-o", tmp_path / "a.h5", "--model", model), "from 1 to")
    assert not (tmp_path / "a.h5").exists()


def test_model_that_is_not_ours(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("architectures: [Llama]\n")
    refused(run("sample", "ALDP", "-o", tmp_path / "a.h5", "--model", tmp_path / "other"), "not a ScoreMD model")


def test_output_folder_that_is_a_file(tmp_path, model):
    (tmp_path / "out").write_text("mine")
    refused(run("emulate", "ALDP", "-o", tmp_path / "out", "--model", model), "is a file")
    assert (tmp_path / "out").read_text() == "mine"


def test_output_file_that_is_a_folder_or_of_an_unknown_kind(tmp_path, model):
    (tmp_path / "a.h5").mkdir()
    refused(run("sample", "ALDP", "-o", tmp_path / "a.h5", "--model", model), "is a folder")
    refused(run("sample", "ALDP", "-o", tmp_path / "a.xyz", "--model", model), ".h5")
    refused(run("sample", "ALDP", "-o", tmp_path / "no" / "a.h5", "--model", model), "there is no folder")


@pytest.fixture
def samples(tmp_path, model):
    run("sample", "ALDP", "-n", 20, "-o", tmp_path / "a.h5", "--model", model)
    return tmp_path / "a.h5"


def test_reference_of_another_molecule(tmp_path, samples, data):
    refused(run("compare", "ALDP", "--samples", samples, "--reference", data / "KS-small.h5", "-o", tmp_path / "c"), "KS is not")
    assert not (tmp_path / "c").exists()


def test_refine(tmp_path, model, data):
    ensemble, out = read_ensemble(data / "ALDP-small.h5"), tmp_path / "refined"
    write_ensemble(tmp_path / "few.h5", ensemble.select(np.arange(20)))
    refused(run("refine", "none-such", "--data", tmp_path / "few.h5", "-o", out), "no model 'none-such'")
    refused(run("refine", model, "--data", tmp_path / "no.h5", "-o", out), "no.h5: no such file")
    refused(run("refine", model, "--data", tmp_path / "few.h5", "-o", out, "--ps", 0), "must be")
    assert not out.exists()
    result = run("refine", model, "--data", tmp_path / "few.h5", "-o", out, "--ps", 0.4, "--replicas", 2)
    assert result.exit_code == 0, result.output
    assert ForceField.load(out).hash in result.stdout
    refused(run("refine", model, "--data", tmp_path / "few.h5", "-o", model), "unknown origin")


@pytest.mark.usefixtures("small_steps")
def test_calibrate(tmp_path, model):
    out, few = tmp_path / "calibrated", ("--samples", 8, "--replicas", 2, "--ps", 0.02)
    refused(run("calibrate", "ALDP", "--model", model, "-o", out, "--ps", 0), "must be")
    refused(run("calibrate", "KS", "--model", model, "-o", out), "does not cover KS")
    assert not out.exists()
    result = run("calibrate", "ALDP", "--model", model, "-o", out, *few)
    assert result.exit_code == 0, result.output
    assert ForceField.load(out).hash in result.stdout
    refused(run("calibrate", "ALDP", "--model", out, "-o", tmp_path / "again", *few), "calibrated already")
    refused(run("calibrate", "ALDP", "--model", model, "-o", model, *few), "unknown origin")
    assert run("sample", "ALDP", "--model", out, "-n", 2, "-o", tmp_path / "a.h5").exit_code == 0


@pytest.mark.parametrize("content", [b"", b"not HDF5", None])
def test_empty_and_truncated_hdf5(tmp_path, samples, data, content):
    bad = tmp_path / "bad.h5"
    whole = (data / "ALDP-small.h5").read_bytes()
    bad.write_bytes(whole[: len(whole) // 2] if content is None else content)
    refused(run("compare", "ALDP", "--samples", samples, "--reference", bad, "-o", tmp_path / "c"), "bad.h5")
    refused(run("compare", "ALDP", "--samples", bad, "-o", tmp_path / "c"), "bad.h5")
    assert bad.read_bytes() == (whole[: len(whole) // 2] if content is None else content)


def test_nan_coordinates(tmp_path, samples):
    with h5py.File(samples, "r+") as file:
        file["coordinates"][3, 2, 1] = np.nan
    refused(run("compare", "ALDP", "--samples", samples, "-o", tmp_path / "c"), "not finite")


def test_nothing_to_compare(tmp_path):
    refused(run("compare", "ALDP", "-o", tmp_path / "c"), "nothing to compare")


def test_bad_training_configuration(tmp_path):
    (tmp_path / "t.yaml").write_text("name: a\n")
    refused(run("train", tmp_path / "t.yaml"), "title")


def test_help_does_not_wait_for_torch():
    code = "import sys, scoremd.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reference_at_another_temperature(tmp_path, samples, data):
    warm = replace(read_ensemble(data / "ALDP-small.h5"), temperature=310.0)
    write_ensemble(tmp_path / "warm.h5", warm)
    result = run("compare", "ALDP", "--samples", samples, "--reference", tmp_path / "warm.h5", "-o", tmp_path / "out")
    refused(result, "310.0 K", "300.0 K")
    assert not (tmp_path / "out").exists()


def test_emulate_does_not_take_files_of_unknown_origin_for_its_own(tmp_path, model, samples):
    (tmp_path / "out").mkdir()
    shutil.copyfile(samples, tmp_path / "out" / "samples.h5")
    before = samples.read_bytes()
    result = run("emulate", "ALDP", "-o", tmp_path / "out", "-n", 20, "--ns", 4e-5, "--every", 0.01, "--replicas", 4, "--model", model)
    refused(result, "samples.h5 of unknown origin")
    assert (tmp_path / "out" / "samples.h5").read_bytes() == before
    assert not (tmp_path / "out" / "settings.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "ALDP", "-n", "many", "-o", "a.h5"], "valid integer"),
        (["sample", "ALDP", "--frames", "3", "-o", "a.h5"], "No such option: --frames"),
        (["sample"], "Missing"),
        (["simulate", "ALDP", "--seed", "-1", "-o", "a.h5"], "--seed"),
        (["dance"], "No such command 'dance'"),
    ],
)
def test_wrong_arguments_end_with_one_line(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(sys, "argv", ["scoremd", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert error.count("\n") == 1
    assert error.startswith("scoremd: ")
    assert words in error


def test_a_simulation_given_for_samples_is_noticed(tmp_path, model, caplog):
    settings = ("--ns", 4e-5, "--replicas", 16, "--time-step", 0.5, "--every", 0.005, "--model", model)
    assert run("simulate", "ALDP", *settings, "-o", tmp_path / "b.h5").exit_code == 0
    assert run("compare", "ALDP", "--samples", tmp_path / "b.h5", "-o", tmp_path / "c").exit_code == 0
    assert "holds replicas of a simulation, but is taken for independent samples" in caplog.text


def test_several_systems_do_not_go_into_one_file(tmp_path):
    refused(run("sample", "ALDP", "KS", "-o", tmp_path / "a.h5"), "names a file, where several systems need a folder")
    assert not (tmp_path / "a.h5").exists()


def test_reweight_shows_populations_and_writes_weights(tmp_path, model, monkeypatch):
    monkeypatch.setattr(bound_model, "FLOW_INTERVALS", 2)
    result = run("reweight", "ALDP", "-n", 40, "--seed", 3, "-o", tmp_path / "w.h5", "--model", model)
    assert result.exit_code == 0, result.output
    assert "phi > 0" in result.output
    assert "0.0183" in result.output  # of the reference
    with h5py.File(tmp_path / "w.h5") as file:
        w = np.exp(file["log_ratio"][:])
        assert file["energy"].shape == file["log_likelihood"].shape == (40,)
    assert w.max() == 1
    assert f"effective sample size with their weights {w.sum() ** 2 / (w**2).sum():.1f}" in result.output
    assert mdtraj.load(str(tmp_path / "w.h5")).n_frames == 40


def test_reweight_refuses_what_it_cannot_write_before_it_works(tmp_path, model):
    refused(run("reweight", "ALDP", "-n", 10**9, "-o", tmp_path / "w.xtc", "--model", model), "w.xtc", "ends in .h5")
    for n in (0, 10**12):
        refused(run("reweight", "ALDP", "-n", n, "-o", tmp_path / "w.h5", "--model", model), f"from 1 to 1000000000, not {n}")
    assert not list(tmp_path.glob("w.*"))


@pytest.fixture
def own(tmp_path, data):
    """Files of a trajectory of one's own."""
    read_source.cache_clear()
    trajectory = small_ensemble(data).to_mdtraj()
    trajectory[0].save_pdb(str(tmp_path / "top.pdb"))
    trajectory.save_dcd(str(tmp_path / "run.dcd"))
    return tmp_path / "run.dcd", "--topology", tmp_path / "top.pdb", "--temperature", 300


def test_from_a_trajectory_to_a_model_and_its_report(tmp_path, own, monkeypatch):
    native = ("--native", tmp_path / "top.pdb")
    written = run("init", *own, *native, "--select", "not element O", "-o", tmp_path / "mine.yaml", "--steps", 1)
    assert written.exit_code == 0, written.output
    assert "8 beads, 7 bonds between them" in written.output
    assert run("train", tmp_path / "mine.yaml").exit_code == 0
    model = tmp_path / "mine-model"
    drawn = run("sample", "mine", "--model", model, "-n", 30, "-o", tmp_path / "s.h5")
    assert drawn.exit_code == 0, drawn.output
    compared = run("compare", "mine", "--model", model, "--samples", tmp_path / "s.h5", "-o", tmp_path / "report")
    assert compared.exit_code == 0, compared.output
    assert ForceField.load(model).hash in (tmp_path / "report" / "report.html").read_text()
    comparison = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert "native_rmsd_pm" in comparison["comparisons"]["samples vs reference"]
    monkeypatch.setattr(bound_model, "FLOW_INTERVALS", 2)
    weighted = run("reweight", "mine", "--model", model, "-n", 10, "-o", tmp_path / "w.h5")
    assert weighted.exit_code == 0, weighted.output
    assert "phi > 0" in weighted.output
    assert "the folded state" in weighted.output


def test_init_refuses_what_cannot_be_trained_on(tmp_path, own):
    out = tmp_path / "mine.yaml"
    refused(run("init", *own, "--select", "name ZZ", "-o", out), "chooses 0 of")
    refused(run("init", *own, "--forces", tmp_path / "f.npy", "--force-unit", "eV", "-o", out), "forces.unit", "kcal/mol/angstrom")
    refused(run("init", *own[:-1], -300, "-o", out), "temperature", "greater than 0")
    refused(run("init", *own, "--select", "name C CA N", "--forces", tmp_path / "f.npy", "-o", out), "f.npy: there is no such file")
    assert not out.exists()


def test_init_takes_from_a_known_system_what_the_files_do_not_say(tmp_path):
    system = load_system("chignolin")
    steps = np.random.default_rng(0).standard_normal((30, 10, 3))
    walk = (0.38 * steps / np.linalg.norm(steps, axis=-1, keepdims=True)).cumsum(1)
    mdtraj.Trajectory(walk, system.topology()).save_dcd(str(tmp_path / "CLN025-0-c-alpha-000.dcd"))
    written = run("init", tmp_path / "CLN025-0-c-alpha-000.dcd", "--steps", 1, "-o", tmp_path / "chignolin.yaml")
    assert written.exit_code == 0, written.output
    config = read_config(tmp_path / "chignolin.yaml")
    assert (config.system, config.data.topology, config.data.temperature) == ("chignolin", None, 340.0)
    assert run("train", tmp_path / "chignolin.yaml").exit_code == 0
    assert (tmp_path / "chignolin-model" / "systems" / "chignolin.yaml").exists()
    dcd = tmp_path / "CLN025-0-c-alpha-000.dcd"
    refused(run("init", dcd, "-o", tmp_path / "mine.yaml"), "mine is no known system; give the --temperature")
    refused(run("init", dcd, "--temperature", 340, "-o", tmp_path / "mine.yaml"), "does not say which atoms it has; give --topology")
    refused(run("init", dcd, "-o", tmp_path / "villin.yaml"), "cannot be read as a trajectory of the topology")
    refused(run("init", dcd, "--temperature", 300, "-o", tmp_path / "CLN025.yaml"), "at 300 K where it has at 340 K")
    names = ("--topology", system_pdb(tmp_path, system), "--temperature", 340)
    refused(run("init", dcd, *names, "-o", tmp_path / "a name.yaml"), "'a name' cannot be the name of a molecule: letters, digits")
    refused(run("init", dcd, "-o", tmp_path / "villin.yml"), "villin.yml: must end in .yaml")
    refused(run("init", dcd, dcd, "-o", tmp_path / "CLN025.yaml"), "CLN025-0-c-alpha-000.dcd: is given twice")
    assert not list(tmp_path.glob("[!c]*.y*ml"))


def system_pdb(folder, system):
    path = folder / "top.pdb"
    mdtraj.Trajectory(np.zeros((1, len(system.beads), 3)), system.topology()).save_pdb(str(path))
    return path


@needs_builder
def test_reference_of_a_system_a_sequence_and_a_structure(tmp_path):
    short = ("--ns", 4e-5, "--every", 0.01, "--replicas", 2)
    made = run("reference", "ALDP", *short, "-o", tmp_path / "ALDP.h5")
    assert made.exit_code == 0, made.output
    assert "4 frames of 22 atoms at 300 K" in made.output
    assert run("compare", "ALDP", "--reference", tmp_path / "ALDP.h5").exit_code == 2  # nothing to compare, but of this molecule
    made = run("reference", "AGA", *short, "--temperature", 320, "-o", tmp_path / "AGA.h5")
    assert made.exit_code == 0, made.output
    assert read_ensemble(tmp_path / "AGA.h5").temperature == 320.0
    refused(run("reference", "KX", *short, "-o", tmp_path / "x.h5"), "must be of L-amino acids")
    refused(run("reference", "dipeptides", *short, "-o", tmp_path / "x.h5"), "dipeptides is a family of molecules")
    refused(run("reference", "mine", "--structure", tmp_path / "no.pdb", *short, "-o", tmp_path / "x.h5"), "no.pdb")
    refused(run("reference", "ALDP", *short, "-o", tmp_path / "x.xtc"), "ends in .h5")
