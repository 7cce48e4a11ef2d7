"""Figures of a comparison, one panel each, for notebooks and the report.

Every function returns a new `matplotlib.figure.Figure` that no window or backend knows of: a notebook shows it,
`savefig` writes it. Black ink and a transparent ground, so that the report can take its ink from the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from scoremd.analysis.free_energy import free_energy_difference, free_energy_map, free_energy_profile
from scoremd.analysis.structure import PICOMETRES
from scoremd.analysis.table import ENSEMBLES
from scoremd.units import thermal_energy

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

    from scoremd.analysis.compare import Comparison
    from scoremd.analysis.observed import Observed
    from scoremd.analysis.plane import Plane

COLOURS = {"reference": "#000000", "samples": "#2a7bd1", "simulation": "#e07b00"}
STYLES = {"reference": "-", "samples": "--", "simulation": "-."}
#: Colour scales end here: kJ/mol. What is rarer than the first is drawn in its last colour.
HIGHEST, LARGEST_DIFFERENCE = 25.0, 4.0
_EMPTY = "#80808030"
_TICKS = (-180, -90, 0, 90, 180)


def _panel(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _map(plane: Plane, values: np.ndarray, colours: str, low: float, high: float, label: str) -> Figure:
    """One (bin, bin) map over the plane of the collective variables."""
    figure, axes = _panel(3.5, 2.9)
    axes.set_facecolor(_EMPTY)
    axes.patch.set_alpha(None)
    extent = tuple(plane.factor * plane.range.ravel())
    image = axes.imshow(values.T, origin="lower", aspect="auto", extent=extent, cmap=colours, vmin=low, vmax=high, interpolation="none")
    axes.set(xlabel=_label(plane, 0), ylabel=_label(plane, 1))
    if plane.unit == "°":
        axes.set(xticks=_TICKS, yticks=_TICKS)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return figure


def _label(plane: Plane, axis: int) -> str:
    return plane.symbols[axis] + (f" ({plane.unit})" if plane.unit else "")


def free_energy(comparison: Comparison, ensemble: str) -> Figure:
    """Free energy over the two collective variables of one ensemble, on the scale that all ensembles of the comparison share.

    Parameters
    ----------
    comparison
        What `compare` gave.
    ensemble
        ``reference``, ``samples`` or ``simulation``.

    Returns
    -------
    Figure
        -kT ln p in kJ/mol, zero at the lowest cell of all ensembles; empty cells are grey.
    """
    kt = thermal_energy(comparison.temperature)
    maps = {name: free_energy_map(seen.map(), kt) for name, seen in comparison.ensembles.items()}
    lowest = min(float(np.nanmin(values)) for values in maps.values())
    return _map(comparison.plane, maps[ensemble] - lowest, "viridis_r", 0, HIGHEST, "free energy (kJ/mol)")


def difference(comparison: Comparison, first: str, second: str) -> Figure:
    """Free energy of the first ensemble less that of the second, kJ/mol; grey where either has too few frames.

    On a grid half as fine as the maps', so that chance shows less.
    """
    kt = thermal_energy(comparison.temperature)
    half = comparison.plane.bins // 2
    a, b = (comparison.ensembles[name].map().reshape(half, 2, half, 2).sum((1, 3)) for name in (first, second))
    change = free_energy_difference(a, b, kt)
    return _map(comparison.plane, change, "RdBu_r", -LARGEST_DIFFERENCE, LARGEST_DIFFERENCE, "difference (kJ/mol)")


def profile(comparison: Comparison, variable: int) -> Figure:
    """Free energy along the first (0) or second (1) variable of all ensembles, with 95 % bands over trajectories, kJ/mol."""
    plane = comparison.plane
    low, high = plane.range[variable]
    figure, axes = _panel(4.6, 2.8)
    for name in ENSEMBLES:
        if name in comparison.ensembles:
            seen = comparison.ensembles[name]
            line = free_energy_profile(
                seen.variables[:, variable],
                range=(low, high),
                bins=plane.bins,
                thermal_energy=thermal_energy(comparison.temperature),
                groups=seen.groups,
                seed=comparison.seed,
            )
            x = plane.factor * line.centres
            axes.plot(x, line.energy, STYLES[name], color=COLOURS[name], linewidth=1.4, label=name)
            axes.fill_between(x, line.low, line.high, color=COLOURS[name], alpha=0.2, linewidth=0)
    axes.set(xlabel=_label(plane, variable), ylabel="free energy (kJ/mol)", xlim=(plane.factor * low, plane.factor * high))
    if plane.unit == "°":
        axes.set_xticks(_TICKS)
    axes.set_ylim(bottom=-0.5)
    axes.legend(frameon=False, fontsize=8)
    return figure


def distribution(comparison: Comparison, of: Callable[[Observed], np.ndarray], label: str) -> Figure:
    """Distribution of a length, such as a bonded distance, in all ensembles.

    Parameters
    ----------
    comparison
        What `compare` gave.
    of
        (frame,) the length in nm, of an ensemble.
    label
        Of the axis.

    Returns
    -------
    Figure
        Density over the length in pm, from the 0.1 to the 99.9 % quantile of all ensembles.
    """
    lengths = {name: PICOMETRES * of(seen) for name, seen in comparison.ensembles.items()}
    ends = np.array([np.quantile(x, [0.001, 0.999]) for x in lengths.values()])
    low, high = ends[:, 0].min(), ends[:, 1].max()
    # shipped references are rounded to 0.1 pm, where a bond lies along an axis so are its lengths: bins hold whole steps, ends between them
    width = max(0.1, round((high - low) / 60, 1))
    edges = np.arange(np.floor(10 * low) / 10 - 0.05, high + width, width)
    figure, axes = _panel(3.2, 2.4)
    for name in ENSEMBLES:
        if name in lengths:
            density = np.histogram(lengths[name], edges)[0] / len(lengths[name]) / np.diff(edges)
            axes.stairs(density, edges, color=COLOURS[name], linestyle=STYLES[name], linewidth=1.3, label=name)
    axes.set(xlabel=f"{label} (pm)", ylabel="density (1/pm)")
    axes.set_ylim(bottom=0)
    return figure


def contact_map(comparison: Comparison, ensemble: str) -> Figure:
    """Fraction of frames in which two beads are in contact: of an ensemble above the diagonal, of the reference, if there is one, below."""
    first, second = np.array(comparison.contact_pairs).T
    n = int(second.max()) + 1
    values = np.full((n, n), np.nan)
    values[first, second] = comparison.ensembles[ensemble].contacts
    values[second, first] = comparison.ensembles.get("reference", comparison.ensembles[ensemble]).contacts
    figure, axes = _panel(3.5, 2.9)
    image = axes.imshow(values, origin="lower", cmap="viridis_r", vmin=0, vmax=1, interpolation="none")
    axes.set(xlabel="bead", ylabel="bead")
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03)
    bar.set_label("fraction in contact", fontsize=8)
    bar.outline.set_visible(False)
    return figure
