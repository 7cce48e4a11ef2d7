"""The main job for many molecules: one folder each, one table of all."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scoremd.analysis import table
from scoremd.cluster import Workers, each
from scoremd.emulation import emulate, is_finished
from scoremd.files import make_folder, write_text
from scoremd.force_field import ForceField
from scoremd.progress import progress
from scoremd.simulation.engine import SimulationSettings
from scoremd.systems import Family, System, find_system


def _excess(comparison: dict[str, Any], title: str, key: str) -> float | str:
    pair = comparison["comparisons"].get(title)
    return "" if pair is None else pair["js_nats"][key]


def _population(comparison: dict[str, Any], name: str) -> float | str:
    seen = comparison["ensembles"].get(name)
    return "" if seen is None else seen["populations"]["phi > 0"]["value"]


#: Title of a column and what it shows of a comparison's JSON; empty where there is no such comparison.
COLUMNS: dict[str, Callable[[dict[str, Any]], float | int | str]] = {
    **{
        f"{title}{end}": partial(_excess, title=title, key=key)
        for _, _, title in table.COLUMNS
        for end, key in (("", "excess"), (", low", "low"), (", high", "high"))
    },
    **{f"phi > 0, {name}": partial(_population, name=name) for name in table.ENSEMBLES},
    "lost replicas": lambda c: c["lost_replicas"],
}


def covered_systems(force_field: ForceField) -> list[System]:
    """All molecules that a model covers, members of families one by one."""
    found: list[System] = []
    for system in (find_system(name, force_field.systems) for name in force_field.description.systems):
        if isinstance(system, Family):
            found += system.members()
        elif isinstance(system, System):
            found.append(system)
    return found


def survey(
    jobs: Sequence[tuple[ForceField, System]],
    folder: Path,
    *,
    samples: int,
    settings: SimulationSettings,
    command: str,
    workers: Workers | None = None,
) -> list[dict[str, Any]]:
    """Emulate each molecule in a folder of its name, and write `summary.csv`; what was finished before is kept.

    Parameters
    ----------
    jobs : models and molecules
    folder : made if need be
    samples, settings, command : as of `scoremd.emulation.emulate`
    workers : who emulate several at the same time; by default this process does one after the other, with the same results

    Returns
    -------
    a row for each molecule: its name below "system", and `COLUMNS`

    Raises
    ------
    ScoreMDError
        As `scoremd.emulation.emulate`, and as `scoremd.cluster.each`.
    """
    make_folder(folder)
    row = partial(_row, samples=samples, settings=settings, command=command)
    tasks = [(force_field, system, folder / system.name) for force_field, system in jobs]
    found = ((number, row(*task)) for number, task in enumerate(tasks)) if workers is None else each(workers, row, tasks)
    rows: dict[int, dict[str, Any]] = {}
    with progress(f"emulate {len(jobs)} molecules", len(jobs), "molecules") as bar:
        for number, one in found:
            rows[number] = one
            write_text(folder / "summary.csv", _csv([rows[k] for k in sorted(rows)]))
            bar.advance(1)
    return [rows[k] for k in sorted(rows)]


def _row(force_field: ForceField, system: System, own: Path, *, samples: int, settings: SimulationSettings, command: str) -> dict[str, Any]:
    """Emulate a molecule in a folder of its own, if that is not done yet; what the table shows of it."""
    if not is_finished(force_field, system, own, samples=samples, settings=settings):
        emulate(force_field, system, own, samples=samples, settings=settings, command=command)
    content = json.loads((own / "comparison.json").read_text(encoding="utf-8"))
    return {"system": system.name} | {title: show(content) for title, show in COLUMNS.items()}


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
