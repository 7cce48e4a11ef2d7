import pytest
import torch

from scoremd.lanes.trace import Elements, Map, Product, Shared, Total, trace


def test_moving_numbers_makes_no_operations():
    graph = trace(lambda x: [torch.cat([x[:, 2:], x[:, :1].expand(1, 3, 2)], 1).transpose(1, 2)], [], [torch.ones(1, 4, 2)])
    assert len(graph.operations) == 1
    assert graph.outputs[0].tolist() == [[4, 6, 0, 0, 0], [5, 7, 1, 1, 1]]


def test_what_all_molecules_share_goes_to_the_prelude():
    def function(w, x):
        return [x * (w.exp() + 1) + 2]

    graph = trace(function, [torch.zeros(3)], [torch.ones(1, 3)])
    first, second = (q for q in graph.operations if isinstance(q, Map))
    assert isinstance(first.operands[0], Elements)
    assert isinstance(first.operands[1], Shared)
    assert second.operands[1] == 2.0
    (shared,) = graph.prelude(torch.zeros(3))
    torch.testing.assert_close(shared.flatten(), torch.full((3,), 2.0))


def test_gradients_are_traced():
    def function(w, x):
        x = x.requires_grad_()
        return torch.autograd.grad((x @ w).tanh().sum(), x)

    graph = trace(function, [torch.ones(3, 2)], [torch.ones(1, 3)])
    assert sum(isinstance(q, Product) for q in graph.operations) == 2


def test_what_has_no_translation_is_refused():
    for function in (lambda x: [x.cumsum(1)], lambda x: [x[0, 0] @ x[0]], lambda x: [x**1.7]):
        with pytest.raises(NotImplementedError, match="no translation"):
            trace(function, [], [torch.ones(1, 3, 3)])


def test_gradients_of_weights_are_taken_apart_into_products():
    def function(w, x):
        w = w.detach().requires_grad_()
        return torch.autograd.grad((x @ w[:2]).tanh().sum() + (x @ w[1:]).sigmoid().sum(), w)

    graph = trace(function, [torch.ones(3, 4)], [torch.ones(1, 5, 2)], totals=1)
    totals = [q for q in graph.operations if isinstance(q, Total)]
    assert [q.inner for q in totals] == [5, 5]
    # of the whole matrix, each product is added to the rows that it belongs to
    assert sorted(sorted(q.positions.tolist()) for q in totals) == [list(range(8)), list(range(4, 12))]
    assert graph.totals == [(3, 4)]


def test_what_is_wanted_besides_is_computed_besides():
    def function(w, x):
        g = x.T @ x
        return [(g @ w)[None], g]

    with pytest.raises(NotImplementedError, match="no translation"):
        trace(function, [torch.ones(2, 2)], [torch.ones(1, 2)], totals=1)
    graph = trace(lambda x: [x.exp()[:, :1], (x.tanh() + x).reshape(3)], [], [torch.ones(1, 3)], totals=1)
    assert [q.operands[0].numbers.tolist() for q in graph.operations if isinstance(q, Total)] == [[0, 1, 2], [6, 7, 8]]


def test_totals_of_what_all_molecules_share_are_refused():
    with pytest.raises(NotImplementedError, match="the same for all molecules"):
        trace(lambda w, x: [w.exp()], [torch.ones(3)], [torch.ones(1, 3)], totals=1)


def test_tensors_of_one_value_are_numbers():
    graph = trace(lambda x: [x * torch.ones_like(x[0]).expand(1, 3) + torch.full_like(x, 3.0)], [], [torch.ones(1, 3)])
    (only,) = (q for q in graph.operations if isinstance(q, Map))
    assert only.operands[1] == 3.0
    assert only.expression == "{0} + {1}"
