"""A C-alpha chain from its trajectory to samples and a simulation: does it fold as it should, and never to the mirror image?"""

import mdtraj
import numpy as np
import pytest

from scoremd.analysis.fold import NativeStructure
from scoremd.coarse_graining import molecule_of, select_beads
from scoremd.force_field import ForceField
from scoremd.training.config import read_config
from scoremd.training.trainer import train
from scoremd.training_template import write_configuration
from scoremd.trajectory_source import TrajectorySource
from tests import peptides
from tests.conftest import place

N, FOLDED = 8, 0.6


def chain():
    whole = peptides.topology(N)
    return molecule_of("chain", whole, select_beads(whole, "name CA"), 300.0)


def frames(n, seed=0, folded=FOLDED, noise=1.0):
    """So many frames of which a part is a right-handed helix, the others are stretched, with noise of angles and torsions."""
    rng = np.random.default_rng(seed)
    helix = rng.random(n) < folded
    torsion, angle = np.where(helix, 0.87, 2.9), np.where(helix, 1.57, 2.1)
    # three beads before the first give it somewhere to go on from
    x = np.zeros((n, N + 3, 3))
    x[:, :3] = [[0, 0, 0], [0.38, 0, 0], [0.38, 0.38, 0]]
    for k in range(3, N + 3):
        length, bend, twist = noise * np.array([[0.003], [0.06], [0.15]]) * rng.standard_normal((3, n)) + [np.full(n, 0.38), angle, torsion]
        x[:, k] = place(x[:, k - 3], x[:, k - 2], x[:, k - 1], length, bend[:, None], twist)
    return x[:, 3:]


@pytest.mark.slow
@pytest.mark.compiled
def test_a_chain_folds_to_its_native_structure_and_not_to_the_mirror_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    topology = chain().topology()
    mdtraj.Trajectory(frames(1, folded=1.0, noise=0.0), topology).save_pdb("native.pdb")
    mdtraj.Trajectory(frames(8000), topology).save_xtc("run.xtc")
    paths = {"trajectories": ["run.xtc"], "topology": "native.pdb", "native": "native.pdb", "temperature": 300.0}
    write_configuration(tmp_path / "chain.yaml", "chain", TrajectorySource.model_validate(paths), 1500)
    train(read_config(tmp_path / "chain.yaml").model_copy(update={"batch": 128}))
    model = ForceField.load(tmp_path / "chain-model")
    structure = NativeStructure.of(model.find("chain"))
    samples = model.sample("chain", 1000, seed=0)
    assert structure.mirrored(samples).sum() == 0
    assert structure.folded(samples).mean() == pytest.approx(FOLDED, abs=0.06)
    run = model.simulate("chain", ns=0.02, replicas=64, seed=0)
    assert run.lost == ()
    assert structure.mirrored(run.trajectory).sum() == 0
    assert structure.folded(run.trajectory).mean() == pytest.approx(FOLDED, abs=0.15)
