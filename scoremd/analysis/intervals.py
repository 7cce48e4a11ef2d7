"""Confidence intervals over independent groups of frames: trajectories, walkers, or frames drawn independently.

Frames of one trajectory are correlated, so the unit that is left out or drawn again is the trajectory, never the frame.
All intervals are at 95 %.

Two tools:

- the **delete-a-group jackknife** for groups of unequal size (Busing, Meijer & van der Leeden, Stat. Comput. 9, 3,
  1999), for everything that is computed from all frames together. Unlike resampling with replacement it adds no noise
  to a histogram;
- the **bootstrap over groups** for what is linear in the histogram (bands of free-energy profiles): harmless there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from scoremd.errors import ScoreMDError

LEVEL = 0.95
#: More groups than this are merged at random into this many blocks: it costs 7 % accuracy of the standard error.
MAX_BLOCKS = 100


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; `low` and `high` are None where a single group leaves nothing to judge by."""

    value: float
    low: float | None = None
    high: float | None = None


def student_t(freedom: float) -> float:
    """Two-sided 95 % quantile of Student's t (Abramowitz & Stegun 26.7.5; closed form for one and two degrees)."""
    p = (1 + LEVEL) / 2
    if freedom < 1.5:
        return float(np.tan(np.pi * (p - 0.5)))
    if freedom < 2.5:
        return float((2 * p - 1) * np.sqrt(2 / (4 * p * (1 - p))))
    z, n = NormalDist().inv_cdf(p), freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )


def check_groups(groups: np.ndarray | None, n_frames: int) -> np.ndarray | None:
    """Groups as a (frame,) array, or None where every frame is its own; ScoreMDError if the shape is another."""
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.shape != (n_frames,):
        raise ScoreMDError(f"groups must name one trajectory for each of the {n_frames} frames, not {groups.shape}")
    return groups


def blocks(groups: np.ndarray | None, n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Number the groups 0, 1, ... and merge them at random into at most `MAX_BLOCKS`.

    Parameters
    ----------
    groups
        (frame,) label of the trajectory that each frame is from; None if every frame was drawn independently.
    n_frames
        Number of frames.
    rng
        Deals groups to blocks.

    Returns
    -------
    np.ndarray
        (frame,) block of each frame, int64.
    """
    groups = check_groups(groups, n_frames)
    if groups is None:
        return rng.permutation(n_frames) % min(n_frames, MAX_BLOCKS)
    names, index = np.unique(groups, return_inverse=True)
    return index if len(names) <= MAX_BLOCKS else (rng.permutation(len(names)) % MAX_BLOCKS)[index]


def jackknife(theta: float, without: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Bias and variance of a statistic by the delete-a-group jackknife for groups of unequal size.

    Parameters
    ----------
    theta
        The statistic of all frames.
    without
        (group,) the statistic with one group left out.
    sizes
        (group,) number of frames of each group.

    Returns
    -------
    tuple of float
        Bias (to be subtracted from `theta`) and variance.
    """
    share = sizes / sizes.sum()
    mean = len(without) * theta - np.sum((1 - share) * without)
    pseudo = theta / share - (1 / share - 1) * without
    return float(theta - mean), float(np.mean((pseudo - mean) ** 2 / (1 / share - 1)))


def welch(variances: Sequence[float], n_groups: Sequence[int]) -> float:
    """Degrees of freedom of a sum of independent errors (Welch and Satterthwaite), from the groups each came from."""
    total = sum(variances)
    if total == 0:
        return min(n_groups) - 1
    return total**2 / sum(v**2 / (n - 1) for v, n in zip(variances, n_groups, strict=True))


def grouped(moments: np.ndarray, block: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """Estimate a function of the frames' mean moments, with its interval by leaving out one group at a time.

    Parameters
    ----------
    moments
        (frame, moment) what is averaged over frames.
    block
        (frame,) group of each frame, from `blocks`.
    statistic
        Maps mean moments (..., moment) to the statistic (...,).

    Returns
    -------
    Estimate
        The statistic of all frames.
    """
    sums = np.stack([np.bincount(block, weights=column) for column in moments.T], axis=-1)
    sizes = np.bincount(block)
    value = float(statistic(sums.sum(0) / sizes.sum()))
    if len(sizes) < 2:
        return Estimate(value)
    without = statistic((sums.sum(0) - sums) / (sizes.sum() - sizes)[:, None])
    half = student_t(len(sizes) - 1) * float(np.sqrt(jackknife(value, without, sizes)[1]))
    return Estimate(value, value - half, value + half)


def average(values: np.ndarray, groups: np.ndarray | None) -> Estimate:
    """Mean over frames.

    Parameters
    ----------
    values
        (frame,) what is averaged.
    groups
        (frame,) trajectory of each frame; None if every frame was drawn independently.

    Returns
    -------
    Estimate
        The mean.
    """
    return grouped(values[:, None], blocks(groups, len(values), np.random.default_rng(0)), lambda m: m[..., 0])


def fraction(hits: np.ndarray, groups: np.ndarray | None) -> Estimate:
    """Fraction of frames in a state, with Wilson's interval at the number of independent frames that the groups leave.

    The effective number of frames is p (1 - p) / variance over groups (Korn & Graubard, Surv. Methodol. 24, 193, 1998),
    so that the interval stays within [0, 1] and is not empty where no frame is in the state; there it is the number of
    groups.

    Parameters
    ----------
    hits
        (frame,) whether a frame is in the state.
    groups
        (frame,) trajectory of each frame; None if every frame was drawn independently.

    Returns
    -------
    Estimate
        The fraction.
    """
    n, p = len(hits), float(np.mean(hits))
    groups = check_groups(groups, n)
    if groups is None:
        effective, t = float(n), student_t(n)
    else:
        block = np.unique(groups, return_inverse=True)[1]
        sizes, counts = np.bincount(block), np.bincount(block, weights=hits)
        if len(sizes) < 2:
            return Estimate(p)
        _, variance = jackknife(p, (counts.sum() - counts) / (n - sizes), sizes)
        # where all or none are hits the variance is what rounding leaves of zero
        effective = min(p * (1 - p) / variance, n) if variance > 0 and 0 < p < 1 else float(len(sizes))
        t = student_t(len(sizes) - 1)
    return _wilson(p, effective, t)


def weighted_fraction(hits: np.ndarray, weights: np.ndarray) -> Estimate:
    """Fraction in a state of independent frames that have weights, with Wilson's interval as in `fraction`.

    The effective number of frames is p (1 - p) / variance of the ratio of sums, but not more than Kish's 1 / sum w**2.

    Parameters
    ----------
    hits
        (frame,) whether a frame is in the state.
    weights
        (frame,) not negative, up to a common factor.

    Returns
    -------
    Estimate
        The fraction.
    """
    w = weights / weights.sum()
    p, kish = float(min(w @ hits, 1)), float(1 / np.sum(w**2))
    variance = float(np.sum((w * (hits - p)) ** 2))
    effective = min(p * (1 - p) / variance, kish) if variance > 0 and 0 < p < 1 else kish
    return _wilson(p, effective, student_t(kish - 1))


def _wilson(p: float, effective: float, t: float) -> Estimate:
    middle = (p + t**2 / (2 * effective)) / (1 + t**2 / effective)
    half = t / (1 + t**2 / effective) * np.sqrt(p * (1 - p) / effective + t**2 / (4 * effective**2))
    return Estimate(p, float(min(p, max(middle - half, 0))), float(max(p, min(middle + half, 1))))


def difference(a: Estimate, b: Estimate) -> Estimate:
    """First less second of two independent estimates.

    The intervals join by squares, each side for itself (Newcombe, Stat. Med. 17, 873, 1998).
    """
    value = a.value - b.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(value)
    low = value - float(np.hypot(a.value - a.low, b.high - b.value))
    return Estimate(value, low, value + float(np.hypot(a.high - a.value, b.value - b.low)))


def transform(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    """An increasing function of an estimate and of both ends of its interval."""
    if estimate.low is None or estimate.high is None:
        return Estimate(float(function(estimate.value)))
    return Estimate(*(float(function(x)) for x in (estimate.value, estimate.low, estimate.high)))
