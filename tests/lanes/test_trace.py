import pytest
import torch

from scoremd.lanes.trace import Elements, Map, Product, Shared, trace


def test_moving_numbers_makes_no_operations():
    graph = trace(lambda x: [torch.cat([x[:, 2:], x[:, :1].expand(1, 3, 2)], 1).transpose(1, 2)], [], torch.ones(1, 4, 2))
    assert len(graph.operations) == 1
    assert graph.outputs[0].tolist() == [[4, 6, 0, 0, 0], [5, 7, 1, 1, 1]]


def test_what_all_molecules_share_goes_to_the_prelude():
    def function(w, x):
        return [x * (w.exp() + 1) + 2]

    graph = trace(function, [torch.zeros(3)], torch.ones(1, 3))
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

    graph = trace(function, [torch.ones(3, 2)], torch.ones(1, 3))
    assert sum(isinstance(q, Product) for q in graph.operations) == 2


def test_what_has_no_translation_is_refused():
    for function in (lambda x: [x.cumsum(1)], lambda x: [x[0, 0] @ x[0]], lambda x: [x**1.7]):
        with pytest.raises(NotImplementedError, match="no translation"):
            trace(function, [], torch.ones(1, 3, 3))
