"""Counting frames in the cells of a grid, and two divergences of such counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scoremd.analysis.intervals import check_groups
from scoremd.errors import ScoreMDError

#: Probability that stands for an empty cell in the PMF error.
EMPTY = 1e-6


def check_points(points: np.ndarray, dimension: int, name: str) -> np.ndarray:
    """Points as (frame, dimension) float64; ScoreMDError if the shape is another, or some are not finite."""
    points = np.asarray(points, dtype=np.float64)
    if points.ndim == 1 and dimension == 1:
        points = points[:, None]
    if points.ndim != 2 or points.shape[1] != dimension:
        raise ScoreMDError(f"{name} must be (frame, {dimension}), one column for each pair in range, not {points.shape}")
    if len(points) < 2:
        raise ScoreMDError(f"{name} has {len(points)} frames; at least two are needed")
    if not np.isfinite(points).all():
        raise ScoreMDError(f"{name} holds {int((~np.isfinite(points)).any(1).sum())} frames that are not finite numbers")
    return points


def cell_index(points: np.ndarray, range: np.ndarray, bins: int) -> np.ndarray:  # noqa: A002
    """Cell of a regular grid that each point lies in.

    Parameters
    ----------
    points
        (frame, dimension).
    range
        (dimension, 2) low and high end of each axis. Both belong to the grid, and so does pi rounded to float32.
    bins
        Cells along each axis.

    Returns
    -------
    np.ndarray
        (frame,) row-major cell in 0 ... bins**dimension - 1, or bins**dimension for all that lies outside.
    """
    low, high = range[:, 0], range[:, 1]
    scaled = (points - low) / (high - low)
    inside = ((scaled >= -1e-6) & (scaled <= 1 + 1e-6)).all(1)
    index = np.clip((scaled * bins).astype(np.int64), 0, bins - 1)
    cell = index @ bins ** np.arange(points.shape[1])[::-1]
    return np.asarray(np.where(inside, cell, bins ** points.shape[1]))


def js_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in nats (the squared Jensen-Shannon distance), 0 to ln 2, along the last axis.

    Parameters
    ----------
    p, q
        (..., cell) counts or probabilities; each is normalised.

    Returns
    -------
    np.ndarray
        (...,).
    """
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    return np.asarray(np.maximum((_xlogx(p) + _xlogx(q)) / 2 - _xlogx((p + q) / 2), 0))


def _xlogx(p: np.ndarray) -> np.ndarray:
    """Sum of p ln p over the last axis, 0 ln 0 = 0."""
    return np.asarray(np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1))


def pmf_error(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Squared error of the free energy, sum of w (ln p - ln q)**2, in (kT)**2, along the last axis.

    w = (p + q) / 2, normalised over the cells that are not empty on both sides; a cell empty on one side counts as
    probability `EMPTY` there.

    Parameters
    ----------
    p, q
        (..., cell) counts or probabilities; each is normalised.

    Returns
    -------
    np.ndarray
        (...,).
    """
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    used = (p > 0) | (q > 0)
    p, q = np.where(p > 0, p, EMPTY), np.where(q > 0, q, EMPTY)
    weight = np.where(used, p + q, 0)
    return np.asarray(np.sum(weight * np.log(p / q) ** 2, -1) / weight.sum(-1))


@dataclass(frozen=True)
class Histogram:
    """Frames counted in cells; built by `histogram`.

    Attributes
    ----------
    cell
        (frame,) the cell that each frame lies in.
    groups
        (frame,) trajectory of each frame; None if every frame was drawn independently.
    counts
        (cell,) frames in each cell.
    """

    cell: np.ndarray
    groups: np.ndarray | None
    counts: np.ndarray


def histogram(
    points: np.ndarray,
    *,
    range: np.ndarray | Sequence[Sequence[float]],  # noqa: A002
    bins: int,
    groups: np.ndarray | None = None,
    name: str = "points",
) -> Histogram:
    """Count frames in the cells of a regular grid and in one overflow cell for what lies outside.

    Parameters
    ----------
    points
        (frame, dimension), or (frame,) in one dimension.
    range
        [[low, high], ...] of each axis.
    bins
        Cells along each axis.
    groups
        (frame,) trajectory or walker of each frame; None if every frame was drawn independently.
    name
        What messages call the points.

    Returns
    -------
    Histogram
        With ``counts`` of shape (bins**dimension + 1,).

    Raises
    ------
    ScoreMDError
        On wrong shapes, fewer than two frames, numbers that are not finite, an empty range or no bins.
    """
    limits = np.asarray(range, dtype=np.float64)
    if limits.ndim != 2 or limits.shape[1] != 2 or not np.isfinite(limits).all() or (limits[:, 0] >= limits[:, 1]).any():
        raise ScoreMDError(f"range must be [[low, high], ...] with low < high for each axis, not {limits.tolist()}")
    if bins < 1:
        raise ScoreMDError(f"a histogram needs at least one bin along each axis, not {bins}")
    points = check_points(points, len(limits), name)
    cell = cell_index(points, limits, bins)
    return Histogram(cell, check_groups(groups, len(points)), np.bincount(cell, minlength=bins ** len(limits) + 1).astype(np.int64))
