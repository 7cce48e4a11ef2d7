import mdtraj
import numpy as np
import pytest

from scoremd.analysis.compare import compare
from scoremd.analysis.plane import LAG, plane_of, ramachandran_plane, slow_plane
from scoremd.analysis.report import render_report
from scoremd.coarse_graining import molecule_of, select_beads
from scoremd.data import Ensemble
from scoremd.errors import ScoreMDError
from tests import peptides
from tests.conftest import place


def chain(n=12):
    """A C-alpha model."""
    whole = peptides.topology(n)
    return molecule_of("chain", whole, select_beads(whole, "name CA"), 300.0)


def walk(rng, n_frames, n=12, leaves=0.02):
    """A helix-like chain with noise, one of whose torsions jumps between two values now and then; and which of them it has."""
    state = np.cumsum(rng.random(n_frames) < leaves) % 2
    x = np.zeros((n_frames, n, 3))
    x[:, 1, 0] = 0.38
    x[:, 2] = x[:, 1] + 0.38 * np.array([-np.cos(1.6), np.sin(1.6), 0])
    for k in range(3, n):
        torsion = 0.9 + 0.1 * rng.standard_normal(n_frames) + (2.0 * state if k == 6 else 0)
        x[:, k] = place(x[:, k - 3], x[:, k - 2], x[:, k - 1], np.full(n_frames, 0.38), 1.6, torsion)
    return x + 0.004 * rng.standard_normal(x.shape), state


@pytest.fixture(scope="module")
def walks():
    """Four trajectories in one, the trajectory of each frame, the state of each frame."""
    rng = np.random.default_rng(0)
    parts = [walk(rng, 500) for _ in range(4)]
    trajectory = mdtraj.Trajectory(np.concatenate([x for x, _ in parts]), chain().topology())
    return trajectory, np.repeat(np.arange(4), 500), np.concatenate([s for _, s in parts])


def test_torsions_are_the_plane_of_molecules_that_have_them(system, frames):
    few = frames(50, 0)
    plane = plane_of(system, {"samples": few}, {"samples": None})
    assert plane.name == "(φ, ψ)"
    np.testing.assert_array_equal(plane.project(few), ramachandran_plane(system).project(few))
    assert len(plane.basins) == 3


def test_the_slow_variable_is_found_among_fast_ones(walks):
    trajectory, groups, state = walks
    plane = slow_plane(chain(), trajectory, groups)
    first = plane.project(trajectory)[:, 0]
    assert abs(np.corrcoef(first, state)[0, 1]) > 0.95
    inside = (first >= plane.range[0, 0]) & (first <= plane.range[0, 1])
    assert 0.99 < inside.mean() < 1
    # turned and moved frames are the same frames
    turned = mdtraj.Trajectory(trajectory.xyz[:, :, [1, 2, 0]] + 1, trajectory.topology)
    np.testing.assert_allclose(plane.project(turned), plane.project(trajectory), atol=1e-3)


def test_frames_of_different_trajectories_do_not_follow_each_other(walks):
    """Jumps between trajectories would make a variable that only differs between them slow, and one that jumps within them fast."""
    trajectory, groups, state = walks
    order = np.argsort(state, kind="stable")  # one trajectory that jumps once
    assert abs(np.corrcoef(slow_plane(chain(), trajectory[order], None).project(trajectory[order])[:, 0], state[order])[0, 1]) > 0.95
    mixed = np.argsort(np.arange(2000) % 500, kind="stable")  # a frame of each trajectory in turn
    apart, together = (slow_plane(chain(), trajectory[k], groups[k]) for k in (np.arange(2000), mixed))
    np.testing.assert_allclose(together.project(trajectory), apart.project(trajectory), atol=1e-6)
    with pytest.raises(ScoreMDError, match=rf"more than {LAG} frames in the reference or the simulation \(trajectory 10\)"):
        slow_plane(chain(), trajectory, np.arange(2000) // 10)


def test_where_slow_variables_are_learned_from(walks):
    trajectory, groups, _ = walks
    with pytest.raises(ScoreMDError, match=r"in the reference or the simulation \(neither is given\)"):
        plane_of(chain(), {"samples": trajectory}, {"samples": None})
    of_simulation = plane_of(chain(), {"samples": trajectory, "simulation": trajectory}, {"samples": None, "simulation": groups})
    np.testing.assert_allclose(of_simulation.range, slow_plane(chain(), trajectory, groups).range)
    short = np.arange(2000) // 10
    fallback = plane_of(chain(), {"reference": trajectory, "simulation": trajectory}, {"reference": short, "simulation": groups})
    np.testing.assert_allclose(fallback.range, of_simulation.range)
    two = molecule_of("two", peptides.topology(2), [2, 12], 300.0)
    with pytest.raises(ScoreMDError, match="too few beads for slow variables: five in a chain are needed"):
        slow_plane(two, mdtraj.Trajectory(np.zeros((30, 2, 3)), two.topology()), None)


def test_chains_are_compared_and_reported(walks):
    trajectory, groups, state = walks
    system = chain()
    reference = Ensemble("chain", 300.0, system.atoms, trajectory.xyz, walker=groups)
    rng = np.random.default_rng(1)
    same, _ = walk(rng, 1000)
    other = trajectory[state == 1]
    alike = compare(mdtraj.Trajectory(same, system.topology()), None, system, reference=reference)
    unlike = compare(other, None, system, reference=reference)
    js = [c.pairs["samples vs reference"].js.excess for c in (alike, unlike)]
    assert js[1] > js[0] + 0.05
    contacts = [c.to_dict()["comparisons"]["samples vs reference"]["contacts"]["largest_difference"] for c in (alike, unlike)]
    assert contacts[1] > contacts[0] + 0.2
    assert alike.to_dict()["variables"] == ["TIC 1", "TIC 2"]
    rows = [row[0] for row in unlike.rows()]
    assert rows[0] == "JS divergence of (TIC 1, TIC 2), excess, nats"
    assert "Contacts, mean and largest difference" in rows
    assert sum("W1" in row for row in rows) == 1
    html = render_report(unlike, {})
    assert "Free energy over (TIC 1, TIC 2)" in html
    assert "<h2>Contacts</h2>" in html
    assert "φ" not in html


def test_short_chains_have_contacts_and_every_bond_shown():
    system, (x, _) = chain(8), walk(np.random.default_rng(2), 600, 8)
    trajectory = mdtraj.Trajectory(x, system.topology())
    comparison = compare(trajectory[:300], trajectory[300:], system, simulation_groups=np.arange(300) // 100)
    rows = [row[0] for row in comparison.rows()]
    assert "Contacts, mean and largest difference" in rows
    assert sum("W1" in row for row in rows) == 7
    assert "<h2>Contacts</h2>" in render_report(comparison, {})


def test_contacts_are_counted(walks):
    trajectory, groups, _ = walks
    system = chain()
    seen = compare(trajectory, trajectory, system, simulation_groups=groups).ensembles["samples"]
    x = trajectory.xyz
    expected = [(np.linalg.norm(x[:, i] - x[:, j], axis=-1) < 0.8).mean() for i in range(12) for j in range(i + 3, 12)]
    np.testing.assert_allclose(seen.contacts, expected)
