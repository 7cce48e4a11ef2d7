"""The main job for many molecules: one folder each, one table of all."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scoremd.emulation import emulate, is_finished
from scoremd.errors import ScoreMDError
from scoremd.files import make_folder, write_text
from scoremd.force_field import ForceField
from scoremd.progress import progress
from scoremd.simulation.engine import SimulationSettings
from scoremd.systems import Family, System, find_system

#: Title of a column and what it shows of a comparison's JSON; empty where there is no such comparison.
COLUMNS: dict[str, Callable[[dict[str, Any]], float | int | str]] = {
    "samples vs reference": lambda c: _excess(c, "samples vs reference"),
    "simulation vs reference": lambda c: _excess(c, "simulation vs reference"),
    "samples vs simulation": lambda c: _excess(c, "samples vs simulation"),
    "phi > 0, samples": lambda c: c["ensembles"]["samples"]["populations"]["phi > 0"]["value"],
    "phi > 0, simulation": lambda c: c["ensembles"]["simulation"]["populations"]["phi > 0"]["value"],
    "lost replicas": lambda c: c["lost_replicas"],
}


def _excess(comparison: dict[str, Any], title: str) -> float | str:
    pair = comparison["comparisons"].get(title)
    return "" if pair is None else pair["js_nats"]["excess"]


def covered_systems(force_field: ForceField) -> list[System]:
    """All molecules that a model covers, members of families one by one."""
    found: list[System] = []
    for system in map(find_system, force_field.description.systems):
        if isinstance(system, Family):
            found += system.members()
        elif isinstance(system, System):
            found.append(system)
    return found


def survey(
    jobs: Sequence[tuple[ForceField, System]], folder: Path, *, samples: int, settings: SimulationSettings, command: str
) -> list[dict[str, Any]]:
    """Emulate each molecule in a folder of its name, and write `summary.csv`; what was finished before is kept.

    Parameters
    ----------
    jobs : models and molecules
    folder : made if need be
    samples, settings, command : as of `scoremd.emulation.emulate`

    Returns
    -------
    a row for each molecule: its name below "system", and `COLUMNS`

    Raises
    ------
    ScoreMDError
        As `scoremd.emulation.emulate`, or if a molecule comes twice.
    """
    names = [system.name for _, system in jobs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ScoreMDError(f"{twice} is asked for twice")
    make_folder(folder)
    rows: list[dict[str, Any]] = []
    with progress(f"emulate {len(jobs)} molecules", len(jobs), "molecules") as bar:
        for force_field, system in jobs:
            own = folder / system.name
            if not is_finished(force_field, system, own, samples=samples, settings=settings):
                emulate(force_field, system, own, samples=samples, settings=settings, command=command)
            content = json.loads((own / "comparison.json").read_text(encoding="utf-8"))
            rows.append({"system": system.name} | {title: show(content) for title, show in COLUMNS.items()})
            write_text(folder / "summary.csv", _csv(rows))
            bar.advance(1)
    return rows


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
