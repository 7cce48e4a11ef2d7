"""Turning molecules about their bonds: the moves of the contrastive term (`scoremd.training.contrast`)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotor:
    """A torsion's bond, from slot `start` to slot `end`, and the slots beyond `end`, which turn."""

    start: int
    end: int
    moving: tuple[int, ...]


def rotors(bonds: Sequence[tuple[int, int]], torsions: Sequence[tuple[int, int, int, int]]) -> list[Rotor]:
    """The rotor of the bond of each torsion, once for each bond that is in no ring.

    Parameters
    ----------
    bonds, torsions : of slots
    """
    found: dict[tuple[int, int], Rotor] = {}
    for _, start, end, _ in torsions:
        reached, border = {end}, [end]
        while border:
            here = border.pop()
            for a, b in bonds:
                for i, j in ((a, b), (b, a)):
                    if i == here and j not in reached and (i, j) != (end, start):
                        reached.add(j)
                        border.append(j)
        if start not in reached and (end, start) not in found:
            found[start, end] = Rotor(start, end, tuple(sorted(reached - {end})))
    return list(found.values())


def turn(x: Tensor, rotor: Rotor, angle: Tensor) -> Tensor:
    """Turn the moving slots of `x` (n, slot, 3) about the rotor's bond by `angle` (n,), radians (Rodrigues' formula)."""
    origin = x[:, rotor.start]
    axis = torch.nn.functional.normalize(x[:, rotor.end] - origin, dim=-1)[:, None]
    moving = list(rotor.moving)
    v = x[:, moving] - origin[:, None]
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    turned = c * v + s * torch.linalg.cross(axis.expand_as(v), v) + (1 - c) * (axis * v).sum(-1, keepdim=True) * axis
    result = x.clone()
    result[:, moving] = turned + origin[:, None]
    return result


def turn_at_random(x: Tensor, bonds: Sequence[Rotor], generator: torch.Generator) -> Tensor:
    """Turn each bond of each molecule by a normal angle whose width is one for the molecule, log-uniform from 0.1 to pi.

    The move is symmetric: turns about different bonds commute as far as the shape goes, angles are as likely as their opposites, and a
    turn keeps volume.

    Parameters
    ----------
    x : (n, slot, 3)
    bonds : to turn about
    generator : of the angles
    """
    width = 0.1 * (10 * torch.pi) ** torch.rand(len(x), generator=generator)
    for rotor in bonds:
        x = turn(x, rotor, width * torch.randn(len(x), generator=generator))
    return x
