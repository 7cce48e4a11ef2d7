import importlib.util

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from scoremd.nn import radius_graph as module
from scoremd.nn.radius_graph import radius_graph

X = torch.randn(150, 3, generator=torch.Generator().manual_seed(0))
MOLECULE = torch.repeat_interleave(torch.tensor([0, 1, 3]), torch.tensor([40, 1, 109]))


def expected(radius):
    """By a k-d tree, an independent way to the same."""
    found = set()
    for k in (0, 1, 3):
        index = np.flatnonzero(MOLECULE.numpy() == k)
        for i, j in cKDTree(X.numpy()[index]).query_pairs(radius):
            found |= {(int(index[i]), int(index[j])), (int(index[j]), int(index[i]))}
    return found


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("radius", [0.01, 0.8, 10.0])
def test_edges_are_the_pairs_within_the_radius_in_a_fixed_order(monkeypatch, installed, radius):
    if installed and importlib.util.find_spec("torch_cluster") is None:
        pytest.skip("torch_cluster is not installed (pip install scoremd[radius])")
    if not installed:
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    edges = radius_graph(X, radius, MOLECULE)
    assert set(map(tuple, edges.T.tolist())) == expected(radius)
    assert edges.T.tolist() == sorted(edges.T.tolist(), key=lambda e: (e[1], e[0]))
