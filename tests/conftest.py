import shutil
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch

from scoremd import bound_model, compilation, flattening
from scoremd.data import Ensemble
from scoremd.lanes import program
from scoremd.systems import load_system

DATA = Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def as_written(request, monkeypatch):
    """Tests run functions as they are written: compiling takes longer than they do. Marked `compiled`, they are compiled."""
    torch.set_num_threads(1)
    if "compiled" not in request.keywords:
        monkeypatch.setattr(bound_model, "program_of", lambda _: None)
        for module in (compilation, program):
            monkeypatch.setattr(module, "find_compiler", lambda: None)


@pytest.fixture
def short(monkeypatch):
    """Samples cost few calls of the network."""
    monkeypatch.setattr(bound_model, "SAMPLING_CALLS", 3)
    monkeypatch.setattr(bound_model, "FLOW_INTERVALS", 3)
    monkeypatch.setattr(bound_model, "SAMPLING_BATCH", 16)


@pytest.fixture
def small_steps(monkeypatch):
    """Calibrations take steps that untrained models bear."""
    monkeypatch.setattr(flattening, "TIME_STEP_FS", 0.2)
    monkeypatch.setattr(flattening, "FRAME_INTERVAL_PS", 0.002)


@pytest.fixture
def data():
    """Folder of the ensembles that are shipped for tests."""
    return DATA


@pytest.fixture
def data_copy(tmp_path):
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(DATA, tmp_path / "data"))


def place(a, b, c, length, angle, torsion):
    """The bead that continues a-b-c (NeRF)."""
    bc = (c - b) / np.linalg.norm(c - b, axis=-1, keepdims=True)
    n = np.cross(b - a, bc)
    n /= np.linalg.norm(n, axis=-1, keepdims=True)
    m = np.cross(n, bc)
    along = -np.cos(angle) * bc
    across = np.sin(angle) * (np.cos(torsion)[:, None] * m + np.sin(torsion)[:, None] * n)
    return c + length[:, None] * (along + across)


def build(phi, psi, rng, sd=0.003):
    """Five backbone beads with these torsions and bonds of 0.15 nm +- sd."""
    n = len(phi)
    lengths = 0.15 + sd * rng.normal(size=(4, n))
    x = np.zeros((n, 5, 3))
    x[:, 1, 0] = lengths[0]
    x[:, 2] = x[:, 1] + lengths[1][:, None] * np.array([-np.cos(2.0), np.sin(2.0), 0])
    for k, torsion in ((3, phi), (4, psi)):
        x[:, k] = place(x[:, k - 3], x[:, k - 2], x[:, k - 1], lengths[k - 1], 2.0, np.asarray(torsion))
    return x


def torsions(n, rng, right=0.1):
    """Torsions of two basins: a fraction `right` of them at phi > 0."""
    phi = np.where(rng.random(n) < right, 1.0, -1.4) + 0.2 * rng.normal(size=n)
    return phi, rng.normal(0.0, 0.5, n)


@pytest.fixture(scope="session")
def chain():
    return build


@pytest.fixture(scope="session")
def system():
    return load_system("ALDP")


@pytest.fixture
def frames(system):
    def make(n, seed, right=0.1, sd=0.003):
        rng = np.random.default_rng(seed)
        return mdtraj.Trajectory(build(*torsions(n, rng, right), rng, sd), system.topology())

    return make


@pytest.fixture(scope="session")
def reference(system):
    rng = np.random.default_rng(99)
    walker = np.arange(16_000) % 16
    return Ensemble("ALDP", 300.0, system.atoms, build(*torsions(16_000, rng), rng), walker=walker)
