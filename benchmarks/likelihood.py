"""How well the two uses of one model agree: samples of the flow, whose likelihood is known, weighed by the energy of the forces.

    python benchmarks/likelihood.py ALDP KS AT LW

Of each system: effective sample size of the weighted samples in their number; populations of basins in the reference, among samples of the
reverse SDE, which `scoremd sample` draws, among those of the probability-flow ODE, and among these with their weights, which is what an
endless simulation would give; how far these populations together are from the reference's (JS); and the gap between SDE and ODE (Deveney et
al., arXiv 2311.15996) as the excess of JS over the floor of the reference. `--data` takes references from a folder of ensembles instead,
such as those of the validation peptides, by which a model is chosen.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from results_file import write_results

from scoremd import bound_model
from scoremd.analysis.histograms import histogram, js_divergence
from scoremd.analysis.intervals import fraction, weighted_fraction
from scoremd.analysis.metrics import compare_js
from scoremd.analysis.plane import ramachandran_plane
from scoremd.data import Ensemble, read_ensemble
from scoremd.force_field import ForceField, model_for
from scoremd.systems import System, load_system
from scoremd.weighted import WeightedSamples

#: Samples whose likelihood is computed by a finer flow, and how much finer.
FEW, FINER = 64, 4
#: What is compared with the reference.
KINDS = ("SDE", "ODE", "weighted")


def error_of_likelihood(force_field: ForceField, system: System, weighted: WeightedSamples) -> dict[str, float]:
    """How much ln p changes, less its median change, when the flow is computed in finer steps."""
    intervals = bound_model.FLOW_INTERVALS
    bound_model.FLOW_INTERVALS = FINER * intervals
    finer = force_field.weigh(system, weighted.trajectory[:FEW]).log_likelihood
    bound_model.FLOW_INTERVALS = intervals
    change = finer - weighted.log_likelihood[:FEW]
    size = np.abs(change - np.median(change))
    return {"median": float(np.median(size)), "90 % below": float(np.quantile(size, 0.9)), "largest": float(size.max())}


def measure(force_field: ForceField, system: System, n: int, seed: int, reference: Ensemble) -> dict[str, object]:
    """The figures of one system, whose reference has as many beads."""
    weighted = force_field.weighted_samples(system, n, seed)
    drawn = {"SDE": force_field.sample(system, n, seed), "ODE": weighted.trajectory, "reference": reference.to_mdtraj(system.bonds)}
    plane = ramachandran_plane(system)
    angles = {name: plane.project(frames) for name, frames in drawn.items()}
    groups = {"reference": reference.walker}
    counted = {
        name: histogram(points, range=plane.range, bins=plane.bins, groups=groups.get(name), name=name) for name, points in angles.items()
    }
    found: dict[str, object] = {"effective sample size / samples": weighted.effective_sample_size / n}
    for basin, inside in plane.basins.items():
        found[basin] = {name: vars(fraction(inside(points), groups.get(name))) for name, points in angles.items()} | {
            "weighted": vars(weighted_fraction(inside(angles["ODE"]), weighted.weights))
        }
    populations = {kind: np.array([found[basin][kind]["value"] for basin in plane.basins]) for kind in ("reference", *KINDS)}
    found["JS of basins"] = {kind: float(js_divergence(populations[kind], populations["reference"])) for kind in KINDS}
    found["error of ln p"] = error_of_likelihood(force_field, system, weighted)
    for a, b in (("SDE", "reference"), ("ODE", "reference"), ("SDE", "ODE")):
        found[f"{a} vs {b}"] = vars(compare_js(counted[a], counted[b], reference=counted["reference"]))
    return found


def chosen(names: list[str], model: str | None, data: Path | None) -> Iterator[tuple[ForceField, System, Ensemble]]:
    """The systems, their model and their reference, one by one."""
    if data is not None and not names:
        names = sorted(path.stem for path in data.glob("*.h5"))
    for name in names:
        system = load_system(name)
        reference = system.reference_ensemble() if data is None else system.beads_of(read_ensemble(data / f"{system.name}.h5"))
        assert reference is not None
        yield ForceField.load(model or model_for(system)), system, reference


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", help="with --data by default all of the folder")
    parser.add_argument("-n", type=int, default=1000, help="samples of each")
    parser.add_argument("--model", help="by default the shipped one of each system")
    parser.add_argument("--data", type=Path, help="folder of references, in our HDF5 format, named by their sequences")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    if not a.systems and a.data is None:
        parser.error("systems are needed, or --data")
    torch.set_num_threads(a.threads)
    rows: dict[str, dict[str, object]] = {}
    for force_field, system, reference in chosen(a.systems, a.model, a.data):
        row = rows[system.name] = {"model": force_field.hash} | measure(force_field, system, a.n, a.seed, reference)
        print(f"{system.name}, model {force_field.hash}: effective sample size {row['effective sample size / samples']:.2f} of {a.n}")
        print("  error of ln p, nats:", *(f"{key} {value:.3f}" for key, value in row["error of ln p"].items()), sep="  ")
        for basin in ramachandran_plane(system).basins:
            shown = (f"{kind} {q['value']:.4f} [{q['low']:.4f}, {q['high']:.4f}]" for kind, q in row[basin].items())
            print(f"  {basin}:", *shown, sep="  ")
        print("  JS of basins:", *(f"{kind} {value:.4f}" for kind, value in row["JS of basins"].items()), sep="  ")
        for pair in ("SDE vs reference", "ODE vs reference", "SDE vs ODE"):
            js = row[pair]
            print(f"  {pair}: excess JS {js['excess']:+.4f} [{js['low']:+.4f}, {js['high']:+.4f}] over {js['floor']:.4f}", flush=True)
    means = {"effective sample size / samples": float(np.mean([row["effective sample size / samples"] for row in rows.values()]))}
    means |= {f"JS of basins: {kind}": float(np.mean([row["JS of basins"][kind] for row in rows.values()])) for kind in KINDS}
    print("means:", *(f"{key} {value:.4f}" for key, value in means.items()), sep="  ")
    name = "likelihood" if a.data is None else f"likelihood_{a.data.name}"
    print(write_results(name, {"samples": a.n, "seed": a.seed, "means": means, "systems": rows}))


if __name__ == "__main__":
    main()
