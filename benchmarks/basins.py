"""What the forces of a model make of the basins of molecules: the populations that endless simulations would have.

    python benchmarks/basins.py --data validation --model refined

Simulations from samples drift slowly to the populations of their forces. These are flattened in phi and psi (`scoremd.flattening`), so
that they cross between basins, and their frames weighed. Of each molecule the population of each basin in the reference, and in the
simulation with its 95 % interval over replicas; and JS of all basins together. By default the sixteen
test peptides, whose references are shipped; `--data` takes references from a folder of ensembles, such as those of the validation peptides,
by which a model is chosen. `--calibrated` calibrates the forces of each molecule by its samples before (`scoremd calibrate`), with the seed
after that of the simulation. What is measured lies in a working folder: parts can run in processes of their own (`--peptides`) and are put
together by a last call with all of them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from dipeptides import reference_of
from results_file import write_results

from scoremd.analysis.histograms import js_divergence
from scoremd.analysis.intervals import fraction
from scoremd.analysis.plane import ramachandran_plane
from scoremd.calibration import CalibrationSettings, calibrate
from scoremd.data import Ensemble
from scoremd.family import Family
from scoremd.flattening import TIME_STEP_FS, simulate_flattened, simulation_settings
from scoremd.force_field import ForceField
from scoremd.systems import System, find_system

#: Of replicas, for intervals.
DRAWS = 1000


def measure(force_field: ForceField, system: System, reference: Ensemble, replicas: int, ps: float, seed: int) -> dict[str, object]:
    """The figures of one molecule."""
    frames = reference.to_mdtraj(system.bonds)
    run = simulate_flattened(force_field, system, frames, simulation_settings(replicas, ps, seed))
    weights, plane = torch.softmax(run.log_weights.double(), 0).numpy(), ramachandran_plane(system)
    points = plane.project(run.trajectory)
    inside = np.stack([basin(points) for basin in plane.basins.values()], 1)
    names, number = np.unique(run.replica, return_inverse=True)
    parts, total = np.zeros((len(names), inside.shape[1])), np.zeros(len(names))
    np.add.at(parts, number, weights[:, None] * inside)
    np.add.at(total, number, weights)
    drawn = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    low, high = np.quantile(parts[drawn].sum(1) / total[drawn].sum(1)[:, None], [0.025, 0.975], axis=0)
    populations = parts.sum(0) / total.sum()
    points = plane.project(frames)
    known = {name: fraction(basin(points), reference.walker) for name, basin in plane.basins.items()}
    found: dict[str, object] = {
        name: {"reference": vars(known[name]), "simulation": {"value": p, "low": a, "high": b}}
        for name, p, a, b in zip(known, populations, low, high, strict=True)
    }
    return found | {
        "JS of basins": float(js_divergence(populations, np.array([q.value for q in known.values()]))),
        "effective sample size / frames": float(1 / (weights**2).sum() / len(weights)),
        "lost": run.lost,
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    family = find_system("dipeptides")
    assert isinstance(family, Family)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dipeptides")
    parser.add_argument("--data", type=Path, help="folder of references, in our HDF5 format, named by their sequences")
    parser.add_argument("--calibrated", action="store_true")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peptides", nargs="+", help="by default all")
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--ps", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    names = a.peptides or (family.with_reference() if a.data is None else sorted(path.stem for path in a.data.glob("*.h5")))
    force_field, rows = ForceField.load(a.model), {}
    setting = {"model": force_field.hash, "calibrated": a.calibrated, "replicas": a.replicas, "ps": a.ps, "seed": a.seed}
    folder = a.work / "-".join(map(str, setting.values()))
    folder.mkdir(parents=True, exist_ok=True)
    print(*(f"{key} {value}" for key, value in setting.items()), f"{TIME_STEP_FS} fs", sep=", ")
    for name in names:
        system = family.find(name)
        assert system is not None
        reference = reference_of(system, a.data)
        assert reference is not None
        path = folder / f"{system.name}.json"
        if not path.exists():
            forces = force_field
            if a.calibrated:
                own = a.work / "forces" / f"{force_field.hash}-{a.seed + 1}" / system.name
                forces = calibrate(force_field, system, CalibrationSettings(seed=a.seed + 1), own)
            path.write_text(json.dumps(measure(forces, system, reference, a.replicas, a.ps, a.seed)), encoding="utf-8")
        row = rows[name] = json.loads(path.read_text(encoding="utf-8"))
        shown = (
            f"{basin} {row[basin]['reference']['value']:.4f}: {row[basin]['simulation']['value']:.4f} "
            f"[{row[basin]['simulation']['low']:.4f}, {row[basin]['simulation']['high']:.4f}]"
            for basin in ramachandran_plane(system).basins
        )
        print(f"{name}:", *shown, f"JS {row['JS of basins']:.4f}", sep="  ", flush=True)
    keys = ("JS of basins", "effective sample size / frames", "lost")
    mean = {key: float(np.mean([row[key] for row in rows.values()])) for key in keys}
    print("mean:", *(f"{key} {value:.4f}" for key, value in mean.items()), sep="  ")
    name = "_".join(["basins"] + ["calibrated"] * a.calibrated + ([] if a.data is None else [a.data.name]))
    print(write_results(name, setting | {"peptides": rows, "mean": mean}))


if __name__ == "__main__":
    main()
