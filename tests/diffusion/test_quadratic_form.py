"""Forms against numbers worked out by hand, and against the squares that they stand for."""

import torch

from scoremd.diffusion.quadratic_form import QuadraticForm, half_square_error


def test_a_form_is_the_sum_over_the_points_of_each_group():
    score = torch.zeros(2, 2, 1, 2)
    score[0, 0, 0] = torch.tensor([1.0, 2.0])
    form = QuadraticForm(torch.tensor([10.0, 20.0]), torch.tensor([[1.0, 0.0], [2.0, -3.0]]), score, torch.tensor([[4.0, 0.0], [0.0, 2.0]]))
    energies, scores = torch.tensor([[5.0, 6.0], [7.0, 8.0]]), torch.tensor([[[[3.0, 1.0]], [[9.0, 9.0]]], [[[9.0, 9.0]], [[1.0, 2.0]]]])
    # 10 + 5 + (3 + 2) + 4 (9 + 1) / 2, and 20 + 14 - 24 + 2 (1 + 4) / 2
    assert form(energies, scores).tolist() == [40.0, 15.0]


def test_half_a_square_error_is_one(generator):
    target, scores = torch.randn(2, 7, 4, 3, generator=generator)
    importance, energies = torch.rand(7, generator=generator), torch.randn(1, 7, generator=generator)
    expected = 0.5 * (importance * ((scores - target) ** 2).sum((1, 2))).sum()
    torch.testing.assert_close(half_square_error(target, importance)(energies, scores[None]), expected[None])


def test_differences_of_large_numbers_keep_their_digits():
    """As those of finite differences: in single precision this one would be lost."""
    energies = torch.full((1, 64), 1e5)
    energies[0, 1] += 1 / 128
    signs = torch.tensor([1.0, -1.0] * 32)[None]
    form = QuadraticForm(torch.zeros(1), -signs * 25, torch.zeros(1, 64, 1, 3), torch.zeros(1, 64))
    assert form(energies, torch.zeros(1, 64, 1, 3)).tolist() == [25 / 128]
