import pytest
import torch

from scoremd.nn.pairs import collect, pair_table, partners


@pytest.mark.parametrize("n", [2, 3, 5, 6, 10])
def test_every_unordered_pair_counts_once(n):
    table = pair_table(n)
    count = torch.zeros(n, n)
    partner = table.partner.view(-1, n)
    for k in range(len(partner)):
        for i in range(n):
            a, b = sorted((i, int(partner[k, i])))
            count[a, b] += table.weight[k, 0]
    assert torch.equal(count, torch.triu(torch.ones(n, n), 1))


@pytest.mark.parametrize("n", [5, 6])
def test_collect_is_the_adjoint_of_partners(n):
    table = pair_table(n)
    q = torch.randn(3, n, 4, dtype=torch.float64)
    m = torch.randn(3, n // 2, n, 4, dtype=torch.float64)
    torch.testing.assert_close((partners(q, table) * m).sum(), (q * collect(m, table)).sum())


def test_gradients_of_both_to_second_order():
    table = pair_table(5)
    q = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda a: partners(a, table) ** 3, q)
    m = torch.randn(2, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda a: collect(a, table) ** 3, m)
