import itertools
import logging
import shutil

import numpy as np
import pytest
import torch

import scoremd
from scoremd import bound_model, force_field
from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField, list_models, model_for
from scoremd.systems import load_system
from tests.models import alanine_dipeptide


@pytest.fixture
def folder(tmp_path):
    alanine_dipeptide().save(tmp_path / "model")
    return tmp_path / "model"


def test_it_says_what_it_is():
    force_field = alanine_dipeptide()
    assert repr(force_field) == f"<ForceField {force_field.description.name} ({force_field.hash}): alanine-dipeptide at 300 K>"


def test_a_saved_model_is_the_same_model(folder):
    before, after = alanine_dipeptide(), ForceField.load(folder)
    assert after.hash == before.hash
    x = torch.randn(3, 5, 3)
    for a, b in zip(
        before.bind("ALDP").energy_and_score(x, torch.ones(1)), after.bind("ALDP").energy_and_score(x, torch.ones(1)), strict=True
    ):
        assert torch.equal(a, b)
    assert alanine_dipeptide(seed=1).hash != before.hash


def test_systems_that_a_model_brings_with_it_are_saved_with_it(tmp_path):
    model = alanine_dipeptide()
    model.save(tmp_path / "a")
    (tmp_path / "a" / "systems").mkdir()
    (tmp_path / "a" / "systems" / "mine.yaml").write_text("of my own")
    brought = ForceField.load(tmp_path / "a")
    for folder in ("b", "a"):
        brought.save(tmp_path / folder)
        again = ForceField.load(tmp_path / folder)
        assert again.hash == model.hash
        assert [path.read_text() for path in again.systems[0].iterdir()] == ["of my own"]


def test_a_model_is_not_saved_over_a_file(tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(ScoreMDError, match="is a file, where a folder"):
        alanine_dipeptide().save(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"


def test_models_are_found_by_name(folder, monkeypatch):
    shelf = folder.parent / "shelf" / "force_fields"
    shelf.mkdir(parents=True)
    shutil.copytree(folder, shelf / "mine")
    monkeypatch.setenv("SCOREMD_PATH", str(folder.parent / "shelf"))
    assert "mine" in list_models()
    assert ForceField.load("mine").hash == ForceField.load(folder).hash


def test_the_shipped_model_covers_alanine_dipeptide():
    assert model_for(load_system("ALDP")) == "alanine-dipeptide"
    assert scoremd.ForceField.load("alanine-dipeptide").description.temperature == 300


def test_a_model_of_a_family_is_found_for_every_member(tmp_path, monkeypatch):
    model = alanine_dipeptide()
    model.description = model.description.model_copy(update={"systems": ("dipeptides",)})
    model.save(tmp_path / "force_fields" / "aaa")
    monkeypatch.setenv("SCOREMD_PATH", str(tmp_path))
    assert [model_for(load_system(name)) for name in ("ks", "GG", "ALDP")] == ["aaa", "aaa", "alanine-dipeptide"]


def test_no_model_of_a_member(monkeypatch):
    monkeypatch.setattr(force_field, "list_models", dict)
    with pytest.raises(ScoreMDError, match=r"no model covers KS; .*\(systems: alanine-dipeptide, bba, chignolin, dipeptides,"):
        model_for(load_system("KS"))


def broken(folder, name, content):
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", b"a: [", "not valid YAML"),
        ("config.yaml", b"name: other program", "not a ScoreMD model"),
        ("config.yaml", b"!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("model.safetensors", b"", "safetensors"),
        ("model.safetensors", b"\x80\x04pickle", "safetensors"),
    ],
)
def test_files_that_are_not_ours_are_refused(folder, name, content, message):
    with pytest.raises(ScoreMDError, match=message):
        ForceField.load(broken(folder, name, content))


def test_truncated_weights_and_nan_weights_are_refused(folder, tmp_path):
    whole = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ScoreMDError, match="safetensors"):
        ForceField.load(broken(folder, "model.safetensors", whole[: len(whole) // 2]))
    model = alanine_dipeptide()
    next(iter(model.experts[0].parameters())).data.fill_(float("nan"))
    model.save(tmp_path / "nan")
    with pytest.raises(ScoreMDError, match="not finite"):
        ForceField.load(tmp_path / "nan")


def test_weights_of_another_size_are_refused(folder):
    text = (folder / "config.yaml").read_text().replace("scalars: 6", "scalars: 7")
    with pytest.raises(ScoreMDError, match="does not fit"):
        ForceField.load(broken(folder, "config.yaml", text.encode()))


def test_unknown_models_and_wrong_systems_are_refused(folder, tmp_path):
    with pytest.raises(ScoreMDError, match=r"there is no model 'nothing'; known are .*alanine-dipeptide"):
        ForceField.load("nothing")
    with pytest.raises(ScoreMDError, match="not the folder of a ScoreMD model"):
        ForceField.load(f"{tmp_path}/nowhere")
    with pytest.raises(ScoreMDError, match="toy potential"):
        ForceField.load(folder).sample("mueller-brown", 3)


def test_a_system_that_the_model_was_not_trained_for_is_refused():
    part = load_system("ALDP").model_copy(update={"name": "part"})
    with pytest.raises(ScoreMDError, match="does not cover part, only alanine-dipeptide"):
        ForceField.load("alanine-dipeptide").bind(part)
    hot = load_system("ALDP").model_copy(update={"temperature": 350.0})
    with pytest.raises(ScoreMDError, match=r"alanine-dipeptide is at 350.0 K, but model alanine-dipeptide was trained at 300.0 K"):
        ForceField.load("alanine-dipeptide").bind(hot)


def test_seeds_and_numbers_of_samples(monkeypatch):
    monkeypatch.setattr(bound_model, "SAMPLING_CALLS", 5)
    model = alanine_dipeptide()
    a, b, c = (model.sample("ALDP", n, seed).xyz for n, seed in ((300, 0), (300, 0), (300, 1)))
    assert np.array_equal(a, b)
    assert not np.allclose(a, c)
    assert a.shape == (300, 5, 3)
    # fewer samples are the first of many
    assert np.array_equal(model.sample("ALDP", 10, 0).xyz, a[:10])
    for n in (0, -3):
        with pytest.raises(ScoreMDError, match="from 1 to 1000000000"):
            model.sample("ALDP", n)


def test_a_mixture_over_time_asks_the_expert_of_the_noise(monkeypatch):
    model = alanine_dipeptide(time_ranges=((0.0, 0.1), (0.1, 1.0)))
    bound = model.bind("ALDP")
    border = float(bound.schedule.log_snr(torch.tensor(0.1, dtype=torch.float64)))
    score, x = bound.score_function(), torch.randn(3, 5, 3)
    for level, expert in ((border + 0.1, 0), (border - 0.1, 1)):
        lam = torch.tensor([level])
        assert torch.equal(score(x, lam), bound.energy_and_score(x, lam, expert)[1])
    assert bound.sample(4, itertools.count()).shape == (4, 5, 3)


def test_model_at_another_temperature_is_refused():
    hot = load_system("ALDP").model_copy(update={"temperature": 310.0})
    with pytest.raises(ScoreMDError, match=r"trained at 300\.0 K"):
        alanine_dipeptide().bind(hot)


def test_a_model_forgets_molecules_that_it_was_bound_to_long_ago():
    model = ForceField.load("dipeptides")
    bound = [model.bind(name) for name in ("KS", "AT", "KG", "LW", "AC")]
    assert model.bind("AC") is bound[-1]
    assert model.bind("AT") is bound[1]
    assert model.bind("KS") is not bound[0]


def test_a_changed_system_of_the_same_name_is_checked_again():
    model, system = alanine_dipeptide(), load_system("ALDP")
    bound = model.bind(system)
    assert model.bind(system) is bound
    with pytest.raises(ScoreMDError, match=r"310\.0 K"):
        model.bind(system.model_copy(update={"temperature": 310.0}))


def test_a_folder_in_the_working_directory_does_not_hide_a_known_model(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "alanine-dipeptide")
    monkeypatch.chdir(tmp_path)
    assert ForceField.load("alanine-dipeptide").hash != ForceField.load(folder).hash
    assert ForceField.load("./alanine-dipeptide").hash == ForceField.load(folder).hash


def test_damaged_model_on_the_shelf_is_passed_over_with_a_notice(tmp_path, monkeypatch, caplog):
    shelf = tmp_path / "force_fields" / "aaa"
    shelf.mkdir(parents=True)
    (shelf / "config.yaml").write_text("name: [", encoding="utf-8")
    monkeypatch.setenv("SCOREMD_PATH", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert model_for(load_system("ALDP")) == "alanine-dipeptide"
    assert any("aaa" in record.message for record in caplog.records)
