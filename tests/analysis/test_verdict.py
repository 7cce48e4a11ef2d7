from dataclasses import replace

import numpy as np
import pytest

from scoremd.analysis.compare import Pair, compare
from scoremd.analysis.metrics import Divergence
from scoremd.analysis.verdict import findings, free_energy_of, headline, judge, verdicts
from scoremd.system import Agreement
from scoremd.systems import load_system

ZERO = Divergence(0, 0, 0, 1)


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [(-0.001, 0.002, "agree"), (0.001, 0.0021, "undecided"), (0.0021, 0.004, "differ"), (None, None, "undecided")],
)
def test_the_whole_interval_decides(low, high, status):
    js = Divergence(0.02, 0.018, 0.002, 1000, low, high)
    assert judge(Pair("samples vs reference", js, ZERO, {}, (), np.zeros(0), None), 0.002).status == status


def test_an_excess_above_the_limit_does_not_agree_whatever_its_interval():
    js = Divergence(0.0241, 0.018, 0.0061, 1000, 0.001, 0.0035)
    assert judge(Pair("simulation vs reference", js, ZERO, {}, (), np.zeros(0), None), 0.004).status == "undecided"


@pytest.mark.parametrize(
    ("floor", "low", "high", "status"), [(0.41, 0.0, 0.001, "undecided"), (0.41, 0.003, 0.01, "differ"), (0.39, 0.0, 0.001, "agree")]
)
def test_frames_that_share_few_cells_never_agree(floor, low, high, status):
    js = Divergence(floor + 0.001, floor, 0.001, 40, low, high)
    assert judge(Pair("samples vs reference", js, ZERO, {}, (), np.zeros(0), None), 0.002).status == status


def test_a_divergence_is_a_free_energy():
    p = np.full(100, 0.01)
    q = p * np.exp(0.1 * np.random.default_rng(0).normal(size=100))
    q /= q.sum()
    js = np.sum(p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))) / 2
    assert free_energy_of(js) == pytest.approx(np.std(np.log(p / q)), rel=0.05)


def test_what_differs_is_said_first_and_where(system, frames, reference):
    replicas = np.repeat(np.arange(20), 400)
    comparison = compare(
        frames(8000, 1),
        frames(8000, 2, 0.3, 0.004),
        system,
        simulation_groups=replicas,
        reference=reference,
        lost_replicas=1,
    )
    said = headline(comparison)
    assert said.startswith("Simulation vs reference and samples vs simulation differ")
    found = " ".join(findings(comparison))
    assert "1 replica of the simulation blew up" in found
    assert "Population of phi > 0" in found
    assert "Simulation vs reference: ratio of the standard deviations of the length 1.3" in found
    assert "Samples vs reference" not in found


@pytest.mark.parametrize(("right", "more"), [(0.1, ""), (0.3, "; see the exceptions below")])
def test_where_a_single_trajectory_has_no_interval_that_is_what_is_said(system, frames, reference, right, more):
    single = replace(reference, walker=np.zeros(reference.n_frames, np.int64))
    said = headline(compare(frames(8000, 2, right), None, system, reference=single))
    assert said == f"Samples and reference are undecided: one of two ensembles is a single trajectory, so that there is no interval{more}."


def test_samples_that_repeat_the_reference_are_noticed(system, reference):
    copies = reference.to_mdtraj(system.bonds)
    assert any("share frames" in line for line in findings(compare(copies, None, system, reference=reference)))


def test_the_systems_file_says_what_is_good_enough(system, frames, reference):
    assert load_system("KS").agreement == Agreement(samples=0.006, simulation=0.006, between=0.006)
    columns = ("samples vs reference", "simulation vs reference", "samples vs simulation")
    for agreement, statuses in ((Agreement(), ["agree", "agree", "agree"]), (Agreement(samples=1e-9), ["undecided", "agree", "agree"])):
        own = system.model_copy(update={"agreement": agreement})
        comparison = compare(frames(8000, 1), frames(8000, 2), own, simulation_groups=np.repeat(np.arange(20), 400), reference=reference)
        assert [v.limit for v in verdicts(comparison)] == [f"{q:.3f}" for q in dict(agreement).values()]
        assert [comparison.to_dict()["comparisons"][title]["agreement_nats"] for title in columns] == list(dict(agreement).values())
        assert [v.status for v in verdicts(comparison)] == statuses
