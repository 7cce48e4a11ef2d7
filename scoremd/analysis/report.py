"""The report: one HTML file that holds its pictures and needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from scoremd.analysis import plots
from scoremd.analysis.free_energy import POPULATED
from scoremd.analysis.observed import SHOWN
from scoremd.analysis.svg import inline_svg
from scoremd.analysis.table import COLUMNS, ENSEMBLES, MANY, shows_contacts, worst_bond
from scoremd.analysis.verdict import findings, headline, verdicts
from scoremd.files import write_text
from scoremd.units import thermal_energy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scoremd.analysis.compare import Comparison


def _figures(comparison: Comparison) -> dict[str, list[tuple[str, Markup]]]:
    """Sections of the report: (caption, SVG) of each picture."""
    there = [name for name in ENSEMBLES if name in comparison.ensembles]
    columns = [column for column in COLUMNS if column[2] in comparison.pairs]
    bonds = next(iter(comparison.pairs.values())).bonds
    sections: dict[str, list[tuple[str, Figure]]] = {
        "maps": [(name.capitalize(), plots.free_energy(comparison, name)) for name in there],
        "differences": [(f"{first.capitalize()} − {second}", plots.difference(comparison, first, second)) for first, second, _ in columns],
        "profiles": [(f"Along {symbol}", plots.profile(comparison, k)) for k, symbol in enumerate(comparison.plane.symbols)],
        "contacts": [(name.capitalize(), plots.contact_map(comparison, name)) for name in there] if shows_contacts(comparison) else [],
        "native": _native(comparison),
        "bonds": [
            (bonds[k].name, plots.distribution(comparison, lambda seen, k=k: seen.lengths[:, k], "length"))  # type: ignore[misc]
            for k in _shown_bonds(comparison)
        ],
    }
    return {
        section: [(caption, inline_svg(figure, f"{section}{k}", caption)) for k, (caption, figure) in enumerate(pictures)]
        for section, pictures in sections.items()
    }


def _native(comparison: Comparison) -> list[tuple[str, Figure]]:
    if any(seen.rmsd is None for seen in comparison.ensembles.values()):
        return []
    return [("All beads, superposed", plots.distribution(comparison, lambda seen: np.asarray(seen.rmsd), "RMSD"))]


def _shown_bonds(comparison: Comparison) -> list[int]:
    """All bonds if they are few, otherwise those that differ most in each column."""
    pairs = comparison.pairs.values()
    bonds = next(iter(pairs)).bonds
    return list(range(len(bonds))) if len(bonds) <= MANY else sorted({pair.bonds.index(worst_bond(pair)) for pair in pairs})


def _structures(comparison: Comparison) -> str:
    """Beads and frames of the ensembles, in ångström, as JSON that may stand in HTML."""
    seen = comparison.ensembles
    topology = next(iter(seen.values())).shown.topology
    content = {
        "elements": [atom.element.symbol for atom in topology.atoms],
        "bonds": [[a.index, b.index] for a, b in topology.bonds],
        "colours": plots.COLOURS,
        "frames": {name: np.round(10 * seen[name].shown.xyz.astype(float), 2).tolist() for name in ENSEMBLES if name in seen},
    }
    return htmlsafe_json_dumps(content)


def render_report(comparison: Comparison, provenance: Mapping[str, Any]) -> str:
    """The report as HTML.

    Parameters
    ----------
    comparison
        What `compare` gave.
    provenance
        What made it, in the order to be shown: command, seed, versions, hash of the model, date, ...

    Returns
    -------
    str
        A whole document, without links to anything outside it.
    """
    folder = files("scoremd.analysis")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "report.html").read_text(encoding="utf-8"))
    library, viewer = ((folder / "viewer" / name).read_text(encoding="utf-8") for name in ("3Dmol-min.js", "structures.js"))
    return template.render(
        comparison=comparison,
        columns=[title for _, _, title in COLUMNS],
        headline=headline(comparison),
        verdicts=verdicts(comparison),
        findings=findings(comparison),
        figures=_figures(comparison),
        chance=thermal_energy(comparison.temperature) * np.sqrt(2 / POPULATED),
        colours=plots.COLOURS,
        ensembles=ENSEMBLES,
        structures=_structures(comparison),
        structures_each=SHOWN,
        library=library,
        viewer=viewer,
        provenance=provenance,
    )


def write_report(path: str | os.PathLike[str], comparison: Comparison, provenance: Mapping[str, Any]) -> Path:
    """Write the report; the file appears whole or not at all.

    Parameters
    ----------
    path
        HTML file; one that is there is replaced.
    comparison
        What `compare` gave.
    provenance
        What made it, in the order to be shown.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ScoreMDError
        If the path is a folder, or its folder is missing or cannot be written.
    """
    return write_text(path, render_report(comparison, provenance))
