import mdtraj
import numpy as np

from scoremd.equilibration import equilibrated
from scoremd.systems import load_system

SYSTEM = load_system("ALDP")


def numbered(n):
    """Frames that say which they are by the first coordinate."""
    xyz = np.zeros((n, 5, 3), np.float32)
    xyz[:, 0, 0] = np.arange(n)
    return mdtraj.Trajectory(xyz, SYSTEM.topology())


def test_the_same_stretch_of_time_is_dropped_from_every_replica():
    replicas = np.repeat([0, 1, 2], [30, 8, 2])  # 1 and 2 were lost
    kept, groups = equilibrated(numbered(40), replicas)
    assert kept.xyz[:, 0, 0].tolist() == [*range(3, 30), *range(33, 38)]
    assert groups.tolist() == [0] * 27 + [1] * 5


def test_a_single_trajectory_loses_its_first_tenth():
    kept, groups = equilibrated(numbered(40), None)
    assert kept.xyz[0, 0, 0] == 4
    assert groups is None
