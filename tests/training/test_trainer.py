import csv
import itertools
import json
import shutil

import numpy as np
import pytest
import torch

from scoremd import resources
from scoremd.data import read_ensemble
from scoremd.diffusion.losses import add_noise
from scoremd.diffusion.posterior import noised_density
from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField
from scoremd.systems import find_system, load_system
from scoremd.training import trainer
from scoremd.training.config import FokkerPlanckConfig, TrainingConfig, read_config
from scoremd.training.dataset import training_set
from scoremd.trajectory_source import read_source
from tests.models import SMALL, dipeptide_folder, small_ensemble


def config(folder_of_data, folder, **changes):
    values = {
        "name": "test",
        "title": "Test",
        "system": "ALDP",
        "data": folder_of_data / "ALDP-small.h5",
        "output": folder,
        "network": SMALL,
        "steps": 12,
        "batch": 16,
        "checkpoint_every": 4,
        "fokker_planck": {"weight": 0.1},
    }
    return TrainingConfig.model_validate(values | changes)


class KilledError(Exception):
    pass


def kill_at(monkeypatch, step, expert=0):
    """Make the run die in the middle, after `step` steps of an expert."""
    advance = trainer.Expert.advance

    def dying(self):
        if (self.number, self.state.step) == (expert, step):
            raise KilledError
        return advance(self)

    monkeypatch.setattr(trainer.Expert, "advance", dying)


@pytest.mark.parametrize(
    "ranges",
    [
        {},
        {"time_ranges": ((0.0, 0.1), (0.1, 1.0)), "training_ranges": ((0.0, 1.0), (0.1, 1.0))},
        {"posterior_weight": 10, "optimizer": "soap", "steps": 32},
    ],
)
def test_killed_run_resumes_bit_for_bit(data, tmp_path, monkeypatch, ranges):
    trainer.train(config(data, tmp_path / "whole", **ranges))
    with monkeypatch.context() as patch:
        # SOAP turns its bases after each tenth step
        kill_at(patch, ranges.get("steps", 12) - 2, expert=len(ranges.get("time_ranges", [0])) - 1)
        with pytest.raises(KilledError):
            trainer.train(config(data, tmp_path / "killed", **ranges))
    trainer.train(config(data, tmp_path / "killed", **ranges))
    for name in ("model.safetensors", "config.yaml", "metrics.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert not list((tmp_path / "killed").glob("checkpoint*"))


def test_a_run_shows_the_model_that_it_has_so_far(data, tmp_path, monkeypatch):
    settings = config(data, tmp_path / "run")
    with pytest.raises(ScoreMDError, match="has no checkpoint of network 1 yet"):
        trainer.averaged_so_far(settings)
    with monkeypatch.context() as patch:
        kill_at(patch, 10)
        with pytest.raises(KilledError):
            trainer.train(settings)
    _, (early,), steps = trainer.averaged_so_far(settings)
    assert steps == 8
    trainer.train(settings)
    _, (late,), steps = trainer.averaged_so_far(settings)
    assert steps == 12
    torch.testing.assert_close(early.state_dict(), late.state_dict(), rtol=0.1, atol=0.1)
    assert not torch.equal(early.read_out[0].weight, late.read_out[0].weight)
    torch.testing.assert_close(late.state_dict(), ForceField.load(tmp_path / "run").experts[0].state_dict())


def test_a_truncated_checkpoint_falls_back_to_the_one_before(data, tmp_path, monkeypatch):
    trainer.train(config(data, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        kill_at(patch, 10)
        with pytest.raises(KilledError):
            trainer.train(config(data, tmp_path / "killed"))
    checkpoint = tmp_path / "killed" / "checkpoint-0.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    trainer.train(config(data, tmp_path / "killed"))
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "killed")]
    assert weights[0] == weights[1]


def test_a_run_without_a_readable_checkpoint_does_not_start_over(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, 10)
        with pytest.raises(KilledError):
            trainer.train(config(data, tmp_path))
    log = (tmp_path / "metrics.csv").read_text()
    for checkpoint in tmp_path.glob("checkpoint-0*"):
        checkpoint.write_bytes(b"")
    with pytest.raises(ScoreMDError, match="is damaged"):
        trainer.train(config(data, tmp_path))
    assert (tmp_path / "metrics.csv").read_text() == log


def test_another_seed_gives_another_model_and_other_settings_are_refused(data, tmp_path, monkeypatch):
    trainer.train(config(data, tmp_path / "a"))
    trainer.train(config(data, tmp_path / "b", seed=1))
    assert ForceField.load(tmp_path / "a").hash != ForceField.load(tmp_path / "b").hash
    with monkeypatch.context() as patch:
        kill_at(patch, 10)
        with pytest.raises(KilledError):
            trainer.train(config(data, tmp_path / "c"))
    with pytest.raises(ScoreMDError, match="learning_rate"):
        trainer.train(config(data, tmp_path / "c", learning_rate=1e-4))


def test_log_has_a_row_for_each_checkpoint_and_losses_fall(data, tmp_path):
    trainer.train(config(data, tmp_path, steps=240, checkpoint_every=40, batch=64))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [int(r["step"]) for r in rows] == [40, 80, 120, 160, 200, 240]
    assert float(rows[-1]["loss_logarithmic"]) < 0.95 * float(rows[0]["loss_logarithmic"])
    assert float(rows[-1]["fokker_planck"]) > 0


def test_fokker_planck_term_lowers_the_residual(data, tmp_path):
    values = []
    for weight in (1e-9, 1.0):
        term = FokkerPlanckConfig(weight=weight, fraction=0.5)
        trainer.train(config(data, tmp_path / str(weight), steps=150, checkpoint_every=50, fokker_planck=term.model_dump()))
        rows = list(csv.DictReader((tmp_path / str(weight) / "metrics.csv").open()))
        values.append(float(rows[-1]["fokker_planck"]))
    assert values[1] < 0.5 * values[0]


def test_dual_score_matching_makes_energies_of_noise_levels_agree(data, tmp_path):
    """Scores alone leave the energy's dependence on the noise level open."""
    values = []
    for weight in (1e-9, 1.0):
        trainer.train(config(data, tmp_path / str(weight), steps=150, checkpoint_every=50, fokker_planck={}, dual_weight=weight))
        rows = list(csv.DictReader((tmp_path / str(weight) / "metrics.csv").open()))
        values.append(float(rows[-1]["dual"]))
    assert values[1] < 0.7 * values[0]  # what is left is the target's own variance, about 1 / D


def test_only_the_network_that_gives_forces_is_matched_twice(data, tmp_path):
    ranges = ((0.0, 0.1), (0.1, 1.0))
    trainer.train(config(data, tmp_path, steps=2, checkpoint_every=2, fokker_planck={}, dual_weight=1.0, time_ranges=ranges))
    first, second = (float(row["dual"]) for row in csv.DictReader((tmp_path / "metrics.csv").open()))
    assert first > 0
    assert second == 0


@pytest.mark.compiled
@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_compiled_step_equals_the_step_as_written(data, tmp_path, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    system = load_system("ALDP")
    c = config(data, tmp_path, device=device)
    description = trainer.describe(c, system)
    samples = training_set([(system, read_ensemble(c.data))], description, use_forces=True).to(torch.device(device))
    expert = trainer.Expert(c, description, samples, 0)
    written = expert.step_function
    expert.compile()
    for _ in range(2):
        batch = expert.source.draw()
        a, b = (step(expert.parameters, batch) for step in (written, expert.step_function))
        for p, q in zip(a, b, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
        expert.advance()


@pytest.mark.parametrize("part", ["gradient", "loss"])
def test_a_gradient_that_is_not_finite_ends_the_run_and_leaves_the_checkpoint_before(data, tmp_path, monkeypatch, part):
    advance = trainer.Expert.advance

    def spoiled(self):
        figures = advance(self)
        if self.state.step == 7:
            figures[-1 if part == "gradient" else 0] = float("inf")
        return figures

    monkeypatch.setattr(trainer.Expert, "advance", spoiled)
    with pytest.raises(ScoreMDError, match="a gradient was not finite in the 4 steps before 8: lower the learning rate"):
        trainer.train(config(data, tmp_path / "run"))
    assert [row["step"] for row in csv.DictReader((tmp_path / "run" / "metrics.csv").open())] == ["4"]
    monkeypatch.setattr(trainer.Expert, "advance", advance)
    trainer.train(config(data, tmp_path / "run"))
    trainer.train(config(data, tmp_path / "whole"))
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(data, tmp_path):
    with pytest.raises(ScoreMDError, match="device: cuda is asked for, but torch finds no CUDA device"):
        trainer.train(config(data, tmp_path / "run", device="cuda"))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_a_gpu_resumes_and_gives_a_model_for_any_device(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, 10)
        with pytest.raises(KilledError):
            trainer.train(config(data, tmp_path / "run", device="cuda"))
    trainer.train(config(data, tmp_path / "run", device="cuda"))
    force_field = ForceField.load(tmp_path / "run")
    assert all(not p.is_cuda for p in force_field.experts[0].parameters())
    assert len(list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))) == 3


def test_training_set_has_unit_scale_forces_and_no_net_force(data):
    system = load_system("ALDP")
    c = config(data, data)
    samples = training_set([(system, read_ensemble(c.data))], trainer.describe(c, system), use_forces=True)
    assert samples.positions.mean(1).abs().max() < 1e-5
    assert samples.forces.sum(1).abs().max() < 1e-2
    # virial theorem: <x . f> = -D for the scaled force F / kT
    virial = (samples.positions * samples.forces).sum((1, 2)).numpy()
    assert virial.mean() == pytest.approx(-12, abs=5 * virial.std() / np.sqrt(len(virial) / 16))
    bare = training_set([(system, read_ensemble(c.data))], trainer.describe(c, system), use_forces=False)
    assert bare.forces is None
    assert bare.force_square == np.inf


def test_data_that_do_not_fit_are_refused(data, tmp_path):
    with pytest.raises(ScoreMDError, match="KS is not alanine-dipeptide"):
        trainer.train(config(data, tmp_path, data=data / "KS-small.h5"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ScoreMDError, match="is a file, where a folder"):
        trainer.train(config(data, tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["metrics.csv", "model.safetensors"])
def test_files_of_unknown_origin_in_the_output_are_left_alone(data, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ScoreMDError, match=f"holds a {name} of unknown origin"):
        trainer.train(config(data, tmp_path))
    assert (tmp_path / name).read_text() == "mine"


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, 2)
        with pytest.raises(KilledError):
            trainer.train(config(data, tmp_path / "run"))
    trainer.train(config(data, tmp_path / "run"))
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [", "not valid YAML"),
        ("steps: 3", "name: Field required"),
        ("{name: a, title: b, system: ALDP, data: x, output: y, steps: -1}", "steps"),
        ("{name: a, title: b, system: ALDP, data: x, output: y, steps: 1, speed: 9}", "speed"),
    ],
)
def test_bad_configurations_are_refused(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ScoreMDError, match=message):
        read_config(path)
    with pytest.raises(ScoreMDError, match="cannot be read"):
        read_config(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    "path", sorted(resources.packaged("force_fields").glob("*/training*.yaml")), ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_shipped_configurations_are_valid(path):
    settings = read_config(path)
    description = trainer.describe(settings, find_system(settings.system))
    assert settings.output.parent == path.parent
    assert description.make_network().n_beads == len(description.slots)


def test_paths_are_relative_to_the_configuration(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"name": "a", "title": "b", "system": "ALDP", "data": "x.h5", "output": "y", "steps": 1}))
    assert read_config(path).data == (tmp_path / "x.h5").resolve()


def test_a_finished_model_is_kept(data, tmp_path):
    trainer.train(config(data, tmp_path / "a"))
    stamp = (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns
    trainer.train(config(data, tmp_path / "a"))
    with pytest.raises(ScoreMDError, match="other settings or data"):
        trainer.train(config(data, tmp_path / "a", seed=1))
    assert (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns == stamp


def test_a_model_of_a_family_covers_members_that_it_has_not_seen(data, tmp_path):
    settings = config(data, tmp_path / "a", system="Dipeptides", data=dipeptide_folder(data, tmp_path / "peptides"), steps=4)
    trainer.train(settings)
    model = ForceField.load(tmp_path / "a")
    assert model.description.systems == ("dipeptides",)
    assert model.description.trained["frames"] == 120
    for name, beads in (("TW", 10), ("GA", 9)):
        bound = model.bind(name)
        x = bound.sample(3, itertools.count())
        assert x.shape == (3, beads, 3)
        energy, forces = bound.forces()(x)
        assert forces.shape == x.shape
        assert bool(energy.isfinite().all() and forces.isfinite().all())
        assert float(forces.sum(1).abs().max()) < 1e-4 * float(forces.abs().max())


@pytest.mark.parametrize("change", ["another file", "another order", "another content"])
def test_a_changed_folder_is_other_data(data, tmp_path, change):
    folder = dipeptide_folder(data, tmp_path / "peptides")
    settings = config(data, tmp_path / "a", system="dipeptides", data=folder, steps=4)
    trainer.train(settings)
    (folder / "README.md").unlink()
    trainer.train(settings)
    if change == "another file":
        shutil.copy(data / "KS-small.h5", folder / "SS.h5")
    elif change == "another order":
        (folder / "KG.h5").rename(folder / "LYS-GLY.h5")
    else:
        shutil.copy(data / "KG-small.h5", folder / "KG.h5")
    with pytest.raises(ScoreMDError, match="holds a model trained with other settings or data"):
        trainer._train(settings, None, None)


def test_a_run_may_start_from_a_model_and_add_to_it(data, tmp_path, monkeypatch):
    trainer.train(config(data, tmp_path / "first"))
    first = ForceField.load(tmp_path / "first")
    wider = config(data, tmp_path / "second", start=tmp_path / "first", network={**SMALL, "encoder_width": 4}, steps=1, learning_rate=1e-9)
    trainer.train(wider)
    second = ForceField.load(tmp_path / "second")
    x, level = torch.randn(3, 5, 3), torch.ones(1)
    torch.testing.assert_close(*(q.bind("ALDP").energy_and_score(x, level)[0] for q in (first, second)))
    # two experts start from the only one there is
    ranges = {"time_ranges": ((0.0, 0.1), (0.1, 1.0)), "training_ranges": ((0.0, 1.0), (0.1, 1.0))}
    two = config(data, tmp_path / "third", start=tmp_path / "first", steps=1, learning_rate=1e-9, **ranges)
    trainer.train(two)
    for expert in ForceField.load(tmp_path / "third").experts:
        torch.testing.assert_close(expert.state_dict(), first.experts[0].state_dict(), rtol=1e-5, atol=1e-6)
    # a start that changed is another run
    (tmp_path / "first" / "model.safetensors").write_bytes((tmp_path / "second" / "model.safetensors").read_bytes())
    shutil.copy(tmp_path / "second" / "config.yaml", tmp_path / "first")
    with pytest.raises(ScoreMDError, match="other settings"):
        trainer.train(wider)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {**SMALL, "scalars": 3}, "time_ranges": ((0.0, 0.1), (0.1, 1.0))}, "network has other sizes"),
        ({"system": "dipeptides"}, "has other beads, residues or torsions"),
    ],
)
def test_a_model_that_training_cannot_start_from_is_refused(data, tmp_path, changes, message):
    trainer.train(config(data, tmp_path / "first", steps=1, time_ranges=((0.0, 0.1), (0.1, 1.0)), fokker_planck={}))
    if "system" in changes:
        changes["data"] = dipeptide_folder(data, tmp_path / "p")
    with pytest.raises(ScoreMDError, match=message):
        trainer.train(config(data, tmp_path / "second", start=tmp_path / "first", **({"fokker_planck": {}} | changes)))
    assert not (tmp_path / "second").exists() or not list((tmp_path / "second").glob("checkpoint*"))


@pytest.mark.parametrize(
    ("ranges", "begun"),
    [
        (((0.0, 0.1), (0.1, 0.5), (0.5, 1.0)), (0, 1, 1)),
        (((0.0, 0.05), (0.05, 0.1), (0.1, 1.0)), (0, 0, 1)),
        (((0.0, 0.2), (0.2, 1.0)), (1, 1)),
        (((0.0, 1.0),), (1,)),
    ],
)
def test_experts_start_from_those_that_know_their_noise(data, tmp_path, ranges, begun):
    once = {"steps": 1, "learning_rate": 1e-9, "fokker_planck": {}}
    trainer.train(config(data, tmp_path / "first", time_ranges=((0.0, 0.1), (0.1, 1.0)), **once))
    trainer.train(config(data, tmp_path / "second", start=tmp_path / "first", time_ranges=ranges, **once))
    first, second = (ForceField.load(tmp_path / name).experts for name in ("first", "second"))
    for expert, number in zip(second, begun, strict=True):
        torch.testing.assert_close(expert.state_dict(), first[number].state_dict(), rtol=1e-5, atol=1e-6)


def test_toys_are_not_trained_on_ensembles(data, tmp_path):
    with pytest.raises(ScoreMDError, match="double-well is a toy potential, where a molecule or a family of molecules is needed"):
        trainer.train(config(data, tmp_path, system="double-well"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"schedule": "foo"},
        {"time_ranges": ()},
        {"time_ranges": ((0.5, 0.1),)},
        {"time_ranges": ((0.0, 0.1), (0.2, 1.0))},
        {"fokker_planck": {"log_snr": (3.0, -1.0)}},
        {"fokker_planck": {"weight": 0.1, "log_snr": (-1.0, 9.0)}},
        {"training_ranges": ((0.1, 1.0),)},
        {"training_ranges": ((0.0, 1.0), (0.0, 1.0))},
        {"fokker_planck": {"weight": 0.1}, "training_ranges": ((0.0, 0.1), (0.0, 1.0)), "time_ranges": ((0.0, 0.1), (0.1, 1.0))},
        {"network": {"achiral": True}},
        {"focus": (1.0, 0.0)},
        {"posterior_weight": -1.0},
        {"optimizer": "sgd"},
        {"networks": (2,), "start": "model"},
        {"networks": (), "start": "model"},
        {"networks": (1,)},
    ],
)
def test_senseless_configurations_are_refused(data, tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        config(data, tmp_path, **wrong)


def test_networks_that_are_not_named_stay_those_of_the_start(data, tmp_path, monkeypatch):
    ranges = {"time_ranges": ((0.0, 0.1), (0.1, 1.0)), "fokker_planck": {}}
    trainer.train(config(data, tmp_path / "first", **ranges))
    settings = config(data, tmp_path / "second", start=tmp_path / "first", networks=[2], **ranges)
    with monkeypatch.context() as patch:
        kill_at(patch, 6, expert=1)
        with pytest.raises(KilledError):
            trainer.train(settings)
    assert trainer.averaged_so_far(settings)[2] == 4
    trainer.train(settings)
    assert trainer.averaged_so_far(settings)[2] == 12
    first, second = (ForceField.load(tmp_path / name).experts for name in ("first", "second"))
    same = [all(torch.equal(a, b) for a, b in zip(p.parameters(), q.parameters(), strict=True)) for p, q in zip(first, second, strict=True)]
    assert same == [True, False]
    rows = list(csv.DictReader((tmp_path / "second" / "metrics.csv").open()))
    assert {r["expert"] for r in rows} == {"1"}


def test_with_the_scores_of_the_ensemble_fewer_steps_come_as_far(data, tmp_path):
    """Judged by those scores, at the noise where many frames count; the seeds of both runs are the same."""
    system, errors = load_system("ALDP"), []
    for weight in (0.0, 10.0):
        folder = tmp_path / str(weight)
        trainer.train(config(data, folder, steps=150, batch=64, posterior_weight=weight, fokker_planck={}, average=0.9))
        bound = ForceField.load(folder).bind(system)
        frames = training_set([(system, read_ensemble(data / "ALDP-small.h5"))], bound.description, use_forces=True).positions
        generator, level = torch.Generator().manual_seed(0), torch.tensor([0.5])
        x = add_noise(frames[torch.randint(len(frames), (256,), generator=generator)], bound.space.noise(256, generator), level)
        _, score = bound.energy_and_score(x, level)
        errors.append(float(((score - noised_density(x, level, frames)[1]) ** 2).mean()))
    assert errors[1] < 0.8 * errors[0]


def test_each_expert_sees_the_times_it_is_trained_on(data, tmp_path):
    settings = config(data, tmp_path, time_ranges=((0.0, 0.1), (0.1, 1.0)), training_ranges=((0.0, 0.5), (0.1, 1.0)))
    system = load_system("ALDP")
    description = trainer.describe(settings, system)
    frames = training_set([(system, read_ensemble(settings.data))], description, use_forces=True)
    schedule = description.make_schedule()
    for k, (low, high) in enumerate([(1e-5, 0.5), (0.1, 1.0)]):
        levels = trainer.Expert(settings, description, frames, k).source.draw().denoising.log_snr
        times = torch.from_numpy(schedule.time(levels.double().numpy()))
        assert float(times.min()) >= 0.99 * low
        assert 0.8 * high < float(times.max()) <= 1.01 * high
    assert description.time_ranges == settings.time_ranges


def test_half_of_the_noise_levels_are_drawn_where_the_configuration_says(data, tmp_path):
    settings = config(data, tmp_path, batch=64, focus=(2.0, 0.1))
    system = load_system("ALDP")
    description = trainer.describe(settings, system)
    frames = training_set([(system, read_ensemble(settings.data))], description, use_forces=True)
    levels = trainer.Expert(settings, description, frames, 0).source.draw().denoising.log_snr
    assert float((levels[:32] - 2).abs().max()) < 0.4
    assert float(levels[32:].std()) > 1


def test_a_run_has_the_settings_that_it_had_before_there_were_options_that_it_does_not_use(data, tmp_path):
    used = {"focus": [2.0, 0.1], "dual_weight": 1.0, "posterior_weight": 5.0, "optimizer": "soap"}
    assert not set(trainer._settings(config(data, tmp_path))) & {*used, "networks"}
    assert trainer._settings(config(data, tmp_path, **used)).items() >= used.items()


@pytest.fixture
def own(tmp_path, data):
    """Settings of a run on a trajectory of one's own: frames of alanine dipeptide, of which the first torsion's beads are taken."""
    read_source.cache_clear()
    ensemble = small_ensemble(data)
    (tmp_path / "own").mkdir()
    trajectory = ensemble.to_mdtraj()
    trajectory[0].save_pdb(str(tmp_path / "own" / "top.pdb"))
    trajectory.save_dcd(str(tmp_path / "own" / "run.dcd"))
    np.save(tmp_path / "own" / "forces.npy", ensemble.forces)
    return {
        "system": "mine",
        "data": {
            "trajectories": [tmp_path / "own" / "run.dcd"],
            "topology": tmp_path / "own" / "top.pdb",
            "select": "not element O",
            "temperature": 300.0,
            "forces": {"files": [tmp_path / "own" / "forces.npy"], "unit": "kJ/mol/nm"},
        },
    }


def test_models_of_ones_own_molecule_move_without_the_data(tmp_path, data, own):
    trainer.train(config(data, tmp_path / "model", **own))
    shutil.rmtree(tmp_path / "own")
    moved = shutil.move(tmp_path / "model", tmp_path / "moved")
    model = ForceField.load(moved)
    assert model.sample("mine", 3).n_frames == 3
    system = model.find("mine")
    assert system.reference_ensemble().n_frames == small_ensemble(data).n_frames
    assert {"phi", "psi"} == set(system.collective_variables)
    with pytest.raises(ScoreMDError, match="'mine'"):
        load_system("mine")


def test_a_native_structure_may_be_added_to_a_trained_model(tmp_path, data, own):
    trainer.train(config(data, tmp_path / "model", **own))
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert not ForceField.load(tmp_path / "model").find("mine").native
    own["data"]["native"] = own["data"]["topology"]
    trainer.train(config(data, tmp_path / "model", **own))
    assert len(ForceField.load(tmp_path / "model").find("mine").native) == len(ForceField.load(tmp_path / "model").find("mine").beads)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


def test_runs_on_trajectories_resume_and_refuse_others(tmp_path, data, own, monkeypatch):
    whole = config(data, tmp_path / "whole", **own)
    trainer.train(whole)
    parts = config(data, tmp_path / "parts", **own)
    with monkeypatch.context() as patch:
        kill_at(patch, 6)
        with pytest.raises(KilledError):
            trainer.train(parts)
    trainer.train(parts)
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (tmp_path / "parts" / "model.safetensors").read_bytes()
    own["data"]["stride"] = 2
    with pytest.raises(ScoreMDError, match="holds a model trained with other settings or data"):
        trainer.train(config(data, tmp_path / "whole", **own))


def test_forces_that_are_not_wanted_are_not_read(tmp_path, data, own):
    (tmp_path / "own" / "forces.npy").unlink()
    with pytest.raises(ScoreMDError, match=r"forces.npy: there is no such file"):
        trainer.train(config(data, tmp_path / "model", **own))
    trainer.train(config(data, tmp_path / "model", **own, use_forces=False))


def test_trajectories_of_a_known_molecule_are_checked(tmp_path, data, own):
    own["system"] = "ALDP"
    with pytest.raises(
        ScoreMDError, match=r"ALDP is a known system, and the trajectories are of another: CH3 of ACE 1 where it has C of ACE 1"
    ):
        trainer.train(config(data, tmp_path / "model", **own))
    own["data"]["select"] = "(resname ACE and name C) or (resname ALA and name N CA C) or (resname NME and name N)"
    trainer.train(config(data, tmp_path / "model", **own))
    model = ForceField.load(tmp_path / "model")
    assert model.description.systems == ("alanine-dipeptide",)
    own["data"]["masses"] = [20.0] * 5
    trainer.train(config(data, tmp_path / "heavy", **own))
    assert ForceField.load(tmp_path / "heavy").find("ALDP").masses.tolist() == [20.0] * 5
    assert model.find("ALDP").title == load_system("ALDP").title
    assert model.find("ALDP").reference_ensemble().n_frames == small_ensemble(data).n_frames
    own["data"]["temperature"] = 310.0
    with pytest.raises(ScoreMDError, match="at 310 K where it has at 300 K"):
        trainer.train(config(data, tmp_path / "hot", **own))


def test_torsions_of_a_chain_come_in_runs_that_overlap():
    torsions = tuple((k, k + 1, k + 2, k + 3) for k in range(10))
    assert trainer._torsion_groups(torsions[:8]) == (torsions[:8],)
    assert trainer._torsion_groups(()) == ()
    assert trainer._torsion_groups(torsions) == tuple(torsions[k : k + 3] for k in range(8))
