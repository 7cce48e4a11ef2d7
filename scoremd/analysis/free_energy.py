"""Free energies of histograms, -kT ln p, with bands by the bootstrap over trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scoremd.analysis.histograms import histogram
from scoremd.analysis.intervals import LEVEL, blocks

RESAMPLES = 200
#: Frames that a cell needs in both ensembles before their free energies are compared: an error of 0.45 kT or less.
POPULATED = 10


@dataclass(frozen=True)
class Profile:
    """Free energy along one variable.

    Attributes
    ----------
    centres
        (bin,) centre of each bin, in the variable's unit.
    energy, low, high
        (bin,) kJ/mol and 95 % band; zero at the lowest bin, NaN where a bin is empty.
    """

    centres: np.ndarray
    energy: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _minus_log(p: np.ndarray) -> np.ndarray:
    """-ln p, NaN where p is zero."""
    return -np.log(np.where(p > 0, p, np.nan))


def free_energy_profile(
    values: np.ndarray,
    *,
    range: tuple[float, float],  # noqa: A002
    bins: int,
    thermal_energy: float,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Profile:
    """Free energy along one variable with a band by the bootstrap over groups.

    A bin's frequency is linear in the frames, so that drawing groups with replacement adds no bias here. The band is of
    the frequency itself: the constant that puts the lowest bin at zero is the estimate's.

    Parameters
    ----------
    values
        (frame,) the variable.
    range
        Low and high end.
    bins
        Number of bins.
    thermal_energy
        kT in the unit of the result, kJ/mol.
    groups
        (frame,) trajectory of each frame; None if every frame was drawn independently. A single group has no band.
    seed
        Of the resampling.

    Returns
    -------
    Profile
        The free energy.

    Raises
    ------
    ScoreMDError
        As `scoremd.analysis.metrics.histogram`.
    """
    rng = np.random.default_rng(seed)
    counted = histogram(values, range=[range], bins=bins, groups=groups, name="values")
    block = blocks(counted.groups, len(counted.cell), rng)
    n_groups = int(block.max()) + 1
    table = np.bincount(block * (bins + 1) + counted.cell, minlength=n_groups * (bins + 1)).reshape(n_groups, -1)
    energy = thermal_energy * _minus_log(counted.counts[:-1] / counted.counts.sum())
    lowest = np.nanmin(energy, initial=np.inf)
    edges = np.linspace(*range, bins + 1)
    empty = np.full(bins, np.nan)
    low, high = empty, empty
    if n_groups > 1:
        drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=RESAMPLES) @ table
        p = np.quantile(drawn[:, :-1] / drawn.sum(1, keepdims=True), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        # A bin that some resamples leave empty has no upper end; the band is left open there.
        low, high = thermal_energy * _minus_log(p[1]) - lowest, thermal_energy * _minus_log(p[0]) - lowest
    return Profile((edges[1:] + edges[:-1]) / 2, energy - lowest, low, high)


def free_energy_map(counts: np.ndarray, thermal_energy: float) -> np.ndarray:
    """-kT ln p of each cell, NaN where it is empty.

    Parameters
    ----------
    counts
        (cell, ...) frames in each cell.
    thermal_energy
        kT in the unit of the result, kJ/mol.

    Returns
    -------
    np.ndarray
        Same shape, kJ/mol. Not shifted: maps of two ensembles may be subtracted.
    """
    return thermal_energy * _minus_log(counts / counts.sum())


def free_energy_difference(counts_a: np.ndarray, counts_b: np.ndarray, thermal_energy: float) -> np.ndarray:
    """F_a - F_b of each cell, NaN where either ensemble has fewer than `POPULATED` frames.

    Parameters
    ----------
    counts_a, counts_b
        (cell, ...) frames in each cell.
    thermal_energy
        kT in the unit of the result, kJ/mol.

    Returns
    -------
    np.ndarray
        Same shape, kJ/mol: positive where a visits less than b.
    """
    both = (counts_a >= POPULATED) & (counts_b >= POPULATED)
    change = free_energy_map(counts_a, thermal_energy) - free_energy_map(counts_b, thermal_energy)
    return np.where(both, change, np.nan)
