"""The main job for many molecules: one folder each, one table of all."""

import csv
import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scoremd.analysis import table
from scoremd.analysis.observed import FOLDED_STATE
from scoremd.cluster import Workers, each
from scoremd.emulation import emulate, is_finished
from scoremd.files import make_folder, write_text
from scoremd.force_field import ForceField
from scoremd.progress import progress
from scoremd.simulation.engine import SimulationSettings
from scoremd.systems import Family, System, find_system

#: What an ensemble of a comparison shows alone: title, and where it is in the ensemble's JSON.
_SEEN = (
    ("phi > 0", ("populations", "phi > 0", "value")),
    ("folded", ("populations", FOLDED_STATE, "value")),
    ("native RMSD in nm", ("native_rmsd_nm", "value")),
)
#: Title of a column, the same for all molecules, and where its number is in a comparison's JSON: not all have every number.
COLUMNS: dict[str, tuple[str, ...]] = {
    **{
        f"{title}{end}": ("comparisons", title, "js_nats", key)
        for _, _, title in table.COLUMNS
        for end, key in (("", "excess"), (", low", "low"), (", high", "high"))
    },
    **{f"{title}, {name}": ("ensembles", name, *path) for title, path in _SEEN for name in table.ENSEMBLES},
    "lost replicas": ("lost_replicas",),
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
    calibrated: bool = False,
    workers: Workers | None = None,
) -> list[dict[str, Any]]:
    """Emulate each molecule in a folder of its name, and write `summary.csv`; what was finished before is kept.

    Parameters
    ----------
    jobs : models and molecules
    folder : made if need be
    samples, settings, command, calibrated : as of `scoremd.emulation.emulate`
    workers : who emulate several at the same time; by default this process does one after the other, with the same results

    Returns
    -------
    a row for each molecule: its name below "system", and `COLUMNS`, "" where a molecule has no such number

    Raises
    ------
    ScoreMDError
        As `scoremd.emulation.emulate`, and as `scoremd.cluster.each`.
    """
    make_folder(folder)
    row = partial(_row, samples=samples, settings=settings, command=command, calibrated=calibrated)
    tasks = [(force_field, system, folder / system.name) for force_field, system in jobs]
    found = ((number, row(*task)) for number, task in enumerate(tasks)) if workers is None else each(workers, row, tasks)
    rows: dict[int, dict[str, Any]] = {}
    with progress(f"emulate {len(jobs)} molecules", len(jobs), "molecules") as bar:
        for number, one in found:
            rows[number] = one
            write_text(folder / "summary.csv", _csv([rows[k] for k in sorted(rows)]))
            bar.advance(1)
    return [rows[k] for k in sorted(rows)]


def _row(
    force_field: ForceField, system: System, own: Path, *, samples: int, settings: SimulationSettings, command: str, calibrated: bool
) -> dict[str, Any]:
    """Emulate a molecule in a folder of its own, if that is not done yet; what the table shows of it."""
    if not is_finished(force_field, system, own, samples=samples, settings=settings, calibrated=calibrated):
        emulate(force_field, system, own, samples=samples, settings=settings, command=command, calibrated=calibrated)
    content = json.loads((own / "comparison.json").read_text(encoding="utf-8"))
    return {"system": system.name} | {title: _number(content, path) for title, path in COLUMNS.items()}


def _number(content: Any, path: tuple[str, ...]) -> float | int | str | None:
    """What is at the end of a path of keys, "" where the path breaks off."""
    found: Any = content
    for key in path:
        if key not in found:
            return ""
        found = found[key]
    number: float | int | str | None = found
    return number


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
