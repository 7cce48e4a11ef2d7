"""Puts the committed results of the benchmarks of shipped models beside their weights, where `scoremd list` finds them.

python benchmarks/figures.py
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from results_file import RESULTS

from scoremd.analysis.table import COLUMNS
from scoremd.figures import FIGURES, Figures

MODELS = Path(__file__).parent.parent / "force_fields"
TITLES = dict(zip(("samples", "simulation", "between"), (title for _, _, title in COLUMNS), strict=True))


def of_alanine_dipeptide(results: dict[str, Any]) -> Figures:
    """Means over seeds."""
    seeds = results["seeds"]
    means = {key: np.mean([s["comparisons"][title]["js_nats"]["excess"] for s in seeds.values()]) for key, title in TITLES.items()}
    return _figures(results, f"{len(seeds)} seeds", means)


def of_dipeptides(results: dict[str, Any]) -> Figures:
    """Means over the test peptides."""
    means = {key: results["mean"][f"{title}: excess"] for key, title in TITLES.items()}
    return _figures(results, f"{len(results['peptides'])} unseen peptides", means)


def _figures(results: dict[str, Any], of_what: str, means: dict[str, Any]) -> Figures:
    measured = f"{of_what}; {results['samples']} samples, {results['replicas']} replicas of {results['ns']:g} ns"
    return Figures(model=results["model"], measured=measured, **{key: round(float(value), 5) for key, value in means.items()})


def main() -> None:
    """Write the figures of each model whose results there are."""
    for model, name, read in (
        ("alanine-dipeptide", "alanine_dipeptide", of_alanine_dipeptide),
        ("dipeptides", "dipeptides", of_dipeptides),
    ):
        results = RESULTS / f"{name}.json"
        if results.exists():
            figures = read(json.loads(results.read_text(encoding="utf-8")))
            path = MODELS / model / FIGURES
            path.write_text(figures.model_dump_json(indent=2) + "\n", encoding="utf-8")
            print(path, figures)


if __name__ == "__main__":
    main()
