from dataclasses import replace

import mdtraj
import numpy as np
import pytest
import torch

from scoremd import refinement
from scoremd.collective_variables import dihedrals
from scoremd.data import read_ensemble, write_ensemble
from scoremd.errors import ScoreMDError
from scoremd.flattening import bias, flattening
from scoremd.force_field import ForceField
from scoremd.refinement import Contrast, RefinementSettings, local_energy, refine, refine_network, relative_entropy
from scoremd.simulation import engine
from scoremd.systems import load_system
from tests.models import alanine_dipeptide


def test_relative_entropy_is_least_at_the_logarithm_of_the_ratio_of_densities():
    torch.manual_seed(0)
    data, made = torch.randn(200_000), 1.5 * torch.randn(200_000)

    def change(x):
        return x**2 / 2 - x**2 / (2 * 1.5**2)  # ln p_made / p_data, without its constant

    even = torch.zeros(len(made))
    least = relative_entropy(change(data), change(made), even)
    divergence = np.log(1.5) + 1 / (2 * 1.5**2) - 0.5
    assert float(least) == pytest.approx(-divergence, abs=0.005)
    assert relative_entropy(0 * data, 0 * made, even) == 0
    for factor in (0.8, 1.2):
        assert relative_entropy(factor * change(data), factor * change(made), even) > least + 1e-3


def test_weights_undo_that_the_model_was_simulated_otherwise():
    torch.manual_seed(0)
    data, made, otherwise = torch.randn(200_000), 1.5 * torch.randn(200_000), 2 * torch.randn(200_000)
    log_weights = 7 + otherwise**2 / 2 * (1 / 2**2 - 1 / 1.5**2)
    expected = relative_entropy(data**2 / 4, made**2 / 4, torch.zeros(len(made)))
    assert float(relative_entropy(data**2 / 4, otherwise**2 / 4, log_weights)) == pytest.approx(float(expected), abs=0.01)


@pytest.fixture(scope="module")
def tilted():
    """Reference frames, and others of the same with more of cos phi, at a width of the local term that can learn it."""
    force_field = alanine_dipeptide()
    d = force_field.description
    d = d.model_copy(update={"network": d.network.model_copy(update={"torsion_width": 32})})
    torch.manual_seed(0)
    network = d.make_network()
    system = load_system("ALDP")
    ensemble = system.reference_ensemble()
    tilt = np.cos(dihedrals(ensemble.to_mdtraj(system.bonds), [system.collective_variables["phi"]])[:, 0])
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(tilt), 4000, p=np.exp(tilt) / np.exp(tilt).sum())
    x = torch.from_numpy(6 * (ensemble.positions - ensemble.positions.mean(1, keepdims=True)))
    others = rng.choice(len(tilt), 4000)
    divergence = np.log(np.mean(np.exp(tilt))) - tilt.mean()
    return network, Contrast(d.molecule(system), x[others], x[chosen], torch.zeros(4000)), tilt[others], divergence


def refined(tilted, level, *, noised):
    network, contrast, _, _ = tilted
    networks = refine_network(network, [contrast], [contrast], (level, level), noised=noised, learning_rate=3e-3, epochs=150, seed=0)
    *_, (new, _, gain) = networks
    return new, gain


@pytest.mark.parametrize("noised", [False, True])
def test_what_a_model_has_too_much_of_costs_energy_afterwards(tilted, noised):
    network, contrast, tilt, divergence = tilted
    new, gain = refined(tilted, 3.0, noised=noised)
    assert gain == pytest.approx(divergence, rel=0.15)
    with torch.no_grad():
        change = (local_energy(n, contrast.data, torch.tensor([3.0]), contrast.molecule) for n in (new, network))
        difference = (next(change) - next(change)).numpy()
    slope, _ = np.polyfit(tilt, difference, 1)
    assert slope == pytest.approx(1, abs=0.2)
    assert np.corrcoef(tilt, difference)[0, 1] > 0.95
    changed = {name for (name, p), q in zip(new.named_parameters(), network.parameters(), strict=True) if not torch.equal(p, q)}
    assert changed
    assert all(name.startswith("torsion.") for name in changed)


def test_where_noise_hides_it_there_is_nothing_to_mend(tilted):
    _, _, _, divergence = tilted
    assert abs(refined(tilted, -3.0, noised=True)[1]) < 0.1 * divergence


FEW = RefinementSettings(samples=4, replicas=2, ps=0.4, epochs=2)


@pytest.fixture
def data(tmp_path):
    system = load_system("ALDP")
    ensemble = system.reference_ensemble()
    path = tmp_path / "ALDP.h5"
    write_ensemble(path, ensemble.select(np.arange(50)))
    return path


def test_a_model_is_refined_and_goes_on_from_what_there_is(data, tmp_path):
    force_field, output = alanine_dipeptide(time_ranges=((0.0, 0.006), (0.006, 1.0))), tmp_path / "refined"
    first = refine(force_field, data, data, output, FEW)
    assert first.hash != force_field.hash == first.description.trained["refined"]["model"]
    assert ForceField.load(output).hash == first.hash
    rows = [line.split(",") for line in (output / "refinement.csv").read_text().splitlines()]
    assert rows[0] == ["network", "by", "epoch", "training_nats", "validation_nats"]
    assert [row[:3] for row in rows[1:]] == [[n, by, e] for n, by in (("0", "simulations"), ("1", "samples")) for e in "12"]
    for expert, old in zip(first.experts, force_field.experts, strict=True):
        changed = {name for (name, p), q in zip(expert.named_parameters(), old.parameters(), strict=True) if not torch.equal(p, q)}
        assert changed
        assert all(name.startswith("torsion.") for name in changed)
    made = {path: path.stat().st_mtime_ns for path in output.glob("s*/*.h5")}
    assert len(made) == 2
    assert refine(force_field, data, data, output, FEW).hash == first.hash
    assert {path: path.stat().st_mtime_ns for path in output.glob("s*/*.h5")} == made
    with pytest.raises(ScoreMDError, match="other settings"):
        refine(force_field, data, None, output, FEW)


def test_a_model_without_torsions_is_refused(data, tmp_path):
    force_field = alanine_dipeptide()
    bare = force_field.description.model_copy(update={"torsions": ()})
    with pytest.raises(ScoreMDError, match="no local term"):
        refine(ForceField(bare, [bare.make_network()]), data, None, tmp_path / "refined", FEW)
    assert not (tmp_path / "refined").exists()


def test_wrong_settings_and_folders_of_other_models_are_refused(data, tmp_path):
    force_field = alanine_dipeptide()
    for wrong in ({"ps": 0.1}, {"replicas": 0}, {"samples": 1}, {"samples": 10**400}):
        with pytest.raises(ScoreMDError, match="must be"):
            refine(force_field, data, None, tmp_path / "refined", replace(FEW, **wrong))
    assert not (tmp_path / "refined").exists()
    force_field.save(tmp_path / "model")
    with pytest.raises(ScoreMDError, match="of unknown origin"):
        refine(force_field, data, None, tmp_path / "model", FEW)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"config.yaml", "model.safetensors"}


def test_replicas_that_blow_up_are_counted(data, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(engine, "BOND_STRETCH", 1.02)
    done = refine(alanine_dipeptide(), data, None, tmp_path / "refined", replace(FEW, replicas=40))
    lost = done.description.trained["refined"]["lost_replicas"]
    assert 0 < lost <= 40
    assert f"{lost} of 40 replicas blew up" in caplog.text


@pytest.mark.parametrize(
    ("watched", "gains", "kept"),
    [(True, [0.1, 0.3, 0.2], 1), (False, [float("nan")] * 3, 2), (True, [-0.1, float("nan"), -0.2], None)],
)
def test_the_best_epoch_of_molecules_to_watch_is_kept(data, tmp_path, monkeypatch, caplog, watched, gains, kept):
    force_field = alanine_dipeptide()
    networks = [alanine_dipeptide(seed=k).experts[0] for k in (1, 2, 3)]
    monkeypatch.setattr(refinement, "refine_network", lambda *_, **__: ((n, 0.0, g) for n, g in zip(networks, gains, strict=True)))
    done = refine(force_field, data, data if watched else None, tmp_path / "refined", FEW)
    expected = force_field.experts[0] if kept is None else networks[kept]
    assert torch.equal(done.experts[0].bead.weight, expected.bead.weight)
    assert ("no epoch of network 1 was better" in caplog.text) == (kept is None)


def test_simulations_are_flattened_and_frames_count_accordingly(data, tmp_path, monkeypatch):
    seen = {}

    def look(network, training, *_, noised, **__):
        seen["samples" if noised else "simulations"] = training[0]
        yield network, 0.0, float("nan")

    monkeypatch.setattr(refinement, "refine_network", look)
    force_field = alanine_dipeptide(time_ranges=((0.0, 0.006), (0.006, 1.0)))
    refine(force_field, data, None, tmp_path / "refined", FEW)
    system, one = load_system("ALDP"), seen["simulations"]
    expected = bias(force_field, system, one.made, flattening(force_field, system, one.data))
    assert expected.std() > 0.1
    assert torch.equal(one.log_weights, expected)
    assert not seen["samples"].log_weights.any()
    origins = {}
    for kind in seen:
        (path,) = (tmp_path / "refined" / kind).glob("*.h5")
        with mdtraj.formats.HDF5TrajectoryFile(str(path)) as file:
            origins[kind] = file.forcefield
    assert "flattened" in origins["simulations"]
    assert "flattened" not in origins["samples"]


def test_flattened_simulations_begin_where_they_would_be_if_the_model_were_right(data, tmp_path, monkeypatch):
    force_field, system = alanine_dipeptide(), load_system("ALDP")
    begun = {}

    def look(_self, _system, **given):
        begun.update(given)
        raise ScoreMDError("seen")

    monkeypatch.setattr(ForceField, "simulate", look)
    with pytest.raises(ScoreMDError, match="seen"):
        refine(force_field, data, None, tmp_path / "refined", replace(FEW, replicas=5000))
    x = force_field.bind(system).scaled(torch.from_numpy(np.array(begun["start"].xyz)))
    known = force_field.bind(system).scaled(torch.from_numpy(read_ensemble(data).positions))
    coefficients = flattening(force_field, system, known)
    drawn, of_data = (bias(force_field, system, q, coefficients).double() for q in (x, known))
    expected = (torch.softmax(-of_data, 0) * of_data).sum()
    assert float(drawn.mean()) == pytest.approx(float(expected), abs=0.1)
    assert abs(float(expected - of_data.mean())) > 0.4
