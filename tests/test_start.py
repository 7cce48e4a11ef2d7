import numpy as np
import pytest

from scoremd.errors import ScoreMDError
from scoremd.start import write_configuration
from scoremd.training.config import read_config
from scoremd.trajectory_source import TrajectorySource, read_source
from tests import peptides


@pytest.fixture
def source(tmp_path):
    read_source.cache_clear()
    whole = peptides.trajectory()
    (tmp_path / "data").mkdir()
    whole[0].save_pdb(str(tmp_path / "data" / "top.pdb"))
    whole.save_dcd(str(tmp_path / "data" / "run 1.dcd"))
    np.save(tmp_path / "data" / "f.npy", np.zeros((30, 50, 3)))
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


def test_a_file_that_is_there_stays(tmp_path, source):
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    with pytest.raises(ScoreMDError, match=r"mine.yaml: exists already"):
        write_configuration(path, "mine", TrajectorySource.model_validate(source), 70)
    assert path.read_text() == "mine"
