import pickle

import h5py
import mdtraj
import numpy as np
import pytest

from scoremd import trajectory_files
from scoremd.errors import ScoreMDError
from scoremd.systems import load_system
from scoremd.trajectory_files import read_trajectory, write_samples, write_trajectory


@pytest.fixture
def topology():
    return load_system("ALDP").topology()


@pytest.fixture
def path(tmp_path, topology):
    xyz = np.random.default_rng(0).standard_normal((4, 5, 3)).astype(np.float32)
    return write_trajectory(tmp_path / "a.h5", topology, iter([(xyz, np.arange(4, dtype=np.float32), 0)]))


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def test_files_from_strangers_execute_nothing(path, topology):
    with h5py.File(path, "r+") as file:
        for name in ("title", "conventions", "application"):
            file.attrs[name] = np.bytes_(pickle.dumps(Trap(), 0))
    assert read_trajectory(path, topology)[0].n_frames == 4


@pytest.mark.parametrize("missing", ["coordinates", "topology"])
def test_hdf5_without_its_parts_is_refused(path, topology, missing):
    with h5py.File(path, "r+") as file:
        del file[missing]
    with pytest.raises(ScoreMDError, match="cannot be read"):
        read_trajectory(path, topology)


def test_another_molecule_is_refused(path):
    other = load_system("ALDP").topology()
    next(iter(other.atoms)).name = "CX"
    with pytest.raises(ScoreMDError, match="another molecule"):
        read_trajectory(path, other)


@pytest.mark.parametrize("kind", ["xtc", "dcd", "pdb"])
def test_another_molecule_is_refused_by_the_names_in_or_beside_the_file(tmp_path, topology, kind):
    blocks = [(np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32), np.arange(2, dtype=np.float32), 0)]
    path = write_trajectory(tmp_path / f"a.{kind}", topology, iter(blocks))
    assert read_trajectory(path, topology).trajectory.n_frames == 2
    other = load_system("ALDP").topology()
    next(iter(other.atoms)).name = "CX"
    with pytest.raises(ScoreMDError, match="another molecule"):
        read_trajectory(path, other)


def test_a_failed_write_leaves_what_was_there(path, topology):
    before = path.read_bytes()

    def failing():
        yield np.zeros((1, 5, 3), np.float32), np.zeros(1, np.float32), 0
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_trajectory(path, topology, failing())
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.h5"]


def test_replicas_are_those_of_the_file_or_begin_where_the_time_starts_again(tmp_path, topology):
    x, time = np.ones((3, 5, 3), np.float32), np.arange(3, dtype=np.float32)
    blocks = [(x, time, 0), (x[:2], time[:2], 2)]
    path = write_trajectory(tmp_path / "a.h5", topology, iter(blocks), asked=(4, 3))
    found = read_trajectory(path, topology)
    assert found.replica.tolist() == [0, 0, 0, 2, 2]
    assert found.lost == 3  # 1 and 3 have no frame at all, 2 has too few
    with h5py.File(path, "r+") as file:
        del file["replica"]
    assert read_trajectory(path, topology).replica.tolist() == [0, 0, 0, 1, 1]
    assert read_trajectory(path, topology).lost is None


@pytest.mark.parametrize("replica", [[-1, 0, 0, 0], [0, 0], [[0], [0], [0], [0]], [0.0, 0.5, 1.0, 1.0]])
def test_senseless_replicas_are_refused(path, topology, replica):
    with h5py.File(path, "r+") as file:
        file["replica"] = np.array(replica)
    with pytest.raises(ScoreMDError, match="'replica' does not hold"):
        read_trajectory(path, topology)


def test_pdb_files_have_the_bonds_of_every_frame_once(system, frames, tmp_path):
    traj = frames(3, 0)
    write_trajectory(tmp_path / "a.pdb", traj.topology, iter([(traj.xyz, traj.time, 0)]))
    lines = (tmp_path / "a.pdb").read_text().splitlines()
    assert [line for line in lines if line.startswith("CONECT")] == [
        "CONECT    1    2",
        "CONECT    2    1    3",
        "CONECT    3    2    4",
        "CONECT    4    3    5",
        "CONECT    5    4",
    ]
    assert lines[-1] == "END"
    again = mdtraj.load(str(tmp_path / "a.pdb"))
    assert {(a.index, b.index) for a, b in again.topology.bonds} == set(system.bonds)
    np.testing.assert_allclose(again.xyz, traj.xyz, atol=1e-3)


def test_columns_are_for_hdf5_alone(tmp_path, topology):
    xyz = np.random.default_rng(0).standard_normal((4, 5, 3)).astype(np.float32)
    block = (xyz, np.arange(4, dtype=np.float32), 0)
    path = write_samples(tmp_path / "a.h5", mdtraj.Trajectory(xyz, topology), {"energy": np.arange(4.0)})
    with h5py.File(path) as file:
        assert file["energy"][:].tolist() == [0, 1, 2, 3]
    assert mdtraj.load(str(path)).n_frames == 4
    assert read_trajectory(path, topology).replica is None  # samples are no replicas
    with pytest.raises(ScoreMDError, match=r"a\.xtc: a trajectory file ends in \.h5 where"):
        write_trajectory(tmp_path / "a.xtc", topology, iter([block]), columns={"energy": np.arange(4.0)})
    assert not (tmp_path / "a.xtc").exists()


@pytest.mark.parametrize(("end", "name"), [("dcd", "DCDTrajectoryFile"), ("xtc", "XTCTrajectoryFile")])
def test_frames_that_a_full_disk_has_swallowed_are_missed(tmp_path, system, frames, monkeypatch, end, name):
    """These formats are not always told: a file that ends between two frames looks whole."""

    class Short(getattr(trajectory_files, name)):
        def write(self, xyz, **rest):
            super().write(xyz[:-1], **{key: values[:-1] for key, values in rest.items()})

    monkeypatch.setattr(trajectory_files, name, Short)
    with pytest.raises(ScoreMDError, match=rf"a.{end}: cannot be written \(No space left on device: 4 of 5 frames are there\)"):
        write_samples(tmp_path / f"a.{end}", frames(5, 0))
    assert list(tmp_path.iterdir()) == []
