"""The mixture over time asks one expert at each noise level."""

import pytest
import torch

from scoremd.diffusion.samplers import second_order_sde
from scoremd.diffusion.schedule import VariancePreserving
from scoremd.diffusion.time_mixture import TIME_BORDERS, TimeMixture
from scoremd.errors import ScoreMDError


def constant(value):
    return lambda x, log_snr: torch.full_like(x, value)


@pytest.mark.parametrize(("level", "expert"), [(-3.0, 0), (-1.0, 1), (0.5, 1), (1.0, 2), (6.0, 2)])
def test_the_expert_of_the_noise_level_answers(level, expert):
    mixture = TimeMixture([constant(0.0), constant(1.0), constant(2.0)], [-1.0, 1.0])
    assert mixture(torch.zeros(2, 1, 3), torch.tensor([level])).unique().tolist() == [expert]


def test_experts_with_one_law_sample_it(mixture, plane, generator):
    """Split in three, the exact score is still the exact score, at the same calls and the same noise."""
    schedule = VariancePreserving()
    borders = schedule.log_snr(torch.tensor(TIME_BORDERS, dtype=torch.float64)).tolist()
    grid = schedule.log_snr(schedule.steps(19, 1e-4))
    split = TimeMixture([mixture.score] * 3, borders)
    whole, parts = (second_order_sde(score, plane, 10, grid, torch.Generator().manual_seed(1)) for score in (mixture.score, split))
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("borders", [[], [1.0, -1.0], [0.0, 1.0, 2.0]])
def test_borders_that_do_not_fit(borders):
    with pytest.raises(ScoreMDError, match="3 experts need 2 rising borders"):
        TimeMixture([constant(0.0)] * 3, borders)
