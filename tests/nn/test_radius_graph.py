import importlib.util

import pytest
import torch
from scipy.spatial import cKDTree

from scoremd.nn import radius_graph as module
from scoremd.nn.radius_graph import radius_graph

X = torch.randn(3, 50, 3, generator=torch.Generator().manual_seed(0))


def expected(radius):
    """By a k-d tree, an independent way to the same."""
    found = set()
    for k in range(3):
        for i, j in cKDTree(X.numpy()[k]).query_pairs(radius):
            found |= {(50 * k + i, 50 * k + j), (50 * k + j, 50 * k + i)}
    return found


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("radius", [0.01, 0.8, 10.0])
def test_edges_are_the_pairs_within_the_radius_in_a_fixed_order(monkeypatch, installed, radius):
    if installed and importlib.util.find_spec("torch_cluster") is None:
        pytest.skip("torch_cluster is not installed (pip install --no-build-isolation torch_cluster)")
    if not installed:
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    edges = radius_graph(X, radius)
    assert set(map(tuple, edges.T.tolist())) == expected(radius)
    assert edges.T.tolist() == sorted(edges.T.tolist(), key=lambda e: (e[1], e[0]))
