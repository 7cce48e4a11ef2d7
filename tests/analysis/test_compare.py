import json
from dataclasses import replace

import numpy as np
import pytest

from scoremd.analysis.compare import compare
from scoremd.analysis.verdict import headline
from scoremd.errors import ScoreMDError

THREE = ["samples vs reference", "simulation vs reference", "samples vs simulation"]
REPLICAS = np.repeat(np.arange(20), 400)


@pytest.fixture
def three(system, frames, reference):
    return compare(frames(6000, 1), frames(8000, 2, 0.3), system, simulation_groups=REPLICAS, reference=reference, lost_replicas=3)


def test_three_columns_say_which_ensemble_is_off(three):
    assert list(three.pairs) == THREE
    right, wrong, apart = (three.pairs[title] for title in THREE)
    assert right.js.low < 0 < right.js.high
    assert wrong.js.low > 0.01
    assert apart.js.low > 0.01
    assert wrong.basins["phi > 0"].value == pytest.approx(0.2, abs=0.03)
    assert apart.basins["phi > 0"].value == pytest.approx(-0.2, abs=0.03)
    assert right.basins["phi > 0"].low < 0 < right.basins["phi > 0"].high
    assert [p.js.frames for p in three.pairs.values()] == [6000, 8000, 6000]


def test_a_notebook_shows_the_answer_not_the_arrays(three):
    assert repr(three) == f"<Comparison of {three.title}: {headline(three)}>"
    assert len(repr(three)) < 400


def test_populations_of_the_basins_add_up(three):
    for seen in three.ensembles.values():
        assert sum(basin.value for basin in seen.basins.values()) == pytest.approx(1)


def test_json_holds_every_number_and_the_lost_replicas(three, tmp_path):
    path = three.to_json(tmp_path / "comparison.json")
    found = json.loads(path.read_text())
    assert found["lost_replicas"] == 3
    assert found["ensembles"]["simulation"]["trajectories"] == 20
    assert found["ensembles"]["samples"]["trajectories"] is None
    assert found["comparisons"][THREE[0]]["js_nats"]["excess"] == three.pairs[THREE[0]].js.excess
    assert len(found["comparisons"][THREE[2]]["bonds_pm"]) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["comparison.json"]


def test_tables_have_four_columns_and_name_what_was_lost(three):
    assert {len(row) for row in three.rows() + three.ensemble_rows()} == {4}
    assert ("Lost replicas", "–", "–", "3") in three.ensemble_rows()
    assert three.rows()[0][2].startswith("0.0")


def test_without_a_reference_only_the_third_column_is_filled(system, frames):
    comparison = compare(frames(500, 1), frames(1000, 2), system, simulation_groups=np.arange(1000) % 10)
    assert list(comparison.pairs) == THREE[2:]
    assert comparison.pairs[THREE[2]].js.frames == 500
    assert comparison.rows()[0][1:3] == ("–", "–")


def test_samples_alone_are_compared_with_the_reference(system, frames, reference):
    comparison = compare(frames(500, 1), None, system, reference=reference)
    assert list(comparison.pairs) == THREE[:1]
    assert comparison.ensemble_rows()[0] == ("Frames", "16,000", "500", "–")


def test_unnamed_trajectories_are_cut_into_blocks_of_time(system, frames):
    comparison = compare(frames(500, 1), frames(1000, 2), system)
    assert comparison.time_blocks == {"simulation"}
    assert (np.diff(comparison.ensembles["simulation"].groups) >= 0).all()
    assert comparison.ensembles["simulation"].n_groups == 20


def test_a_reference_without_walkers_is_cut_into_blocks_of_time(system, frames, reference):
    comparison = compare(frames(500, 1), None, system, reference=replace(reference, walker=None))
    assert comparison.time_blocks == {"reference"}
    assert comparison.ensembles["reference"].n_groups == 20
    assert comparison.to_dict()["intervals"] == {"reference": "time blocks"}
    assert ("Trajectories", "not named, in blocks", "independent", "–") in comparison.ensemble_rows()


def test_a_broken_molecule_is_counted(system, frames, reference):
    samples = frames(100, 1)
    samples.xyz[:5, 4] += 0.5 * (samples.xyz[:5, 4] - samples.xyz[:5, 3])
    seen = compare(samples, None, system, reference=reference).ensembles["samples"]
    assert seen.broken.value == 0.05
    assert seen.broken.low > 0


def test_bad_input_is_refused(system, frames, reference):
    samples = frames(10, 1)
    with pytest.raises(ScoreMDError, match="nothing to compare"):
        compare(samples, None, system)
    with pytest.raises(ScoreMDError, match="cannot be -1"):
        compare(samples, samples, system, lost_replicas=-1)
    with pytest.raises(ScoreMDError, match="each of the 10 frames"):
        compare(samples, samples, system, simulation_groups=np.zeros(9))
    with pytest.raises(ScoreMDError, match="samples: the trajectory has 4 beads"):
        compare(samples.atom_slice([0, 1, 2, 3]), None, system, reference=reference)
    broken = frames(10, 2)
    broken.xyz[4] = np.nan
    with pytest.raises(ScoreMDError, match="simulation: 1 of 10 frames"):
        compare(samples, broken, system)
    with pytest.raises(ScoreMDError, match="at least two"):
        compare(samples, samples[:1], system)
    with pytest.raises(ScoreMDError, match="no frames"):
        compare(samples[:0], samples, system)


def test_a_comparison_is_written_whole_or_refused(three, tmp_path):
    with pytest.raises(ScoreMDError, match="is a folder"):
        three.to_json(tmp_path)
    with pytest.raises(ScoreMDError, match="there is no folder"):
        three.to_json(tmp_path / "missing" / "comparison.json")
