"""Neighbours within a radius: by torch_cluster where it is installed, by distances of all pairs where it is not."""

import importlib.util

import torch
from torch import Tensor


def radius_graph(x: Tensor, radius: float, molecule: Tensor) -> Tensor:
    """Edges between beads of the same molecule that are within `radius` of each other.

    Parameters
    ----------
    x : (bead, 3) of all molecules, one after the other
    radius : in the unit of x
    molecule : (bead,) long, the molecule of each bead, never decreasing

    Returns
    -------
    (2, edge) long, source and target; each pair in both directions, none from a bead to itself, ordered by target, then source
    """
    if importlib.util.find_spec("torch_cluster") is not None:
        import torch_cluster

        edges = torch_cluster.radius_graph(x, radius, molecule, max_num_neighbors=int(molecule.bincount().max()))
    else:
        edges = _all_pairs(x, radius, molecule)
    return edges[:, torch.argsort(edges[1] * len(x) + edges[0])]


def _all_pairs(x: Tensor, radius: float, molecule: Tensor) -> Tensor:
    counts = torch.unique_consecutive(molecule, return_counts=True)[1].tolist()
    edges, first = [], 0
    for beads in x.split(counts):
        distance = torch.linalg.vector_norm(beads[:, None] - beads, dim=-1)
        near = (distance <= radius).fill_diagonal_(fill_value=False)
        edges.append(first + torch.nonzero(near).T)
        first += len(beads)
    return torch.cat(edges, 1)
