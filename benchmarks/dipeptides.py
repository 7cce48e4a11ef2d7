"""The shipped model of all dipeptides on molecules that it has not seen: samples, simulation and reference of each.

    python benchmarks/dipeptides.py

By default the sixteen test peptides, whose references are shipped. Molecules lie in a working folder and go on where they were
interrupted: parts of them can run in processes of their own (`--peptides`) and are put together by a last call with all of them.
`--data` takes references from a folder of ensembles instead, such as those of the validation peptides, by which a model is chosen.
`--calibrated` calibrates the forces of each molecule by its samples before they simulate.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from emulation_options import emulation_parser
from results_file import write_results

from scoremd.analysis.table import COLUMNS
from scoremd.data import Ensemble, read_ensemble
from scoremd.emulation import emulate
from scoremd.family import Family
from scoremd.force_field import ForceField
from scoremd.simulation.engine import SimulationSettings
from scoremd.systems import System, find_system

PAIRS = [title for _, _, title in COLUMNS]


def reference_of(system: System, data: Path | None) -> Ensemble | None:
    """The system's own reference, or that of a folder."""
    return system.reference_ensemble() if data is None else system.beads_of(read_ensemble(data / f"{system.name}.h5"))


def figures(content: dict[str, Any]) -> dict[str, float]:
    """What the table shows of a comparison."""
    found: dict[str, float] = {}
    for title in PAIRS:
        pair = content["comparisons"][title]
        found |= {f"{title}: {key}": pair["js_nats"][key] for key in ("value", "floor", "excess", "low", "high")}
        found |= {f"{title}: PMF": pair["pmf_kT2"]["value"], f"{title}: PMF floor": pair["pmf_kT2"]["floor"]}
        found[f"{title}: largest bond shift, pm"] = max(abs(b["mean"]["value"]) for b in pair["bonds_pm"])
        found[f"{title}: largest bond sd error, %"] = 100 * max(abs(b["sd_ratio"]["value"] - 1) for b in pair["bonds_pm"])
    for name, seen in content["ensembles"].items():
        found[f"{name}: phi > 0"] = seen["populations"]["phi > 0"]["value"]
        if name != "reference":
            found |= {f"{name}: {key}": seen[key]["value"] for key in ("broken_bonds", "clashes")}
            found[f"{name}: mirror_images"] = 0.0 if seen["mirror_images"] is None else seen["mirror_images"]["value"]
    return found | {"lost": content["lost_replicas"]}


def print_row(name: str, row: dict[str, float]) -> None:
    """One line of the table."""
    cells = [f"{name:>5}"]
    for title in PAIRS:
        interval = "" if np.isnan(row[f"{title}: low"]) else f"[{row[f'{title}: low']:+.4f}, {row[f'{title}: high']:+.4f}]"
        cells.append(f"{row[f'{title}: floor']:6.4f} {row[f'{title}: excess']:+7.4f} {interval:>18} {row[f'{title}: PMF']:6.3f}")
    cells.append(" ".join(f"{row[f'{k}: phi > 0']:6.4f}" for k in ("reference", "samples", "simulation")))
    wrong = [1e3 * max(row[f"samples: {k}"], row[f"simulation: {k}"]) for k in ("broken_bonds", "clashes", "mirror_images")]
    print(*cells, *(f"{w:6.2f}" for w in wrong), f"{row['lost']:4.0f} {row['seconds']:6.0f}", sep=" | ", flush=True)


def main() -> None:
    """Run what is missing and print the table."""
    family = find_system("dipeptides")
    assert isinstance(family, Family)
    parser = emulation_parser("dipeptides", 16000)
    parser.add_argument("--data", type=Path, help="folder of references, in our HDF5 format, named by their sequences")
    parser.add_argument("--calibrated", action="store_true")
    parser.add_argument("--peptides", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    names = a.peptides or (family.with_reference() if a.data is None else sorted(path.stem for path in a.data.glob("*.h5")))
    force_field, settings = ForceField.load(a.model), SimulationSettings(a.ns, a.replicas, a.seed)
    made = "forces calibrated for each peptide" if a.calibrated else "as trained"
    print(f"{a.samples} samples; {a.replicas} replicas of {a.ns} ns at 2 fs; model {force_field.hash}, {made}; seed {a.seed}")
    print("for each comparison floor, excess JS [95 %], PMF; phi > 0; broken, clashing, mirrored per 1000 frames; lost; seconds", *PAIRS)
    rows: dict[str, dict[str, float]] = {}
    for name in names:
        system = family.find(name)
        assert system is not None
        started = time.monotonic()
        kind = "-calibrated" if a.calibrated else ""
        folder = a.work / f"{force_field.hash}-{a.seed}-{a.samples}-{a.replicas}-{a.ns}{kind}" / system.name
        reference = reference_of(system, a.data)
        how = {"samples": a.samples, "settings": settings, "calibrated": a.calibrated, "reference": reference}
        result = emulate(force_field, system, folder, command="benchmark", **how)
        rows[name] = figures(result.comparison.to_dict()) | {"seconds": time.monotonic() - started}
        print_row(name, rows[name])
    mean = {key: float(np.mean([row[key] for row in rows.values()])) for key in next(iter(rows.values()))}
    print_row("mean", mean | {f"{title}: {end}": float("nan") for title in PAIRS for end in ("low", "high")})
    setting = {
        "model": force_field.hash,
        "samples": a.samples,
        "replicas": a.replicas,
        "ns": a.ns,
        "seed": a.seed,
        "calibrated": a.calibrated,
    }
    name = "_".join(["dipeptides"] + ["calibrated"] * a.calibrated + ([] if a.data is None else ["validation"]))
    print(write_results(name, setting | {"peptides": rows, "mean": mean}))


if __name__ == "__main__":
    main()
