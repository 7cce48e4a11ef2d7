"""Build the reference ensemble that is shipped beside a system's YAML file.

    python systems/build_reference.py SYSTEM HEAVY_ATOMS.h5 OUTPUT.h5

Reads an ensemble of all heavy atoms, keeps the system's beads of every frame, turns each frame to a standard
orientation (a proper rotation, so handedness stays) in which six coordinates vanish, and writes what is left: small
enough to ship, and equal to the source in every internal coordinate up to rounding. Forces and energies are not kept.
"""

import argparse
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scoremd.data import read_ensemble, write_ensemble
from scoremd.systems import load_system


def standard_orientation(positions: NDArray[np.floating], origin: int, axis: int, plane: int) -> NDArray[np.float64]:
    """Every frame with bead `origin` at 0, `axis` on the positive x axis and `plane` in the xy plane at positive y.

    Parameters
    ----------
    positions
        (frame, bead, 3)
    origin, axis, plane
        Three beads that are never in a line.

    Returns
    -------
    (frame, bead, 3), moved and turned.
    """
    moved = positions.astype(np.float64) - positions[:, [origin]]
    x = moved[:, axis] / np.linalg.norm(moved[:, axis], axis=-1, keepdims=True)
    y = moved[:, plane] - np.sum(moved[:, plane] * x, axis=-1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=-1, keepdims=True)
    rotation = np.stack([x, y, np.cross(x, y)], axis=1)
    return moved @ rotation.transpose(0, 2, 1)


def build(system_name: str, source: str, output: str) -> None:
    """Write the reference ensemble of a system whose beads 1, 2 and 3 are the N, CA and C of a residue."""
    system = load_system(system_name)
    ensemble = read_ensemble(source)
    indices = system.bead_indices(ensemble)
    beads = replace(ensemble, forces=None, potential_energy=None).beads(indices)
    oriented = standard_orientation(beads.positions, origin=2, axis=1, plane=3)
    write_ensemble(output, replace(beads, positions=oriented.astype(np.float32)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=build.__doc__)
    for argument in ("system", "source", "output"):
        parser.add_argument(argument)
    arguments = parser.parse_args()
    build(arguments.system, arguments.source, arguments.output)
