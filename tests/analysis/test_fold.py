import mdtraj
import numpy as np
import pytest

from scoremd.analysis.compare import compare
from scoremd.analysis.fold import NativeStructure
from scoremd.analysis.observed import FOLDED_STATE
from scoremd.analysis.report import render_report
from scoremd.analysis.verdict import findings
from scoremd.coarse_graining import molecule_of, select_beads
from scoremd.data import Ensemble
from scoremd.errors import ScoreMDError
from tests import peptides

N = 12
TURN = np.radians(100) * np.arange(N)
HELIX = np.stack([0.23 * np.cos(TURN), 0.23 * np.sin(TURN), 0.15 * np.arange(N)], 1)
MIRROR = HELIX * [1, 1, -1]
STRETCHED = np.stack([0.36 * np.arange(N), 0.06 * (np.arange(N) % 2), np.zeros(N)], 1)


def chain(native=HELIX):
    whole = peptides.topology(N)
    system = molecule_of("helix", whole, select_beads(whole, "name CA"), 300.0)
    return system.model_copy(update={"native": tuple(map(tuple, native.tolist()))})


def frames(*shapes, times=1, seed=0):
    """Each shape so many times, with noise of 0.005 nm, turned and moved."""
    rng = np.random.default_rng(seed)
    x = np.repeat(np.array(shapes), times, axis=0)
    turn = np.linalg.qr(rng.standard_normal((len(x), 3, 3)))[0]
    turn[:, :, 0] *= np.linalg.det(turn)[:, None]
    x = np.einsum("fij,fnj->fni", turn, x + 0.005 * rng.standard_normal(x.shape)) + rng.uniform(-1, 1, (len(x), 1, 3))
    return mdtraj.Trajectory(x, chain().topology())


def kabsch(a, b):
    """Deviation of two shapes after the best proper rotation, by another way than mdtraj's."""
    a, b = a - a.mean(0), b - b.mean(0)
    u, s, v = np.linalg.svd(a.T @ b)
    s[-1] *= np.sign(np.linalg.det(u @ v))
    return np.sqrt(max(0, (a**2).sum() + (b**2).sum() - 2 * s.sum()) / len(a))


def test_deviation_is_after_the_best_rotation_without_reflection():
    native, traj = NativeStructure.of(chain()), frames(HELIX, MIRROR, STRETCHED)
    expected = [kabsch(x, HELIX) for x in traj.xyz.astype(float)]
    np.testing.assert_allclose(native.rmsd(traj), expected, atol=2e-4)
    assert expected[0] < 0.02 < 0.1 < expected[1] < expected[2]


def test_contacts_do_not_tell_the_mirror_image_but_the_fold_does():
    native, traj = NativeStructure.of(chain()), frames(HELIX, MIRROR, STRETCHED)
    np.testing.assert_allclose(native.contacts(traj), [1, 1, 0])
    assert native.folded(traj).tolist() == [True, False, False]
    assert native.mirrored(traj).tolist() == [False, True, False]


def test_half_of_the_contacts_are_a_fold():
    native = NativeStructure.of(chain())
    # straightened from one end on: contacts among the last beads remain
    shapes = []
    for k in range(N):
        x = HELIX.copy()
        x[:k] = HELIX[k] + (STRETCHED[:k] - STRETCHED[k])
        shapes.append(x)
    traj = mdtraj.Trajectory(np.array(shapes), chain().topology())
    share = native.contacts(traj)
    assert (np.diff(share) <= 0).all()
    assert 0 < share[-4] < 0.5
    assert native.folded(traj).tolist() == (share >= 0.5).tolist()


def test_a_structure_without_contacts_is_refused():
    with pytest.raises(ScoreMDError, match="the native structure of helix has no contacts"):
        NativeStructure.of(chain(STRETCHED))
    assert NativeStructure.of(chain().model_copy(update={"native": ()})) is None


def compared(system, folded, seed=0):
    """Samples of which so many of ten are folded, against a reference with five of ten, and a simulation with one in ten mirrored."""
    samples = frames(*[HELIX] * folded, *[STRETCHED] * (10 - folded), times=40, seed=seed)
    simulation = frames(*[HELIX] * 4, MIRROR, *[STRETCHED] * 5, times=40, seed=seed + 1)
    known = frames(*[HELIX, STRETCHED] * 5, times=80, seed=seed + 2)
    walker = np.random.default_rng(seed).integers(0, 8, 800)
    order = np.argsort(walker, kind="stable")
    reference = Ensemble("helix", 300.0, system.atoms, known.xyz[order], walker=walker[order])
    groups = np.tile(np.arange(10), 40)
    return compare(samples, simulation, system, simulation_groups=groups, reference=reference)


@pytest.fixture(scope="module")
def comparison():
    return compared(chain(), 3)


def test_the_comparison_counts_folded_and_mirrored_frames(comparison):
    found = comparison.to_dict()
    for name, folded, mirrored in (("samples", 0.3, 0), ("simulation", 0.4, 0.1), ("reference", 0.5, 0)):
        seen = found["ensembles"][name]
        assert seen["populations"][FOLDED_STATE]["value"] == pytest.approx(folded)
        assert seen["mirror_images"]["value"] == pytest.approx(mirrored)
    pair = found["comparisons"]["samples vs reference"]
    assert pair["population_differences"][FOLDED_STATE]["value"] == pytest.approx(-0.2)
    mean = {name: seen["native_rmsd_nm"]["value"] for name, seen in found["ensembles"].items()}
    assert mean["reference"] == pytest.approx((kabsch(HELIX, HELIX) + kabsch(STRETCHED, HELIX)) / 2, abs=0.02)
    assert pair["native_rmsd_pm"]["mean"]["value"] == pytest.approx(1000 * (mean["samples"] - mean["reference"]))
    assert pair["native_rmsd_pm"]["distance"]["value"] > 3 * pair["native_rmsd_pm"]["distance"]["floor"]


def test_tables_findings_and_report_tell_of_the_fold(comparison):
    pairs, ensembles = ({row[0].strip(): row[1:] for row in rows} for rows in (comparison.rows(), comparison.ensemble_rows()))
    assert f"Difference of population, {FOLDED_STATE}" in pairs
    assert "RMSD from the native structure: W1 (floor), pm" in pairs
    assert all(cell[0] == "0" for cell in ensembles["RMSD from the native structure, mean, nm"])
    assert ensembles["Frames with a mirror image"][2].startswith("0.1")
    told = " ".join(findings(comparison))
    assert f"Population of {FOLDED_STATE}: 0.3000 in the samples, 0.5000 in the reference" in told
    assert "Simulation: a fraction 0.10000" in told
    page = render_report(comparison, {})
    assert "Deviation from the native structure" in page


def test_systems_without_a_native_structure_are_not_told_of_one():
    system = chain().model_copy(update={"native": ()})
    found = compared(system, 5)
    assert FOLDED_STATE not in found.to_dict()["ensembles"]["samples"]["populations"]
    assert "native" not in str(found.to_dict()["comparisons"])
    assert not any("native" in row[0] for row in [*found.rows(), *found.ensemble_rows()])
    assert "native structure" not in render_report(found, {})
