import importlib
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from scoremd import bound_model, compiler, doctor
from scoremd.bound_model import BoundModel
from scoremd.cli import app
from scoremd.errors import ScoreMDError
from scoremd.openmm import ModelForce
from scoremd.resources import packaged
from scoremd.simulation.langevin import LangevinParameters


@pytest.fixture(autouse=True)
def without_compiler(monkeypatch):
    monkeypatch.setattr(compiler, "find_compiler", lambda: None)


@pytest.fixture
def with_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "find_compiler", lambda: "c++")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Program:
    """Stands for a compiled one: what is written, its forces multiplied by a factor."""

    def __init__(self, factor):
        self.factor = factor

    def bind(self, log_snr, *_):
        bound = doctor._shipped()[1]

        def function(x):
            energy, score = bound.energy_and_score(x, log_snr)
            return energy, self.factor * score

        return function


def lines(result):
    """Status and text by subject."""
    found = [re.match(r"(ok|skipped|wrong) +(.+?)  +(.+)", line) for line in result.stdout.splitlines()]
    return {m[2]: (m[1], m[3]) for m in found if m}


def test_all_is_well_without_a_compiler_and_what_needs_it_says_so():
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    found = lines(result)
    for package in ("scoremd", "torch", "openmm", "mdtraj", "e3nn", "numpy"):
        assert found[package] == ("ok", version(package))
    skipped = {subject for subject, (status, _) in found.items() if status == "skipped"}
    assert skipped == {"compiler", "cache", "compiled = as written"}
    assert all("no C++ compiler" in found[subject][1] for subject in skipped)
    assert len(found) == 19
    assert result.stdout.endswith("All is well.\n")


@pytest.mark.slow
@pytest.mark.compiled
def test_all_is_well_with_a_compiler(monkeypatch):
    monkeypatch.undo()
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    assert {status for status, _ in lines(result).values()} == {"ok"}


def test_what_is_wrong_is_said_and_the_rest_goes_on(monkeypatch):
    def broken(package):
        raise ImportError(f"lib{package}.so:\nno such file")

    monkeypatch.setattr(importlib, "import_module", broken)

    def nothing():
        raise ScoreMDError("there is no model")

    monkeypatch.setattr(doctor, "_shipped", nothing)
    monkeypatch.setattr(doctor, "_langevin", lambda: "as it should be")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    found = lines(result)
    assert found["mdtraj"] == ("wrong", "ImportError: libmdtraj.so: no such file")
    assert found["rotation"] == ("wrong", "there is no model")
    assert found["Langevin dynamics"] == ("ok", "as it should be")
    assert result.stdout.splitlines()[-1].startswith("Not as it should be: scoremd, torch, ")


def test_compiler_and_cache(with_compiler, monkeypatch, tmp_path):
    assert doctor._cache() == f"{tmp_path / 'cache' / 'scoremd'} can be written to"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ScoreMDError, match="every run compiles anew"):
        doctor._cache()
    monkeypatch.setattr(compiler, "find_compiler", lambda: str(shutil.which("echo")))
    assert doctor._compiler().startswith(f"{shutil.which('echo')}: ")


@pytest.mark.parametrize(("program", "wrong"), [(Program(1.0), None), (Program(1.01), "forces by 0.01 of"), (None, "compilation failed")])
def test_compiled_programs_are_compared_with_what_is_written(with_compiler, monkeypatch, program, wrong):
    monkeypatch.setattr(bound_model, "program_of", lambda _: program)
    if wrong is None:
        assert "forces by 0 of" in doctor._compiled_is_as_written()
    else:
        with pytest.raises(ScoreMDError, match=wrong):
            doctor._compiled_is_as_written()


def test_models_that_were_changed(monkeypatch, tmp_path):
    folder = Path(shutil.copytree(packaged("force_fields") / "alanine-dipeptide", tmp_path / "model"))
    before = doctor._model(folder)
    tensors = load_file(folder / "model.safetensors")
    next(q for q in tensors.values() if q.is_floating_point()).view(-1)[0] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ScoreMDError, match=f"is of {before}: the model is damaged"):
        doctor._model(folder)
    (folder / "figures.json").unlink()
    assert doctor._model(folder) != before


def change_forces(monkeypatch, change):
    """Let `BoundModel.forces` give `change(positions, energies, forces)`."""
    right = BoundModel.forces

    def forces(self):
        function = right(self)
        return lambda x: change(x, *function(x))

    monkeypatch.setattr(BoundModel, "forces", forces)


def held(x, energies, forces):
    """With a spring to a plane: forces are its slope, too, but it does not turn with the molecule."""
    pull = torch.zeros_like(forces)
    pull[:, 0, 0] = -2e4 * x[:, 0, 0]
    return energies + 1e4 * x[:, 0, 0] ** 2, forces + pull


@pytest.mark.parametrize(
    ("change", "slope", "rotation"),
    [
        (lambda _, e, f: (e, -f), True, False),
        (lambda _, e, f: (1.01 * e, f), True, False),
        (held, False, True),
        (lambda x, e, f: (held(x, e, f)[0], f), True, True),
        (lambda _, e, f: (e, f * torch.tensor([1.0, 1.0, 1.01])), True, True),
        (lambda _, e, f: (e * torch.nan, f), True, True),
    ],
)
def test_wrong_energies_and_forces(monkeypatch, change, slope, rotation):
    change_forces(monkeypatch, change)
    for check, wrong in ((doctor._force_is_slope, slope), (doctor._rotation, rotation)):
        if wrong:
            with pytest.raises(ScoreMDError, match="right would be up to"):
                check()
        else:
            check()


def test_openmm_with_other_forces(monkeypatch):
    right = ModelForce.__call__

    def twice(self, state):
        energy, forces = right(self, state)
        return energy, 1.01 * forces

    monkeypatch.setattr(ModelForce, "__call__", twice)
    with pytest.raises(ScoreMDError, match=r"forces by 0\.01 of"):
        doctor._openmm_is_engine()


def test_samples_of_another_size(monkeypatch):
    frames = torch.from_numpy(doctor._shipped()[2].positions)
    monkeypatch.setattr(BoundModel, "sample", lambda _, n, __: frames[::1000][:n])
    doctor._sampling()
    monkeypatch.setattr(BoundModel, "sample", lambda _, n, __: 1.02 * frames[::1000][:n])
    with pytest.raises(ScoreMDError, match="standard errors"):
        doctor._sampling()


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_thermostat_of_another_temperature(monkeypatch, factor):
    right = LangevinParameters.stir.func
    monkeypatch.setattr(LangevinParameters, "stir", property(lambda self: factor * right(self)))
    with pytest.raises(ScoreMDError, match="standard errors"):
        doctor._langevin()
