import numpy as np
import pytest

from scoremd import training_template
from scoremd.errors import ScoreMDError
from scoremd.training.config import read_config
from scoremd.training_template import write_configuration
from scoremd.trajectory_source import TrajectorySource, read_source
from tests import peptides


@pytest.fixture
def source(tmp_path):
    read_source.cache_clear()
    whole = peptides.trajectory()
    (tmp_path / "data").mkdir()
    whole[0].save_pdb(str(tmp_path / "data" / "top.pdb"))
    whole.save_dcd(str(tmp_path / "data" / "run 1.dcd"))
    np.save(tmp_path / "data" / "f.npy", 500 * np.random.default_rng(0).standard_normal((30, 10, 3)))
    files = {"trajectories": [tmp_path / "data" / "run 1.dcd"], "topology": tmp_path / "data" / "top.pdb"}
    return {**files, "temperature": 310.0, "select": "name CA or name 'CB'"}


@pytest.mark.parametrize("with_forces", [False, True])
def test_what_is_written_is_a_configuration_with_paths_from_its_folder(tmp_path, source, with_forces):
    if with_forces:
        source["forces"] = {"files": [tmp_path / "data" / "f.npy"], "unit": "kcal/mol/angstrom"}
    given = TrajectorySource.model_validate(source)
    path = tmp_path / "mine.yaml"
    system, ensemble = write_configuration(path, "mine", given, 70)
    text = path.read_text()
    assert "trajectories: [data/run 1.dcd]" in text
    assert "# 30 frames of 10 beads in 5 residues" in text
    config = read_config(path)
    assert (config.name, config.system, config.steps, config.use_forces) == ("mine", "mine", 70, with_forces)
    assert config.output == tmp_path / "mine-model"
    assert config.data == given
    scaled = config.length_scale * ensemble.positions
    np.testing.assert_allclose(scaled.var(axis=(0, 1)).mean(), 1, rtol=0.02)
    assert len(system.beads) == 10


@pytest.mark.parametrize("name", ["1", "no", "2e3"])
def test_names_that_yaml_would_take_for_something_else(tmp_path, source, name):
    path = tmp_path / f"{name}.yaml"
    write_configuration(path, name, TrajectorySource.model_validate(source), 70)
    config = read_config(path)
    assert (config.name, config.system, config.output.name) == (name, name, f"{name}-model")


@pytest.mark.parametrize(
    ("line", "wrong", "words"),
    [
        ("  stride: 1", "  stride: 0", "data.trajectories.stride: Input should be greater than or equal to 1"),
        ("steps: 70", "stepps: 70", "stepps: Extra inputs are not permitted"),
        ("  select:", "  selekt:", "data.trajectories.selekt: Extra inputs are not permitted"),
        ("  temperature: 310.0", "  temperature: -3", "data.trajectories.temperature: Input should be greater than 0"),
    ],
)
def test_what_is_wrong_with_the_data_is_said(tmp_path, source, line, wrong, words):
    path = tmp_path / "mine.yaml"
    write_configuration(path, "mine", TrajectorySource.model_validate(source), 70)
    path.write_text(path.read_text().replace(line, wrong, 1))
    with pytest.raises(ScoreMDError, match=f"mine.yaml: {words}"):
        read_config(path)


def test_a_native_structure_is_written_down_and_read(tmp_path, source):
    path, native, extended = tmp_path / "mine.yaml", tmp_path / "data" / "top.pdb", {"select": "name CA"}
    with pytest.raises(ScoreMDError, match="the native structure of mine has no contacts"):
        write_configuration(path, "mine", TrajectorySource.model_validate(source | extended | {"native": native}), 70)
    assert not path.exists()
    system, _ = write_configuration(path, "mine", TrajectorySource.model_validate(source | {"native": native}), 70)
    assert read_config(path).data.native == native
    assert len(system.native) == 10


@pytest.mark.parametrize(("beads", "limit"), [(10, 9), (10, 10)])
def test_chains_that_are_too_long_for_all_pairs_get_a_cutoff(tmp_path, source, monkeypatch, beads, limit):
    monkeypatch.setattr(training_template, "ALL_PAIRS", limit)
    path = tmp_path / "mine.yaml"
    write_configuration(path, "mine", TrajectorySource.model_validate(source), 70)
    config = read_config(path)
    if beads > limit:
        assert config.network.cutoff == pytest.approx(1.5 * config.length_scale, abs=0.01)
    else:
        assert config.network.cutoff is None


def test_a_frame_or_two_are_too_few(tmp_path, source):
    with pytest.raises(ScoreMDError, match="3 frames are too few to learn from"):
        write_configuration(tmp_path / "mine.yaml", "mine", TrajectorySource.model_validate(source | {"stride": 10}), 70)
    assert not (tmp_path / "mine.yaml").exists()


def test_a_file_that_is_there_stays(tmp_path, source):
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    with pytest.raises(ScoreMDError, match=r"mine.yaml: exists already"):
        write_configuration(path, "mine", TrajectorySource.model_validate(source), 70)
    assert path.read_text() == "mine"
