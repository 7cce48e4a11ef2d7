"""Neighbours within a radius: by torch_cluster where it is installed, by distances of all pairs where it is not."""

import importlib.util

import torch
from torch import Tensor


def radius_graph(x: Tensor, radius: float) -> Tensor:
    """Edges between beads of the same conformation that are within `radius` of each other.

    Parameters
    ----------
    x : (batch, bead, 3)
    radius : in the unit of x

    Returns
    -------
    (2, edge) long, source and target, beads being counted through the batch; each pair in both directions, none from a bead to itself,
    ordered by target, then source
    """
    batch, n = x.shape[:2]
    if importlib.util.find_spec("torch_cluster") is None:
        near = torch.linalg.vector_norm(x[:, :, None] - x[:, None], dim=-1) <= radius
        conformation, target, source = torch.nonzero(near & ~torch.eye(n, dtype=torch.bool, device=x.device)).unbind(1)
        return torch.stack([source, target]) + conformation * n
    import torch_cluster

    conformation = torch.arange(batch, device=x.device).repeat_interleave(n)
    edges: Tensor = torch_cluster.radius_graph(x.flatten(0, 1), radius, conformation, max_num_neighbors=n)
    return edges[:, torch.argsort(edges[1] * batch * n + edges[0])]
